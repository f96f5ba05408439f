//! What the tests of a table share: short ways to name a range, a piece, and a mapped area.

use ioasd_client::units::{ByteLen, Iova, IovaRange, Permission};

use super::IoPageTable;
use super::area_map::{AreaId, Writable};
use super::place_error::PlaceError;
use super::placement::{Piece, Placement};
use crate::storage::iova_allocator::OriginAddr;

pub(super) fn table() -> IoPageTable<u32> {
    IoPageTable::new()
}

pub(super) fn range(start: u64, last: u64) -> IovaRange {
    IovaRange::new(Iova::new(start), Iova::new(last)).unwrap()
}

pub(super) fn piece(length: u64, offset: u64) -> Piece<u32> {
    Piece {
        pages: 7,
        offset: ByteLen::new(offset),
        length: ByteLen::new(length),
        pages_writable: Writable::Yes,
    }
}

pub(super) fn read_only(length: u64, offset: u64) -> Piece<u32> {
    Piece { pages_writable: Writable::No, ..piece(length, offset) }
}

pub(super) fn fixed(table: &mut IoPageTable<u32>, iova: u64, piece: Piece<u32>) -> Result<(), PlaceError> {
    let place = Placement::Fixed(Iova::new(iova));
    let reservation = table.reserve(&[piece], Permission::Read, place, OriginAddr::default())?;
    table.publish(&reservation);
    Ok(())
}

/// Maps several pieces one behind the other.
pub(super) fn mapped_row(table: &mut IoPageTable<u32>, iova: u64, pieces: &[Piece<u32>]) {
    let place = Placement::Fixed(Iova::new(iova));
    let reservation = table.reserve(pieces, Permission::Read, place, OriginAddr::default()).unwrap();
    table.publish(&reservation);
}

pub(super) fn mapped(table: &mut IoPageTable<u32>, iova: u64, piece: Piece<u32>) -> AreaId {
    mapped_as(table, iova, piece, Permission::ReadWrite)
}

pub(super) fn mapped_as(
    table: &mut IoPageTable<u32>,
    iova: u64,
    piece: Piece<u32>,
    permission: Permission,
) -> AreaId {
    let place = Placement::Fixed(Iova::new(iova));
    let reservation = table.reserve(&[piece], permission, place, OriginAddr::default()).unwrap();
    table.publish(&reservation);
    reservation.areas()[0]
}
