//! Placement: where the areas of a MAP or COPY go. Checking and reserving are one step.
//!
//! A fixed IOVA must be free of areas and of reserved ranges; the allowed ranges do not bind it. An automatic one is
//! chosen by `iova_allocator` within them. Of several pieces only the total length, the first IOVA and each piece's
//! place in its first page are checked for alignment: a piece with an odd length in the middle fails in the domain.
//!
//! Imports allowed: units, fault_points, area, iova_allocator.

use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, Permission};

use super::IoPageTable;
use super::area_map::{Area, AreaId, AreaState, NewAccesses, Writable};
use super::place_error::PlaceError;
use crate::fault_points::{self, Point};
use crate::storage::area::AreaShape;
use crate::storage::iova_allocator::{Fit, OriginAddr};

/// A slice of a pages object that becomes one area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<P> {
    /// The pages object.
    pub pages: P,
    /// The first byte shown, counted from the start of page 0.
    pub offset: ByteLen,
    /// Bytes shown, at least 1.
    pub length: ByteLen,
    /// Whether the pages can be written.
    pub pages_writable: Writable,
}

/// Where the first piece goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// To this address.
    Fixed(Iova),
    /// To the lowest address that fits.
    Any,
}

/// IOVAs taken for areas that are not ready yet: to be published or aborted.
#[must_use = "the areas stay in the way until they are published or aborted"]
#[derive(Debug, PartialEq, Eq)]
pub struct Reservation {
    areas: Vec<AreaId>,
    iova: IovaRange,
}

impl Reservation {
    /// One area a piece, in order.
    #[must_use]
    pub fn areas(&self) -> &[AreaId] {
        &self.areas
    }

    /// All of them together.
    #[must_use]
    pub const fn iova(&self) -> IovaRange {
        self.iova
    }

    pub(super) fn into_areas(self) -> Vec<AreaId> {
        self.areas
    }
}

impl<P: Clone> IoPageTable<P> {
    /// Takes the IOVAs of all `pieces`, one behind the other, as areas that are not ready. `origin` is where the first
    /// piece starts in the memory it comes from; only automatic placement looks at it.
    ///
    /// # Errors
    /// If the pieces do not fit there, or anywhere; nothing changes then.
    pub fn reserve(
        &mut self,
        pieces: &[Piece<P>],
        permission: Permission,
        placement: Placement,
        origin: OriginAddr,
    ) -> Result<Reservation, PlaceError> {
        let (iova, ranges) = self.place(pieces, permission, placement, origin)?;
        fault_points::hit(Point::Reserve)?;
        self.areas.take_quota(pieces.len() as u64)?;
        let areas =
            pieces.iter().zip(&ranges).map(|(piece, at)| self.install(piece, permission, *at)).collect();
        Ok(Reservation { areas, iova })
    }

    fn install(&mut self, piece: &Piece<P>, permission: Permission, iova: IovaRange) -> AreaId {
        let id = self.areas.take_id();
        self.areas.insert(Area {
            id,
            shape: AreaShape::new(iova, piece.offset),
            permission,
            pages: piece.pages.clone(),
            pages_writable: piece.pages_writable,
            state: AreaState::Installing,
            accesses: 0,
            locks: 0,
            new_accesses: NewAccesses::Admitted,
        });
        id
    }
}

impl<P> IoPageTable<P> {
    /// Where all `pieces` would go, and each of them.
    pub(super) fn place<Q>(
        &self,
        pieces: &[Piece<Q>],
        permission: Permission,
        placement: Placement,
        origin: OriginAddr,
    ) -> Result<(IovaRange, Vec<IovaRange>), PlaceError> {
        let length = self.checked_total(pieces)?;
        let iova = match placement {
            Placement::Fixed(start) => self.fixed_place(start, length)?,
            Placement::Any => self.automatic_place(length, origin)?,
        };
        let ranges = split_up(iova, pieces).ok_or(PlaceError::ZeroLength)?;
        for (piece, wanted) in pieces.iter().zip(&ranges) {
            self.check_piece(piece, permission, *wanted)?;
        }
        Ok((iova, ranges))
    }

    fn checked_total<Q>(&self, pieces: &[Piece<Q>]) -> Result<ByteLen, PlaceError> {
        let mut lengths = pieces.iter().map(|piece| piece.length.get());
        let total = lengths.try_fold(0_u64, u64::checked_add).ok_or(PlaceError::TotalTooLong)?;
        let (length, alignment) = (ByteLen::new(total), self.alignment());
        if total == 0 {
            return Err(PlaceError::ZeroLength);
        }
        if !length.is_aligned(alignment) {
            return Err(PlaceError::LengthMisaligned { length, alignment });
        }
        Ok(length)
    }

