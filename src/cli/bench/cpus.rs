//! Which CPUs threads run on.
//!
//! Imports allowed: rustix.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::BenchError;

/// Keeps this thread, and what it starts, on one CPU while it lives.
pub(super) struct OneCpu {
    before: CpuSet,
}

impl OneCpu {
    pub(super) fn enter() -> Result<Self, BenchError> {
        let before = sched_getaffinity(None).map_err(std::io::Error::from);
        let before = before.map_err(BenchError::io("ask for the CPUs of this thread"))?;
        let mut one = CpuSet::new();
        one.set(Self::last_of(&before));
        keep_to(&one)?;
        Ok(Self { before })
    }

    fn last_of(cpus: &CpuSet) -> usize {
        (0..CpuSet::MAX_CPU).rev().find(|cpu| cpus.is_set(*cpu)).unwrap_or(0)
    }

    /// The CPUs that this thread does not use; all if it has but one.
    pub(super) fn others(&self) -> CpuSet {
        let mut others = self.before;
        others.unset(Self::last_of(&self.before));
        if others.count() == 0 { self.before } else { others }
    }
}

/// Keeps this thread, and what it starts, on some CPUs.
pub(super) fn keep_to(cpus: &CpuSet) -> Result<(), BenchError> {
    let set = sched_setaffinity(None, cpus).map_err(std::io::Error::from);
    set.map_err(BenchError::io("keep a thread on some CPUs"))
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(None, &self.before) {
            eprintln!("bench: cannot use all CPUs again: {error}");
        }
    }
}
