//! Shared memory of a model: words of loom's, seen through eyes that may be weaker than they should.
//!
//! A [`Words`] is an arena or the slots of a walker. The production code works on it as it works on a mapping. Whoever
//! takes part has an [`Eye`] of his own on each word, and a test can weaken one of them: that is the step to be proved
//! necessary.

use std::collections::BTreeMap;
use std::rc::Rc;

use ioasd_client::layout::protocol::{View, Word, look};
use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// What is wrong with an eye.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Weak {
    /// Nothing.
    #[default]
    Nothing,
    /// Loads are relaxed.
    Loads,
    /// Stores are relaxed.
    Stores,
    /// There is no full fence, whether of its own or in an exchange.
    Fences,
}

/// The words there are, by their offsets.
#[derive(Clone, Debug)]
pub(crate) struct Words(Rc<BTreeMap<u64, AtomicU64>>);

impl Words {
    pub(crate) fn new(words: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let words = words.into_iter().map(|(offset, value)| (offset, AtomicU64::new(value)));
        Self(Rc::new(words.collect()))
    }

    /// The word at `offset`, seen well.
    pub(crate) fn at(&self, offset: u64) -> Eye<'_> {
        self.weak_at(offset, Weak::Nothing)
    }

    /// The word at `offset`, seen badly.
    pub(crate) fn weak_at(&self, offset: u64, weak: Weak) -> Eye<'_> {
        Eye { word: self.0.get(&offset).unwrap(), weak }
    }

    /// All of it, with something wrong.
    pub(crate) fn seen(&self, weak: Weak) -> Seen<'_> {
        Seen { words: self, weak }
    }
}

/// A view on all words.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    words: &'a Words,
    weak: Weak,
}

impl View for Seen<'_> {
    fn load(&self, offset: u64) -> Option<u64> {
        let word = self.words.0.get(&offset)?;
        Some(look(&Eye { word, weak: self.weak }))
    }
}

/// One word, as one thread gets at it. Its exchange is no fence, as on Arm.
#[derive(Clone, Copy)]
pub(crate) struct Eye<'a> {
    word: &'a AtomicU64,
    weak: Weak,
}

impl Eye<'_> {
    /// A plain store, which others may see in any order.
    pub(crate) fn fill(&self, value: u64) {
        self.word.store(value, Ordering::Relaxed);
    }

    fn loading(&self, order: Ordering) -> Ordering {
        match (self.weak, order) {
            (Weak::Loads, Ordering::AcqRel) => Ordering::Release,
            (Weak::Loads, _) => Ordering::Relaxed,
            _ => order,
        }
    }

    fn storing(&self, order: Ordering) -> Ordering {
        match (self.weak, order) {
            (Weak::Stores, Ordering::AcqRel) => Ordering::Acquire,
            (Weak::Stores, _) => Ordering::Relaxed,
            _ => order,
        }
    }
}

impl Word for Eye<'_> {
    const EXCHANGE_IS_FENCE: bool = false;

    fn load(&self, order: Ordering) -> u64 {
        self.word.load(self.loading(order))
    }

    fn store(&self, value: u64, order: Ordering) {
        self.word.store(value, self.storing(order));
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.word.swap(value, order)
    }

    fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.word.fetch_add(value, self.storing(order))
    }

    fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        self.word.fetch_or(bits, order)
    }

    fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
        self.word.fetch_and(bits, order)
    }

    fn fetch_update(
        &self,
        stored: Ordering,
        loaded: Ordering,
        change: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        let stored = if stored == Ordering::Release { self.storing(stored) } else { self.loading(stored) };
        self.word.fetch_update(stored, self.loading(loaded), change)
    }

    fn full_fence(&self) {
        if self.weak != Weak::Fences {
            fence(Ordering::SeqCst);
        }
    }
}

/// The same on x86, where an exchange with `SeqCst` is a full fence, and any other one is believed not to be.
pub(crate) struct X86<'a>(pub(crate) Eye<'a>);

impl Word for X86<'_> {
    const EXCHANGE_IS_FENCE: bool = true;

    fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    fn store(&self, value: u64, order: Ordering) {
        self.0.store(value, order);
    }

    fn swap(&self, value: u64, order: Ordering) -> u64 {
        let before = self.0.swap(value, order);
        if order == Ordering::SeqCst {
            self.0.full_fence();
        }
        before
    }

    fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.0.fetch_add(value, order)
    }

    fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        self.0.fetch_or(bits, order)
    }

    fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
        self.0.fetch_and(bits, order)
    }

    fn fetch_update(
        &self,
        stored: Ordering,
        loaded: Ordering,
        change: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        self.0.fetch_update(stored, loaded, change)
    }

    fn full_fence(&self) {
        self.0.full_fence();
    }
}
