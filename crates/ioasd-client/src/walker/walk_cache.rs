//! Where the tables near the leaves lie: what processors call a paging-structure cache.
//!
//! Direct-mapped, by region: all addresses that have a table of the level before the smallest leaves in common, 1 GiB of
//! them in most formats. A walk by way of such a table takes one step to a leaf of 2 MiB and two to one of 4 KiB. A table
//! that is remembered can have been unlinked since: so a walk by way of it that ends at no leaf says nothing, and is
//! repeated from the root. It cannot have become something else, because no table is used again in the same generation
//! (`layout::protocol`).
//!
//! Imports allowed: the walk and the eras of this folder.

use std::cell::Cell;
use std::fmt;

use super::era::NEVER;
use super::walk::Kept;

/// Lines, a power of two: 64 GiB in 1 KiB.
const LINES: usize = 64;

/// Bits of the number of an era.
const ERA_BITS: u32 = u16::BITS;

/// A region and an era in one word, and the way to its table in another.
#[derive(Clone, Copy, Debug)]
struct Line {
    tag: u64,
    way: Kept,
}

const NOTHING: Line = Line { tag: tag(0, NEVER), way: Kept(0) };

/// Numbers of regions have less than 48 bits: regions are no smaller than 64 KiB.
const fn tag(region: u64, era: u16) -> u64 {
    region << ERA_BITS | era as u64
}

/// The lines.
pub(super) struct WalkCache(Box<[Cell<Line>; LINES]>);

impl WalkCache {
    pub(super) fn new() -> Self {
        Self(Box::new([const { Cell::new(NOTHING) }; LINES]))
    }

    /// The way to the table of `region`.
    #[inline]
    pub(super) fn find(&self, region: u64, era: u16) -> Option<Kept> {
        let line = self.line(region)?.get();
        (line.tag == tag(region, era)).then_some(line.way)
    }

    /// Remembers it.
    #[inline]
    pub(super) fn remember(&self, region: u64, era: u16, way: Kept) {
        if let Some(line) = self.line(region) {
            line.set(Line { tag: tag(region, era), way });
        }
    }

    /// Clears every line.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(|line| line.set(NOTHING));
    }

    #[inline]
    fn line(&self, region: u64) -> Option<&Cell<Line>> {
        self.0.get(usize::try_from(region % LINES as u64).ok()?)
    }
}

impl fmt::Debug for WalkCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalkCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_found_for_its_region_in_its_era() {
        let cache = WalkCache::new();
        assert_eq!(cache.find(0, 1), None, "nothing was remembered");
        let (way, other) = (Kept(0x5003), Kept(0x7001));
        cache.remember(9, 1, way);
        assert_eq!(
            (cache.find(9, 1), cache.find(9, 2), cache.find(9 + LINES as u64, 1)),
            (Some(way), None, None)
        );
        cache.remember(9 + LINES as u64, 2, other);
        assert_eq!((cache.find(9, 1), cache.find(9 + LINES as u64, 2)), (None, Some(other)));
        cache.clear();
        assert_eq!(cache.find(9 + LINES as u64, 2), None);
    }
}
