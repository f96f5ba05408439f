//! Which pages of a range were written to, one bit a page, as GET_DIRTY_BITMAP tells it.
//!
//! A bitmap may be given in parts: a part is some bytes of it. Bits are set, never cleared.
//!
//! Imports allowed: units.

use std::num::NonZeroU64;

use ioasd_client::units::{ByteLen, Iova, IovaRange};

/// What a bitmap is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyPages {
    /// All addresses.
    pub range: IovaRange,
    /// Bytes that one bit stands for; the range is a multiple of it.
    pub page_size: NonZeroU64,
}

/// Some bytes of a bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirtyBitmap {
    range: IovaRange,
    page_size: NonZeroU64,
    bytes: Vec<u8>,
}

impl DirtyPages {
    /// Bytes of the whole bitmap.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.last_page() / 8 + 1
    }

    fn last_page(&self) -> u64 {
        self.range.last().offset_from(self.range.start()).get() / self.page_size
    }

    /// The addresses that the pages of `count` bytes stand for, from byte `first` of the bitmap on.
    fn of_bytes(&self, first: u64, count: u64) -> Option<IovaRange> {
        let page = first.checked_mul(8)?;
        let last_page = page.checked_add(count.checked_mul(8)?.checked_sub(1)?)?.min(self.last_page());
        let start = self.range.start().checked_add(page.checked_mul(self.page_size.get())?)?;
        let last = last_page.checked_mul(self.page_size.get())?.checked_add(self.page_size.get() - 1)?;
        IovaRange::new(start, self.range.start().checked_add(last)?)
    }
}

impl DirtyBitmap {
    /// The part of a bitmap that begins with its byte `first` and is `bytes` as yet; `None` if nothing of it is about a page.
    #[must_use]
    pub fn part(pages: DirtyPages, first: ByteLen, bytes: Vec<u8>) -> Option<Self> {
        let range = pages.of_bytes(first.get(), bytes.len() as u64)?;
        Some(Self { range, page_size: pages.page_size, bytes })
    }

    /// The addresses that this part is about.
    #[must_use]
    pub const fn range(&self) -> IovaRange {
        self.range
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Sets the bits of all pages that `dirty` touches.
    pub fn set(&mut self, dirty: IovaRange) {
        let Some(dirty) = self.range.intersection(dirty) else { return };
        let page_of = |iova: Iova| {
            usize::try_from(iova.offset_from(self.range.start()).get() / self.page_size).unwrap_or(usize::MAX)
        };
        let (first, last) = (page_of(dirty.start()), page_of(dirty.last()));
        let (head, tail) = (u8::MAX << (first % 8), u8::MAX >> (7 - last % 8));
        let touched = self.bytes.get_mut(first / 8..=last / 8).unwrap_or_default();
        match touched {
            [] => {}
            [only] => *only |= head & tail,
            [begin, between @ .., end] => {
                *begin |= head;
                between.fill(u8::MAX);
                *end |= tail;
            }
        }
    }

    /// First addresses of the pages whose bits are set.
    pub fn pages(&self) -> impl Iterator<Item = Iova> {
        let bits = self.bytes.iter().enumerate().flat_map(|(byte, bits)| {
            (0..8).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| 8 * byte as u64 + bit)
        });
        let start = |page: u64| self.range.start().checked_add(page.checked_mul(self.page_size.get())?);
        bits.map_while(start).take_while(|iova| *iova <= self.range.last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x10_0000;

    fn range(start: u64, length: u64) -> IovaRange {
        IovaRange::from_length(Iova::new(start), ByteLen::new(length)).unwrap()
    }

    fn pages(count: u64) -> DirtyPages {
        DirtyPages { range: range(START, count << 12), page_size: NonZeroU64::new(1 << 12).unwrap() }
    }

    fn whole(count: u64) -> DirtyBitmap {
        let bytes = usize::try_from(pages(count).bytes()).unwrap();
        DirtyBitmap::part(pages(count), ByteLen::new(0), vec![0; bytes]).unwrap()
    }

    #[test]
    fn every_page_that_is_touched_has_its_bit() {
        for (first, count) in [(0, 1), (7, 1), (8, 1), (3, 4), (7, 2), (0, 20), (5, 12), (19, 1)] {
            let mut bitmap = whole(20);
            bitmap.set(range(START + (first << 12) + 5, (count << 12) - 9));
            let expected: Vec<_> =
                (first..first + count).map(|page| Iova::new(START + (page << 12))).collect();
            assert_eq!(bitmap.pages().collect::<Vec<_>>(), expected, "{first} {count}");
        }
    }

    #[test]
    fn what_lies_outside_is_left_alone_and_bits_are_never_cleared() {
        let mut bitmap = DirtyBitmap::part(pages(20), ByteLen::new(0), vec![0x40, 0, 0]).unwrap();
        bitmap.set(range(START - 0x1000, 0x1000));
        bitmap.set(range(START - 0x1000, 0x2000));
        bitmap.set(range(START + (20 << 12), 0x1000));
        bitmap.set(range(0, 1 << 40).intersection(range(START + (19 << 12), 1 << 30)).unwrap());
        assert_eq!(bitmap.into_bytes(), [0x41, 0, 8]);
    }

    #[test]
    fn a_part_is_about_the_pages_of_its_bytes() {
        let part = |first, bytes| DirtyBitmap::part(pages(20), ByteLen::new(first), vec![0; bytes]);
        assert_eq!(part(1, 1).map(|part| part.range()), Some(range(START + (8 << 12), 8 << 12)));
        assert_eq!(part(2, 9).map(|part| part.range()), Some(range(START + (16 << 12), 4 << 12)));
        assert_eq!([part(3, 1), part(0, 0), part(u64::MAX, 1)], [None, None, None]);
        assert_eq!(pages(20).bytes(), 3);
        let all = DirtyPages { range: IovaRange::ALL, page_size: NonZeroU64::new(1).unwrap() };
        assert_eq!(all.bytes(), 1 << 61);
        assert!(DirtyBitmap::part(all, ByteLen::new((1 << 61) - 1), vec![0; 1]).is_some());
    }
}
