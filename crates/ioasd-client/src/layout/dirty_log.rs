//! The dirty log of one walker: a memfd with a bit for every page of IOVA that it may have written to.
//!
//! The bits are those of IOVAs, in their order, one for each granule of the format, and lie in little-endian 64-bit words
//! from the beginning of the aperture on. The file is sparse: it is as large as the aperture asks for, and takes memory only
//! where bits were set, a page of it for 32,768 pages of IOVA, of which the tables of what was written there take as much.
//! A bit says nothing of leaves, so that what was written is told page by page whatever their size.
//!
//! Only the walker sets bits, before it gives out memory to be written, and only the agent clears them. The agent believes
//! them: a wrong one makes a page of the walker's own domain be reported, or not.
//!
//! Imports allowed: units, formats.

use crate::formats::Geometry;
use crate::units::{ByteLen, Iova, IovaRange};

/// Bits in a word.
const WORD_BITS: u64 = u64::BITS as u64;

/// Pages in which the file is measured.
const FILE_PAGE: u64 = 4096;

/// Which bit stands for which IOVA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogShape {
    unit_lg2: u32,
    /// Numbers of the first and the last unit of the aperture.
    first: u64,
    last: u64,
}

/// One word of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogWord(u64);

impl LogWord {
    /// Word `number` of the log.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Where it lies in the file.
    #[must_use]
    pub const fn offset(self) -> u64 {
        self.0 * 8
    }
}

/// Some bits of one word of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBits {
    /// The word.
    pub word: LogWord,
    /// The bits.
    pub bits: u64,
}

impl LogShape {
    /// The shape of the logs of a domain.
    #[must_use]
    pub const fn of(geometry: Geometry) -> Self {
        let Geometry { granule_lg2: unit_lg2, aperture, .. } = geometry;
        let (first, last) = (aperture.start().get() >> unit_lg2, aperture.last().get() >> unit_lg2);
        Self { unit_lg2, first, last }
    }

    /// Bytes of the file.
    #[must_use]
    pub const fn bytes(&self) -> ByteLen {
        let words = (self.last - self.first) / WORD_BITS + 1;
        ByteLen::new((words * 8).next_multiple_of(FILE_PAGE))
    }

    /// Bytes of IOVA that a bit stands for.
    #[must_use]
    pub const fn unit(&self) -> u64 {
        1 << self.unit_lg2
    }

    /// The bits of `range`, as far as it lies in the aperture, in their order.
    #[inline]
    pub fn bits(&self, range: IovaRange) -> impl Iterator<Item = LogBits> + use<> {
        let unit = |iova: Iova| iova.get() >> self.unit_lg2;
        let (first, last) = (unit(range.start()).max(self.first), unit(range.last()).min(self.last));
        let (from, to) = (first.wrapping_sub(self.first), last.wrapping_sub(self.first));
        let words = if first <= last { from / WORD_BITS..to / WORD_BITS + 1 } else { 0..0 };
        words.map(move |word| {
            let head = if word == from / WORD_BITS { u64::MAX << (from % WORD_BITS) } else { u64::MAX };
            let tail =
                if word == to / WORD_BITS { u64::MAX >> (WORD_BITS - 1 - to % WORD_BITS) } else { u64::MAX };
            LogBits { word: LogWord(word), bits: head & tail }
        })
    }

    /// `range`, as far as it lies in the aperture, cut where a run of `words` words begins: in the file, as many times that as
    /// lie before it.
    pub fn parts(&self, range: IovaRange, words: u64) -> impl Iterator<Item = IovaRange> + use<> {
        let (shape, mut rest) = (*self, self.bounds().and_then(|bounds| bounds.intersection(range)));
        std::iter::from_fn(move || {
            let here = rest?;
            let units = (here.start().get() >> shape.unit_lg2) - shape.first;
            let run = shape.run(units / (words * WORD_BITS), words)?;
            rest = run.last().checked_add(1).and_then(|next| IovaRange::new(next, here.last()));
            run.intersection(here)
        })
    }

    /// The IOVAs of a run of `words` words, which is number `number`.
    #[must_use]
    pub fn run(&self, number: u64, words: u64) -> Option<IovaRange> {
        let first = self.first + number * words * WORD_BITS;
        let last = first.checked_add(words * WORD_BITS - 1)?.min(self.last);
        IovaRange::new(Iova::new(first << self.unit_lg2), self.end_of(last))
    }

    const fn bounds(&self) -> Option<IovaRange> {
        IovaRange::new(Iova::new(self.first << self.unit_lg2), self.end_of(self.last))
    }

    /// The last address of a unit.
    const fn end_of(&self, unit: u64) -> Iova {
        Iova::new(unit << self.unit_lg2 | (self.unit() - 1))
    }

