//! Lookups: which ready areas show a range, for COPY's source and for accesses.
//!
//! A range is walked area by area in IOVA order; a gap, or an area that is not ready, ends the walk. A walk gives
//! what lies before its error too, because a transfer goes that far and a pin must be undone that far.
//!
//! Imports allowed: units, error.

use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, Permission};

use super::IoPageTable;
use super::area_map::{Area, AreaId, AreaState, NewAccesses, Writable};
use super::placement::Piece;
use crate::error::{Coded, Errno};
use crate::storage::area::AreaShape;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transfer {
    /// Out of the area.
    Read,
    /// Into the area.
    Write,
}

/// What an access wants with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessKind {
    /// Hold its pages.
    Pin(Transfer),
    /// Move bytes once.
    Copy(Transfer),
}

impl AccessKind {
    const fn writes(self) -> bool {
        matches!(self, Self::Pin(Transfer::Write) | Self::Copy(Transfer::Write))
    }
}

/// The part of an access that one area serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessPart<P> {
    /// The area.
    pub area: AreaId,
    /// Its shape.
    pub shape: AreaShape,
    /// The part of the range that it shows.
    pub iova: IovaRange,
    /// The pages object behind it.
    pub pages: P,
    /// The permission of the area.
    pub permission: Permission,
}

/// An access, area by area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessWalk<P> {
    /// What can be served, in IOVA order.
    pub parts: Vec<AccessPart<P>>,
    /// Why the walk ended behind the last part, if not at the end of the range.
    pub end: Result<(), LookupError>,
}

/// Why a range cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No area lies there.
    #[error("nothing is mapped at iova {at}, inside {range}: map it, or shorten the range")]
    Gap {
        /// The range looked up.
        range: IovaRange,
        /// The first address without an area.
        at: Iova,
    },
    /// The area there is being installed or retired.
    #[error("area {area}, inside {range}, is {state:?}: wait for the map or unmap under way")]
    NotReady {
        /// The range looked up.
        range: IovaRange,
        /// The area.
        area: IovaRange,
        /// Where it is in its life.
        state: AreaState,
    },
    /// An unmap has asked the accesses of this area to leave.
    #[error("area {area} is being unmapped and takes no new access: let go of it")]
    Prevented {
        /// The area.
        area: IovaRange,
    },
    /// A pin that does not follow the pages of an area.
    #[error(
        "pinning {part} of area {area} does not start and end at page boundaries of its pages: align the range"
    )]
    Misaligned {
        /// The area.
        area: IovaRange,
        /// The part of the range in it.
        part: IovaRange,
    },
    /// The area's permission does not cover the access.
    #[error(
        "area {area} is mapped {permission:?}, the access is {kind:?}: map it with the permission needed"
    )]
    Forbidden {
        /// The area.
        area: IovaRange,
        /// What it permits.
        permission: Permission,
        /// What was asked.
        kind: AccessKind,
    },
    /// The pages are a device's.
    #[error("area {area} shows memory of a device, which accesses can neither pin nor read nor write")]
    DevicesAlone {
        /// The area.
        area: IovaRange,
    },
    /// The pages cannot be written.
    #[error("the pages behind area {area} are read-only: map writable memory")]
    NotWritable {
        /// The area.
        area: IovaRange,
    },
}

impl Coded for LookupError {
    fn errno(&self) -> Errno {
        match self {
            Self::Gap { .. } | Self::NotReady { .. } => Errno::NOENT,
            Self::Prevented { .. } | Self::Misaligned { .. } | Self::DevicesAlone { .. } => Errno::INVAL,
            Self::Forbidden { .. } | Self::NotWritable { .. } => Errno::PERM,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Gap { .. } => "iova-not-mapped",
            Self::NotReady { .. } => "area-not-ready",
            Self::Prevented { .. } => "area-being-unmapped",
            Self::Misaligned { .. } => "pin-misaligned",
            Self::Forbidden { .. } => "permission-missing",
            Self::NotWritable { .. } => "pages-not-writable",
            Self::DevicesAlone { .. } => "memory-of-a-device",
        }
    }
}

impl<P: Clone> IoPageTable<P> {
    /// What a COPY of `range` shows: a piece for each area touched, the first and the last cut to the range.
    ///
    /// # Errors
    /// If the range is not covered by ready areas without a gap.
    pub fn copy_pieces(&self, range: IovaRange) -> Result<Vec<Piece<P>>, LookupError> {
        self.ready_parts(range).map(|part| part.map(|(area, part)| area.piece(part))).collect()
    }

