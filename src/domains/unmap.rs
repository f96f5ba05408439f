//! Unmapping: entries are cleared one leaf table at a time; tables that become empty are unlinked and retired.
//!
//! Imports allowed: error, table, the client crate's formats.

use std::sync::atomic::Ordering;

use ioasd_client::formats::{ABSENT, Format, Level};
use ioasd_client::units::{ByteLen, Iova, IovaRange};

use super::error::UnmapError;
use super::map::entries_in_leaf;
use super::table::{Budget, Found, Table};

/// What one step went through.
struct Step {
    bytes: u64,
    missing: u64,
    first_missing: Option<Iova>,
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
            let step = self.unmap_step(at, total - done, budget);
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

    fn unmap_step(&mut self, at: Iova, left: u64, budget: &mut Budget) -> Step {
        let found = self.descend(at);
        if found.level == Level::LEAF {
            self.clear_leaves(&found, at, left, budget)
        } else {
            budget.spend(1);
            let item = 1 << F::item_lg2(found.level);
            let bytes = left.min(item - (at.get() & (item - 1)));
            Step { bytes, missing: bytes, first_missing: Some(at) }
        }
    }

    fn clear_leaves(&mut self, found: &Found, at: Iova, left: u64, budget: &mut Budget) -> Step {
        let entries = entries_in_leaf::<F>(at, (left >> F::GRANULE_LG2).min(budget.left()));
        let (_, rest) = self.arena.words(found.table).split_at(found.index);
        let (mut cleared, mut first_absent) = (0, None);
        for (entry, offset) in rest.iter().take(usize::from(entries)).zip((0..).step_by(1 << F::GRANULE_LG2))
        {
            if entry.load(Ordering::Relaxed) == ABSENT {
                first_absent = first_absent.or(Some(offset));
            } else {
                cleared += 1;
                entry.store(ABSENT, Ordering::Release);
            }
        }
        budget.spend(u64::from(entries));
        self.live.remove(found.table, cleared);
        self.mapped -= u64::from(cleared) << F::GRANULE_LG2;
        if self.live.of(found.table) == 0 {
            self.prune(at);
        }
        let bytes = u64::from(entries) << F::GRANULE_LG2;
        let missing = bytes - (u64::from(cleared) << F::GRANULE_LG2);
        Step { bytes, missing, first_missing: first_absent.and_then(|offset| at.checked_add(offset)) }
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

#[cfg(test)]
mod tests {
    use ioasd_client::formats::AmdV1;
    use ioasd_client::layout::BootId;
    use ioasd_client::units::{Permission, PhysAddr};

    use super::*;
    use crate::domains::arena::ArenaSize;
    use crate::domains::table::DomainTable;

    const PAGE: u64 = 0x1000;

    fn mapped(iova: u64, pages: u64) -> Table<AmdV1<4>> {
        let mut table = Table::new(ArenaSize::new(ByteLen::new(1 << 22)), BootId([0; 16])).unwrap();
        map(&mut table, iova, pages);
        table
    }

    fn map(table: &mut Table<AmdV1<4>>, iova: u64, pages: u64) {
        let length = ByteLen::new(pages * PAGE);
        let mut budget = Budget::unlimited();
        table.map(Iova::new(iova), PhysAddr::new(iova), length, Permission::Read, &mut budget).unwrap();
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
