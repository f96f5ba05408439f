//! Reading frames back out of a table: tier 2.
//!
//! Imports allowed: error, table, storage's area and pfn, the client crate's formats.

use std::sync::atomic::Ordering;

use ioasd_client::formats::{Entry, Format};
use ioasd_client::units::{IndexRange, Iova, PAGE_SIZE, PageIndex, Pfn, PhysAddr};

use super::error::ReadBackError;
use super::table::{Found, Table};
use crate::storage::area::AreaShape;
use crate::storage::pfn::PfnBatch;

/// Contiguous memory behind consecutive addresses.
#[derive(Clone, Copy, Debug)]
struct Extent {
    phys: PhysAddr,
    bytes: u64,
}

impl<F: Format> Table<F> {
    /// See [`DomainTable::read_back`](super::table::DomainTable::read_back).
    pub(super) fn read_frames(
        &self,
        shape: &AreaShape,
        pages: IndexRange,
        batch: &mut PfnBatch,
    ) -> Result<(), ReadBackError> {
        let mut next = pages.first();
        while let Some(rest) = IndexRange::new(next, pages.last()) {
            let iova = shape.start_of(next);
            let extent = self.extent(iova).ok_or(ReadBackError { index: next, iova })?;
            let found = pages_in(shape, next, extent.bytes).min(rest.pages());
            let taken = batch.push(Pfn::containing(extent.phys), found);
            if taken < found {
                break;
            }
            next = PageIndex::new(next.get() + taken);
        }
        Ok(())
    }

    /// The contiguous memory from `iova` on, up to the end of its table.
    fn extent(&self, iova: Iova) -> Option<Extent> {
        let found = self.spec.aperture().contains(iova).then(|| self.descend(iova))?;
        let Entry::Leaf { phys, size_lg2, .. } = found.decoded else {
            return None;
        };
        let within = iova.get() & ((1 << size_lg2) - 1);
        let left = (1 << size_lg2) - within;
        let bytes = left + self.contiguous_after(&found, phys, size_lg2);
        Some(Extent { phys: PhysAddr::new(phys.get() | within), bytes })
    }

    /// Bytes in the leaves of the same table that lie behind a leaf, in address and in memory.
    fn contiguous_after(&self, found: &Found, phys: PhysAddr, size_lg2: u32) -> u64 {
        let item_lg2 = F::item_lg2(found.level);
        let (mut size_lg2, mut index) = (size_lg2, found.index);
        let end_of_first = phys.get() + (1 << size_lg2);
        let mut expected = end_of_first;
        loop {
            let copies = 1_usize << (size_lg2 - item_lg2);
            index = (index & !(copies - 1)) + copies;
            let next = self.arena.words(found.table).get(index).map(|entry| entry.load(Ordering::Relaxed));
            match next.map(|bits| F::decode(bits, found.level)) {
                Some(Entry::Leaf { phys, size_lg2: next_lg2, .. }) if phys.get() == expected => {
                    size_lg2 = next_lg2;
                    expected += 1 << size_lg2;
                }
                _ => return expected - end_of_first,
            }
        }
    }
}

/// How many pages from `first` on begin within `bytes` bytes.
fn pages_in(shape: &AreaShape, first: PageIndex, bytes: u64) -> u64 {
    let shown = shape.iova_of(IndexRange::single(first)).map_or(PAGE_SIZE, |range| range.length().get());
    1 + bytes.saturating_sub(shown).div_ceil(PAGE_SIZE)
}

#[cfg(test)]
mod tests {
    use ioasd_client::formats::AmdV1;
    use ioasd_client::layout::BootId;
    use ioasd_client::units::{ByteLen, IovaRange, Permission};

    use super::*;
    use crate::domains::arena::ArenaSize;
    use crate::domains::map::MapRun;
    use crate::domains::table::{Budget, DomainTable};
    use crate::storage::io_pagetable::LargePages;
    use crate::storage::pfn::{Run, RunLimit};

    const IOVA: u64 = 0x1f_e000;

    /// Pages 4 to 1007 of an object: four scattered frames, then a thousand contiguous ones over three leaf tables.
    fn area() -> (Table<AmdV1<4>>, AreaShape) {
        let mut table = Table::new(ArenaSize::new(ByteLen::new(1 << 22)), BootId([0; 16])).unwrap();
        let mut map = |page: u64, pfn: u64, pages: u64| {
            let (iova, phys) = (Iova::new(IOVA + page * PAGE_SIZE), Pfn::new(pfn).phys());
            let length = ByteLen::new(pages * PAGE_SIZE);
            let (permission, large_pages) = (Permission::ReadWrite, LargePages::On);
            let run = MapRun { iova, phys, length, permission, large_pages };
            table.map(&run, &mut Budget::unlimited()).unwrap();
        };
        for page in 0..4 {
            map(page, 100 - 2 * page, 1);
        }
        map(4, 5000, 1000);
        let iova = IovaRange::from_length(Iova::new(IOVA), ByteLen::new(1004 * PAGE_SIZE)).unwrap();
        (table, AreaShape::new(iova, ByteLen::new(4 * PAGE_SIZE)))
    }

    fn read(first: u64, pages: u64, limit: u32) -> PfnBatch {
        let (table, shape) = area();
        let range = IndexRange::from_length(PageIndex::new(first), pages).unwrap();
        let mut batch = PfnBatch::new(PageIndex::new(first), RunLimit::new(limit)).unwrap();
        table.read_back(&shape, range, &mut batch).unwrap();
        batch.check();
        batch
    }

    #[test]
    fn frames_come_back_as_they_were_mapped() {
        let run = |pfn, pages| Run { pfn: Pfn::new(pfn), pages };
        assert_eq!(
            read(4, 1004, 9).runs(),
            [run(100, 1), run(98, 1), run(96, 1), run(94, 1), run(5000, 1000)]
        );
        assert_eq!(read(7, 3, 9).runs(), [run(94, 1), run(5000, 2)]);
        assert_eq!(read(600, 1, 1).runs(), [run(5592, 1)]);
    }

    #[test]
    fn reading_stops_when_the_batch_is_full() {
        assert_eq!(read(4, 1004, 2).range(), IndexRange::from_length(PageIndex::new(4), 2));
        assert_eq!(read(8, 1000, 1).pages(), 1000);
    }

    #[test]
    fn a_page_that_is_not_mapped_is_named_after_those_before_it_were_read() {
        let (mut table, shape) = area();
        let hole = IovaRange::from_length(Iova::new(IOVA + 50 * PAGE_SIZE), ByteLen::new(PAGE_SIZE)).unwrap();
        table.unmap(hole, &mut Budget::unlimited()).unwrap();
        let mut batch = PfnBatch::new(PageIndex::new(4), RunLimit::DEFAULT).unwrap();
        let error = table.read_back(&shape, shape.indexes(), &mut batch).unwrap_err();
        assert_eq!(error, ReadBackError { index: PageIndex::new(54), iova: hole.start() });
        assert_eq!(batch.pages(), 50);
    }
}