    fn fixed_place(&self, iova: Iova, length: ByteLen) -> Result<IovaRange, PlaceError> {
        let alignment = self.alignment();
        if !iova.is_aligned(alignment) {
            return Err(PlaceError::IovaMisaligned { iova, alignment });
        }
        let wanted = IovaRange::from_length(iova, length).ok_or(PlaceError::PastEnd { iova, length })?;
        if let Some((owner, reserved)) = self.reserved.conflict(wanted) {
            return Err(PlaceError::Reserved { wanted, reserved, owner });
        }
        match self.areas.first_in(wanted) {
            Some(area) => Err(PlaceError::Occupied { wanted, area: area.iova(), state: area.state() }),
            None => Ok(wanted),
        }
    }

    fn automatic_place(&self, length: ByteLen, origin: OriginAddr) -> Result<IovaRange, PlaceError> {
        let fit = Fit::new(length, origin, self.alignment())?;
        let window = Fit::window();
        let unrestricted = self.allowed.is_empty().then_some(window);
        let allowed = self.allowed.intersecting(window).filter_map(|range| range.intersection(window));
        let found =
            unrestricted.into_iter().chain(allowed).find_map(|span| fit.first_in(span, self.used_in(span)));
        Ok(found.ok_or_else(|| fit.no_space())?)
    }

    fn check_piece<Q>(
        &self,
        piece: &Piece<Q>,
        permission: Permission,
        wanted: IovaRange,
    ) -> Result<(), PlaceError> {
        if permission.can_write() && piece.pages_writable == Writable::No {
            return Err(PlaceError::NotWritable { wanted });
        }
        let alignment = self.alignment();
        if !piece.offset.is_aligned(alignment) {
            let page_offset = ByteLen::new(piece.offset.get() % PAGE_SIZE);
            return Err(PlaceError::OffsetMisaligned { wanted, page_offset, alignment });
        }
        Ok(())
    }
}

