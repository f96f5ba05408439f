//! The IOVA alignment of an IOAS: the largest that anything attached asks for, while it is attached.
//!
//! Imports allowed: units.

use std::collections::BTreeMap;

use ioasd_client::units::PAGE_SIZE;

use super::constraints::Owner;

/// Whether domains may use leaves larger than a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LargePages {
    /// They may.
    On,
    /// Every map call is exactly one page, and the alignment is at least a page.
    Off,
}

impl LargePages {
    /// Whether both allow them.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::On, Self::On) => Self::On,
            _ => Self::Off,
        }
    }

    const fn alignment(self) -> u64 {
        match self {
            Self::On => 1,
            Self::Off => PAGE_SIZE,
        }
    }
}

/// What each owner asks for.
#[derive(Clone, Debug)]
pub(super) struct Alignments {
    by_owner: BTreeMap<Owner, u64>,
    large_pages: LargePages,
    current: u64,
}

impl Alignments {
    pub(super) const fn new() -> Self {
        Self { by_owner: BTreeMap::new(), large_pages: LargePages::On, current: 1 }
    }

    pub(super) const fn current(&self) -> u64 {
        self.current
    }

    pub(super) const fn large_pages(&self) -> LargePages {
        self.large_pages
    }

    /// Those who ask for the alignment there is; nobody does if it is 1.
    pub(super) fn askers(&self) -> impl Iterator<Item = Owner> {
        let asked = |(_, alignment): &(&Owner, &u64)| **alignment == self.current && self.current > 1;
        self.by_owner.iter().filter(asked).map(|(owner, _)| *owner)
    }

    pub(super) fn has_domains(&self) -> bool {
        self.by_owner.keys().any(|owner| matches!(owner, Owner::Domain(_)))
    }

    pub(super) fn add(&mut self, owner: Owner, alignment: u64) {
        self.by_owner.insert(owner, alignment);
        self.current = self.largest();
    }

    pub(super) fn remove(&mut self, owner: Owner) {
        self.by_owner.remove(&owner);
        self.current = self.largest();
    }

    pub(super) fn set_large_pages(&mut self, large_pages: LargePages) {
        self.large_pages = large_pages;
        self.current = self.largest();
    }

    fn largest(&self) -> u64 {
        self.by_owner.values().copied().fold(self.large_pages.alignment(), u64::max)
    }

    pub(super) fn check(&self) {
        assert_eq!(self.current, self.largest(), "the alignment drifted from what its owners ask for");
        assert!(self.current.is_power_of_two() && self.current <= PAGE_SIZE, "alignment {:#x}", self.current);
    }
}
