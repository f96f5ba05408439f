//! A set of pages as its maximal runs: pages come and go in ranges, and what touches is one run.
//!
//! A contiguous set is one run however large it is, so that many sets over one file can be compared without looking at
//! pages. Adding and taking away cost O(log runs).
//!
//! Imports allowed: units.

use std::collections::BTreeMap;

use ioasd_client::units::{IndexRange, PageIndex};

/// Pages as maximal runs, from the first page of each to its last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extents {
    runs: BTreeMap<u64, u64>,
    pages: u64,
}

impl Extents {
    /// Adds pages, none of which is in the set.
    pub fn add(&mut self, range: IndexRange) {
        let (mut first, mut last) = (range.first().get(), range.last().get());
        let before = self.runs.range(..=last).next_back().map(|(first, last)| (*first, *last));
        debug_assert!(before.is_none_or(|(_, end)| end < first), "{range} is in the set already");
        if let Some((start, _)) = before.filter(|(_, end)| end.checked_add(1) == Some(first)) {
            first = start;
        }
        let behind = last.checked_add(1).and_then(|next| self.runs.remove(&next));
        last = behind.unwrap_or(last);
        self.runs.insert(first, last);
        self.pages = self.pages.saturating_add(range.pages());
    }

    /// Takes pages out, all of which are in the set.
    pub fn remove(&mut self, range: IndexRange) {
        let (first, last) = (range.first().get(), range.last().get());
        let run = self.runs.range(..=first).next_back().map(|(start, end)| (*start, *end));
        let Some((start, end)) = run.filter(|(_, end)| *end >= last) else {
            debug_assert!(false, "{range} is not in the set");
            return;
        };
        self.runs.remove(&start);
        if start < first {
            self.runs.insert(start, first - 1);
        }
        if last < end {
            self.runs.insert(last + 1, end);
        }
        self.pages = self.pages.saturating_sub(range.pages());
    }

    /// How many pages.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// How many runs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is no page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The runs in order.
    pub fn iter(&self) -> impl Iterator<Item = IndexRange> {
        let runs = self.runs.iter().map(|(first, last)| (PageIndex::new(*first), PageIndex::new(*last)));
        runs.filter_map(|(first, last)| IndexRange::new(first, last))
    }

    /// Panics unless the runs are maximal and hold as many pages as are counted. For tests.
    pub fn check(&self) {
        let runs: Vec<IndexRange> = self.iter().collect();
        assert_eq!(
            runs.iter().map(|run| run.pages()).sum::<u64>(),
            self.pages,
            "the count drifted from the runs"
        );
        for (run, next) in runs.iter().zip(runs.iter().skip(1)) {
            assert!(run.last().get() + 1 < next.first().get(), "runs {run} and {next} should be one");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> IndexRange {
        IndexRange::new(PageIndex::new(first), PageIndex::new(last)).unwrap()
    }

    #[test]
    fn what_touches_is_one_run_and_what_is_taken_out_of_one_leaves_two() {
        let mut extents = Extents::default();
        for part in [range(0, 3), range(8, 9), range(4, 7), range(20, u64::MAX - 1)] {
            extents.add(part);
            extents.check();
        }
        assert_eq!(extents.iter().collect::<Vec<_>>(), [range(0, 9), range(20, u64::MAX - 1)]);
        extents.remove(range(3, 5));
        extents.check();
        assert_eq!(extents.iter().take(2).collect::<Vec<_>>(), [range(0, 2), range(6, 9)]);
        extents.remove(range(0, 2));
        extents.remove(range(6, 9));
        extents.remove(range(20, u64::MAX - 1));
        assert_eq!(extents, Extents::default());
    }

    #[test]
    fn random_ranges_give_the_set_that_single_pages_give() {
        for seed in 0..30 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (mut extents, mut pages) = (Extents::default(), [false; 64]);
            for _ in 0..300 {
                let first = rng.usize(..64);
                let alike = pages[first..].iter().take_while(|page| **page == pages[first]).count();
                let count = rng.usize(1..=alike);
                let part = range(first as u64, (first + count - 1) as u64);
                if pages[first] {
                    extents.remove(part);
                } else {
                    extents.add(part);
                }
                let held = !pages[first];
                pages[first..first + count].fill(held);
                extents.check();
            }
            let found: Vec<u64> =
                extents.iter().flat_map(|run| run.first().get()..=run.last().get()).collect();
            let wanted: Vec<u64> =
                (0..64).zip(pages).filter_map(|(page, held)| held.then_some(page)).collect();
            assert_eq!(found, wanted, "seed {seed}");
        }
    }
}
