//! Splitting an area in two, for the type 1 unmap of VFIO. Nothing is remapped.
//!
//! Imports allowed: units, error, area.

use ioasd_client::units::{ByteLen, Iova, IovaRange};

use super::IoPageTable;
use super::alignment::LargePages;
use super::area_map::{Area, AreaId, AreaState, NewAccesses};
use crate::error::{Coded, Errno};
use crate::storage::area::AreaShape;

/// What a split replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitAreas {
    /// The area that was.
    pub old: AreaId,
    /// Its first part.
    pub left: AreaId,
    /// The rest.
    pub right: AreaId,
}

/// Why an area cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// The area is being installed or retired.
    #[error("area {area} is {state:?} and cannot be split at {cut}: wait for the map or unmap under way")]
    NotReady {
        /// The area.
        area: IovaRange,
        /// First address of the second part.
        cut: Iova,
        /// Where it is in its life.
        state: AreaState,
    },
    /// An unmap has asked the accesses of this area to leave.
    #[error("area {area} is being unmapped and cannot be split at {cut}: unmap all of it")]
    Prevented {
        /// The area.
        area: IovaRange,
        /// First address of the second part.
        cut: Iova,
    },
    /// The cut does not fit the alignment of the IOAS.
    #[error(
        "the cut of area {area} at {cut}, {offset} into its pages, is not aligned to {alignment:#x}: round it"
    )]
    Misaligned {
        /// The area.
        area: IovaRange,
        /// First address of the second part.
        cut: Iova,
        /// What that address shows.
        offset: ByteLen,
        /// The alignment of the IOAS.
        alignment: u64,
    },
    /// Accesses hold the area.
    #[error(
        "area {area} is held by {accesses} pin(s) of accesses and cannot be split at {cut}: unpin it first"
    )]
    Accessed {
        /// The area.
        area: IovaRange,
        /// First address of the second part.
        cut: Iova,
        /// How many.
        accesses: u64,
    },
    /// Domains may show the cut inside one large leaf.
    #[error(
        "area {area} may lie in large leaves and cannot be split at {cut}: switch large pages off before mapping"
    )]
    LargeLeaves {
        /// The area.
        area: IovaRange,
        /// First address of the second part.
        cut: Iova,
    },
}

impl Coded for SplitError {
    fn errno(&self) -> Errno {
        match self {
            Self::NotReady { .. } | Self::Prevented { .. } => Errno::BUSY,
            Self::Misaligned { .. } | Self::Accessed { .. } | Self::LargeLeaves { .. } => Errno::INVAL,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotReady { .. } => "area-not-ready",
            Self::Prevented { .. } => "area-being-unmapped",
            Self::Misaligned { .. } => "split-misaligned",
            Self::Accessed { .. } => "area-accessed",
            Self::LargeLeaves { .. } => "area-in-large-leaves",
        }
    }
}

impl<P: Clone> IoPageTable<P> {
    /// Splits the area that shows `byte` behind it. `None` if there is no such area, or if `byte` is its first or last
    /// address. A ready area is in a domain exactly if the table has one, so the table knows whether leaves may be large.
    ///
    /// # Errors
    /// If the area is in use in a way that a split would disturb; nothing changes then.
    pub fn split_after(&mut self, byte: Iova) -> Result<Option<SplitAreas>, SplitError> {
        let Some((id, cut)) = self.area_to_split(byte)? else {
            return Ok(None);
        };
        let Some(area) = self.areas.remove(id) else {
            return Ok(None);
        };
        let iova = area.iova();
        let (Some(low), Some(high)) = (IovaRange::new(iova.start(), byte), IovaRange::new(cut, iova.last()))
        else {
            return Ok(None);
        };
        let (left, right) = (self.insert_part(&area, low), self.insert_part(&area, high));
        Ok(Some(SplitAreas { old: id, left, right }))
    }

    /// The area to split behind `byte`, and the first address of its second part.
    fn area_to_split(&self, byte: Iova) -> Result<Option<(AreaId, Iova)>, SplitError> {
        let Some(area) = self.area_at(byte) else {
            return Ok(None);
        };
        let Some(cut) = byte.checked_add(1) else {
            return Ok(None);
        };
        if byte == area.iova().start() || byte == area.iova().last() {
            return Ok(None);
        }
        self.check_split(area, cut)?;
        Ok(Some((area.id(), cut)))
    }

    fn check_split(&self, area: &Area<P>, cut: Iova) -> Result<(), SplitError> {
        let (iova, accesses, alignment) = (area.iova(), area.accesses(), self.alignment());
        let offset = area.shape().offset_of(cut);
        if !area.is_ready() {
            return Err(SplitError::NotReady { area: iova, cut, state: area.state() });
        }
        if area.new_accesses() == NewAccesses::Prevented {
            return Err(SplitError::Prevented { area: iova, cut });
        }
        if !cut.is_aligned(alignment) || !offset.is_aligned(alignment) {
            return Err(SplitError::Misaligned { area: iova, cut, offset, alignment });
        }
        if accesses > 0 {
            return Err(SplitError::Accessed { area: iova, cut, accesses });
        }
        if self.alignments.has_domains() && self.large_pages() == LargePages::On {
            return Err(SplitError::LargeLeaves { area: iova, cut });
        }
        Ok(())
    }

