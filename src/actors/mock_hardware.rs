//! Mock hardware: what an agent that has it shares between its contexts.
//!
//! Imports allowed: ioas, pages_handle, sources, storage.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use actix::{Addr, WeakAddr};
use parking_lot::Mutex;

use super::ioas::Ioas;
use super::pages::Pages;
use super::pages_handle::PagesHandle;
use crate::error::Errno;
use crate::sources::backing::{Backing, WeakBacking};
use crate::sources::dma_buf::{DmaBuf, DmaBufSource};
use crate::storage::Tuning;
use crate::storage::io_pagetable::LargePages;
use crate::storage::pfn::RunLimit;

/// Pieces of memory that mock devices lend at most, to whomever: each takes a descriptor of the agent.
const BUFFERS_MAX: usize = 4096;

/// Whether an agent has mock hardware.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hardware {
    /// It has none.
    #[default]
    None,
    /// It has, and takes the test command.
    Mock,
}

/// The mock hardware of an agent.
#[derive(Default)]
pub struct MockHardware {
    /// Runs of a batch, if the test command has set them.
    runs: AtomicU32,
    /// Every pages object, for the count of pins.
    pages: Mutex<Vec<(WeakAddr<Pages>, WeakBacking)>>,
    /// Memory of devices, by the number of the socket that stands for it.
    buffers: Mutex<BTreeMap<u64, Arc<MockBuffer>>>,
}

/// Memory of a device, and who shows it.
pub struct MockBuffer {
    /// The memory, while a program holds it or something shows it.
    pub memory: Weak<DmaBuf>,
    users: Mutex<Vec<WeakAddr<Ioas>>>,
}

impl MockBuffer {
    /// An address space is about to show it.
    pub fn note_user(&self, user: WeakAddr<Ioas>) {
        let mut users = self.users.lock();
        users.retain(|known| known.upgrade().is_some());
        if !users.contains(&user) {
            users.push(user);
        }
    }

    /// The address spaces that may show it.
    #[must_use]
    pub fn users(&self) -> Vec<Addr<Ioas>> {
        self.users.lock().iter().filter_map(WeakAddr::upgrade).collect()
    }
}

impl MockHardware {
    /// Movements of pages objects made from now on use batches of so many runs.
    pub fn limit_runs(&self, runs: u32) {
        self.runs.store(runs, Ordering::Relaxed);
    }

    /// `tuning` within that limit. Memory of ordinary pages is as if no two of them lay side by side, so that a program finds
    /// large leaves over huge pages alone, as it would on most machines.
    #[must_use]
    pub fn tuned(&self, tuning: Tuning, backing: &Backing) -> Tuning {
        let large_pages = match backing.huge_page() {
            Some(_) => LargePages::On,
            None => LargePages::Off,
        };
        let tuning = Tuning { large_pages, ..tuning };
        match self.runs.load(Ordering::Relaxed) {
            0 => tuning,
            runs => Tuning { runs: RunLimit::new(runs), ..tuning },
        }
    }

    /// Notes memory of a device, for which the socket with this number stands.
    ///
    /// # Errors
    /// EMFILE if devices have lent all that they lend.
    pub fn note_buffer(&self, number: u64, memory: &Arc<DmaBuf>) -> Result<(), Errno> {
        let mut buffers = self.buffers.lock();
        buffers.retain(|_, buffer| buffer.memory.strong_count() > 0);
        if buffers.len() >= BUFFERS_MAX {
            return Err(Errno::MFILE);
        }
        let buffer = MockBuffer { memory: Arc::downgrade(memory), users: Mutex::default() };
        buffers.insert(number, Arc::new(buffer));
        Ok(())
    }

    /// The memory for which the socket with this number stands.
    #[must_use]
    pub fn buffer(&self, number: u64) -> Option<Arc<MockBuffer>> {
        self.buffers.lock().get(&number).map(Arc::clone)
    }

    /// The memory that a source is of.
    #[must_use]
    pub fn buffer_with(&self, source: &DmaBufSource) -> Option<Arc<MockBuffer>> {
        let buffers = self.buffers.lock();
        let is_meant = |buffer: &&Arc<MockBuffer>| source.is_of(&buffer.memory);
        buffers.values().find(is_meant).map(Arc::clone)
    }

    /// Notes a pages object.
    pub fn note(&self, pages: &PagesHandle) {
        let mut all = self.pages.lock();
        all.retain(|(_, backing)| backing.upgrade().is_some());
        all.push((pages.pages().downgrade(), pages.backing().downgrade()));
    }

    /// Every pages object that there is, and what is behind it.
    #[must_use]
    pub fn pages(&self) -> Vec<(Addr<Pages>, Backing)> {
        let all = self.pages.lock();
        all.iter().filter_map(|(pages, backing)| Some((pages.upgrade()?, backing.upgrade()?))).collect()
    }
}
