//! IO page-table formats: what the bits of an entry mean.
//!
//! A format is constants and pure functions on 64-bit entries, one file each, with the document and section cited
//! beside the bits. Who writes tables and who walks them are generic over [`Format`] and know no bits; who knows only
//! the number of a format gets to its bits by [`FormatId::visit`].
//!
//! Levels count from the leaf: an entry of level 0 covers one granule, a table of level `L` has entries of level `L`.
//! A leaf may be larger than an entry and then fills several entries side by side, all of them the same or each with an
//! address of its own ([`Format::COPIES`]). A table address is an offset into the arena that holds the tables.
//!
//! Imports allowed: units.

mod amd_v1;
mod arm_s2;
mod entry;
mod geometry;
mod id;
mod page_sizes;
mod riscv;
mod vtd_ss;

use std::fmt;

pub use amd_v1::{AmdV1, AmdV1Granule2K};
pub use arm_s2::ArmS2;
pub use entry::{Entry, Level, Rights, TableAddr};
pub use geometry::Geometry;
pub use id::{FormatId, FormatVisitor};
pub use page_sizes::PageSizes;
pub use riscv::RiscV;
pub use vtd_ss::VtdSs;

use crate::units::{Iova, Permission, PhysAddr};

/// The entry that says "nothing here", in every format.
pub const ABSENT: u64 = 0;

/// log2 of the entries in a table.
pub const INDEX_LG2: u32 = 9;

/// Entries in a table.
pub const TABLE_ENTRIES: usize = 1 << INDEX_LG2;

/// Bytes in a table.
pub const TABLE_BYTES: u64 = 8 << INDEX_LG2;

/// What the entries of a leaf that fills several of them hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// All the same: the address of the whole leaf.
    Identical,
    /// Each the address of its own part.
    Advancing,
}

/// A page-table format with a fixed number of levels.
pub trait Format: Copy + fmt::Debug + Send + Sync + 'static {
    /// Its number.
    const ID: FormatId;
    /// Levels walked, at least 1.
    const LEVELS: u32;
    /// log2 of the bytes that an entry of level 0 covers.
    const GRANULE_LG2: u32;
    /// Bits of an IOVA that are translated.
    const IOVA_LG2: u32;
    /// Bits of an output address.
    const OUTPUT_LG2: u32;
    /// The sizes that leaves can have. None of them fills a whole table.
    const PAGE_SIZES: PageSizes;
    /// What the entries of a leaf that fills several of them hold.
    const COPIES: Copies;
    /// The bit of a leaf's entry that hardware sets when something is written through it.
    const DIRTY: u64;

    /// The level of the root table.
    const ROOT_LEVEL: Level = Level::new(Self::LEVELS - 1);

    /// The first entry of a leaf of 2^`size_lg2` bytes, one of [`Format::PAGE_SIZES`], for the memory at `phys`, which is
    /// aligned to the size and within the output width.
    fn leaf(phys: PhysAddr, size_lg2: u32, permission: Permission) -> u64;

    /// How much larger an entry is whose address is `bytes` larger; a multiple of the granule.
    fn advance(bytes: u64) -> u64;

    /// An entry of `level`, at least 1, that points to the table of the next level at `address`.
    fn table(address: TableAddr, level: Level) -> u64;

    /// What `entry`, found in a table of `level`, says. Total: any 64 bits may be asked about.
    fn decode(entry: u64, level: Level) -> Entry;

    /// log2 of the bytes that one entry of `level` covers.
    #[inline]
    #[must_use]
    fn item_lg2(level: Level) -> u32 {
        Self::GRANULE_LG2 + INDEX_LG2 * level.get()
    }

    /// The index of `iova` in a table of `level`.
    #[inline]
    #[must_use]
    fn index(iova: Iova, level: Level) -> usize {
        let index = (iova.get() >> Self::item_lg2(level)) & (TABLE_ENTRIES as u64 - 1);
        usize::try_from(index).unwrap_or(0)
    }

    /// The level of a leaf of 2^`size_lg2` bytes: the highest whose entries are not larger.
    #[inline]
    #[must_use]
    fn level_of(size_lg2: u32) -> Level {
        Level::new(size_lg2.saturating_sub(Self::GRANULE_LG2) / INDEX_LG2)
    }

    /// Whether something was written through the leaf that has `entry`, one of its entries.
    #[inline]
    #[must_use]
    fn is_dirty(entry: u64) -> bool {
        entry & Self::DIRTY != 0
    }

    /// `entry`, one of a leaf, as if nothing had been written through it; what is written next is recorded.
    #[inline]
    #[must_use]
    fn clean(entry: u64) -> u64 {
        entry & !Self::DIRTY
    }

    /// `entry`, one of a leaf as [`Format::clean`] makes it, once something was written through it.
    #[inline]
    #[must_use]
    fn dirtied(entry: u64) -> u64 {
        entry | Self::DIRTY
    }

    /// By how much each entry of a leaf of `level` that fills several differs from the one before.
    #[inline]
    #[must_use]
    fn copy_step(level: Level) -> u64 {
        match Self::COPIES {
            Copies::Identical => 0,
            Copies::Advancing => Self::advance(1 << Self::item_lg2(level)),
        }
    }
}
