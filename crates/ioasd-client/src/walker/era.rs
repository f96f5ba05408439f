//! Eras: for how long what a stream remembers of tables is good.
//!
//! Lines of caches are never cleared one by one: each holds the era in which it was made, and a new era begins with every
//! burst that finds another generation than the one before. So a burst pays one comparison for the right to use everything
//! that is remembered.
//!
//! Imports allowed: the streams of this folder.

use super::stream::Generation;

/// The era of lines that were never made.
pub(super) const NEVER: u16 = 0;

/// The era in which lines are good, and the generation it belongs to.
#[derive(Debug)]
pub(super) struct Era {
    number: u16,
    generation: Option<Generation>,
}

/// What follows from the beginning of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Turn {
    /// Lines are as good or as bad as their era says.
    Goes,
    /// Eras have come round: all lines must be cleared, or old ones would be good again.
    Around,
}

impl Era {
    pub(super) const fn first() -> Self {
        Self { number: NEVER + 1, generation: None }
    }

    /// The number that good lines have.
    #[inline]
    pub(super) const fn number(&self) -> u16 {
        self.number
    }

    /// A burst begins. `None` stands for a domain that is dead: nothing of it is good.
    #[inline]
    pub(super) fn begin(&mut self, generation: Option<Generation>) -> Turn {
        if self.generation == generation && generation.is_some() {
            return Turn::Goes;
        }
        self.generation = generation;
        self.end()
    }

    /// Nothing that is remembered is good any more.
    #[cold]
    pub(super) const fn end(&mut self) -> Turn {
        self.number = self.number.wrapping_add(1);
        if self.number != NEVER {
            return Turn::Goes;
        }
        self.number = NEVER + 1;
        Turn::Around
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_era_lasts_as_long_as_its_generation() {
        let mut era = Era::first();
        let mut after = |generation: u64| {
            assert_eq!(era.begin(Some(Generation(generation))), Turn::Goes);
            era.number()
        };
        let third = after(3);
        assert_eq!(after(3), third);
        assert_ne!(after(4), third);
        assert_ne!(after(3), third, "the same generation once more is another era");
    }

    #[test]
    fn every_burst_of_a_dead_domain_is_an_era() {
        let mut era = Era::first();
        let before = era.number();
        assert_eq!((era.begin(None), era.number()), (Turn::Goes, before + 1));
        assert_eq!((era.begin(None), era.number()), (Turn::Goes, before + 2));
    }

    #[test]
    fn eras_that_come_round_say_so() {
        let mut era = Era::first();
        let turns = (0..u16::MAX).filter(|_| era.end() == Turn::Around).count();
        assert_eq!((turns, era.number()), (1, Era::first().number()));
    }
}
