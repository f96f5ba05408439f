//! Units: one type for each quantity, so that no two of them can be swapped.
//!
//! `last` is inclusive, `end` exclusive. Ranges are `{start, last}` because a range may end at 2^64-1, where an
//! exclusive end does not fit. Nothing here knows what the numbers are used for.
//!
//! Imports allowed: `std` only. Everybody may import this module.

use std::fmt;

/// log2 of the page size of the host.
pub const PAGE_SHIFT: u32 = 12;

/// Bytes in one page of the host.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

macro_rules! unit {
    ($(#[$meta:meta])* $name:ident, $format:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Wraps a raw value.
            #[must_use]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The raw value.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0
            }

            /// `self + raw`, or `None` beyond 2^64-1.
            #[must_use]
            pub const fn checked_add(self, raw: u64) -> Option<Self> {
                match self.0.checked_add(raw) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

unit!(
    /// An IO virtual address: what a device puts on the bus.
    Iova, "{:#x}"
);
unit!(
    /// A virtual address of a client process.
    UserAddr, "{:#x}"
);
unit!(
    /// The address a leaf of an IO page table names: a frame number times the page size, plus an offset.
    PhysAddr, "{:#x}"
);
unit!(
    /// A page frame number of the agent's frame space.
    Pfn, "{:#x}"
);
unit!(
    /// The index of a page within one pages object, from 0.
    PageIndex, "{}"
);
unit!(
    /// A number of bytes.
    ByteLen, "{:#x}"
);

impl Iova {
    /// The distance in bytes from `earlier` to here.
    ///
    /// # Panics
    /// In debug builds, if `earlier` is later.
    #[must_use]
    pub const fn offset_from(self, earlier: Self) -> ByteLen {
        ByteLen(self.0 - earlier.0)
    }

    /// Whether the address is a multiple of `alignment`, a power of two.
    #[must_use]
    pub const fn is_aligned(self, alignment: u64) -> bool {
        self.0 & (alignment - 1) == 0
    }
}

impl ByteLen {
    /// Whether the length is a multiple of `alignment`, a power of two.
    #[must_use]
    pub const fn is_aligned(self, alignment: u64) -> bool {
        self.0 & (alignment - 1) == 0
    }
}

impl Pfn {
    /// The address of the frame's first byte.
    #[must_use]
    pub const fn phys(self) -> PhysAddr {
        PhysAddr(self.0 << PAGE_SHIFT)
    }

    /// The frame that contains `phys`.
    #[must_use]
    pub const fn containing(phys: PhysAddr) -> Self {
        Self(phys.0 >> PAGE_SHIFT)
    }
}

impl PageIndex {
    /// The page that contains the byte at `offset` of the array.
    #[must_use]
    pub const fn containing(offset: ByteLen) -> Self {
        Self(offset.0 >> PAGE_SHIFT)
    }

    /// The offset of the page's first byte in the array.
    #[must_use]
    pub const fn byte_offset(self) -> ByteLen {
        ByteLen(self.0 << PAGE_SHIFT)
    }

    /// The following page.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// An inclusive, never empty range of IO virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IovaRange {
    start: Iova,
    last: Iova,
}

impl IovaRange {
    /// Every address there is.
    pub const ALL: Self = Self { start: Iova(0), last: Iova(u64::MAX) };

    /// `start..=last`; `None` if `last` lies before `start`.
    #[must_use]
    pub const fn new(start: Iova, last: Iova) -> Option<Self> {
        if start.0 <= last.0 { Some(Self { start, last }) } else { None }
    }

    /// The `length` bytes from `start`; `None` if `length` is 0 or the range would pass 2^64-1.
    #[must_use]
    pub const fn from_length(start: Iova, length: ByteLen) -> Option<Self> {
        if length.0 == 0 {
            return None;
        }
        match start.checked_add(length.0 - 1) {
            Some(last) => Some(Self { start, last }),
            None => None,
        }
    }

    /// First address.
    #[must_use]
    pub const fn start(self) -> Iova {
        self.start
    }

    /// Last address, inclusive.
    #[must_use]
    pub const fn last(self) -> Iova {
        self.last
    }

    /// Bytes in the range; 2^64-1 stands for the 2^64 bytes of [`IovaRange::ALL`].
    #[must_use]
    pub const fn length(self) -> ByteLen {
        ByteLen((self.last.0 - self.start.0).saturating_add(1))
    }

    /// Whether `address` lies within.
    #[must_use]
    pub const fn contains(self, address: Iova) -> bool {
        self.start.0 <= address.0 && address.0 <= self.last.0
    }

    /// Whether `inner` lies wholly within.
    #[must_use]
    pub const fn covers(self, inner: Self) -> bool {
        self.contains(inner.start) && self.contains(inner.last)
    }

    /// The addresses that both ranges have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.start.max(other.start), self.last.min(other.last))
    }

    /// Whether the two ranges share an address.
    #[must_use]
    pub fn intersects(self, other: Self) -> bool {
        self.intersection(other).is_some()
    }
}

impl fmt::Display for IovaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.start, self.last)
    }
}

