//! Tier 1: the `pinned_pfns` cache of one pages object, the frames of every page that an access covers.
//!
//! Pages are grouped by 512. A group whose frames are contiguous costs less than 0.1 bytes a page, any other 4 (frames of 32
//! bits) or 8 bytes. Who stores and erases keeps the rule that a page is cached exactly while an access covers it;
//! this is only the memory for it.
//!
//! Imports allowed: units, error, fault_points, pfn, pfn_chunk.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ioasd_client::units::{ByteLen, IndexRange, PageIndex, Pfn};

use super::pfn::PfnBatch;
use super::pfn_chunk::{CHUNK_PAGES, Chunk, Form, Piece};
use crate::error::{Coded, Errno};
use crate::fault_points::{self, Injected, Point};

/// Why the cache could not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// No memory for the frames; nothing was stored.
    #[error(
        "no memory to cache the frames of pages from {first} on, {pages} pages: {cause}; pin fewer pages"
    )]
    NoMemory {
        /// First page of the batch.
        first: PageIndex,
        /// Pages of the batch.
        pages: u64,
        /// What failed.
        cause: Injected,
    },
    /// A page that was expected here is not cached.
    #[error("page {index} is not in the cache, although an access should hold it")]
    Missing {
        /// The page.
        index: PageIndex,
    },
}

impl Coded for CacheError {
    fn errno(&self) -> Errno {
        match self {
            Self::NoMemory { .. } => Errno::NOMEM,
            Self::Missing { .. } => Errno::IO,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoMemory { .. } => "cache-no-memory",
            Self::Missing { .. } => "cache-page-missing",
        }
    }
}

type ChunkNumber = u64;

fn locate(index: PageIndex) -> (ChunkNumber, u16) {
    let chunk_pages = u64::from(CHUNK_PAGES);
    (index.get() / chunk_pages, u16::try_from(index.get() % chunk_pages).unwrap_or(0))
}

/// The pages of `chunk` that belong to `range`: from, and up to but without.
fn within(range: IndexRange, chunk: ChunkNumber) -> (u16, u16) {
    let ((first_chunk, from), (last_chunk, last)) = (locate(range.first()), locate(range.last()));
    let from = if chunk == first_chunk { from } else { 0 };
    (from, if chunk == last_chunk { last + 1 } else { CHUNK_PAGES })
}

/// The runs of a batch, cut at the edges of chunks.
fn pieces_of(batch: &PfnBatch) -> Vec<(ChunkNumber, Piece)> {
    let mut pieces = Vec::with_capacity(batch.runs().len());
    for (index, run) in batch.spans() {
        let mut done = 0;
        while done < run.pages {
            let (chunk, first) = locate(PageIndex::new(index.get() + u64::from(done)));
            let pages = u16::try_from(run.pages - done).unwrap_or(CHUNK_PAGES).min(CHUNK_PAGES - first);
            pieces.push((chunk, Piece { first, pages, pfn: Pfn::new(run.pfn.get() + u64::from(done)) }));
            done += u32::from(pages);
        }
    }
    pieces
}

/// The pieces of one chunk.
struct Group {
    chunk: ChunkNumber,
    pieces: Vec<Piece>,
}

fn groups_of(batch: &PfnBatch) -> Vec<Group> {
    let pieces = pieces_of(batch);
    let of_one_chunk = pieces.chunk_by(|(left, _), (right, _)| left == right);
    of_one_chunk
        .filter_map(|group| {
            let chunk = group.first()?.0;
            Some(Group { chunk, pieces: group.iter().map(|(_, piece)| *piece).collect() })
        })
        .collect()
}

/// A sparse array of frames by page.
#[derive(Clone, Debug, Default)]
pub struct PinnedPfns {
    chunks: BTreeMap<ChunkNumber, Chunk>,
    pages: u64,
    array_bytes: usize,
}

