//! Intervals of pages that may overlap freely and may be equal, each with a value.
//!
//! Pages objects keep two of these: the intervals that accesses hold, and the slices of filled areas. The tree itself
//! is `iset`'s; this module gives it inclusive ranges of pages and names for the questions we ask. Every question
//! costs O(log n) and O(log n) for each interval it yields; intervals come in order of first page, then last page.
//!
//! Imports allowed: units.

use std::ops::{Range, RangeInclusive};

use ioasd_client::units::{IndexRange, PageIndex};
use iset::IntervalMap;

/// Where an interval begins or ends, in half pages: a page `i` begins at `2i` and ends at `2i + 1`.
///
/// With whole pages and exclusive ends, an interval that ends right before a queried page would touch the query; the
/// tree would then look at every such interval before it finds that none matches. Halves keep them apart.
type Edge = u64;

/// The edge at which `index` begins. A pages object has at most 2^52 pages, so nothing is shifted out.
const fn edge(index: PageIndex) -> Edge {
    index.get() << 1
}

const fn edges(range: IndexRange) -> Range<Edge> {
    edge(range.first())..edge(range.last()) + 1
}

const fn query(range: IndexRange) -> RangeInclusive<Edge> {
    edge(range.first())..=edge(range.last())
}

fn range_of(edges: &Range<Edge>) -> IndexRange {
    let first = PageIndex::new(edges.start >> 1);
    IndexRange::new(first, PageIndex::new(edges.end >> 1)).unwrap_or(IndexRange::single(first))
}

/// Intervals of pages with a value each.
#[derive(Clone)]
pub struct IntervalTree<V> {
    map: IntervalMap<Edge, V>,
}

impl<V> Default for IntervalTree<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: std::fmt::Debug> std::fmt::Debug for IntervalTree<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<V> IntervalTree<V> {
    /// A tree without intervals.
    #[must_use]
    pub fn new() -> Self {
        Self { map: IntervalMap::new() }
    }

    /// Adds an interval beside whatever is there, equal intervals included.
    pub fn insert(&mut self, range: IndexRange, value: V) {
        self.map.force_insert(edges(range), value);
    }

    /// Removes one interval that is exactly `range` and whose value `is_meant` accepts.
    pub fn remove(&mut self, range: IndexRange, is_meant: impl FnMut(&V) -> bool) -> Option<V> {
        self.map.remove_where(edges(range), is_meant)
    }

    /// The value of one interval that is exactly `range` and that `is_meant` accepts.
    pub fn get_mut(&mut self, range: IndexRange, mut is_meant: impl FnMut(&V) -> bool) -> Option<&mut V> {
        self.map.values_mut_at(edges(range)).find(|value| is_meant(value))
    }

    /// Every interval that contains `index`.
    pub fn covering(&self, index: PageIndex) -> impl Iterator<Item = (IndexRange, &V)> {
        self.overlapping(IndexRange::single(index))
    }

    /// Every interval that shares a page with `range`.
    pub fn overlapping(&self, range: IndexRange) -> impl Iterator<Item = (IndexRange, &V)> {
        self.map.iter(query(range)).map(|(edges, value)| (range_of(&edges), value))
    }

    /// Whether some interval contains `index`.
    #[must_use]
    pub fn is_covered(&self, index: PageIndex) -> bool {
        self.covering(index).next().is_some()
    }

    /// Every interval.
    pub fn iter(&self) -> impl Iterator<Item = (IndexRange, &V)> {
        self.map.iter(..).map(|(edges, value)| (range_of(&edges), value))
    }

    /// Number of intervals.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is no interval.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Panics unless the tree keeps its rules. For tests.
    pub fn check(&self) {
        let ranges: Vec<_> = self.iter().map(|(range, _)| range).collect();
        assert_eq!(ranges.len(), self.len(), "the interval count drifted from the intervals");
        assert!(ranges.is_sorted(), "intervals out of order");
        for range in ranges {
            assert!(
                self.overlapping(range).any(|(found, _)| found == range),
                "{range} is not found by its pages"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> IndexRange {
        IndexRange::new(PageIndex::new(first), PageIndex::new(last)).unwrap()
    }

    fn values<'a>(found: impl Iterator<Item = (IndexRange, &'a u32)>) -> Vec<u32> {
        let mut values: Vec<_> = found.map(|(_, value)| *value).collect();
        values.sort_unstable();
        values
    }

    #[test]
    fn equal_intervals_are_told_apart_by_their_values() {
        let mut tree = IntervalTree::new();
        for value in 0..3_u32 {
            tree.insert(range(5, 9), value);
        }
        assert_eq!(tree.get_mut(range(5, 9), |value| *value == 2), Some(&mut 2));
        assert_eq!(tree.get_mut(range(5, 8), |_| true), None);
        assert_eq!(tree.remove(range(5, 9), |value| *value == 1), Some(1));
        assert_eq!(tree.remove(range(5, 9), |value| *value == 1), None);
        assert_eq!(values(tree.covering(PageIndex::new(9))), [0, 2]);
        assert!(!tree.is_covered(PageIndex::new(10)));
        tree.check();
    }

    #[test]
    fn the_largest_object_fits() {
        let mut tree = IntervalTree::new();
        let last = PageIndex::new((1 << 52) - 1);
        tree.insert(IndexRange::single(last), ());
        assert!(tree.is_covered(last));
        assert_eq!(tree.iter().next(), Some((IndexRange::single(last), &())));
    }

    #[test]
    fn random_intervals_are_found_as_a_list_finds_them() {
        for seed in 0..40 {
            println!("seed {seed}");
            compare_with_list(seed, if seed % 2 == 0 { 60 } else { 4 });
        }
    }

    /// Few first pages make many equal intervals.
    fn compare_with_list(seed: u64, first_pages: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut tree = IntervalTree::new();
        let mut list: Vec<(IndexRange, u32)> = Vec::new();
        for value in 0..200 {
            if !list.is_empty() && rng.u8(..3) == 0 {
                let (range, value) = list.swap_remove(rng.usize(..list.len()));
                assert_eq!(tree.remove(range, |found| *found == value), Some(value));
            } else {
                let first = rng.u64(..first_pages);
                let range = range(first, first + rng.u64(..1 + first_pages / 3));
                tree.insert(range, value);
                list.push((range, value));
            }
            tree.check();
            let asked_first = rng.u64(..first_pages);
            let asked = range(asked_first, asked_first + rng.u64(..40));
            let wanted = list.iter().filter(|(range, _)| range.intersection(asked).is_some());
            assert_eq!(
                values(tree.overlapping(asked)),
                values(wanted.map(|(range, value)| (*range, value))),
                "seed {seed}, {asked}"
            );
            assert_eq!(tree.len(), list.len());
            assert_eq!(
                tree.is_covered(asked.first()),
                list.iter().any(|(range, _)| range.contains(asked.first()))
            );
        }
    }
}
