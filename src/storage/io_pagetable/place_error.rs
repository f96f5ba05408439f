//! Why areas cannot be placed.
//!
//! Imports allowed: units, error, fault_points, iova_allocator.

use ioasd_client::units::{ByteLen, Iova, IovaRange};

use super::area_map::AreaState;
use super::constraints::Owner;
use crate::error::{Coded, Errno};
use crate::fault_points::Injected;
use crate::storage::iova_allocator::AllocateError;
use crate::storage::ledger::exceeded::Exceeded;

/// Why areas cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// An account has all the areas it may have.
    #[error(transparent)]
    TooManyAreas(#[from] Exceeded),
    /// There is nothing to place.
    #[error("nothing to map: the length, or that of a piece, is 0")]
    ZeroLength,
    /// The length does not fit the alignment of the IOAS.
    #[error("length {length} is not a multiple of the iova alignment {alignment:#x}: round it")]
    LengthMisaligned {
        /// The total length.
        length: ByteLen,
        /// The alignment of the IOAS.
        alignment: u64,
    },
    /// The address does not fit the alignment of the IOAS.
    #[error("iova {iova} is not a multiple of the iova alignment {alignment:#x}: round it")]
    IovaMisaligned {
        /// The address asked for.
        iova: Iova,
        /// The alignment of the IOAS.
        alignment: u64,
    },
    /// The range would pass the last address.
    #[error("{length} bytes from iova {iova} pass the last address: map lower or less")]
    PastEnd {
        /// The address asked for.
        iova: Iova,
        /// The total length.
        length: ByteLen,
    },
    /// The pieces together are longer than any address space.
    #[error("the pieces are longer than 2^64-1 bytes together: map fewer")]
    TotalTooLong,
    /// A reserved range lies there.
    #[error("range {wanted} touches {reserved}, reserved by {owner}: map elsewhere")]
    Reserved {
        /// The range asked for.
        wanted: IovaRange,
        /// The reserved range.
        reserved: IovaRange,
        /// Who reserved it.
        owner: Owner,
    },
    /// An area lies there.
    #[error("range {wanted} touches area {area}, which is {state:?}: unmap it, or map elsewhere")]
    Occupied {
        /// The range asked for.
        wanted: IovaRange,
        /// The first area in the way.
        area: IovaRange,
        /// Where that area is in its life.
        state: AreaState,
    },
    /// No automatic placement.
    #[error(transparent)]
    Allocate(#[from] AllocateError),
    /// Write permission on pages that cannot be written.
    #[error("the pages for {wanted} are read-only, writeable was asked for: ask for readable only")]
    NotWritable {
        /// The IOVAs of the piece.
        wanted: IovaRange,
    },
    /// A piece starts at a place in its first page that does not fit the alignment of the IOAS.
    #[error(
        "the memory for {wanted} starts {page_offset} into its page, not a multiple of the iova alignment {alignment:#x}: align it"
    )]
    OffsetMisaligned {
        /// The IOVAs of the piece.
        wanted: IovaRange,
        /// Where it starts in its first page.
        page_offset: ByteLen,
        /// The alignment of the IOAS.
        alignment: u64,
    },
    /// A test made the reservation fail.
    #[error(transparent)]
    Injected(#[from] Injected),
}

impl Coded for PlaceError {
    fn errno(&self) -> Errno {
        match self {
            Self::PastEnd { .. } | Self::TotalTooLong => Errno::OVERFLOW,
            Self::Occupied { .. } => Errno::EXIST,
            Self::NotWritable { .. } => Errno::PERM,
            Self::Allocate(error) => error.errno(),
            Self::TooManyAreas(exceeded) => exceeded.errno(),
            Self::Injected(error) => error.errno(),
            Self::ZeroLength
            | Self::LengthMisaligned { .. }
            | Self::IovaMisaligned { .. }
            | Self::Reserved { .. }
            | Self::OffsetMisaligned { .. } => Errno::INVAL,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::ZeroLength => "length-zero",
            Self::LengthMisaligned { .. } => "length-misaligned",
            Self::IovaMisaligned { .. } => "iova-misaligned",
            Self::PastEnd { .. } => "range-past-end",
            Self::TotalTooLong => "length-too-long",
            Self::Reserved { .. } => "iova-reserved",
            Self::Occupied { .. } => "iova-occupied",
            Self::Allocate(error) => error.code(),
            Self::NotWritable { .. } => "pages-not-writable",
            Self::OffsetMisaligned { .. } => "offset-misaligned",
            Self::TooManyAreas(exceeded) => exceeded.code(),
            Self::Injected(error) => error.code(),
        }
    }
}