    fn insert_part(&mut self, whole: &Area<P>, iova: IovaRange) -> AreaId {
        self.areas.take_quota_anyway();
        let id = self.areas.take_id();
        let shape = AreaShape::new(iova, whole.shape().offset_of(iova.start()));
        self.areas.insert(Area { id, shape, ..whole.clone() });
        id
    }
}

#[cfg(test)]
mod tests {
    use super::super::area_map::Holder;
    use super::super::constraints::Owner;
    use super::super::fixture::{mapped, mapped_row, piece, range, table};
    use super::*;

    fn errno(table: &mut IoPageTable<u32>, byte: u64) -> Option<Errno> {
        let before: Vec<_> = table.areas().cloned().collect();
        let error = table.split_after(Iova::new(byte)).unwrap_err();
        assert!(table.areas().eq(&before), "a refused split changed an area");
        Some(error.errno())
    }

    #[test]
    fn both_parts_show_what_the_area_showed() {
        let mut table = table();
        let old = mapped(&mut table, 0x1000, piece(0x3000, 0x800));
        let split = table.split_after(Iova::new(0x17ff)).unwrap().unwrap();
        assert_eq!((split.old, table.area(old)), (old, None));
        let shape = |id| table.area(id).map(|area| (area.iova(), area.shape().byte_offset()));
        assert_eq!(shape(split.left), Some((range(0x1000, 0x17ff), ByteLen::new(0x800))));
        assert_eq!(shape(split.right), Some((range(0x1800, 0x3fff), ByteLen::new(0x1000))));
        table.check();
    }

    #[test]
    fn the_first_and_last_byte_and_a_gap_split_nothing() {
        let mut table = table();
        mapped(&mut table, 0x1000, piece(0x1000, 0));
        mapped(&mut table, u64::MAX - 9, piece(10, 0));
        for byte in [0xfff, 0x1000, 0x1fff, 0x2000, u64::MAX] {
            assert_eq!(table.split_after(Iova::new(byte)), Ok(None));
        }
    }

    #[test]
    fn a_cut_must_be_aligned_in_the_iova_and_in_the_pages() {
        let mut table = table();
        mapped(&mut table, 0x1000, piece(0x2000, 0));
        table.add_alignment(Owner::Access(1), 0x800).unwrap();
        assert_eq!(errno(&mut table, 0x1800), Some(Errno::INVAL));
        assert!(table.split_after(Iova::new(0x17ff)).unwrap().is_some());
    }

    #[test]
    fn a_cut_aligned_in_the_iova_only_is_refused() {
        let mut table = table();
        table.add_alignment(Owner::Access(1), 0x800).unwrap();
        mapped_row(&mut table, 0x1000, &[piece(0x400, 0), piece(0xc00, 0)]);
        assert_eq!(errno(&mut table, 0x17ff), Some(Errno::INVAL));
    }

    #[test]
    fn a_held_area_is_not_split_and_alignment_is_checked_first() {
        let mut table = table();
        let id = mapped(&mut table, 0x1000, piece(0x2000, 0));
        table.add_access_to(id, Holder::External);
        assert_eq!(table.split_after(Iova::new(0x1fff)).unwrap_err().code(), "area-accessed");
        assert_eq!(errno(&mut table, 0x1fff), Some(Errno::INVAL));
        table.add_alignment(Owner::Access(1), 0x1000).unwrap();
        assert_eq!(table.split_after(Iova::new(0x17ff)).unwrap_err().code(), "split-misaligned");
    }

    #[test]
    fn a_mapped_area_is_split_only_with_large_pages_off() {
        let mut table = table();
        table.add_domain(Owner::Domain(1), 0x1000, IovaRange::ALL).unwrap();
        mapped(&mut table, 0x1000, piece(0x2000, 0));
        assert_eq!(errno(&mut table, 0x1fff), Some(Errno::INVAL));
        table.remove_owner(Owner::Domain(1));
        table.set_large_pages(LargePages::Off).unwrap();
        table.add_domain(Owner::Domain(1), 0x1000, IovaRange::ALL).unwrap();
        assert!(table.split_after(Iova::new(0x1fff)).unwrap().is_some());
    }

    #[test]
    fn an_area_that_is_not_ready_is_busy() {
        let mut table = table();
        let id = mapped(&mut table, 0x1000, piece(0x2000, 0));
        table.begin_retire(id);
        assert_eq!(errno(&mut table, 0x1fff), Some(Errno::BUSY));
    }
}
