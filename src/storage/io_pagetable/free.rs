//! What is free in the IOVA map and what is not: what is used, the gaps between, and the ranges that were reserved or
//! allowed.
//!
//! A gap is free, not reserved, and allowed where there is a restriction. Looking for gaps costs what lies between them, so
//! one look is bounded twice, by what it finds and by what it passes.
//!
//! Imports allowed: units.

use ioasd_client::units::{Iova, IovaRange};

use super::constraints::Owner;
use super::range_set::before;
use super::{Area, IoPageTable};

/// How far one look for gaps goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapLimits {
    /// Gaps found at most.
    pub gaps: usize,
    /// Areas and reserved ranges passed at most.
    pub passed: usize,
}

/// A part of the gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Those found, in IOVA order.
    pub found: Vec<IovaRange>,
    /// The last address looked at, if there are addresses left behind it.
    pub looked_to: Option<Iova>,
}

/// Owners of a reserved range that are named.
pub const OWNERS_NAMED: usize = 8;

/// A range that was reserved or allowed; those that touch are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruled {
    /// No area may be there.
    Reserved {
        /// Where.
        range: IovaRange,
        /// Who asked, the first [`OWNERS_NAMED`] of them.
        owners: Vec<Owner>,
        /// How many requests there are.
        requests: u64,
    },
    /// Automatic placement may use it, and nothing that is not allowed.
    Allowed(IovaRange),
}

impl Ruled {
    /// Where.
    #[must_use]
    pub const fn range(&self) -> IovaRange {
        match self {
            Self::Reserved { range, .. } | Self::Allowed(range) => *range,
        }
    }

    fn reserved(range: IovaRange) -> Self {
        Self::Reserved { range, owners: Vec::new(), requests: 0 }
    }

    fn note(&mut self, owner: Owner) {
        if let Self::Reserved { owners, requests, .. } = self {
            *requests += 1;
            if owners.len() < OWNERS_NAMED {
                owners.push(owner);
            }
        }
    }
}

/// One step over a span: the gap before what is used, if there is one, and the last address passed.
type Step = (Option<IovaRange>, Iova);

impl<P> IoPageTable<P> {
    /// The gaps in IOVA order from the one on that has `from` or is the first behind it; its part before `from` is left out.
    #[must_use]
    pub fn gaps_from(&self, from: Iova, limits: GapLimits) -> Gaps {
        let mut gaps = Gaps::default();
        let mut passed = None;
        for (count, (gap, last)) in self.steps_from(from).enumerate() {
            if gaps.found.len() >= limits.gaps || count >= limits.passed {
                gaps.looked_to = passed;
                break;
            }
            gaps.found.extend(gap);
            passed = Some(last);
        }
        gaps
    }

    /// The gap that has `iova`, if it is free.
    #[must_use]
    pub fn gap_at(&self, iova: Iova) -> Option<IovaRange> {
        let (rest, _) = self.steps_from(iova).next()?;
        let rest = rest.filter(|gap| gap.contains(iova))?;
        let used = [self.areas.last_below(iova).map(Area::iova), self.reserved.union().last_below(iova)];
        let behind_used = used.into_iter().flatten().filter_map(|used| used.last().checked_add(1));
        let allowed = self.allowed.first_in(rest).map(IovaRange::start);
        IovaRange::new(behind_used.chain(allowed).max().unwrap_or(Iova::new(0)), rest.last())
    }

    /// `limit` reserved and allowed ranges at most, in IOVA order, from the one on that has `from` or is the first behind it.
    #[must_use]
    pub fn ruled_from(&self, from: Iova, limit: usize) -> Vec<Ruled> {
        let Some(window) = IovaRange::new(from, IovaRange::ALL.last()) else { return Vec::new() };
        let reserved = self.reserved.union().intersecting(window).take(limit).map(Ruled::reserved);
        let allowed = self.allowed.intersecting(window).take(limit).map(Ruled::Allowed);
        let mut ruled: Vec<Ruled> = reserved.chain(allowed).collect();
        ruled.sort_unstable_by_key(Ruled::range);
        ruled.truncate(limit);
        for (owner, range) in self.reserved.requests() {
            let at = ruled.partition_point(|ruled| ruled.range().last() < range.start());
            if let Some(ruled) = ruled.get_mut(at).filter(|ruled| ruled.range().intersects(range)) {
                ruled.note(owner);
            }
        }
        ruled
    }

    /// The reserved ranges and areas that reach into `span`, by start; no two of them share an address.
    pub(super) fn used_in(&self, span: IovaRange) -> impl Iterator<Item = IovaRange> {
        let mut reserved = self.reserved.union().intersecting(span).peekable();
        let mut areas = self.areas.intersecting(span).map(Area::iova).peekable();
        std::iter::from_fn(move || match (reserved.peek(), areas.peek()) {
            (Some(first), Some(second)) if second < first => areas.next(),
            (None, _) => areas.next(),
            _ => reserved.next(),
        })
    }

