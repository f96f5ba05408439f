//! Mock hardware: what an agent that has it shares between its contexts.
//!
//! Imports allowed: pages_handle, storage.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use actix::{Addr, WeakAddr};
use parking_lot::Mutex;

use super::pages::Pages;
use super::pages_handle::PagesHandle;
use crate::sources::file::FileSource;
use crate::storage::Tuning;
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
    /// Every pages object of a file, for the count of pins.
    pages: Mutex<Vec<(WeakAddr<Pages>, Weak<FileSource>)>>,
}

impl MockHardware {
    /// Movements of pages objects made from now on use batches of so many runs.
    pub fn limit_runs(&self, runs: u32) {
        self.runs.store(runs, Ordering::Relaxed);
    }

    /// `tuning` within that limit.
    #[must_use]
    pub fn tuned(&self, tuning: Tuning) -> Tuning {
        match self.runs.load(Ordering::Relaxed) {
            0 => tuning,
            runs => Tuning { runs: RunLimit::new(runs), ..tuning },
        }
    }

    /// Notes a pages object.
    pub fn note(&self, pages: &PagesHandle) {
        let Some(file) = pages.backing() else { return };
        let mut all = self.pages.lock();
        all.retain(|(_, file)| file.strong_count() > 0);
        all.push((pages.pages().downgrade(), Arc::downgrade(file)));
    }

    /// Every pages object of a file that there is, and the file.
    #[must_use]
    pub fn pages(&self) -> Vec<(Addr<Pages>, Arc<FileSource>)> {
        let all = self.pages.lock();
        all.iter().filter_map(|(pages, file)| Some((pages.upgrade()?, file.upgrade()?))).collect()
    }
}
