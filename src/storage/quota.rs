//! A quota: a count that many share and that never passes its limit.
//!
//! Limits on what a context may use (areas, table memory) are quotas that its parts share. Taking and giving back are
//! lock-free and may happen on any thread.
//!
//! Imports allowed: `std` only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A shared count with a limit.
#[derive(Debug)]
pub struct Quota {
    used: AtomicU64,
    limit: u64,
}

/// Taking more would pass the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// In use.
    pub used: u64,
    /// Wanted on top.
    pub needed: u64,
    /// The limit.
    pub limit: u64,
}

impl Quota {
    /// Nothing is used of `limit`.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit })
    }

    /// A quota without a limit.
    #[must_use]
    pub fn unlimited() -> Arc<Self> {
        Self::new(u64::MAX)
    }

    /// Takes `needed`, all of it or nothing.
    ///
    /// # Errors
    /// If that would pass the limit.
    pub fn take(&self, needed: u64) -> Result<(), Exceeded> {
        let more = |used: u64| used.checked_add(needed).filter(|sum| *sum <= self.limit);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(drop).map_err(|used| Exceeded { used, needed, limit: self.limit })
    }

    /// Takes `needed` whatever the limit: it is in use already.
    pub fn take_anyway(&self, needed: u64) {
        self.used.fetch_add(needed, Ordering::Relaxed);
    }

    /// Gives back what was taken.
    pub fn give_back(&self, count: u64) {
        let before = self.used.fetch_sub(count, Ordering::Relaxed);
        debug_assert!(before >= count, "more is given back to a quota than was taken");
    }

    /// What is in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_can_be_reached_and_not_passed() {
        let quota = Quota::new(10);
        assert_eq!(quota.take(7), Ok(()));
        assert_eq!(quota.take(4), Err(Exceeded { used: 7, needed: 4, limit: 10 }));
        assert_eq!(quota.take(3), Ok(()));
        assert_eq!(quota.take(1), Err(Exceeded { used: 10, needed: 1, limit: 10 }));
        quota.give_back(10);
        assert_eq!(
            (quota.used(), quota.take(u64::MAX)),
            (0, Err(Exceeded { used: 0, needed: u64::MAX, limit: 10 }))
        );
    }

    #[test]
    fn threads_together_never_pass_the_limit() {
        let quota = Quota::new(1000);
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..1000).filter(|_| quota.take(3).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((taken, quota.used()), (333, 999));
    }
}
