//! Mock hardware: what an agent that has it shares between its contexts.
//!
//! Imports allowed: pages_handle, storage.

use std::sync::atomic::{AtomicU32, Ordering};

use actix::{Addr, WeakAddr};
use parking_lot::Mutex;

use super::pages::Pages;
use super::pages_handle::PagesHandle;
use crate::sources::backing::{Backing, WeakBacking};
use crate::storage::Tuning;
use crate::storage::io_pagetable::LargePages;
use crate::storage::pfn::RunLimit;

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
