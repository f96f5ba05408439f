//! What mock hardware keeps of its devices and nested domains, so that tests can look at it.
//!
//! Imports allowed: nothing of ours.

use std::cell::Cell;

/// Words of a cache.
pub const WORDS: u32 = 4;

/// What the words of a device's cache begin with.
const DEVICE_WORD: u32 = 0x00ba_ddad;

/// The PASID whose attachments fail every second time.
const TRAP: u32 = 1024;

/// Four words that stand for a cache.
#[derive(Debug)]
pub struct Words(Cell<[u32; WORDS as usize]>);

/// Which words are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drops {
    /// All.
    All,
    /// One.
    One(u32),
}

impl Words {
    /// All of them hold `value`.
    #[must_use]
    pub const fn new(value: u32) -> Self {
        Self(Cell::new([value; WORDS as usize]))
    }

    /// Whether there is a word `index`, and it holds `value`.
    #[must_use]
    pub fn holds(&self, index: u32, value: u32) -> bool {
        usize::try_from(index).ok().and_then(|index| self.0.get().get(index).copied()) == Some(value)
    }

    /// Sets words to zero.
    pub fn clear(&self, drops: Drops) {
        let mut words = self.0.get();
        for (index, word) in (0..).zip(&mut words) {
            if drops == Drops::All || drops == Drops::One(index) {
                *word = 0;
            }
        }
        self.0.set(words);
    }
}

/// Whether the next attachment of the trap fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trap {
    #[default]
    Open,
    Armed,
}

/// What is kept of a device.
#[derive(Debug)]
pub struct MockState {
    /// Its cache.
    pub cache: Words,
    trap: Cell<Trap>,
}

impl Default for MockState {
    fn default() -> Self {
        Self { cache: Words::new(DEVICE_WORD), trap: Cell::default() }
    }
}

/// The hardware refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trapped;

impl MockState {
    /// Points a PASID at a domain.
    ///
    /// # Errors
    /// For PASID 1024, every second time.
    pub fn set_pasid(&self, pasid: u32) -> Result<(), Trapped> {
        if pasid != TRAP {
            return Ok(());
        }
        match self.trap.get() {
            Trap::Open => {
                self.trap.set(Trap::Armed);
                Ok(())
            }
            Trap::Armed => {
                self.trap.set(Trap::Open);
                Err(Trapped)
            }
        }
    }

    /// Points a PASID at nothing.
    pub fn block_pasid(&self, pasid: u32) {
        if pasid == TRAP {
            self.trap.set(Trap::Open);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_dropped_one_by_one_or_all() {
        let words = Words::new(7);
        assert!(words.holds(3, 7) && !words.holds(4, 7) && !words.holds(0, 0));
        words.clear(Drops::One(3));
        words.clear(Drops::One(9));
        assert!(words.holds(3, 0) && words.holds(2, 7));
        words.clear(Drops::All);
        assert!((0..WORDS).all(|index| words.holds(index, 0)));
    }

    #[test]
    fn one_pasid_fails_every_second_time_unless_it_is_blocked_between() {
        let state = MockState::default();
        assert_eq!([state.set_pasid(1), state.set_pasid(1)], [Ok(()); 2]);
        assert_eq!([state.set_pasid(TRAP), state.set_pasid(TRAP)], [Ok(()), Err(Trapped)]);
        assert_eq!(state.set_pasid(TRAP), Ok(()));
        state.block_pasid(TRAP);
        assert_eq!(state.set_pasid(TRAP), Ok(()));
    }
}
