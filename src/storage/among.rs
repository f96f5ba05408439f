//! Some of the kinds of a thing, as a rule names them: `["memfd", "hugetlb"]`.
//!
//! Imports allowed: `std` only.

use std::fmt;
use std::marker::PhantomData;

/// A thing of which there are a few kinds, each with a word of its own.
pub trait Worded: Copy + Eq + 'static {
    /// Every kind, eight at most.
    const EVERY: &'static [Self];

    /// The word used in configuration and reports.
    fn word(self) -> &'static str;
}

/// Some of the kinds of a thing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Among<T> {
    bits: u8,
    of: PhantomData<fn() -> T>,
}

impl<T: Worded> Among<T> {
    /// All there are.
    #[must_use]
    pub fn all() -> Self {
        T::EVERY.iter().copied().collect()
    }

    /// Whether `kind` is one of them.
    #[must_use]
    pub fn has(self, kind: T) -> bool {
        self.bits & bit(kind) != 0
    }

    /// Whether there are any.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// Those that are among `others`, too.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self { bits: self.bits & others.bits, of: PhantomData }
    }

    /// Each of them, in the order of all.
    pub fn each(self) -> impl Iterator<Item = T> {
        T::EVERY.iter().copied().filter(move |kind| self.has(*kind))
    }
}

fn bit<T: Worded>(kind: T) -> u8 {
    let place = T::EVERY.iter().position(|one| *one == kind);
    place.and_then(|place| 1_u8.checked_shl(u32::try_from(place).ok()?)).unwrap_or(0)
}

impl<T: Worded> FromIterator<T> for Among<T> {
    fn from_iter<I: IntoIterator<Item = T>>(kinds: I) -> Self {
        Self { bits: kinds.into_iter().fold(0, |bits, kind| bits | bit(kind)), of: PhantomData }
    }
}

impl<T: Worded> Default for Among<T> {
    fn default() -> Self {
        Self::all()
    }
}

/// As it is written in a configuration.
impl<T: Worded> fmt::Display for Among<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.each().map(T::word)).finish()
    }
}

impl<T: Worded> fmt::Debug for Among<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::{FrameSetting, SourceKind, Strength};
    use super::*;

    fn check<T: Worded + fmt::Debug>() {
        assert!(T::EVERY.len() <= 8);
        for (place, kind) in T::EVERY.iter().enumerate() {
            let alone: Among<T> = [*kind].into_iter().collect();
            assert_eq!(alone.each().collect::<Vec<_>>(), [*kind], "at {place}");
            assert!(Among::<T>::all().has(*kind) && !alone.is_empty());
            assert_eq!(alone.and(Among::all()), alone);
        }
    }

    #[test]
    fn each_kind_is_one_of_its_own_and_some_are_written_as_in_a_configuration() {
        check::<Strength>();
        check::<SourceKind>();
        check::<FrameSetting>();
        let some: Among<SourceKind> = [SourceKind::Hugetlb, SourceKind::Memfd].into_iter().collect();
        assert_eq!(some.to_string(), "[\"memfd\", \"hugetlb\"]");
        let none: Among<SourceKind> = [].into_iter().collect();
        assert_eq!((none.to_string(), none.is_empty()), ("[]".to_owned(), true));
        assert_eq!(some.and([SourceKind::Process].into_iter().collect()), none);
    }
}