    /// The areas that serve an access to `range`, up to the first that cannot.
    #[must_use]
    pub fn access_walk(&self, range: IovaRange, kind: AccessKind) -> AccessWalk<P> {
        let mut parts = Vec::new();
        let end = self.ready_parts(range).try_for_each(|part| {
            let (area, part) = part?;
            area.check_access(range, part, kind)?;
            parts.push(area.access_part(part));
            Ok(())
        });
        AccessWalk { parts, end }
    }

    /// The ready areas that show `range`, each with the part it shows; an error, if any, is the last item.
    fn ready_parts(
        &self,
        range: IovaRange,
    ) -> impl Iterator<Item = Result<(&Area<P>, IovaRange), LookupError>> {
        let mut areas = self.areas.intersecting(range);
        let mut next = Some(range.start());
        std::iter::from_fn(move || {
            let wanted = IovaRange::new(next.take()?, range.last())?;
            let part = ready_part(areas.next(), range, wanted);
            next = part.as_ref().ok().and_then(|(_, part)| part.last().checked_add(1));
            Some(part)
        })
    }
}

/// The part of `wanted`, what is left of `range`, that `area`, the next one there is, shows.
fn ready_part<P>(
    area: Option<&Area<P>>,
    range: IovaRange,
    wanted: IovaRange,
) -> Result<(&Area<P>, IovaRange), LookupError> {
    let gap = LookupError::Gap { range, at: wanted.start() };
    let area = area.filter(|area| area.iova().contains(wanted.start())).ok_or(gap)?;
    if !area.is_whole() {
        return Err(LookupError::NotReady { range, area: area.iova(), state: area.state() });
    }
    area.iova().intersection(wanted).map(|part| (area, part)).ok_or(gap)
}

impl<P: Clone> Area<P> {
    fn piece(&self, part: IovaRange) -> Piece<P> {
        Piece {
            pages: self.pages.clone(),
            offset: self.shape.offset_of(part.start()),
            length: part.length(),
            pages_writable: self.pages_writable,
        }
    }

    fn access_part(&self, part: IovaRange) -> AccessPart<P> {
        AccessPart {
            area: self.id,
            shape: self.shape,
            iova: part,
            pages: self.pages.clone(),
            permission: self.permission,
        }
    }

    /// Whether `part`, the area's share of `range`, can be accessed.
    fn check_access(&self, range: IovaRange, part: IovaRange, kind: AccessKind) -> Result<(), LookupError> {
        let area = self.iova();
        if self.new_accesses == NewAccesses::Prevented {
            return Err(LookupError::Prevented { area });
        }
        if matches!(kind, AccessKind::Pin(_)) && !self.follows_pages(range, part) {
            return Err(LookupError::Misaligned { area, part });
        }
        self.check_permission(kind)
    }

    /// Whether a pin starts on a page boundary of the pages here, and ends on one if it goes on behind this area.
    fn follows_pages(&self, range: IovaRange, part: IovaRange) -> bool {
        let end = ByteLen::new(self.shape.offset_of(part.last()).get().wrapping_add(1));
        let goes_on = part.last() < range.last();
        self.shape.offset_of(part.start()).is_aligned(PAGE_SIZE) && (!goes_on || end.is_aligned(PAGE_SIZE))
    }

