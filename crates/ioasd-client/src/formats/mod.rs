//! IO page-table formats: what the bits of an entry mean.
//!
//! A format is constants and pure functions on 64-bit entries, one file each, with the document and section cited
//! beside the bits. Who writes tables and who walks them are generic over [`Format`] and know no bits.
//!
//! Levels count from the leaf: an entry of level 0 covers one granule, a table of level `L` has entries of level `L`.
//! A table address is an offset into the arena that holds the tables.
//!
//! Imports allowed: units.

mod amd_v1;

use std::fmt;

pub use amd_v1::AmdV1;

use crate::units::{Iova, IovaRange, Permission, PhysAddr};

/// The entry that says "nothing here", in every format.
pub const ABSENT: u64 = 0;

/// log2 of the entries in a table.
pub const INDEX_LG2: u32 = 9;

/// Entries in a table.
pub const TABLE_ENTRIES: usize = 1 << INDEX_LG2;

/// Bytes in a table.
pub const TABLE_BYTES: u64 = 8 << INDEX_LG2;

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

    /// As a permission; `None` if nothing is granted.
    #[must_use]
    pub const fn permission(self) -> Option<Permission> {
        match self.0 {
            Self::READ => Some(Permission::Read),
            Self::WRITE => Some(Permission::Write),
            0 => None,
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
        /// log2 of the bytes covered, which may exceed those of one entry.
        size_lg2: u32,
        /// What the entry grants.
        rights: Rights,
    },
    /// Present, but not what the format allows at this level.
    Malformed,
}

/// Which format a table is in, as a number that is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum FormatId {
    /// AMD v1 host page tables.
    AmdV1 = 1,
}

impl FormatId {
    /// The format with number `raw`.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match raw {
            1 => Some(Self::AmdV1),
            _ => None,
        }
    }

    /// The name used in configuration, reports and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AmdV1 => "amd-v1",
        }
    }
}

/// The size and shape of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// The format.
    pub format: FormatId,
    /// Levels walked.
    pub levels: u32,
    /// log2 of the smallest leaf.
    pub granule_lg2: u32,
    /// Bits of the addresses that leaves name.
    pub output_lg2: u32,
    /// The IOVAs that can be mapped.
    pub aperture: IovaRange,
}

impl Geometry {
    /// The geometry of format `F`, with everything it can translate as its aperture.
    #[must_use]
    pub const fn of<F: Format>() -> Self {
        let last = Iova::new(u64::MAX >> (64 - F::IOVA_LG2));
        let aperture = match IovaRange::new(Iova::new(0), last) {
            Some(range) => range,
            None => IovaRange::ALL,
        };
        Self {
            format: F::ID,
            levels: F::LEVELS,
            granule_lg2: F::GRANULE_LG2,
            output_lg2: F::OUTPUT_LG2,
            aperture,
        }
    }

    /// Bytes in the smallest leaf.
    #[must_use]
    pub const fn granule(&self) -> u64 {
        1 << self.granule_lg2
    }
}

/// A page-table format with a fixed number of levels.
pub trait Format: Copy + fmt::Debug + Send + Sync + 'static {
    /// Its number.
    const ID: FormatId;
    /// Levels walked, at least 1.
    const LEVELS: u32;
    /// log2 of the smallest leaf.
    const GRANULE_LG2: u32;
    /// Bits of an IOVA that are translated.
    const IOVA_LG2: u32;
    /// Bits of an output address.
    const OUTPUT_LG2: u32;

    /// The level of the root table.
    const ROOT_LEVEL: Level = Level(Self::LEVELS - 1);

    /// A level-0 leaf for the granule at `phys`, which is aligned to it and within the output width.
    fn leaf(phys: PhysAddr, permission: Permission) -> u64;

    /// An entry of `level`, at least 1, that points to the table of the next level at `address`.
    fn table(address: TableAddr, level: Level) -> u64;

    /// What `entry`, found in a table of `level`, says. Total: any 64 bits may be asked about.
    fn decode(entry: u64, level: Level) -> Entry;

    /// log2 of the bytes that one entry of `level` covers.
    #[must_use]
    fn item_lg2(level: Level) -> u32 {
        Self::GRANULE_LG2 + INDEX_LG2 * level.0
    }

    /// The index of `iova` in a table of `level`.
    #[must_use]
    fn index(iova: Iova, level: Level) -> usize {
        let index = (iova.get() >> Self::item_lg2(level)) & (TABLE_ENTRIES as u64 - 1);
        usize::try_from(index).unwrap_or(0)
    }
}
