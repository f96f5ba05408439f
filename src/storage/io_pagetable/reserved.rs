//! Reserved ranges: addresses that no area may use, each with the owner who asked for it. They may overlap.
//!
//! Imports allowed: units.

use ioasd_client::units::IovaRange;

use super::constraints::Owner;
use super::range_set::RangeSet;

/// The reserved ranges by owner, and their union.
#[derive(Clone, Debug, Default)]
pub(super) struct Reserved {
    entries: Vec<(Owner, IovaRange)>,
    union: RangeSet,
}

impl Reserved {
    pub(super) fn add(&mut self, owner: Owner, range: IovaRange) {
        self.entries.push((owner, range));
        self.update();
    }

    pub(super) fn remove(&mut self, owner: Owner) {
        self.entries.retain(|(of, _)| *of != owner);
        self.update();
    }

    fn update(&mut self) {
        self.union = self.computed_union();
    }

    fn computed_union(&self) -> RangeSet {
        RangeSet::union_of(self.entries.iter().map(|(_, range)| *range).collect())
    }

    pub(super) const fn union(&self) -> &RangeSet {
        &self.union
    }

    /// Every request, with who made it.
    pub(super) fn requests(&self) -> impl Iterator<Item = (Owner, IovaRange)> {
        self.entries.iter().copied()
    }

    /// A reserved range that shares an address with `range`, and its owner.
    pub(super) fn conflict(&self, range: IovaRange) -> Option<(Owner, IovaRange)> {
        self.union.first_in(range)?;
        self.entries.iter().find(|(_, reserved)| reserved.intersects(range)).copied()
    }

    pub(super) fn check(&self) {
        self.union.check();
        assert_eq!(self.union, self.computed_union(), "the union of the reserved ranges drifted");
    }
}
