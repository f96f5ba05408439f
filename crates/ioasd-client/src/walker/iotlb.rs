//! The IOTLB of a stream: which memory pages of IOVA led to lately.
//!
//! Direct-mapped, by page of 4 KiB, whatever the size of the leaf. Each line holds the era in which it was made, and is good
//! in that one.
//!
//! Imports allowed: units, formats, mapping, the eras of this folder.

use std::cell::Cell;
use std::fmt;

use super::era::NEVER;
use crate::formats::Rights;
use crate::mapping::{Detached, MapAccess};
use crate::units::{Iova, PAGE_SHIFT};

/// Lines, a power of two. All of them fit into the first-level cache of a processor.
const LINES: usize = 1024;

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

/// The lines.
pub(super) struct Iotlb(Box<[Cell<Line>; LINES]>);

impl Iotlb {
    pub(super) fn new() -> Self {
        Self(Box::new([const { Cell::new(Line::NEVER) }; LINES]))
    }

    /// What is known of the page of `iova`.
    #[inline]
    pub(super) fn find(&self, iova: Iova, era: u16) -> Option<Line> {
        let page = iova.get() >> PAGE_SHIFT;
        let line = self.line(page)?.get();
        (line.page == page && line.era == era).then_some(line)
    }

    /// Remembers the page of `iova`.
    pub(super) fn remember(&self, iova: Iova, era: u16, what: Remembered) {
        let page = iova.get() >> PAGE_SHIFT;
        let Remembered { memory, length, rights, access } = what;
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        if let Some(line) = self.line(page) {
            line.set(Line { page, memory, length, era, rights, access });
        }
    }

    /// Clears every line.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(|line| line.set(Line::NEVER));
    }

    #[inline]
    fn line(&self, page: u64) -> Option<&Cell<Line>> {
        self.0.get(usize::try_from(page % LINES as u64).ok()?)
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
        f.debug_struct("Iotlb").finish_non_exhaustive()
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

    #[test]
    fn lines_are_good_in_their_era_only() {
        let iotlb = Iotlb::new();
        assert!(iotlb.find(Iova::new(0), 3).is_none(), "nothing was remembered");
        iotlb.remember(Iova::new(0x1234), 3, PAGE);
        assert!(iotlb.find(Iova::new(0x1fff), 3).is_some() && iotlb.find(Iova::new(0x2000), 3).is_none());
        let same_line = Iova::new(0x1000 + (LINES << PAGE_SHIFT) as u64);
        assert!(iotlb.find(same_line, 3).is_none(), "another page, same line");
        assert!(iotlb.find(Iova::new(0x1234), 4).is_none());
        iotlb.clear();
        assert!(iotlb.find(Iova::new(0x1234), 3).is_none());
    }
}
