//! Dirty leaves: those that something was written through, as hardware marks them in their entries.
//!
//! A leaf is dirty as a whole, whichever of its entries is marked, and is cleaned as a whole.
//!
//! Imports allowed: table, the client crate's formats.

use std::sync::atomic::{AtomicU64, Ordering};

use ioasd_client::formats::{Entry, Format, TABLE_ENTRIES};
use ioasd_client::layout::protocol::publish;
use ioasd_client::units::{Iova, IovaRange};

use super::table::{Budget, Table};

/// What becomes of a leaf that is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    /// It stays dirty.
    Keep,
    /// It is clean.
    Clean,
}

/// What came of marking a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// It is dirty, if it can be written.
    Leaf,
    /// Nothing is mapped there.
    Nothing,
}

/// What is looked for, and what becomes of it.
struct Sweep<'s> {
    last: Iova,
    cleaning: Cleaning,
    budget: &'s mut Budget,
    report: &'s mut dyn FnMut(IovaRange),
}

impl<F: Format> Table<F> {
    /// See [`DomainTable::sweep_dirty`](super::table::DomainTable::sweep_dirty).
    pub(super) fn sweep(
        &self,
        range: IovaRange,
        cleaning: Cleaning,
        budget: &mut Budget,
        report: &mut dyn FnMut(IovaRange),
    ) -> Option<Iova> {
        let range = self.spec.aperture().intersection(range)?;
        let mut sweep = Sweep { last: range.last(), cleaning, budget, report };
        let mut at = range.start();
        while !sweep.budget.is_spent() {
            at = self.sweep_table(at, &mut sweep).filter(|next| *next <= range.last())?;
        }
        Some(at)
    }

    /// Goes on from `at` in the lowest table on the way there, up to its end or to a pointer; tells where to go on.
    fn sweep_table(&self, at: Iova, sweep: &mut Sweep<'_>) -> Option<Iova> {
        let found = self.descend(at);
        let (level, item_lg2) = (found.level, F::item_lg2(found.level));
        let words = self.arena.words(found.table);
        let base = at.get() >> item_lg2 << item_lg2;
        let address = |index: usize| {
            let items = u64::try_from(index - found.index).ok()?;
            base.checked_add(items << item_lg2).map(Iova::new)
        };
        let mut index = found.index;
        while let Some(start) = address(index)
            && index < TABLE_ENTRIES
            && start <= sweep.last
            && !sweep.budget.is_spent()
        {
            let bits = words.get(index)?.load(Ordering::Relaxed);
            index = match F::decode(bits, level) {
                Entry::Table { .. } => break,
                Entry::Leaf { size_lg2, .. } => {
                    let entries = 1 << (size_lg2 - item_lg2);
                    let first = index & !(entries - 1);
                    let leaf = IovaRange::new(
                        Iova::new(start.get() & !((1 << size_lg2) - 1)),
                        Iova::new(start.get() | ((1 << size_lg2) - 1)),
                    );
                    sweep.leaf::<F>(leaf?, words.get(first..first + entries)?);
                    first + entries
                }
                Entry::Absent | Entry::Malformed => {
                    sweep.budget.spend(1);
                    index + 1
                }
            };
        }
        address(index)
    }

    /// See [`DomainTable::mark_dirty`](super::table::DomainTable::mark_dirty). As hardware does, it marks the one entry that
    /// leads to `iova`.
    pub(super) fn mark(&self, iova: Iova) -> Marked {
        if !self.spec.aperture().contains(iova) {
            return Marked::Nothing;
        }
        let found = self.descend(iova);
        let Entry::Leaf { .. } = found.decoded else { return Marked::Nothing };
        let entry = self.arena.entry(found.table, found.index);
        publish(entry, F::dirtied(entry.load(Ordering::Relaxed)));
        Marked::Leaf
    }
}

