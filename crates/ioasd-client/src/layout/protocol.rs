//! The steps by which the agent changes tables under its walkers: what is ordered before what.
//!
//! ```text
//!   agent                                          walker, one thread
//!   publish   write all of it, store the link      enter   slot = epoch           \  full fence
//!   unmap     clear entries                                load generation, alive /
//!             generation + 1, epoch + 1            look    load every entry with Acquire
//!             full fence                           leave   slot = OUTSIDE, Release
//!             wait until every slot has_left
//!   renew     windows + 1, then as an unmap; frames that named nothing may then name other files
//!   recycle   unlink, full fence, note the epoch
//!             reuse when a later one began and every slot has_left
//!   log       say that writes are logged             write   set the bit in the log, then give out memory
//!             as unmap, but for the entries
//!   read log  take the bits
//!             as unmap, but for the entries
//! ```
//!
//! Either the agent sees the slot, and waits, or the walker sees the cleared entries: both fences cannot come first.
//! In the same way either the agent takes a bit, and waits for whoever relied on it, or the walker sees that it is not set.
//! Each step is written once, here, over a [`Word`], which is an atomic of the machine in agent and walker, and one of a
//! model checker in `tests/models`, which also shows that no ordering here can be weakened.
//!
//! Imports allowed: the words of arena and slots.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::arena_header::{
    ALIVE_OFFSET, EPOCH_OFFSET, FIRST_EPOCH, GENERATION_OFFSET, IS_DEAD, WINDOWS_OFFSET,
};
use super::slots::{OUTSIDE, SlotIndex};
use crate::formats::ABSENT;

/// A word of shared memory.
pub trait Word {
    /// Whether an exchange with `SeqCst` is a full fence too, as it is on x86.
    const EXCHANGE_IS_FENCE: bool;

    /// Loads it.
    fn load(&self, order: Ordering) -> u64;

    /// Stores to it.
    fn store(&self, value: u64, order: Ordering);

    /// Exchanges it.
    fn swap(&self, value: u64, order: Ordering) -> u64;

    /// Adds to it; gives what was there.
    fn fetch_add(&self, value: u64, order: Ordering) -> u64;

    /// Sets bits in it; gives what was there.
    fn fetch_or(&self, bits: u64, order: Ordering) -> u64;

    /// Clears the bits in it that are not in `bits`; gives what was there.
    fn fetch_and(&self, bits: u64, order: Ordering) -> u64;

    /// Changes it to what `change` makes of it, unless that is nothing; gives what was there.
    ///
    /// # Errors
    /// With what is there, if `change` gave nothing.
    fn fetch_update(
        &self,
        stored: Ordering,
        loaded: Ordering,
        change: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64>;

    /// A full fence of the thread.
    fn full_fence(&self);
}

impl Word for AtomicU64 {
    const EXCHANGE_IS_FENCE: bool = cfg!(target_arch = "x86_64");

    #[inline]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }

    #[inline]
    fn store(&self, value: u64, order: Ordering) {
        self.store(value, order);
    }

    #[inline]
    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.swap(value, order)
    }

    #[inline]
    fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.fetch_add(value, order)
    }

    #[inline]
    fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        self.fetch_or(bits, order)
    }

    #[inline]
    fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
        self.fetch_and(bits, order)
    }

    #[inline]
    fn fetch_update(
        &self,
        stored: Ordering,
        loaded: Ordering,
        change: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        self.fetch_update(stored, loaded, change)
    }

    #[inline]
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// Shared memory that is only looked at: an arena for a walker, slots for the agent.
pub trait View {
    /// What [`look`] sees at `offset`; `None` if there is no word.
    fn load(&self, offset: u64) -> Option<u64>;
}

/// What a thread finds when it enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// The generation: what was translated under another one may be stale.
    pub generation: u64,
    /// The alive word.
    pub alive: u64,
    /// The number of the windows: which file a frame names was learned under it, or must be learned again.
    pub windows: u64,
}

/// Says in `slot` that its thread looks at tables from here on.
#[inline]
pub fn enter(slot: &impl Word, arena: &impl View) -> Entered {
    let epoch = arena.load(EPOCH_OFFSET).unwrap_or(FIRST_EPOCH);
    store_and_fence(slot, epoch);
    let generation = arena.load(GENERATION_OFFSET).unwrap_or(0);
    let alive = arena.load(ALIVE_OFFSET).unwrap_or(IS_DEAD);
    Entered { generation, alive, windows: arena.load(WINDOWS_OFFSET).unwrap_or(0) }
}

