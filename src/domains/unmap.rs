//! Unmapping: entries are cleared one table at a time; tables that become empty are unlinked and retired.
//!
//! Leaves are never split: a range that begins inside one is refused, one that ends inside takes the whole leaf along.
//!
//! Imports allowed: error, map, table, the client crate's formats.

use std::sync::atomic::{AtomicU64, Ordering};

use ioasd_client::formats::{ABSENT, Entry, Format, Level};
use ioasd_client::layout::protocol;
use ioasd_client::units::{ByteLen, Iova, IovaRange};

use super::error::UnmapError;
use super::map::entries_in_table;
use super::table::{Budget, Found, Table};

/// What one step went through.
struct Step {
    bytes: u64,
    missing: u64,
    first_missing: Option<Iova>,
}

/// What was found side by side in one table.
#[derive(Clone, Copy, Default)]
struct Cleared {
    /// Entries gone through.
    seen: u16,
    /// Entries that were in use.
    used: u16,
    /// The first entry that was not.
    first_absent: Option<u16>,
    /// The bits of the entry seen last.
    last: u64,
}

impl<F: Format> Table<F> {
    /// See [`DomainTable::unmap`](super::table::DomainTable::unmap).
    pub(super) fn unmap_range(
        &mut self,
        range: IovaRange,
        budget: &mut Budget,
    ) -> Result<ByteLen, UnmapError> {
        let total = self.admit_unmap(range)?;
        let (mut done, mut missing, mut first_missing) = (0, 0, None);
        while done < total && !budget.is_spent() {
            let at = Iova::new(range.start().get() + done);
            let found = self.descend(at);
            if done == 0 {
                check_start(range, &found)?;
            }
            let step = self.unmap_step(&found, at, total - done, budget);
            first_missing = first_missing.or(step.first_missing);
            missing += step.missing;
            done += step.bytes;
        }
        let done = ByteLen::new(done);
        match first_missing {
            None => Ok(done),
            Some(first) => Err(UnmapError::NotMapped { range, first, missing: ByteLen::new(missing), done }),
        }
    }

    fn unmap_step(&mut self, found: &Found, at: Iova, left: u64, budget: &mut Budget) -> Step {
        if found.level == Level::LEAF || matches!(found.decoded, Entry::Leaf { .. }) {
            return self.clear_leaves(found, at, left, budget);
        }
        budget.spend(1);
        let item = 1 << F::item_lg2(found.level);
        let bytes = left.min(item - (at.get() & (item - 1)));
        Step { bytes, missing: bytes, first_missing: Some(at) }
    }

    fn clear_leaves(&mut self, found: &Found, at: Iova, left: u64, budget: &mut Budget) -> Step {
        let (table, level, item_lg2) = (found.table, found.level, F::item_lg2(found.level));
        let wanted = left.div_ceil(1 << item_lg2).min(budget.left());
        let entries = entries_in_table::<F>(at, level, wanted);
        let (_, rest) = self.arena.words(table).split_at(found.index);
        let mut cleared = clear::<F>(rest, level, entries);
        finish_leaf::<F>(rest, level, at, &mut cleared);
        budget.spend(u64::from(cleared.seen));
        self.live.remove(table, cleared.used);
        self.mapped -= u64::from(cleared.used) << item_lg2;
        if self.live.of(table) == 0 {
            self.prune(at);
        }
        let missing = u64::from(cleared.seen - cleared.used) << item_lg2;
        let address = |entry: u16| at.checked_add(u64::from(entry) << item_lg2);
        let first_missing = cleared.first_absent.and_then(address);
        Step { bytes: u64::from(cleared.seen) << item_lg2, missing, first_missing }
    }

    /// The bytes to go through.
    fn admit_unmap(&self, range: IovaRange) -> Result<u64, UnmapError> {
        let (aperture, granule) = (self.spec.aperture(), self.spec.alignment());
        let whole = range.start().is_aligned(granule) && range.length().is_aligned(granule);
        if whole && aperture.covers(range) {
            Ok(range.length().get())
        } else {
            Err(UnmapError::Shape { range, granule: ByteLen::new(granule), aperture })
        }
    }
}