impl Sweep<'_> {
    /// Looks at a leaf, all of whose entries are given.
    fn leaf<F: Format>(&mut self, leaf: IovaRange, entries: &[AtomicU64]) {
        self.budget.spend(entries.len() as u64);
        if !entries.iter().any(|entry| F::is_dirty(entry.load(Ordering::Relaxed))) {
            return;
        }
        (self.report)(leaf);
        if self.cleaning == Cleaning::Clean && leaf.last() <= self.last {
            for entry in entries {
                publish(entry, F::clean(entry.load(Ordering::Relaxed)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ioasd_client::formats::{AmdV1, ArmS2, RiscV, VtdSs};
    use ioasd_client::layout::BootId;
    use ioasd_client::units::{ByteLen, Permission, PhysAddr};

    use super::*;
    use crate::domains::arena::ArenaSize;
    use crate::domains::map::MapRun;
    use crate::domains::spec::{Recording, TableSpec};
    use crate::domains::table::{DomainTable, create};
    use crate::storage::io_pagetable::LargePages;
    use crate::storage::ledger::node::Allowance;
    use crate::storage::ledger::resource::Resource;

    /// A leaf of 2 MiB at 2 MiB, one of 64 KiB where the format has them at 64 KiB, a page behind it, and nothing between.
    fn table<F: Format>() -> Box<dyn DomainTable> {
        let spec = TableSpec::of(F::ID).with_recording(Recording::Writes);
        let size = ArenaSize::new(ByteLen::new(1 << 22));
        let mut table = create(spec, Allowance::unlimited(Resource::Tables), size, BootId([0; 16])).unwrap();
        for (iova, length) in [(0x20_0000, 0x20_0000), (0x1_0000, 0x1_0000), (0x2_0000, 0x1000)] {
            let run = MapRun {
                iova: Iova::new(iova),
                phys: PhysAddr::new(iova),
                length: ByteLen::new(length),
                permission: Permission::ReadWrite,
                large_pages: LargePages::On,
            };
            table.map(&run, &mut Budget::unlimited()).unwrap();
        }
        table
    }

    /// First addresses and lengths of what is dirty in (start, last), found in turns of so many entries.
    fn swept(
        table: &mut dyn DomainTable,
        (start, last): (u64, u64),
        cleaning: Cleaning,
        turn: u64,
    ) -> Vec<(u64, u64)> {
        let (mut found, mut at) = (Vec::new(), Some(Iova::new(start)));
        while let Some(start) = at {
            let range = IovaRange::new(start, Iova::new(last)).unwrap();
            let mut report = |leaf: IovaRange| found.push((leaf.start().get(), leaf.length().get()));
            at = table.sweep_dirty(range, cleaning, &mut Budget::new(turn), &mut report);
            table.check();
        }
        found
    }

    const ALL: (u64, u64) = (0, u64::MAX);

    fn check_leaves<F: Format>(middle: u64) {
        let mut table = table::<F>();
        assert_eq!(swept(&mut *table, ALL, Cleaning::Keep, 1), [], "new leaves are clean");
        for iova in [0x1_5008, 0x3f_ffff] {
            assert_eq!(table.mark_dirty(Iova::new(iova)), Marked::Leaf);
        }
        for nothing in [0, 0x2_1000, 0x40_0000, u64::MAX] {
            assert_eq!(table.mark_dirty(Iova::new(nothing)), Marked::Nothing);
        }
        let dirty = [(0x1_5000 & !(middle - 1), middle), (0x20_0000, 0x20_0000)];
        assert_eq!(swept(&mut *table, ALL, Cleaning::Keep, u64::MAX), dirty);
        assert_eq!(swept(&mut *table, ALL, Cleaning::Clean, 7), dirty, "keeping kept them");
        assert_eq!(swept(&mut *table, ALL, Cleaning::Clean, 7), []);
    }

    #[test]
    fn a_dirty_leaf_is_reported_whole_and_cleaned_once() {
        check_leaves::<AmdV1<4>>(0x1_0000);
        check_leaves::<VtdSs<4>>(0x1000);
        check_leaves::<ArmS2>(0x1_0000);
        check_leaves::<RiscV<4>>(0x1_0000);
    }

    #[test]
    fn a_leaf_is_cleaned_by_the_sweep_that_reaches_its_end() {
        let mut table = table::<AmdV1<4>>();
        table.mark_dirty(Iova::new(0x30_0000));
        let leaf = [(0x20_0000, 0x20_0000)];
        assert_eq!(swept(&mut *table, (0, 0x2f_ffff), Cleaning::Clean, 9), leaf);
        assert_eq!(swept(&mut *table, (0x30_0000, 0x3f_ffff), Cleaning::Clean, 9), leaf);
        assert_eq!(swept(&mut *table, ALL, Cleaning::Clean, 9), []);
    }
}