#[inline]
fn store_and_fence<W: Word>(word: &W, value: u64) {
    if W::EXCHANGE_IS_FENCE {
        word.swap(value, Ordering::SeqCst);
    } else {
        word.store(value, Ordering::Relaxed);
        word.full_fence();
    }
}

/// Looks at a word of the arena. Whatever was written before it was published is seen after it.
#[inline]
pub fn look(word: &impl Word) -> u64 {
    word.load(Ordering::Acquire)
}

/// Says that the thread of `slot` looks at nothing any more. Whatever it did before is done for who sees that it left.
#[inline]
pub fn leave(slot: &impl Word) {
    slot.store(OUTSIDE, Ordering::Release);
}

/// Takes the lowest slot that is free; `taken` has a bit for each of them.
#[inline]
pub fn take_slot(taken: &impl Word) -> Option<SlotIndex> {
    let lowest = |taken: u64| (taken != u64::MAX).then(|| taken | 1 << taken.trailing_ones());
    let before = taken.fetch_update(Ordering::Acquire, Ordering::Relaxed, lowest).ok()?;
    SlotIndex::new(before.trailing_ones())
}

/// Leaves a slot to other threads; what this one did with it is done for the next.
#[inline]
pub fn give_slot_back(taken: &impl Word, slot: SlotIndex) {
    let without = |taken: u64| Some(taken & !(1 << slot.get()));
    let given_back = taken.fetch_update(Ordering::Release, Ordering::Relaxed, without);
    debug_assert!(given_back.is_ok(), "a bit can always be cleared");
}

/// Shows walkers an entry, and with it whatever was written before.
#[inline]
pub fn publish(entry: &impl Word, bits: u64) {
    entry.store(bits, Ordering::Release);
}

/// Takes an entry away. Walkers may still go by it until they have left the epoch that begins next.
#[inline]
pub fn clear(entry: &impl Word) {
    entry.store(ABSENT, Ordering::Release);
}

/// Begins an epoch and a generation after entries were cleared. The pages behind them are free once every slot
/// [`has_left`] for the epoch that is returned.
#[inline]
pub fn begin_epoch<W: Word>(generation: &W, epoch: &W) -> u64 {
    generation.fetch_add(1, Ordering::SeqCst);
    let begun = epoch.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
    epoch.full_fence();
    begun
}

/// Makes who enters later forget which files frames name. An epoch must begin after it: frames that named nothing when it
/// began may name other files once every slot [`has_left`].
#[inline]
pub fn renew_windows(windows: &impl Word) {
    windows.fetch_add(1, Ordering::SeqCst);
}

/// Whether the thread of `slot` cannot be looking at what was cleared before `epoch` began. What it did there is done.
#[inline]
pub fn has_left(slots: &impl View, slot: SlotIndex, epoch: u64) -> bool {
    slots.load(slot.offset()).is_none_or(|held| held == OUTSIDE || held >= epoch)
}

/// The epoch to be waited for before a table can be reused that has just been unlinked. Somebody else begins it.
#[inline]
pub fn epoch_after_unlinking(epoch: &impl Word) -> u64 {
    // The unlinking must be visible before the epoch is read: who enters in a later epoch then cannot see the table.
    epoch.full_fence();
    look(epoch).wrapping_add(1)
}

/// Notes in a word of a dirty log that pages are written to from here on, until this thread leaves.
#[inline]
pub fn note_written(word: &impl Word, bits: u64) {
    if word.load(Ordering::Relaxed) & bits != bits {
        word.fetch_or(bits, Ordering::Relaxed);
    }
}

/// Takes bits out of a word of a dirty log; gives those that were set. Who relies on one of them has left once every slot
/// [`has_left`] for an epoch that begins after this.
#[inline]
pub fn take_written(word: &impl Word, bits: u64) -> u64 {
    word.fetch_and(!bits, Ordering::Relaxed) & bits
}

/// Tells walkers by the alive word whether to log what they write; whether the domain is alive. All of them do once every
/// slot [`has_left`] for an epoch that begins after this.
#[inline]
pub fn set_alive(alive: &impl Word, state: u64) -> bool {
    let change = |alive| (alive != IS_DEAD).then_some(state);
    alive.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
}