    fn check_permission(&self, kind: AccessKind) -> Result<(), LookupError> {
        let (area, permission) = (self.iova(), self.permission);
        let permitted = if kind.writes() { permission.can_write() } else { permission.can_read() };
        if !permitted {
            return Err(LookupError::Forbidden { area, permission, kind });
        }
        match self.pages_writable {
            Writable::No if kind.writes() => Err(LookupError::NotWritable { area }),
            Writable::ByDevicesAlone => Err(LookupError::DevicesAlone { area }),
            Writable::Yes | Writable::No => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{mapped, mapped_as, piece, range, table};
    use super::*;

    fn walk(table: &IoPageTable<u32>, at: IovaRange, kind: AccessKind) -> (usize, Option<Errno>) {
        let walk = table.access_walk(at, kind);
        (walk.parts.len(), walk.end.err().map(|error| error.errno()))
    }

    const PIN: AccessKind = AccessKind::Pin(Transfer::Read);
    const READ: AccessKind = AccessKind::Copy(Transfer::Read);
    const WRITE: AccessKind = AccessKind::Copy(Transfer::Write);

    #[test]
    fn a_copy_may_begin_and_end_inside_areas() {
        let mut table = table();
        mapped(&mut table, 0x1000, piece(0x1800, 0x234));
        mapped(&mut table, 0x2800, piece(0x1000, 0));
        let pieces = table.copy_pieces(range(0x1001, 0x2fff)).unwrap();
        let cuts: Vec<_> = pieces.iter().map(|piece| (piece.offset.get(), piece.length.get())).collect();
        assert_eq!(cuts, [(0x235, 0x17ff), (0, 0x800)]);
        assert_eq!(table.copy_pieces(range(0x1001, 0x3800)).unwrap_err().errno(), Errno::NOENT);
        assert_eq!(table.copy_pieces(range(0xfff, 0x1000)).unwrap_err().errno(), Errno::NOENT);
    }

    #[test]
    fn an_access_gets_the_parts_before_the_gap() {
        let mut table = table();
        mapped(&mut table, 0x1000, piece(0x1000, 0));
        mapped(&mut table, 0x3000, piece(0x1000, 0));
        assert_eq!(walk(&table, range(0x1800, 0x3000), READ), (1, Some(Errno::NOENT)));
        assert_eq!(walk(&table, range(0x1800, 0x1fff), READ), (1, None));
        assert_eq!(walk(&table, range(0, 0x1fff), READ), (0, Some(Errno::NOENT)));
    }

    #[test]
    fn an_area_that_is_not_ready_is_a_hole() {
        let mut table = table();
        let id = mapped(&mut table, 0x1000, piece(0x1000, 0));
        table.begin_retire(id);
        assert_eq!(walk(&table, range(0x1000, 0x1fff), READ), (0, Some(Errno::NOENT)));
        assert_eq!(table.copy_pieces(range(0x1000, 0x1fff)).unwrap_err().code(), "area-not-ready");
    }

    #[test]
    fn a_pin_starts_at_a_page_of_the_pages_not_of_the_iova() {
        let mut table = table();
        mapped(&mut table, 0x1000, piece(0x2000, 0x800));
        assert_eq!(walk(&table, range(0x1000, 0x1fff), PIN), (0, Some(Errno::INVAL)));
        assert_eq!(walk(&table, range(0x1800, 0x1fff), PIN), (1, None));
        assert_eq!(walk(&table, range(0x1000, 0x1fff), READ), (1, None));
    }

    #[test]
    fn a_pin_goes_on_into_the_next_area_only_at_a_page_boundary_of_the_pages() {
        let mut table = table();
        mapped(&mut table, 0x1000, piece(0x800, 0));
        mapped(&mut table, 0x1800, piece(0x1000, 0));
        assert_eq!(walk(&table, range(0x1000, 0x1800), PIN), (0, Some(Errno::INVAL)));
        assert_eq!(walk(&table, range(0x1000, 0x17ff), PIN), (1, None));
        assert_eq!(walk(&table, range(0x1800, 0x2800), PIN), (1, Some(Errno::NOENT)));
    }

    #[test]
    fn a_write_only_area_cannot_be_read_and_permission_comes_after_alignment() {
        let mut table = table();
        mapped_as(&mut table, 0x1000, piece(0x1000, 1), Permission::Write);
        assert_eq!(walk(&table, range(0x1000, 0x1000), READ), (0, Some(Errno::PERM)));
        assert_eq!(walk(&table, range(0x1000, 0x1000), WRITE), (1, None));
        assert_eq!(walk(&table, range(0x1000, 0x1000), PIN), (0, Some(Errno::INVAL)));
        assert_eq!(walk(&table, range(0x1fff, 0x1fff), PIN), (0, Some(Errno::PERM)));
    }

    #[test]
    fn an_area_at_the_last_address_can_be_read_to_its_end() {
        let mut table = table();
        mapped(&mut table, u64::MAX - 0xfff, piece(0x1000, 0));
        assert_eq!(walk(&table, range(u64::MAX - 0xfff, u64::MAX), PIN), (1, None));
        assert_eq!(walk(&table, range(u64::MAX, u64::MAX), READ), (1, None));
    }
}
