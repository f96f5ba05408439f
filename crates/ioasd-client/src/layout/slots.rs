//! The slots of one walker, one for each of its threads: the beginning of its memfd.
//!
//! A slot is one word on cache lines of its own. It holds [`OUTSIDE`] while the thread looks at no table, and else the
//! epoch that was current when it began. The agent reads the slots and believes them: a wrong one harms only the
//! memory of the walker itself, or makes the agent wait for it.
//!
//! Imports allowed: nothing.

/// Threads of one walker that can be inside at the same time.
pub const SLOTS: u32 = 64;

/// Bytes in a slot: two cache lines, which processors fetch together.
pub const SLOT_BYTES: u64 = 128;

/// Bytes of all slots.
pub const SLOTS_BYTES: u64 = SLOT_BYTES * SLOTS as u64;

/// The word of a slot whose thread looks at no table.
pub const OUTSIDE: u64 = 0;

/// One of the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotIndex(u32);

impl SlotIndex {
    /// Slot `index`; `None` from [`SLOTS`] on.
    #[must_use]
    pub const fn new(index: u32) -> Option<Self> {
        if index < SLOTS { Some(Self(index)) } else { None }
    }

    /// All slots.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS).map(Self)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The offset of its word.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 as u64 * SLOT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_slot_ends_with_the_slots() {
        let last = SlotIndex::all().last().unwrap();
        assert_eq!(last.offset() + SLOT_BYTES, SLOTS_BYTES);
        assert_eq!(SlotIndex::new(SLOTS), None);
        assert!(SLOTS_BYTES.is_multiple_of(4096));
    }
}
