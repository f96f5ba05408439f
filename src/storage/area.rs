//! The shape of an area: which IOVAs show which pages, byte by byte.
//!
//! An area shows a slice of a pages object. Its first page may be shown from the middle (`page_offset`), its last page
//! up to the middle. Page `first` therefore starts at `iova.start`, and page `first + k`, k > 0, at
//! `iova.start - page_offset + k * P`: an IOVA need not be congruent to its offset in the page.
//!
//! Imports allowed: units.

use ioasd_client::units::{ByteLen, IndexRange, Iova, IovaRange, PAGE_SIZE, PageIndex};

/// Where an area lies and what it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AreaShape {
    iova: IovaRange,
    first: PageIndex,
    page_offset: u16,
}

impl AreaShape {
    /// The area at `iova` that shows the bytes of a pages object from `offset` on.
    #[must_use]
    pub fn new(iova: IovaRange, offset: ByteLen) -> Self {
        let page_offset = u16::try_from(offset.get() % PAGE_SIZE).unwrap_or(0);
        Self { iova, first: PageIndex::containing(offset), page_offset }
    }

    /// The IOVAs.
    #[must_use]
    pub const fn iova(&self) -> IovaRange {
        self.iova
    }

    /// Bytes of the first page that the area does not show.
    #[must_use]
    pub const fn page_offset(&self) -> ByteLen {
        ByteLen::new(self.page_offset as u64)
    }

    /// Offset of the area's first byte in the pages object.
    #[must_use]
    pub const fn byte_offset(&self) -> ByteLen {
        ByteLen::new(self.first.byte_offset().get() + self.page_offset as u64)
    }

    /// The pages it shows, wholly or in part.
    #[must_use]
    pub fn indexes(&self) -> IndexRange {
        self.indexes_of(self.iova).unwrap_or(IndexRange::single(self.first))
    }

    /// The pages behind `range`, as far as the area shows it.
    #[must_use]
    pub fn indexes_of(&self, range: IovaRange) -> Option<IndexRange> {
        let range = range.intersection(self.iova)?;
        IndexRange::new(self.index_of(range.start()), self.index_of(range.last()))
    }

    /// The page behind `iova`, which must lie in the area.
    #[must_use]
    pub const fn index_of(&self, iova: Iova) -> PageIndex {
        PageIndex::containing(self.offset_of(iova))
    }

    /// The offset in the pages object of the byte at `iova`, which must lie in the area.
    #[must_use]
    pub const fn offset_of(&self, iova: Iova) -> ByteLen {
        ByteLen::new(self.byte_offset().get() + iova.offset_from(self.iova.start()).get())
    }

    /// The IOVAs at which `range` is shown; `None` if the area shows none of it.
    #[must_use]
    pub fn iova_of(&self, range: IndexRange) -> Option<IovaRange> {
        let range = range.intersection(self.indexes())?;
        IovaRange::new(self.start_of(range.first()), self.last_of(range.last()))
    }

    /// The first IOVA of page `index`, which must be shown.
    #[must_use]
    pub const fn start_of(&self, index: PageIndex) -> Iova {
        if index.get() <= self.first.get() {
            return self.iova.start();
        }
        let pages = (index.get() - self.first.get()) * PAGE_SIZE;
        Iova::new(self.iova.start().get() + (pages - self.page_offset as u64))
    }

    fn last_of(&self, index: PageIndex) -> Iova {
        let into_area =
            (index.get() - self.first.get()) * PAGE_SIZE + (PAGE_SIZE - 1 - u64::from(self.page_offset));
        self.iova.start().checked_add(into_area).map_or(self.iova.last(), |last| last.min(self.iova.last()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(iova: u64, length: u64, offset: u64) -> AreaShape {
        let iova = IovaRange::from_length(Iova::new(iova), ByteLen::new(length)).unwrap();
        AreaShape::new(iova, ByteLen::new(offset))
    }

    #[test]
    fn the_second_page_starts_before_the_iova_plus_one_page_when_the_first_is_cut() {
        let area = shape(0x10_0000, 2 * PAGE_SIZE, 3 * PAGE_SIZE + 2048);
        assert_eq!(area.indexes(), IndexRange::from_length(PageIndex::new(3), 3).unwrap());
        assert_eq!(area.start_of(PageIndex::new(3)), Iova::new(0x10_0000));
        assert_eq!(area.start_of(PageIndex::new(4)), Iova::new(0x10_0000 + 2048));
        let second = area.iova_of(IndexRange::single(PageIndex::new(4))).unwrap();
        assert_eq!(second.length(), ByteLen::new(PAGE_SIZE));
        let third = area.iova_of(IndexRange::single(PageIndex::new(5))).unwrap();
        assert_eq!((third.last(), third.length()), (area.iova().last(), ByteLen::new(2048)));
    }

    #[test]
    fn an_area_may_end_at_the_last_address() {
        let area = shape(u64::MAX - PAGE_SIZE + 1, PAGE_SIZE, 100);
        assert_eq!(area.indexes().pages(), 2);
        assert_eq!(area.iova_of(area.indexes()), Some(area.iova()));
    }

    #[test]
    fn every_byte_of_an_area_is_shown_by_exactly_one_page() {
        for (length, offset) in [(1, 0), (1, 4095), (4096, 1), (8192, 0), (12_288, 2048), (5000, 4000)] {
            let area = shape(0x5_0800, length, offset);
            let mut next = area.iova().start();
            for index in area.indexes().first().get()..=area.indexes().last().get() {
                let part = area.iova_of(IndexRange::single(PageIndex::new(index))).unwrap();
                assert_eq!(part.start(), next);
                assert_eq!(area.index_of(part.last()), PageIndex::new(index));
                next = Iova::new(part.last().get() + 1);
            }
            assert_eq!(next.get() - 1, area.iova().last().get());
        }
    }
}