/// Refuses a range that begins inside a leaf.
fn check_start(range: IovaRange, found: &Found) -> Result<(), UnmapError> {
    let Entry::Leaf { size_lg2, .. } = found.decoded else { return Ok(()) };
    let within = (1 << size_lg2) - 1;
    let start = range.start().get();
    match IovaRange::new(Iova::new(start & !within), Iova::new(start | within)) {
        Some(leaf) if leaf.start() != range.start() => Err(UnmapError::InsideLeaf { range, leaf }),
        _ => Ok(()),
    }
}

/// Clears up to `entries` entries: all of them at the lowest level, above it the leaves up to the first other entry.
#[inline]
fn clear<F: Format>(rest: &[AtomicU64], level: Level, entries: u16) -> Cleared {
    let is_leaf = |bits| matches!(F::decode(bits, level), Entry::Leaf { .. });
    let mut cleared = Cleared::default();
    for entry in rest.iter().take(usize::from(entries)) {
        let bits = entry.load(Ordering::Relaxed);
        if level > Level::LEAF && !is_leaf(bits) {
            break;
        }
        if bits == ABSENT {
            cleared.first_absent = cleared.first_absent.or(Some(cleared.seen));
        } else {
            cleared.used += 1;
            protocol::clear(entry);
        }
        cleared.seen += 1;
        cleared.last = bits;
    }
    cleared
}

/// Clears what is left of the leaf that was seen last, if it goes on.
fn finish_leaf<F: Format>(rest: &[AtomicU64], level: Level, at: Iova, cleared: &mut Cleared) {
    let Entry::Leaf { size_lg2, .. } = F::decode(cleared.last, level) else { return };
    let item_lg2 = F::item_lg2(level);
    let end = at.get() + (u64::from(cleared.seen) << item_lg2);
    let goes_on = end.next_multiple_of(1 << size_lg2) - end;
    let more = u16::try_from(goes_on >> item_lg2).unwrap_or(0);
    for entry in rest.iter().skip(usize::from(cleared.seen)).take(usize::from(more)) {
        protocol::clear(entry);
    }
    cleared.seen += more;
    cleared.used += more;
}

#[cfg(test)]
mod tests {
    use ioasd_client::formats::AmdV1;
    use ioasd_client::layout::BootId;
    use ioasd_client::units::{Permission, PhysAddr};

    use super::*;
    use crate::domains::arena::ArenaSize;
    use crate::domains::map::MapRun;
    use crate::domains::table::DomainTable;
    use crate::storage::io_pagetable::LargePages;

    const PAGE: u64 = 0x1000;

    fn mapped(iova: u64, pages: u64) -> Table<AmdV1<4>> {
        let mut table = Table::new(ArenaSize::new(ByteLen::new(1 << 22)), BootId([0; 16])).unwrap();
        map(&mut table, iova, pages);
        table
    }

    fn map(table: &mut Table<AmdV1<4>>, iova: u64, pages: u64) {
        let (length, phys) = (ByteLen::new(pages * PAGE), PhysAddr::new(iova ^ PAGE));
        let (permission, large_pages) = (Permission::Read, LargePages::On);
        let run = MapRun { iova: Iova::new(iova), phys, length, permission, large_pages };
        table.map(&run, &mut Budget::unlimited()).unwrap();
    }

    fn unmap(
        table: &mut Table<AmdV1<4>>,
        iova: u64,
        pages: u64,
        entries: u64,
    ) -> Result<ByteLen, UnmapError> {
        let range = IovaRange::from_length(Iova::new(iova), ByteLen::new(pages * PAGE)).unwrap();
        let done = table.unmap(range, &mut Budget::new(entries));
        table.check();
        done
    }

    #[test]
    fn the_last_entry_takes_its_tables_along() {
        let mut table = mapped(0x3fff_f000, 2);
        assert_eq!(table.table_bytes(), ByteLen::new(6 * PAGE));
        assert_eq!(unmap(&mut table, 0x3fff_f000, 1, 9), Ok(ByteLen::new(PAGE)));
        assert_eq!(table.table_bytes(), ByteLen::new(4 * PAGE));
        assert_eq!(unmap(&mut table, 0x4000_0000, 1, 9), Ok(ByteLen::new(PAGE)));
        assert_eq!((table.table_bytes(), table.mapped()), (ByteLen::new(PAGE), ByteLen::new(0)));
    }

