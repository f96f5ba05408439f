//! Load: how busy the tiers below the pages objects are, for whoever reports it.
//!
//! What is counted are the permits that work holds while it is under way: looking takes no lock and keeps nothing alive.
//!
//! Imports allowed: `tokio::sync`.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// A semaphore with how many permits it began with.
#[derive(Clone, Debug)]
pub struct Permits {
    all: usize,
    free: Arc<Semaphore>,
}

impl Permits {
    /// So many.
    #[must_use]
    pub fn new(all: usize) -> Self {
        Self { all, free: Arc::new(Semaphore::new(all)) }
    }

    /// The semaphore itself.
    #[must_use]
    pub const fn semaphore(&self) -> &Arc<Semaphore> {
        &self.free
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.all.saturating_sub(self.free.available_permits()) as u64
    }
}

/// How busy an agent is.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// Of each FanOut in the order of the arbiters: what movements that fill hold, and those that take away.
    pub fan_outs: Vec<[Permits; 2]>,
    /// Work given to the pin threads.
    pub pins: Option<Permits>,
}

impl Load {
    /// Movements that write to the tables of each arbiter, or wait to.
    pub fn fan_outs(&self) -> impl Iterator<Item = u64> {
        self.fan_outs.iter().map(|permits| permits.iter().map(Permits::taken).sum())
    }

    /// Work that pin threads do, or that waits for one.
    #[must_use]
    pub fn pins(&self) -> u64 {
        self.pins.as_ref().map_or(0, Permits::taken)
    }
}