impl PinnedPfns {
    /// An empty cache.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the frames of `batch`. A page that is cached already must have the same frame.
    ///
    /// # Errors
    /// If there is no memory; nothing of the batch is stored then.
    pub fn store(&mut self, batch: &PfnBatch) -> Result<(), CacheError> {
        let groups = groups_of(batch);
        for group in &groups {
            self.reserve(group).map_err(|cause| CacheError::NoMemory {
                first: batch.first(),
                pages: batch.pages(),
                cause,
            })?;
        }
        groups.iter().for_each(|group| self.store_group(group));
        Ok(())
    }

    /// Everything of a store that may fail, so that what follows cannot.
    fn reserve(&self, group: &Group) -> Result<(), Injected> {
        let chunk = self.chunks.get(&group.chunk);
        let form = Form::needed(chunk, &group.pieces);
        if chunk.is_some_and(|chunk| form.is_form_of(chunk)) {
            return Ok(());
        }
        fault_points::hit(Point::CacheAlloc)
    }

    fn store_group(&mut self, group: &Group) {
        let entry = self.chunks.entry(group.chunk);
        let form = match &entry {
            Entry::Vacant(_) => Form::needed(None, &group.pieces),
            Entry::Occupied(chunk) => Form::needed(Some(chunk.get()), &group.pieces),
        };
        let chunk = entry.or_insert(Chunk::EMPTY);
        let (pages, bytes) = (chunk.pages(), chunk.heap_bytes());
        chunk.store(form, &group.pieces);
        self.pages = self.pages + u64::from(chunk.pages()) - u64::from(pages);
        self.array_bytes = self.array_bytes + chunk.heap_bytes() - bytes;
    }

    /// Forgets the frames of `range`; pages that are not cached are passed over. Cannot fail.
    pub fn erase(&mut self, range: IndexRange) {
        let (mut next, last) = (locate(range.first()).0, locate(range.last()).0);
        while next <= last
            && let Some((number, chunk)) = self.chunks.range_mut(next..=last).next()
        {
            let number = *number;
            let (pages, bytes) = (chunk.pages(), chunk.heap_bytes());
            let (from, end) = within(range, number);
            chunk.erase(from, end);
            let left = chunk.pages();
            self.pages -= u64::from(pages - left);
            self.array_bytes = self.array_bytes + chunk.heap_bytes() - bytes;
            if left == 0 {
                self.remove_empty(number);
            }
            next = number + 1;
        }
    }

    fn remove_empty(&mut self, number: ChunkNumber) {
        if let Some(chunk) = self.chunks.remove(&number) {
            self.array_bytes -= chunk.heap_bytes();
        }
    }

    /// Appends the frames of `range`, whose start is the end of `batch`, until the batch is full, the range ends or a
    /// page is missing.
    ///
    /// # Errors
    /// If the first page of `range` is missing; nothing is appended then.
    pub fn read(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), CacheError> {
        debug_assert_eq!(batch.end(), range.first(), "a read does not continue its batch");
        let first = range.first();
        if self.get(first).is_none() {
            return Err(CacheError::Missing { index: first });
        }
        let (first_chunk, last_chunk) = (locate(first).0, locate(range.last()).0);
        let chunks = self.chunks.range(first_chunk..=last_chunk).zip(first_chunk..);
        for ((_, chunk), number) in chunks.take_while(|((number, _), wanted)| **number == *wanted) {
            let (from, end) = within(range, number);
            if !read_chunk(chunk, from, end, batch) {
                break;
            }
        }
        Ok(())
    }

    /// The frame of `index`, if cached.
    #[must_use]
    pub fn get(&self, index: PageIndex) -> Option<Pfn> {
        let (chunk, at) = locate(index);
        self.chunks.get(&chunk)?.piece(at, at + 1).map(|piece| piece.pfn)
    }