    #[test]
    fn an_unmap_stops_at_its_budget() {
        let mut table = mapped(0x10_0000, 1000);
        assert_eq!(unmap(&mut table, 0x10_0000, 1000, 600), Ok(ByteLen::new(600 * PAGE)));
        assert_eq!(table.mapped(), ByteLen::new(400 * PAGE));
        assert_eq!(unmap(&mut table, 0x10_0000 + 600 * PAGE, 400, 400), Ok(ByteLen::new(400 * PAGE)));
    }

    #[test]
    fn what_is_not_mapped_is_reported_and_the_rest_is_cleared() {
        let mut table = mapped(0x20_0000, 1);
        map(&mut table, 0x4000_0000, 3);
        let error = unmap(&mut table, 0x20_0000, (0x4000_3000 - 0x20_0000) / PAGE, u64::MAX).unwrap_err();
        let UnmapError::NotMapped { first, missing, done, .. } = error else { panic!("{error}") };
        assert_eq!((first, missing.get() + 4 * PAGE), (Iova::new(0x20_1000), done.get()));
        assert_eq!((table.mapped(), table.table_bytes()), (ByteLen::new(0), ByteLen::new(PAGE)));
    }

    fn with_large_leaf() -> Table<AmdV1<4>> {
        let mut table = mapped(0x1f_f000, 1);
        let (iova, phys, length) = (Iova::new(0x20_0000), PhysAddr::new(0x20_0000), ByteLen::new(0x20_0000));
        let (permission, large_pages) = (Permission::Read, LargePages::On);
        let run = MapRun { iova, phys, length, permission, large_pages };
        table.map(&run, &mut Budget::unlimited()).unwrap();
        table
    }

    #[test]
    fn a_range_that_begins_inside_a_leaf_is_refused_and_one_that_ends_inside_takes_it_along() {
        let mut table = with_large_leaf();
        let error = unmap(&mut table, 0x20_1000, 0x1ff, 9).unwrap_err();
        assert!(matches!(error, UnmapError::InsideLeaf { leaf, .. } if leaf.start() == Iova::new(0x20_0000)));
        assert_eq!(table.mapped(), ByteLen::new(0x20_1000));
        assert_eq!(unmap(&mut table, 0x1f_f000, 2, 9), Ok(ByteLen::new(0x20_1000)));
        assert_eq!((table.mapped(), table.table_bytes()), (ByteLen::new(0), ByteLen::new(PAGE)));
    }

    #[test]
    fn all_entries_of_a_leaf_go_together_whatever_the_budget() {
        let mut table = mapped(0, 0x20);
        let run = MapRun {
            iova: Iova::new(0x4_0000),
            phys: PhysAddr::new(0x8_0000),
            length: ByteLen::new(0x4_0000),
            permission: Permission::Read,
            large_pages: LargePages::On,
        };
        table.map(&run, &mut Budget::unlimited()).unwrap();
        assert_eq!(unmap(&mut table, 0x4_0000, 0x40, 1), Ok(ByteLen::new(0x4_0000)));
        assert_eq!(table.mapped(), ByteLen::new(0x20 * PAGE));
    }

    #[test]
    fn a_range_that_is_not_whole_leaves_is_refused() {
        let mut table = mapped(0x20_0000, 1);
        let range = |start, last| IovaRange::new(Iova::new(start), Iova::new(last)).unwrap();
        for bad in [range(0x20_0800, 0x20_0fff), range(0x20_0000, 0x20_0ffe), range(0, (1 << 48) + 0xfff)] {
            let error = table.unmap(bad, &mut Budget::unlimited()).unwrap_err();
            assert!(matches!(error, UnmapError::Shape { .. }), "{bad}");
        }
        assert_eq!(table.mapped(), ByteLen::new(PAGE));
    }
}
