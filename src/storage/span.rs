//! Span walks: which of several trees covers a page first.
//!
//! The trees are given in order of priority. A page belongs to the first tree that covers it, or to none (a hole). A
//! span is a maximal run of pages with the same answer, clipped to the window asked about; intervals of one tree that
//! overlap or touch make one span. With one tree this is the plain walk of used and hole spans, with two the double
//! walk that decides from which tier a page is read.
//!
//! Nothing is remembered between two spans, so a walk may stop anywhere and the trees may change before the next
//! question. No question looks past its answer: a lower tree is asked only about the hole of those above it. A whole
//! walk over n intervals takes O((n + spans) log n), nested intervals included.
//!
//! Imports allowed: units, interval_tree.

use ioasd_client::units::{IndexRange, PageIndex};

use super::interval_tree::IntervalTree;

/// Whether one tree covers a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coverage {
    /// Each page lies in an interval.
    Covered,
    /// No page lies in an interval.
    Hole,
}

/// Something that covers pages.
pub trait Cover {
    /// The maximal span from the start of `window`, clipped to `window`.
    fn first_span(&self, window: IndexRange) -> (Coverage, IndexRange);
}

impl<V> Cover for IntervalTree<V> {
    fn first_span(&self, window: IndexRange) -> (Coverage, IndexRange) {
        match self.overlapping(window).next() {
            None => (Coverage::Hole, window),
            Some((range, _)) if range.first() > window.first() => {
                (Coverage::Hole, clip(window, PageIndex::new(range.first().get() - 1)))
            }
            Some((range, _)) => {
                (Coverage::Covered, clip(window, covered_to(self, range.last(), window.last())))
            }
        }
    }
}

/// The last page of the gapless intervals behind `covered`, itself covered; beyond `enough` it may stop early.
///
/// Each turn passes an interval that ends before `enough`, so the turns of a whole walk are at most its intervals.
fn covered_to<V>(tree: &IntervalTree<V>, mut covered: PageIndex, enough: PageIndex) -> PageIndex {
    while covered < enough {
        let Some((range, _)) = tree.covering(covered.next()).next() else {
            break;
        };
        covered = range.last();
    }
    covered
}

/// `window` from its start up to `last` at most; `last` is not before its start.
fn clip(window: IndexRange, last: PageIndex) -> IndexRange {
    IndexRange::new(window.first(), last.min(window.last())).unwrap_or(IndexRange::single(window.first()))
}

/// To whom the pages of a span belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpanClass {
    /// To the tree of that place in the order of priority.
    Tree(usize),
    /// To none.
    Hole,
}

/// A maximal run of pages that belong to the same tree, or to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// To whom they belong.
    pub class: SpanClass,
    /// The pages.
    pub range: IndexRange,
}

/// The span at the start of `window`, clipped to `window`; `trees` in order of priority.
#[must_use]
pub fn first_span(trees: &[&dyn Cover], window: IndexRange) -> Span {
    let mut hole = window;
    for (place, tree) in trees.iter().enumerate() {
        match tree.first_span(hole) {
            (Coverage::Covered, range) => {
                return Span { class: SpanClass::Tree(place), range };
            }
            (Coverage::Hole, range) => hole = range,
        }
    }
    Span { class: SpanClass::Hole, range: hole }
}

