//! A small set of addresses as sorted ranges, in which ranges that overlap or touch are one.
//!
//! Imports allowed: units.

use ioasd_client::units::{Iova, IovaRange};

/// Addresses as maximal ranges in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RangeSet {
    ranges: Vec<IovaRange>,
}

impl RangeSet {
    /// The union of `ranges`.
    pub(super) fn union_of(mut ranges: Vec<IovaRange>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<IovaRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut().and_then(|last| Some((joined(*last, range)?, last))) {
                Some((both, last)) => *last = both,
                None => merged.push(range),
            }
        }
        Self { ranges: merged }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = IovaRange> {
        self.ranges.iter().copied()
    }

    /// The ranges that share an address with `window`, not clipped to it.
    pub(super) fn intersecting(&self, window: IovaRange) -> impl Iterator<Item = IovaRange> {
        let from = self.ranges.partition_point(|range| range.last() < window.start());
        self.iter().skip(from).take_while(move |range| range.start() <= window.last())
    }

    pub(super) fn first_in(&self, window: IovaRange) -> Option<IovaRange> {
        self.intersecting(window).next()
    }

    /// The last range that begins below `iova`.
    pub(super) fn last_below(&self, iova: Iova) -> Option<IovaRange> {
        let below = self.ranges.partition_point(|range| range.start() < iova);
        self.ranges.get(below.checked_sub(1)?).copied()
    }

    /// What the set lacks, in ascending order.
    pub(super) fn holes(&self) -> Vec<IovaRange> {
        let mut holes = Vec::with_capacity(self.ranges.len() + 1);
        let mut free = Some(Iova::new(0));
        for range in &self.ranges {
            holes.extend(
                free.zip(before(range.start())).and_then(|(start, last)| IovaRange::new(start, last)),
            );
            free = range.last().checked_add(1);
        }
        holes.extend(free.and_then(|start| IovaRange::new(start, IovaRange::ALL.last())));
        holes
    }

    pub(super) fn check(&self) {
        for (range, next) in self.ranges.iter().zip(self.ranges.iter().skip(1)) {
            let apart = range.last().checked_add(1).is_some_and(|end| end < next.start());
            assert!(apart, "ranges {range} and {next} should be one");
        }
    }
}

/// The address below `iova`.
pub(super) fn before(iova: Iova) -> Option<Iova> {
    iova.get().checked_sub(1).map(Iova::new)
}

/// Both as one range, if `next`, which does not start earlier, overlaps or touches `range`.
fn joined(range: IovaRange, next: IovaRange) -> Option<IovaRange> {
    let touches = before(next.start()).is_none_or(|before| before <= range.last());
    if touches { IovaRange::new(range.start(), range.last().max(next.last())) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u64, u64)]) -> RangeSet {
        let set = RangeSet::union_of(ranges.iter().map(|&(start, last)| range(start, last)).collect());
        set.check();
        set
    }

    fn range(start: u64, last: u64) -> IovaRange {
        IovaRange::new(Iova::new(start), Iova::new(last)).unwrap()
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(set(&[(10, 19), (0, 4), (5, 9), (30, 40)]).ranges, [range(0, 19), range(30, 40)]);
        assert_eq!(set(&[(0, 9), (2, 3), (11, 11)]).ranges, [range(0, 9), range(11, 11)]);
    }

    #[test]
    fn holes_reach_from_the_first_address_to_the_last() {
        assert_eq!(set(&[]).holes(), [IovaRange::ALL]);
        assert_eq!(set(&[(0, u64::MAX)]).holes(), []);
        assert_eq!(set(&[(1, u64::MAX - 1)]).holes(), [range(0, 0), range(u64::MAX, u64::MAX)]);
    }

    #[test]
    fn intersecting_finds_the_ranges_that_share_an_address() {
        let set = set(&[(10, 19), (30, 39), (50, u64::MAX)]);
        assert_eq!(set.first_in(range(20, 29)), None);
        assert_eq!(set.intersecting(range(19, 50)).count(), 3);
        assert_eq!(set.first_in(range(u64::MAX, u64::MAX)), Some(range(50, u64::MAX)));
    }
}
