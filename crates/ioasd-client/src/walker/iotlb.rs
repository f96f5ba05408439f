//! The IOTLB of a stream: which memory pages of IOVA led to lately.
//!
//! Direct-mapped, by page of 4 KiB, whatever the size of the leaf. Lines are never cleared one by one: each holds the
//! era in which it was made, and a new era begins with every burst that finds another generation than the one before. So
//! a burst pays one load and one comparison for the right to use everything that is here.
//!
//! Imports allowed: units, formats, mapping.

use std::cell::Cell;
use std::fmt;

use super::stream::Generation;
use crate::formats::Rights;
use crate::mapping::{Detached, MapAccess};
use crate::units::{Iova, PAGE_SHIFT};

/// Lines, a power of two. All of them fit into the first-level cache of a processor.
const LINES: usize = 1024;

/// The era of lines that were never made.
const NEVER: u16 = 0;

/// What is known of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    page: u64,
    /// Where the page begins.
    pub(super) memory: Detached,
    /// Bytes from there on that lie behind one another.
    pub(super) length: u32,
    era: u16,
    /// What the tables allow.
    pub(super) rights: Rights,
    /// How the memory is mapped.
    pub(super) access: MapAccess,
}

/// What is to be remembered of the page of an IOVA.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remembered {
    pub(super) memory: Detached,
    pub(super) length: usize,
    pub(super) rights: Rights,
    pub(super) access: MapAccess,
}

/// The lines, and the era in which they are good.
pub(super) struct Iotlb {
    lines: Box<[Cell<Line>; LINES]>,
    era: u16,
    generation: Option<Generation>,
}

impl Iotlb {
    pub(super) fn new() -> Self {
        Self { lines: Box::new([const { Cell::new(Line::NEVER) }; LINES]), era: NEVER + 1, generation: None }
    }

    /// A burst begins. `None` stands for a domain that is dead: nothing of it is good.
    #[inline]
    pub(super) fn begin(&mut self, generation: Option<Generation>) {
        if self.generation != generation || generation.is_none() {
            self.generation = generation;
            self.forget();
        }
    }

    /// Nothing that is here is good any more.
    #[cold]
    pub(super) fn forget(&mut self) {
        self.era = self.era.wrapping_add(1);
        if self.era == NEVER {
            self.era = NEVER + 1;
            self.lines.iter().for_each(|line| line.set(Line::NEVER));
        }
    }

    /// What is known of the page of `iova`.
    #[inline]
    pub(super) fn find(&self, iova: Iova) -> Option<Line> {
        let page = iova.get() >> PAGE_SHIFT;
        let line = self.line(page)?.get();
        (line.page == page && line.era == self.era).then_some(line)
    }

    /// Remembers the page of `iova`.
    pub(super) fn remember(&self, iova: Iova, what: Remembered) {
        let page = iova.get() >> PAGE_SHIFT;
        let Remembered { memory, length, rights, access } = what;
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        if let Some(line) = self.line(page) {
            line.set(Line { page, memory, length, era: self.era, rights, access });
        }
    }

    #[inline]
    fn line(&self, page: u64) -> Option<&Cell<Line>> {
        self.lines.get(usize::try_from(page % LINES as u64).ok()?)
    }
}

impl Line {
    const NEVER: Self = Self {
        page: 0,
        memory: Detached::NOWHERE,
        length: 0,
        era: NEVER,
        rights: Rights::NONE,
        access: MapAccess::ReadOnly,
    };
}

const _: () = assert!(size_of::<Line>() == 24, "lines grew out of the first-level cache");

impl fmt::Debug for Iotlb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iotlb").field("era", &self.era).field("generation", &self.generation).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Remembered = Remembered {
        memory: Detached::NOWHERE,
        length: 4096,
        rights: Rights::NONE,
        access: MapAccess::ReadOnly,
    };

    fn generation(number: u64) -> Option<Generation> {
        Some(Generation(number))
    }

    #[test]
    fn lines_are_good_in_their_generation_only() {
        let mut iotlb = Iotlb::new();
        iotlb.begin(generation(3));
        assert!(iotlb.find(Iova::new(0)).is_none(), "nothing was remembered");
        iotlb.remember(Iova::new(0x1234), PAGE);
        iotlb.begin(generation(3));
        assert!(iotlb.find(Iova::new(0x1fff)).is_some() && iotlb.find(Iova::new(0x2000)).is_none());
        assert!(
            iotlb.find(Iova::new(0x1000 + (LINES << PAGE_SHIFT) as u64)).is_none(),
            "another page, same line"
        );
        iotlb.begin(generation(4));
        assert!(iotlb.find(Iova::new(0x1234)).is_none());
    }

    #[test]
    fn of_a_dead_domain_nothing_is_good() {
        let mut iotlb = Iotlb::new();
        for _ in 0..2 {
            iotlb.begin(None);
            assert!(iotlb.find(Iova::new(0)).is_none());
            iotlb.remember(Iova::new(0), PAGE);
        }
    }

    #[test]
    fn an_era_that_comes_again_brings_no_old_lines_back() {
        let mut iotlb = Iotlb::new();
        iotlb.remember(Iova::new(0), PAGE);
        (0..u16::MAX).for_each(|_| iotlb.forget());
        assert_eq!(iotlb.era, NEVER + 1);
        assert!(iotlb.find(Iova::new(0)).is_none());
    }
}