    /// Pages cached.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// Memory the frames take.
    #[must_use]
    pub fn bytes(&self) -> ByteLen {
        let bytes = self.chunks.len() * size_of::<(ChunkNumber, Chunk)>() + self.array_bytes;
        ByteLen::new(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// Panics unless the cache keeps its rules. For tests.
    pub fn check(&self) {
        self.chunks.values().for_each(Chunk::check);
        let pages: u64 = self.chunks.values().map(|chunk| u64::from(chunk.pages())).sum();
        assert_eq!(pages, self.pages, "the page count of the cache drifted from its chunks");
        let bytes: usize = self.chunks.values().map(Chunk::heap_bytes).sum();
        assert_eq!(bytes, self.array_bytes, "the memory count of the cache drifted from its chunks");
    }
}

/// Appends the frames of a chunk; whether all of them were there and fitted.
fn read_chunk(chunk: &Chunk, mut from: u16, end: u16, batch: &mut PfnBatch) -> bool {
    while from < end {
        let Some(piece) = chunk.piece(from, end) else {
            return false;
        };
        let pages = u64::from(piece.pages);
        if batch.push(piece.pfn, pages) < pages {
            return false;
        }
        from += piece.pages;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::pfn::RunLimit;

    fn range(first: u64, last: u64) -> IndexRange {
        IndexRange::new(PageIndex::new(first), PageIndex::new(last)).unwrap()
    }

    fn batch(first: u64, runs: &[(u64, u64)]) -> PfnBatch {
        let mut batch = PfnBatch::new(PageIndex::new(first), RunLimit::DEFAULT).unwrap();
        for (pfn, pages) in runs {
            assert_eq!(batch.push(Pfn::new(*pfn), *pages), *pages);
        }
        batch
    }

    fn read(cache: &PinnedPfns, wanted: IndexRange, limit: u32) -> PfnBatch {
        let mut batch = PfnBatch::new(wanted.first(), RunLimit::new(limit)).unwrap();
        cache.read(wanted, &mut batch).unwrap();
        batch
    }

    #[test]
    fn a_contiguous_object_stays_runs_and_is_read_as_one() {
        let mut cache = PinnedPfns::new();
        for part in 0..8 {
            cache.store(&batch(part * 1000, &[(7 + part * 1000, 1000)])).unwrap();
            cache.check();
        }
        assert!(cache.bytes().get() < 8000 / 10, "{} bytes", cache.bytes());
        assert_eq!(read(&cache, range(0, 7999), 1).pages(), 8000);
        cache.erase(range(0, 7998));
        cache.check();
        assert_eq!((cache.pages(), cache.get(PageIndex::new(7999))), (1, Some(Pfn::new(8006))));
    }

    #[test]
    fn scattered_frames_take_four_bytes_and_far_ones_eight() {
        let runs: Vec<_> = (0..5120).map(|page| (page * 2, 1)).collect();
        let mut near = PinnedPfns::new();
        near.store(&batch(0, &runs)).unwrap();
        assert_eq!(near.bytes().get() / 1024, 5120 * 4 / 1024);
        let far_runs: Vec<_> = runs.iter().map(|(pfn, pages)| (pfn + (1 << 40), *pages)).collect();
        let mut far = PinnedPfns::new();
        far.store(&batch(0, &far_runs[..5000])).unwrap();
        assert!(far.bytes().get() >= 5000 * 8);
        assert_eq!(far.get(PageIndex::new(4999)), Some(Pfn::new(9998 + (1 << 40))));
    }

    #[test]
    fn frames_at_the_edge_of_32_bits_are_kept() {
        let edge = u64::from(u32::MAX);
        for pfn in [edge - 2, edge - 1, edge, edge + 1] {
            let mut cache = PinnedPfns::new();
            cache.store(&batch(0, &[(5, 1), (pfn, 1)])).unwrap();
            cache.store(&batch(9, &[(pfn - 1, 2)])).unwrap();
            cache.check();
            assert_eq!(cache.get(PageIndex::new(1)), Some(Pfn::new(pfn)));
            assert_eq!(cache.get(PageIndex::new(10)), Some(Pfn::new(pfn)));
            assert_eq!(cache.get(PageIndex::new(2)), None);
            assert_eq!(cache.pages(), 4);
        }
    }

    #[test]
    fn a_read_stops_at_a_gap_and_refuses_to_start_in_one() {
        let mut cache = PinnedPfns::new();
        cache.store(&batch(500, &[(100, 12)])).unwrap();
        cache.store(&batch(1024, &[(112, 5)])).unwrap();
        assert_eq!(read(&cache, range(505, 1026), 9).range(), Some(range(505, 511)));
        let missing = cache.read(range(512, 1026), &mut batch(512, &[])).unwrap_err();
        assert_eq!(missing, CacheError::Missing { index: PageIndex::new(512) });
        assert_eq!(missing.errno(), Errno::IO);
    }

    #[test]
    fn storing_the_same_frames_again_changes_nothing() {
        let mut cache = PinnedPfns::new();
        for stored in [batch(3, &[(50, 9)]), batch(5, &[(52, 2)]), batch(20, &[(1, 1), (9, 1)])] {
            cache.store(&stored).unwrap();
            let (pages, bytes) = (cache.pages(), cache.bytes());
            cache.store(&stored).unwrap();
            assert_eq!((cache.pages(), cache.bytes()), (pages, bytes));
            cache.check();
        }
        assert_eq!(cache.pages(), 11);
    }

    #[test]
    fn random_stores_and_erasures_match_a_map() {
        for seed in 0..60 {
            println!("seed {seed}");
            compare_with_map(seed);
        }
    }

    const PAGES: u64 = 3000;

    fn compare_with_map(seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut cache = PinnedPfns::new();
        let mut map: BTreeMap<u64, u64> = BTreeMap::new();
        for _ in 0..120 {
            let first = rng.u64(..PAGES);
            let last = (first + rng.u64(..900)).min(PAGES - 1);
            if rng.u8(..5) < 2 {
                cache.erase(range(first, last));
                map.retain(|index, _| !(first..=last).contains(index));
            } else {
                store_random(&mut rng, &mut cache, &mut map, first, last);
            }
            cache.check();
            compare(&cache, &map, rng.u64(..PAGES), seed);
        }
    }

    /// Contiguous, scattered or far frames for the pages from `first` that are not cached yet.
    fn store_random(
        rng: &mut fastrand::Rng,
        cache: &mut PinnedPfns,
        map: &mut BTreeMap<u64, u64>,
        first: u64,
        last: u64,
    ) {
        let end = map.range(first..=last).next().map_or(last + 1, |(index, _)| *index);
        let kind = rng.u8(..10);
        let mut stored = batch(first, &[]);
        for index in first..end {
            let pfn = match kind {
                0..=5 => index + 77,
                6..=8 => rng.u64(..1 << 31),
                _ => rng.u64(u64::from(u32::MAX) - 5..1 << 33),
            };
            assert_eq!(stored.push(Pfn::new(pfn), 1), 1);
            map.insert(index, pfn);
        }
        cache.store(&stored).unwrap();
    }

    fn compare(cache: &PinnedPfns, map: &BTreeMap<u64, u64>, from: u64, seed: u64) {
        assert_eq!(cache.pages(), u64::try_from(map.len()).unwrap(), "seed {seed}");
        for index in 0..PAGES {
            let found = cache.get(PageIndex::new(index)).map(Pfn::get);
            assert_eq!(found, map.get(&index).copied(), "seed {seed}, page {index}");
        }
        let mut wanted = batch(from, &[]);
        for (_, pfn) in (from..PAGES).map_while(|index| map.get_key_value(&index)) {
            assert_eq!(wanted.push(Pfn::new(*pfn), 1), 1);
        }
        if wanted.is_empty() {
            assert!(cache.read(range(from, PAGES - 1), &mut wanted).is_err());
        } else {
            assert_eq!(read(cache, range(from, PAGES - 1), 5461), wanted, "seed {seed}, from {from}");
        }
    }
}