/// Every span of `window`, in order and found one by one; `trees` in order of priority.
pub fn spans(trees: &[&dyn Cover], window: IndexRange) -> impl Iterator<Item = Span> {
    let mut rest = Some(window);
    std::iter::from_fn(move || {
        let window = rest?;
        let span = first_span(trees, window);
        rest = IndexRange::new(span.range.last().next(), window.last());
        Some(span)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u64, last: u64) -> IndexRange {
        IndexRange::new(PageIndex::new(first), PageIndex::new(last)).unwrap()
    }

    fn tree(ranges: &[(u64, u64)]) -> IntervalTree<()> {
        let mut tree = IntervalTree::new();
        for (first, last) in ranges {
            tree.insert(range(*first, *last), ());
        }
        tree
    }

    fn walk(trees: &[&dyn Cover], window: IndexRange) -> Vec<(SpanClass, u64, u64)> {
        spans(trees, window)
            .map(|span| (span.class, span.range.first().get(), span.range.last().get()))
            .collect()
    }

    #[test]
    fn intervals_that_overlap_or_touch_make_one_span() {
        let tree = tree(&[(2, 4), (3, 3), (4, 6), (7, 8), (10, 11)]);
        let wanted = [
            (SpanClass::Hole, 0, 1),
            (SpanClass::Tree(0), 2, 8),
            (SpanClass::Hole, 9, 9),
            (SpanClass::Tree(0), 10, 11),
            (SpanClass::Hole, 12, 20),
        ];
        assert_eq!(walk(&[&tree], range(0, 20)), wanted);
        assert_eq!(walk(&[&tree], range(3, 7)), [(SpanClass::Tree(0), 3, 7)]);
        assert_eq!(walk(&[&tree], range(9, 9)), [(SpanClass::Hole, 9, 9)]);
    }

    #[test]
    fn the_first_tree_hides_the_second() {
        let (first, second) = (tree(&[(2, 3), (6, 6)]), tree(&[(0, 7)]));
        let wanted = [
            (SpanClass::Tree(1), 0, 1),
            (SpanClass::Tree(0), 2, 3),
            (SpanClass::Tree(1), 4, 5),
            (SpanClass::Tree(0), 6, 6),
            (SpanClass::Tree(1), 7, 7),
            (SpanClass::Hole, 8, 9),
        ];
        assert_eq!(walk(&[&first, &second], range(0, 9)), wanted);
        assert_eq!(walk(&[], range(0, 9)), [(SpanClass::Hole, 0, 9)]);
    }

    /// 10^5 intervals that all cover the pages that a first tree cuts into 10^5 spans. It is over in a moment, and would
    /// take minutes if each span looked at every interval.
    #[test]
    fn many_nested_intervals_are_walked_span_by_span() {
        let n = 100_000;
        let mut nested = IntervalTree::new();
        let mut staircase = IntervalTree::new();
        let mut cuts = IntervalTree::new();
        for i in 0..n {
            nested.insert(range(i, 4 * n - i), ());
            nested.insert(range(i, 4 * n), ());
            staircase.insert(range(i, i + n), ());
            cuts.insert(IndexRange::single(PageIndex::new(2 * i)), ());
        }
        let spans_of = |tree: &IntervalTree<()>| spans(&[&cuts, tree], range(0, 5 * n)).count();
        assert_eq!(spans_of(&nested), usize::try_from(2 * n + 1).unwrap());
        assert!(spans_of(&staircase) > 0);
    }

    #[test]
    fn random_trees_are_walked_as_an_array_of_pages_is() {
        for seed in 0..300 {
            println!("seed {seed}");
            compare_with_array(seed);
        }
    }

    const PAGES: u64 = 64;

    fn compare_with_array(seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut owner = [None; 64];
        let mut trees: Vec<IntervalTree<()>> = Vec::new();
        for place in 0..rng.usize(1..4) {
            let mut tree = IntervalTree::new();
            for _ in 0..rng.usize(..8) {
                let first = rng.u64(..PAGES);
                let last = (first + rng.u64(..12)).min(PAGES - 1);
                tree.insert(range(first, last), ());
                for index in first..=last {
                    owner[usize::try_from(index).unwrap()].get_or_insert(place);
                }
            }
            trees.push(tree);
        }
        let covers: Vec<&dyn Cover> = trees.iter().map(|tree| tree as &dyn Cover).collect();
        for first in 0..PAGES {
            let window = range(first, rng.u64(first..PAGES));
            assert_eq!(walk(&covers, window), walk_array(&owner, window), "seed {seed}, {window}");
        }
    }

    fn walk_array(owner: &[Option<usize>], window: IndexRange) -> Vec<(SpanClass, u64, u64)> {
        let mut walked: Vec<(SpanClass, u64, u64)> = Vec::new();
        for index in window.first().get()..=window.last().get() {
            let class = owner[usize::try_from(index).unwrap()].map_or(SpanClass::Hole, SpanClass::Tree);
            match walked.last_mut() {
                Some((found, _, last)) if *found == class => *last = index,
                _ => walked.push((class, index, index)),
            }
        }
        walked
    }
}