    fn steps_from(&self, from: Iova) -> impl Iterator<Item = Step> {
        let window = IovaRange::new(from, IovaRange::ALL.last());
        let unrestricted = window.filter(|_| self.allowed.is_empty());
        let allowed = window.into_iter().flat_map(|window| {
            self.allowed.intersecting(window).filter_map(move |range| range.intersection(window))
        });
        unrestricted.into_iter().chain(allowed).flat_map(|span| steps(span, self.used_in(span)))
    }
}

/// The steps over `span`, of which `used` is not free.
fn steps(span: IovaRange, used: impl Iterator<Item = IovaRange>) -> impl Iterator<Item = Step> {
    let (mut used, mut next) = (used, Some(span.start()));
    std::iter::from_fn(move || {
        let start = next?;
        let (gap_last, last) = match used.next() {
            Some(used) => (before(used.start()), used.last().min(span.last())),
            None => (Some(span.last()), span.last()),
        };
        next = last.checked_add(1).filter(|next| *next <= span.last());
        let gap = gap_last.and_then(|last| IovaRange::new(start, last));
        Some((gap, last))
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{mapped, piece, range, table};
    use super::*;

    const PLENTY: GapLimits = GapLimits { gaps: 100, passed: 100 };

    fn all(table: &IoPageTable<u32>, limits: GapLimits) -> Vec<IovaRange> {
        let (mut found, mut from) = (Vec::new(), Some(Iova::new(0)));
        while let Some(start) = from {
            let part = table.gaps_from(start, limits);
            found.extend(part.found);
            from = part.looked_to.and_then(|last| last.checked_add(1));
        }
        found
    }

    #[test]
    fn an_empty_map_is_one_gap_and_a_full_one_has_none() {
        let mut table = table();
        assert_eq!(all(&table, PLENTY), [IovaRange::ALL]);
        table.add_reserved(Owner::Command, IovaRange::ALL).unwrap();
        assert_eq!(all(&table, PLENTY), []);
    }

    #[test]
    fn gaps_lie_between_areas_and_reserved_ranges_within_what_is_allowed() {
        let mut table = table();
        mapped(&mut table, 0x1000, piece(0x1000, 0));
        mapped(&mut table, 0x2000, piece(0x800, 0));
        table.add_reserved(Owner::Device(1), range(0x8000, 0x8fff)).unwrap();
        let top = range(0x9000, u64::MAX);
        assert_eq!(all(&table, PLENTY), [range(0, 0xfff), range(0x2800, 0x7fff), top]);
        table.set_allowed(vec![range(0x1800, 0x3fff), range(0x9000, u64::MAX)]).unwrap();
        assert_eq!(all(&table, PLENTY), [range(0x2800, 0x3fff), top]);
        assert_eq!(table.gaps_from(Iova::new(0x3000), PLENTY).found[0], range(0x3000, 0x3fff));
        let at = [0x1000, 0x27ff, 0x3800, 0x4000, 0xf000].map(|iova| table.gap_at(Iova::new(iova)));
        assert_eq!(at, [None, None, Some(range(0x2800, 0x3fff)), None, Some(top)]);
        table.set_allowed(Vec::new()).unwrap();
        let at = [0x3800, 0, u64::MAX].map(|iova| table.gap_at(Iova::new(iova)));
        assert_eq!(at, [Some(range(0x2800, 0x7fff)), Some(range(0, 0xfff)), Some(top)]);
    }

    #[test]
    fn parts_put_together_are_the_whole_however_little_each_looks_at() {
        let mut table = table();
        for number in 0..20 {
            mapped(&mut table, (number + number / 5) << 12, piece(0x1000, 0));
        }
        let whole = all(&table, PLENTY);
        assert_eq!(whole.len(), 4);
        for limits in [(1, 100), (100, 1), (2, 3)] {
            let (gaps, passed) = limits;
            assert_eq!(all(&table, GapLimits { gaps, passed }), whole, "{limits:?}");
        }
    }

    #[test]
    fn what_is_reserved_and_allowed_is_one_list_that_names_who_asked() {
        let mut table = table();
        table.add_reserved(Owner::Domain(1), range(0x8000, 0x8fff)).unwrap();
        table.add_reserved(Owner::Domain(2), range(0x8800, 0x9fff)).unwrap();
        table.add_reserved(Owner::Command, range(0, 0xfff)).unwrap();
        table.set_allowed(vec![range(0x2000, 0x2fff)]).unwrap();
        let ruled = table.ruled_from(Iova::new(0), 10);
        let ranges: Vec<_> = ruled.iter().map(Ruled::range).collect();
        assert_eq!(ranges, [range(0, 0xfff), range(0x2000, 0x2fff), range(0x8000, 0x9fff)]);
        let owners = vec![Owner::Domain(1), Owner::Domain(2)];
        assert_eq!(ruled[2], Ruled::Reserved { range: ranges[2], owners, requests: 2 });
        assert_eq!(table.ruled_from(Iova::new(0x1000), 1), [Ruled::Allowed(ranges[1])]);
    }
}