/// The part of `whole` that each piece gets; `None` if a piece is empty.
fn split_up<P>(whole: IovaRange, pieces: &[Piece<P>]) -> Option<Vec<IovaRange>> {
    let mut next = Some(whole.start());
    let part = |piece: &Piece<P>| {
        let range = IovaRange::from_length(next?, piece.length)?;
        next = range.last().checked_add(1);
        Some(range)
    };
    pieces.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::super::constraints::Owner;
    use super::super::fixture::{fixed, mapped, piece, range, read_only, table};
    use super::*;
    use crate::error::{Coded, Errno};

    fn any(table: &mut IoPageTable<u32>, length: u64, origin: u64) -> Result<u64, Errno> {
        let pieces = [piece(length, origin % PAGE_SIZE)];
        let placed = table.reserve(&pieces, Permission::Read, Placement::Any, OriginAddr::new(origin));
        table.check();
        placed.map(|reservation| reservation.iova().start().get()).map_err(|error| error.errno())
    }

    #[test]
    fn a_fixed_map_ignores_the_allowed_ranges_and_an_automatic_one_obeys_them() {
        let mut table = table();
        table.set_allowed(vec![range(0x8000, 0x9fff)]).unwrap();
        assert_eq!(fixed(&mut table, 0, piece(0x1000, 0)), Ok(()));
        assert_eq!(any(&mut table, 0x1000, 0), Ok(0x8000));
        assert_eq!(any(&mut table, 0x1000, 0), Ok(0x9000));
        assert_eq!(any(&mut table, 0x1000, 0), Err(Errno::NOSPC));
    }

    #[test]
    fn automatic_placement_uses_neither_the_first_nor_the_last_page() {
        let mut table = table();
        table.set_allowed(vec![range(0, 0x1fff), range(u64::MAX - 0x1fff, u64::MAX)]).unwrap();
        assert_eq!(any(&mut table, 0x1000, 0), Ok(0x1000));
        assert_eq!(any(&mut table, 0x1000, 0), Ok(u64::MAX - 0x1fff));
        assert_eq!(any(&mut table, 0x1000, 0), Err(Errno::NOSPC));
    }

    #[test]
    fn allowed_ranges_that_touch_are_one() {
        let mut table = table();
        table.set_allowed(vec![range(0x8000, 0x8fff), range(0x9000, 0x9fff)]).unwrap();
        assert_eq!(any(&mut table, 0x2000, 0), Ok(0x8000));
    }

    #[test]
    fn automatic_placement_walks_around_areas_and_reserved_ranges() {
        let mut table = table();
        table.add_reserved(Owner::Command, range(0x2000, 0x2fff)).unwrap();
        table.add_reserved(Owner::Device(1), range(0x2800, 0x3fff)).unwrap();
        mapped(&mut table, 0x1000, piece(0x1000, 0));
        mapped(&mut table, 0x4000, piece(0x800, 0));
        assert_eq!(any(&mut table, 0x800, 0x800), Ok(0x4800));
        assert_eq!(any(&mut table, 0x1000, 0), Ok(0x5000));
    }

    #[test]
    fn a_fixed_map_checks_alignment_then_the_end_then_reserved_then_areas() {
        let mut table = table();
        table.add_alignment(Owner::Access(1), PAGE_SIZE).unwrap();
        table.add_reserved(Owner::Command, range(0x2000, 0x2fff)).unwrap();
        mapped(&mut table, 0x3000, piece(0x1000, 0));
        let code = |table: &mut IoPageTable<u32>, iova, length, offset| {
            fixed(table, iova, piece(length, offset)).map_err(|error| (error.errno(), error.code()))
        };
        assert_eq!(code(&mut table, 1, 5, 0), Err((Errno::INVAL, "length-misaligned")));
        assert_eq!(code(&mut table, 1, 0, 0), Err((Errno::INVAL, "length-zero")));
        assert_eq!(code(&mut table, u64::MAX, 0x1000, 0), Err((Errno::INVAL, "iova-misaligned")));
        assert_eq!(code(&mut table, u64::MAX - 0xfff, 0x2000, 0), Err((Errno::OVERFLOW, "range-past-end")));
        assert_eq!(code(&mut table, 0x2000, 0x2000, 0), Err((Errno::INVAL, "iova-reserved")));
        assert_eq!(code(&mut table, 0x3000, 0x1000, 1), Err((Errno::EXIST, "iova-occupied")));
        assert_eq!(code(&mut table, 0x4000, 0x1000, 1), Err((Errno::INVAL, "offset-misaligned")));
        assert_eq!(table.areas().count(), 1);
    }

    #[test]
    fn an_area_may_end_at_the_last_address() {
        let mut table = table();
        assert_eq!(fixed(&mut table, u64::MAX, piece(1, 0)), Ok(()));
        assert_eq!(fixed(&mut table, 0, piece(u64::MAX, 0)), Ok(()));
        assert_eq!(fixed(&mut table, 5, piece(1, 0)).unwrap_err().errno(), Errno::EXIST);
        table.check();
    }

    #[test]
    fn write_permission_needs_writable_pages_and_that_is_checked_before_the_offset() {
        let mut table = table();
        table.add_alignment(Owner::Access(1), PAGE_SIZE).unwrap();
        let place = Placement::Fixed(Iova::new(0));
        let pieces = [read_only(0x1000, 1)];
        let error = table.reserve(&pieces, Permission::Write, place, OriginAddr::default()).unwrap_err();
        assert_eq!((error.errno(), error.code()), (Errno::PERM, "pages-not-writable"));
        let error = table.reserve(&pieces, Permission::Read, place, OriginAddr::default()).unwrap_err();
        assert_eq!(error.code(), "offset-misaligned");
    }

    #[test]
    fn an_area_being_installed_is_in_the_way_until_it_is_aborted() {
        let mut table = table();
        let pieces = [piece(0x1000, 0), piece(0x800, 0x10)];
        let place = Placement::Fixed(Iova::new(0x1000));
        let first = table.reserve(&pieces, Permission::Read, place, OriginAddr::default()).unwrap();
        assert_eq!((first.iova(), first.areas().len()), (range(0x1000, 0x27ff), 2));
        assert_eq!(fixed(&mut table, 0x27ff, piece(1, 0)).unwrap_err().errno(), Errno::EXIST);
        assert_eq!(table.ready_areas().count(), 0);
        table.abort(first);
        assert_eq!(table.areas().count(), 0);
        assert_eq!(fixed(&mut table, 0x27ff, piece(1, 0)), Ok(()));
        table.check();
    }

    #[test]
    fn an_empty_piece_among_others_places_nothing() {
        let mut table = table();
        let pieces = [piece(0x1000, 0), piece(0, 0)];
        let placed = table.reserve(&pieces, Permission::Read, Placement::Any, OriginAddr::default());
        assert_eq!(placed.unwrap_err(), PlaceError::ZeroLength);
        assert_eq!(table.areas().count(), 0);
    }

    #[test]
    fn pieces_longer_than_the_space_together_overflow() {
        let pieces = [piece(u64::MAX, 0), piece(1, 0)];
        let placed = table().reserve(&pieces, Permission::Read, Placement::Any, OriginAddr::default());
        assert_eq!(placed.unwrap_err().errno(), Errno::OVERFLOW);
    }
}