/// An inclusive, never empty range of pages of one pages object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexRange {
    first: PageIndex,
    last: PageIndex,
}

impl IndexRange {
    /// `first..=last`; `None` if `last` lies before `first`.
    #[must_use]
    pub const fn new(first: PageIndex, last: PageIndex) -> Option<Self> {
        if first.0 <= last.0 { Some(Self { first, last }) } else { None }
    }

    /// `pages` pages from `first`; `None` if `pages` is 0 or the range would pass 2^64-1.
    #[must_use]
    pub const fn from_length(first: PageIndex, pages: u64) -> Option<Self> {
        if pages == 0 {
            return None;
        }
        match first.checked_add(pages - 1) {
            Some(last) => Some(Self { first, last }),
            None => None,
        }
    }

    /// One page.
    #[must_use]
    pub const fn single(index: PageIndex) -> Self {
        Self { first: index, last: index }
    }

    /// First page.
    #[must_use]
    pub const fn first(self) -> PageIndex {
        self.first
    }

    /// Last page, inclusive.
    #[must_use]
    pub const fn last(self) -> PageIndex {
        self.last
    }

    /// Pages in the range. A pages object has at most 2^52 pages, so this never overflows.
    #[must_use]
    pub const fn pages(self) -> u64 {
        (self.last.0 - self.first.0).saturating_add(1)
    }

    /// Whether `index` lies within.
    #[must_use]
    pub const fn contains(self, index: PageIndex) -> bool {
        self.first.0 <= index.0 && index.0 <= self.last.0
    }

    /// Whether `inner` lies wholly within.
    #[must_use]
    pub const fn covers(self, inner: Self) -> bool {
        self.contains(inner.first) && self.contains(inner.last)
    }

    /// The pages that both ranges have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }
}

impl fmt::Display for IndexRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pages [{}, {}]", self.first, self.last)
    }
}

/// What a device may do with a mapping. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Device reads only.
    Read,
    /// Device writes only.
    Write,
    /// Both.
    ReadWrite,
    /// Neither: no table can map it. A VFIO container may ask for that.
    Neither,
}

impl Permission {
    /// From the two flags of a request; `None` if neither is set.
    #[must_use]
    pub const fn from_flags(readable: Flag, writable: Flag) -> Option<Self> {
        match (readable, writable) {
            (Flag::Set, Flag::Set) => Some(Self::ReadWrite),
            (Flag::Set, Flag::Clear) => Some(Self::Read),
            (Flag::Clear, Flag::Set) => Some(Self::Write),
            (Flag::Clear, Flag::Clear) => None,
        }
    }

    /// Whether reads are allowed.
    #[must_use]
    pub const fn can_read(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    /// Whether writes are allowed.
    #[must_use]
    pub const fn can_write(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

/// One bit of a request's flags word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// The bit is set.
    Set,
    /// The bit is clear.
    Clear,
}

impl Flag {
    /// Whether `bit` is set in `word`.
    #[must_use]
    pub const fn of(word: u32, bit: u32) -> Self {
        if word & bit == 0 { Self::Clear } else { Self::Set }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_may_end_at_the_last_address_and_not_beyond() {
        let last_page = IovaRange::from_length(Iova::new(u64::MAX - 4095), ByteLen::new(4096));
        assert_eq!(last_page.map(IovaRange::last), Some(Iova::new(u64::MAX)));
        assert_eq!(IovaRange::from_length(Iova::new(u64::MAX - 4095), ByteLen::new(4097)), None);
        assert_eq!(IovaRange::from_length(Iova::new(0), ByteLen::new(0)), None);
        assert_eq!(IovaRange::ALL.length(), ByteLen::new(u64::MAX));
    }

    #[test]
    fn intersection_is_inclusive_on_both_sides() {
        let range = |start, last| IovaRange::new(Iova::new(start), Iova::new(last)).unwrap();
        assert_eq!(range(0, 9).intersection(range(9, 20)), Some(range(9, 9)));
        assert!(!range(0, 9).intersects(range(10, 20)));
        assert!(range(0, 9).covers(range(0, 9)));
    }
}
