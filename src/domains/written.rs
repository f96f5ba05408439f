//! Pages that were written to, and that nobody was told of yet: a set.
//!
//! It is made of the bits of dirty logs, and holds what is not in one: what came from walkers that are gone, and what was
//! taken for an answer that could not be given.
//!
//! Imports allowed: units, the client crate's layouts.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use ioasd_client::layout::{LogBits, LogShape, LogWord};
use ioasd_client::units::IovaRange;

/// Words that are kept together: 512 bytes, for 4096 pages.
const CHUNK: usize = 64;

/// A set of pages of IOVA.
#[derive(Clone, Debug)]
pub struct Written {
    shape: LogShape,
    chunks: BTreeMap<u64, Box<[u64; CHUNK]>>,
}

/// Where a word lies.
#[derive(Clone, Copy)]
struct Place {
    chunk: u64,
    index: usize,
}

impl Place {
    fn of(word: LogWord) -> Self {
        let index = usize::try_from(word.get() % CHUNK as u64).unwrap_or(0);
        Self { chunk: word.get() / CHUNK as u64, index }
    }

    const fn word(self) -> LogWord {
        LogWord::new(self.chunk * CHUNK as u64 + self.index as u64)
    }
}

impl Written {
    /// No page.
    #[must_use]
    pub const fn nothing(shape: LogShape) -> Self {
        Self { shape, chunks: BTreeMap::new() }
    }

    /// The bits that stand for its pages.
    #[must_use]
    pub const fn shape(&self) -> LogShape {
        self.shape
    }

    /// Whether there is no page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Adds pages.
    pub fn add(&mut self, LogBits { word, bits }: LogBits) {
        let Place { chunk, index } = Place::of(word);
        if bits == 0 {
            return;
        }
        let chunk = self.chunks.entry(chunk).or_insert_with(|| Box::new([0; CHUNK]));
        if let Some(word) = chunk.get_mut(index) {
            *word |= bits;
        }
    }

    /// Adds all pages that `range` touches.
    pub fn add_range(&mut self, range: IovaRange) {
        self.shape.bits(range).for_each(|bits| self.add(bits));
    }

    /// Adds everything that is in `other`.
    pub fn add_all(&mut self, other: &Self) {
        other.all().for_each(|bits| self.add(bits));
    }

    /// Those of its pages that a range touches.
    #[must_use]
    pub fn copy_of(&self, range: IovaRange) -> Self {
        let mut copy = Self::nothing(self.shape);
        for (chunk, words) in self.chunks.range(self.chunks_of(range)) {
            for bits in self.bits_in(*chunk, range) {
                let word = words.get(Place::of(bits.word).index).copied().unwrap_or(0);
                copy.add(LogBits { bits: word & bits.bits, ..bits });
            }
        }
        copy
    }

    /// Takes the pages out that a range touches.
    pub fn take(&mut self, range: IovaRange) -> Self {
        let taken = self.copy_of(range);
        for LogBits { word, bits } in taken.all() {
            let Place { chunk, index } = Place::of(word);
            let Entry::Occupied(mut chunk) = self.chunks.entry(chunk) else { continue };
            chunk.get_mut().get_mut(index).into_iter().for_each(|word| *word &= !bits);
            if chunk.get().iter().all(|word| *word == 0) {
                chunk.remove();
            }
        }
        taken
    }

    /// The chunks that have something of a range.
    fn chunks_of(&self, range: IovaRange) -> Range<u64> {
        let chunk = |bits: LogBits| Place::of(bits.word).chunk;
        let first = self.shape.bits(range).next().map_or(0, chunk);
        let last = range.last();
        let last = IovaRange::new(last, last)
            .and_then(|last| self.shape.bits(last).next())
            .map_or(u64::MAX - 1, chunk);
        first..last + 1
    }

    /// The bits of a range in one chunk.
    fn bits_in(&self, chunk: u64, range: IovaRange) -> impl Iterator<Item = LogBits> + use<> {
        let here = self.shape.run(chunk, CHUNK as u64).and_then(|here| here.intersection(range));
        let shape = self.shape;
        here.into_iter().flat_map(move |here| shape.bits(here))
    }

    /// Its pages: ranges of pages side by side, cut at the ends of words.
    pub fn ranges(&self) -> impl Iterator<Item = IovaRange> {
        self.all().flat_map(|bits| self.shape.ranges(bits))
    }

    fn all(&self) -> impl Iterator<Item = LogBits> {
        let words = self.chunks.iter().flat_map(|(chunk, words)| {
            let place = |index| Place { chunk: *chunk, index };
            words
                .iter()
                .enumerate()
                .map(move |(index, bits)| LogBits { word: place(index).word(), bits: *bits })
        });
        words.filter(|bits| bits.bits != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ioasd_client::formats::{AmdV1, Geometry};
    use ioasd_client::units::{ByteLen, Iova};

    use super::*;

    const PAGES: u64 = 20_000;

    fn nothing() -> Written {
        Written::nothing(LogShape::of(Geometry::of::<AmdV1<4>>()))
    }

    fn range(page: u64, pages: u64) -> IovaRange {
        IovaRange::from_length(Iova::new(page << 12), ByteLen::new(pages << 12)).unwrap()
    }

    fn pages(written: &Written) -> BTreeSet<u64> {
        let pages = |range: IovaRange| range.start().get() >> 12..=range.last().get() >> 12;
        written.ranges().flat_map(pages).collect()
    }

    #[test]
    fn what_is_added_and_not_taken_is_there() {
        let (mut written, mut expected) = (nothing(), BTreeSet::new());
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..300 {
            let (page, count) = (rng.u64(..PAGES), rng.u64(1..300));
            let touched: BTreeSet<u64> = (page..page + count).collect();
            if rng.bool() {
                written.add_range(range(page, count));
                expected.extend(&touched);
                continue;
            }
            let there: BTreeSet<u64> = expected.intersection(&touched).copied().collect();
            assert_eq!(pages(&written.copy_of(range(page, count))), there);
            assert_eq!(pages(&written.take(range(page, count))), there);
            expected.retain(|page| !touched.contains(page));
        }
        assert_eq!(pages(&written), expected);
        let mut both = nothing();
        both.add_range(range(PAGES + 500, 3));
        both.add_all(&written);
        expected.extend(PAGES + 500..PAGES + 503);
        assert_eq!(pages(&both), expected);
    }

    #[test]
    fn nothing_is_kept_of_what_was_taken() {
        let mut written = nothing();
        written.add_range(range(5, PAGES));
        assert_eq!(pages(&written.take(range(0, PAGES + 9))).len() as u64, PAGES);
        assert!(written.is_empty());
    }
}
