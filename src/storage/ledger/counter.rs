//! A counter: a count that many share, that never passes its hard limit, and that tells when it passes its soft one.
//!
//! Taking and giving back are lock-free and may happen on any thread, also while limits change. A limit that is set below
//! what is in use takes nothing away; nothing more is given out until enough came back.
//!
//! Imports allowed: `std`, limits.

use std::sync::atomic::{AtomicU64, Ordering};

use super::limits::Limit;

/// A count with its limits.
#[derive(Debug)]
pub struct Counter {
    used: AtomicU64,
    soft: AtomicU64,
    hard: AtomicU64,
    crossings: AtomicU64,
    refusals: AtomicU64,
}

/// Taking more would pass the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// In use.
    pub used: u64,
    /// The limit.
    pub limit: u64,
}

/// Where a count stands after a change, seen from its soft limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Soft {
    /// Where it was before: on the same side.
    Same,
    /// Above, and was not before.
    Crossed,
}

impl Soft {
    fn of(before: u64, after: u64, soft: u64) -> Self {
        if before <= soft && after > soft { Self::Crossed } else { Self::Same }
    }
}

/// A counter at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figure {
    /// In use.
    pub used: u64,
    /// Its limits.
    pub limit: Limit,
    /// How often its soft limit was passed.
    pub crossings: u64,
    /// How often its hard limit refused something.
    pub refusals: u64,
}

impl Counter {
    /// Nothing is used.
    #[must_use]
    pub const fn new(limit: Limit) -> Self {
        let (crossings, refusals) = (AtomicU64::new(0), AtomicU64::new(0));
        let (soft, hard) = (AtomicU64::new(limit.soft), AtomicU64::new(limit.hard));
        Self { used: AtomicU64::new(0), soft, hard, crossings, refusals }
    }

    /// Takes `needed`, all of it or nothing.
    ///
    /// # Errors
    /// If that would pass the hard limit.
    pub fn take(&self, needed: u64) -> Result<Soft, Full> {
        let taken = self.take_within(needed, || self.hard.load(Ordering::Relaxed));
        if taken.is_err() {
            self.refusals.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Takes `needed` within another limit than its own, which may change meanwhile.
    ///
    /// # Errors
    /// If that would pass `limit`.
    pub fn take_within(&self, needed: u64, limit: impl Fn() -> u64) -> Result<Soft, Full> {
        let more = |used: u64| used.checked_add(needed).filter(|sum| *sum <= limit());
        match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(before) => Ok(self.passed(before, before.saturating_add(needed))),
            Err(used) => Err(Full { used, limit: limit() }),
        }
    }

    /// Takes `needed` whatever the limit: it is in use already.
    pub fn take_anyway(&self, needed: u64) -> Soft {
        let before = self.used.fetch_add(needed, Ordering::Relaxed);
        self.passed(before, before.saturating_add(needed))
    }

    /// Gives back what was taken; never below 0, so that a bug does not turn into an endless bill.
    pub fn give_back(&self, count: u64) {
        let less = |used: u64| Some(used.saturating_sub(count));
        let before = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        debug_assert!(before >= Ok(count), "{count} given back without its charge: {before:?}");
    }

    fn passed(&self, before: u64, after: u64) -> Soft {
        Soft::of(before, after, self.soft.load(Ordering::Relaxed))
    }

    /// Notes that the soft limit was passed, for good.
    pub(super) fn note_crossing(&self) {
        self.crossings.fetch_add(1, Ordering::Relaxed);
    }

    /// Sets other limits.
    pub fn limit(&self, limit: Limit) -> Soft {
        self.hard.store(limit.hard, Ordering::Relaxed);
        let old = self.soft.swap(limit.soft, Ordering::Relaxed);
        let used = self.used();
        if used > limit.soft && used <= old { Soft::Crossed } else { Soft::Same }
    }

    /// What is in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> Limit {
        Limit { soft: self.soft.load(Ordering::Relaxed), hard: self.hard.load(Ordering::Relaxed) }
    }

    /// All of it now.
    #[must_use]
    pub fn figure(&self) -> Figure {
        let (crossings, refusals) =
            (self.crossings.load(Ordering::Relaxed), self.refusals.load(Ordering::Relaxed));
        Figure { used: self.used(), limit: self.limits(), crossings, refusals }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_can_be_reached_and_not_passed() {
        let counter = Counter::new(Limit::hard(10));
        assert_eq!(counter.take(7), Ok(Soft::Same));
        assert_eq!(counter.take(4), Err(Full { used: 7, limit: 10 }));
        assert_eq!(counter.take(3), Ok(Soft::Same));
        counter.give_back(10);
        assert_eq!(counter.take(u64::MAX), Err(Full { used: 0, limit: 10 }));
        assert_eq!(counter.figure().refusals, 2);
    }

    #[test]
    fn the_soft_limit_is_passed_once_each_time() {
        let counter = Counter::new(Limit { soft: 5, hard: 10 });
        assert_eq!([5, 1, 1].map(|more| counter.take(more)), [Soft::Same, Soft::Crossed, Soft::Same].map(Ok));
        counter.give_back(2);
        assert_eq!(counter.take_anyway(9), Soft::Crossed);
        assert_eq!(counter.limit(Limit { soft: 20, hard: 3 }), Soft::Same);
        assert_eq!(counter.limit(Limit { soft: 3, hard: 3 }), Soft::Crossed);
        assert_eq!(counter.limit(Limit { soft: 2, hard: 3 }), Soft::Same);
        assert_eq!(counter.take(1), Err(Full { used: 14, limit: 3 }), "a lower limit takes nothing away");
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "without its charge"))]
    fn more_given_back_than_taken_never_underflows() {
        let counter = Counter::new(Limit::NONE);
        counter.take(1).unwrap();
        counter.give_back(2);
        assert_eq!(counter.used(), 0);
    }
}
