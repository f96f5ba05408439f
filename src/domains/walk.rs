//! Walking one's own table, for people and tests.
//!
//! Imports allowed: table, the client crate's formats.

use std::sync::atomic::Ordering;

use ioasd_client::formats::{Entry, Format};
use ioasd_client::units::{ByteLen, Iova, Permission, PhysAddr};

use super::table::{Table, WalkStep};

impl<F: Format> Table<F> {
    /// See [`DomainTable::translate`](super::table::DomainTable::translate).
    pub(super) fn leaf_at(&self, iova: Iova) -> Option<(PhysAddr, ByteLen, Permission)> {
        if !self.spec.aperture().contains(iova) {
            return None;
        }
        let found = self.descend(iova);
        let Entry::Leaf { phys, size_lg2, rights } = found.decoded else {
            return None;
        };
        let within = iova.get() & ((1 << size_lg2) - 1);
        let permission = found.rights.intersection(rights).permission()?;
        Some((PhysAddr::new(phys.get() | within), ByteLen::new((1 << size_lg2) - within), permission))
    }

    /// See [`DomainTable::walk`](super::table::DomainTable::walk).
    pub(super) fn steps_to(&self, iova: Iova) -> Vec<WalkStep> {
        let mut steps = Vec::new();
        let (mut table, mut level) = (self.root, F::ROOT_LEVEL);
        while self.spec.aperture().contains(iova) {
            let index = F::index(iova, level);
            let entry = self.arena.entry(table, index).load(Ordering::Relaxed);
            let decoded = F::decode(entry, level);
            steps.push(WalkStep { level, table, index, entry, decoded });
            let (Entry::Table { address, .. }, Some(below)) = (decoded, level.below()) else {
                break;
            };
            (table, level) = (address, below);
        }
        steps
    }
}