    /// The IOVAs that bits stand for: a range for each run of bits.
    pub fn ranges(&self, LogBits { word, bits }: LogBits) -> impl Iterator<Item = IovaRange> + use<> {
        let (unit_lg2, base) = (self.unit_lg2, self.first + word.get() * WORD_BITS);
        let mut rest = bits;
        std::iter::from_fn(move || {
            let begin = rest.trailing_zeros();
            let ones = rest.checked_shr(begin)?.trailing_ones();
            rest &= u64::MAX.checked_shl(begin + ones).unwrap_or(0);
            let start = Iova::new((base + u64::from(begin)) << unit_lg2);
            IovaRange::from_length(start, ByteLen::new(u64::from(ones) << unit_lg2))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::{AmdV1, AmdV1Granule2K, FormatId};

    fn range(start: u64, length: u64) -> IovaRange {
        IovaRange::from_length(Iova::new(start), ByteLen::new(length)).unwrap()
    }

    fn shape(start: u64, last: u64) -> LogShape {
        let aperture = IovaRange::new(Iova::new(start), Iova::new(last)).unwrap();
        LogShape::of(Geometry { aperture, ..Geometry::of::<AmdV1<4>>() })
    }

    fn bits(shape: &LogShape, range: IovaRange) -> Vec<(u64, u64)> {
        shape.bits(range).map(|bits| (bits.word.get(), bits.bits)).collect()
    }

    #[test]
    fn a_log_has_a_bit_for_every_granule_of_the_aperture() {
        for format in FormatId::ALL {
            let (geometry, shape) = (format.geometry(), LogShape::of(format.geometry()));
            let units = (geometry.aperture.length().get() >> geometry.granule_lg2).div_ceil(8);
            assert_eq!(shape.bytes().get(), units.next_multiple_of(4096), "{}", format.name());
            let last = shape.bits(range(geometry.aperture.last().get(), 1)).next().unwrap();
            assert!(last.word.offset() + 8 <= shape.bytes().get());
        }
        assert_eq!(LogShape::of(Geometry::of::<AmdV1Granule2K>()).unit(), 0x800);
    }

    #[test]
    fn bits_are_those_of_the_pages_that_are_touched() {
        let shape = shape(0x10_0000, 0xfff_ffff);
        assert_eq!(bits(&shape, range(0x10_0fff, 2)), [(0, 0b11)]);
        assert_eq!(bits(&shape, range(0x13_f000, 0x1000)), [(0, 1 << 63)]);
        assert_eq!(bits(&shape, range(0x13_f000, 0x4_2000)), [(0, 1 << 63), (1, u64::MAX), (2, 1)]);
        assert_eq!(bits(&shape, range(0, 0x10_1000)), [(0, 1)], "what is below the aperture has no bits");
        assert_eq!(bits(&shape, range(0xfff_f000, 1 << 40)), [(0x3fb, 1 << 63)]);
        assert_eq!([range(0, 0x10_0000), range(1 << 28, 1)].map(|range| bits(&shape, range)), [[], []]);
        assert_eq!(bits(&shape, IovaRange::ALL).len() as u64, shape.bytes().get() / 8 - 4);
    }

    #[test]
    fn parts_are_cut_where_runs_of_words_begin() {
        let shape = shape(0x10_0000, 0xfff_ffff);
        let parts: Vec<_> = shape.parts(range(0x17_f000, 0x20_0000), 4).collect();
        let expected = [(0x17_f000, 0x8_1000), (0x20_0000, 0x10_0000), (0x30_0000, 0x7_f000)];
        assert_eq!(parts, expected.map(|(start, length)| range(start, length)));
        assert_eq!(
            shape.parts(range(0, 1 << 40), 1 << 20).collect::<Vec<_>>(),
            [range(0x10_0000, 0xff0_0000)]
        );
        assert_eq!(shape.parts(range(1 << 28, 1), 4).next(), None);
        assert_eq!(shape.run(1, 4), Some(range(0x20_0000, 0x10_0000)));
    }

    #[test]
    fn ranges_are_the_runs_of_bits() {
        let shape = shape(0x10_0000, 0xfff_ffff);
        let ranges = |word, bits| -> Vec<IovaRange> {
            shape.ranges(LogBits { word: LogWord::new(word), bits }).collect()
        };
        assert_eq!(ranges(0, 0), []);
        assert_eq!(
            ranges(1, 1 << 63 | 0b1101),
            [range(0x14_0000, 0x1000), range(0x14_2000, 0x2000), range(0x17_f000, 0x1000)]
        );
        assert_eq!(ranges(2, u64::MAX), [range(0x18_0000, 0x4_0000)]);
    }
}
