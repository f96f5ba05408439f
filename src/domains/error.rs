//! What can go wrong with a table, with errno and code.
//!
//! Imports allowed: units, error, sys, storage::ledger, the client crate's formats.

use ioasd_client::formats::TableAddr;
use ioasd_client::units::{ByteLen, Iova, IovaRange, PageIndex, PhysAddr};
use rustix::io::Errno;

use crate::error::Coded;
use crate::fault_points::Injected;
use crate::storage::ledger::exceeded::Exceeded;
use crate::sys::failure::SysError;

/// Why there is no page for another table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArenaError {
    /// The arena has its maximum size.
    #[error(
        "all {size} bytes of the table arena are in use; configure a larger one or map fewer scattered ranges"
    )]
    Full {
        /// Bytes in the arena.
        size: ByteLen,
    },
    /// An account has all the table memory it may have.
    #[error(transparent)]
    OverBudget(#[from] Exceeded),
    /// The kernel refused the memory.
    #[error("no memory for the table arena: {0}")]
    Sys(#[from] SysError),
    /// A test made it fail.
    #[error(transparent)]
    Injected(#[from] Injected),
}

impl Coded for ArenaError {
    fn errno(&self) -> Errno {
        Errno::NOMEM
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Full { .. } => "table-arena-full",
            Self::OverBudget(exceeded) => exceeded.code(),
            Self::Sys(_) => "table-memory",
            Self::Injected(injected) => injected.code(),
        }
    }
}

/// Why a range could not be mapped. Nothing of it is mapped then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Something is mapped there already.
    #[error("cannot map {range}: {at} is mapped already; unmap it first")]
    Overlap {
        /// What was to be mapped.
        range: IovaRange,
        /// The first address found mapped.
        at: Iova,
    },
    /// The addresses behind the range do not fit the entries.
    #[error("cannot map {length} bytes at output address {phys}: the format has {width} output bits")]
    OutputWidth {
        /// First output address.
        phys: PhysAddr,
        /// Bytes to be mapped.
        length: ByteLen,
        /// Bits of an output address.
        width: u32,
    },
    /// An address or the length is not a multiple of the smallest leaf.
    #[error("cannot map {length} bytes at {iova} to {phys}: each must be a multiple of {granule}")]
    Misaligned {
        /// First address.
        iova: Iova,
        /// First output address.
        phys: PhysAddr,
        /// Bytes to be mapped.
        length: ByteLen,
        /// Bytes in the smallest leaf.
        granule: ByteLen,
    },
    /// The range is not wholly within what the table translates.
    #[error("cannot map {length} bytes at {iova}: the table translates {aperture}")]
    Aperture {
        /// First address.
        iova: Iova,
        /// Bytes to be mapped.
        length: ByteLen,
        /// What the table translates.
        aperture: IovaRange,
    },
    /// No page for a table.
    #[error("cannot map {range}: {source}")]
    NoMemory {
        /// What was to be mapped.
        range: IovaRange,
        /// Why.
        source: ArenaError,
    },
}

impl Coded for MapError {
    fn errno(&self) -> Errno {
        match self {
            Self::Overlap { .. } => Errno::ADDRINUSE,
            Self::OutputWidth { .. } | Self::Aperture { .. } => Errno::RANGE,
            Self::Misaligned { .. } => Errno::NXIO,
            Self::NoMemory { source, .. } => source.errno(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Overlap { .. } => "table-overlap",
            Self::OutputWidth { .. } => "table-output-width",
            Self::Misaligned { .. } => "table-misaligned",
            Self::Aperture { .. } => "table-aperture",
            Self::NoMemory { source, .. } => source.code(),
        }
    }
}

/// What an unmap found that its caller should have known better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnmapError {
    /// Parts of the range were not mapped; the others are cleared.
    #[error("{missing} bytes from {first} on were not mapped when {range} was unmapped")]
    NotMapped {
        /// What was to be unmapped.
        range: IovaRange,
        /// The first address that was not mapped.
        first: Iova,
        /// Bytes that were not mapped.
        missing: ByteLen,
        /// Bytes gone through from the start of the range, mapped or not.
        done: ByteLen,
    },
    /// The range is not made of whole leaves within the aperture; nothing was cleared.
    #[error("cannot unmap {range}: it must be whole leaves of {granule} bytes within {aperture}")]
    Shape {
        /// What was to be unmapped.
        range: IovaRange,
        /// Bytes in the smallest leaf.
        granule: ByteLen,
        /// What the table translates.
        aperture: IovaRange,
    },
    /// The range begins in the middle of a leaf, which is never split; nothing was cleared.
    #[error("cannot unmap {range}: it begins inside {leaf}, which one leaf maps; unmap the whole leaf")]
    InsideLeaf {
        /// What was to be unmapped.
        range: IovaRange,
        /// What the leaf maps.
        leaf: IovaRange,
    },
}

impl Coded for UnmapError {
    fn errno(&self) -> Errno {
        Errno::INVAL
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotMapped { .. } => "table-not-mapped",
            Self::Shape { .. } => "table-misaligned",
            Self::InsideLeaf { .. } => "table-inside-leaf",
        }
    }
}

/// Why frames could not be read back: a page that should be mapped is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("page {index} should be mapped at {iova}, but nothing is")]
pub struct ReadBackError {
    /// The page.
    pub index: PageIndex,
    /// Where it should be.
    pub iova: Iova,
}

impl Coded for ReadBackError {
    fn errno(&self) -> Errno {
        Errno::IO
    }

    fn code(&self) -> &'static str {
        "table-not-mapped"
    }
}

/// Stops everything: the bytes of a table name a table that is none.
#[cold]
pub(super) fn corrupt(table: TableAddr) -> ! {
    panic!("table {table} does not lie in its arena: the tables of this domain were overwritten")
}
