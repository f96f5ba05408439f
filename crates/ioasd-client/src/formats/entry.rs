//! Entries: what 64 bits of a table can say, and where tables lie.
//!
//! Imports allowed: units.

use std::fmt;

use super::TABLE_BYTES;
use crate::units::{Permission, PhysAddr};

/// A level of a table, 0 at the leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u32);

impl Level {
    /// The level whose entries cover one granule.
    pub const LEAF: Self = Self(0);

    /// Level `level`.
    #[must_use]
    pub const fn new(level: u32) -> Self {
        Self(level)
    }

    /// The number of levels below.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The next level towards the leaf; `None` at the leaf.
    #[must_use]
    pub const fn below(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(level) => Some(Self(level)),
            None => None,
        }
    }

    /// The next level towards the root.
    #[must_use]
    pub const fn above(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where a table lies: an offset into its arena, a multiple of [`TABLE_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableAddr(u64);

impl TableAddr {
    /// Wraps an offset.
    #[must_use]
    pub const fn new(offset: u64) -> Self {
        Self(offset)
    }

    /// The offset in bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// How many tables would fit before it.
    #[must_use]
    pub const fn page(self) -> u64 {
        self.0 / TABLE_BYTES
    }
}

impl fmt::Display for TableAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What an entry lets pass: reads, writes, both or neither. The rights of a walk are those that every entry grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rights(u8);

impl Rights {
    const READ: u8 = 1;
    const WRITE: u8 = 2;

    /// Reads and writes.
    pub const ALL: Self = Self(Self::READ | Self::WRITE);

    /// Neither.
    pub const NONE: Self = Self(0);

    /// The rights whose bits are set in `entry`.
    #[must_use]
    pub const fn of(entry: u64, read: u64, write: u64) -> Self {
        let readable = if entry & read == 0 { 0 } else { Self::READ };
        let writable = if entry & write == 0 { 0 } else { Self::WRITE };
        Self(readable | writable)
    }

    /// What both grant.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether reads pass.
    #[inline]
    #[must_use]
    pub const fn can_read(self) -> bool {
        self.0 & Self::READ != 0
    }

    /// Whether writes pass.
    #[inline]
    #[must_use]
    pub const fn can_write(self) -> bool {
        self.0 & Self::WRITE != 0
    }

    /// As bits: 1 for reads, 2 for writes.
    #[inline]
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// As a permission; `None` if nothing is granted.
    #[must_use]
    pub const fn permission(self) -> Option<Permission> {
        match self.0 & Self::ALL.0 {
            0 => None,
            Self::READ => Some(Permission::Read),
            Self::WRITE => Some(Permission::Write),
            _ => Some(Permission::ReadWrite),
        }
    }
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing is mapped here.
    Absent,
    /// A table of the next level.
    Table {
        /// Where it lies. Not checked against anything.
        address: TableAddr,
        /// What the entry grants to everything below.
        rights: Rights,
    },
    /// Memory.
    Leaf {
        /// The first address of the memory, aligned to its size.
        phys: PhysAddr,
        /// log2 of the bytes covered, which may exceed those of one entry: the leaf then fills several entries.
        size_lg2: u32,
        /// What the entry grants.
        rights: Rights,
    },
    /// Present, but not what the format allows at this level.
    Malformed,
}

impl Entry {
    /// What kind of entry it is, in one word.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Table { .. } => "table",
            Self::Leaf { .. } => "leaf",
            Self::Malformed => "malformed",
        }
    }
}
