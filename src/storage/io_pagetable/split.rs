//! Splitting an area in two, for the type 1 unmap of VFIO. Nothing is remapped.
//!
//! Imports allowed: units, error, area.

use ioasd_client::units::{ByteLen, Iova, IovaRange};

use super::IoPageTable;
use super::alignment::LargePages;
use super::area_map::{Area, AreaId, AreaState, NewAccesses, Writable};
use crate::error::{Coded, Errno};
use crate::storage::area::AreaShape;
use crate::storage::ledger::exceeded::Exceeded;

/// A part of an area: its name, and where it lies.
pub type Part = (AreaId, AreaShape);

/// An area that became two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split<P> {
    /// The pages object behind it.
    pub pages: P,
    /// The area that was.
    pub whole: Part,
    /// What it is now, in the order of addresses.
    pub parts: [Part; 2],
}

/// Why an area cannot be split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// An account has all the areas it may have.
    #[error(transparent)]
    TooManyAreas(#[from] Exceeded),
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
    /// The pages are a device's.
    #[error("area {area} shows memory of a device and cannot be split at {cut}: unmap all of it")]
    DevicesAlone {
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
            Self::TooManyAreas(exceeded) => exceeded.errno(),
            Self::NotReady { .. } | Self::Prevented { .. } => Errno::BUSY,
            Self::DevicesAlone { .. } => Errno::OPNOTSUPP,
            Self::Misaligned { .. } | Self::Accessed { .. } | Self::LargeLeaves { .. } => Errno::INVAL,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::TooManyAreas(exceeded) => exceeded.code(),
            Self::NotReady { .. } => "area-not-ready",
            Self::Prevented { .. } => "area-being-unmapped",
            Self::DevicesAlone { .. } => "memory-of-a-device",
            Self::Misaligned { .. } => "split-misaligned",
            Self::Accessed { .. } => "area-accessed",
            Self::LargeLeaves { .. } => "area-in-large-leaves",
        }
    }
}

impl<P: Clone> IoPageTable<P> {
    /// Splits the areas that show an end of `range` and what lies behind it; tells them in the order in which they were
    /// split. An end at the first address of an area cuts nothing off. A ready area is in a domain exactly if the table
    /// has one, so the table knows whether leaves may be large.
    ///
    /// # Errors
    /// If an area is in use in a way that a split would disturb, or there may be no more areas; nothing changes then.
    pub fn cut_out(&mut self, range: IovaRange) -> Result<Vec<Split<P>>, SplitError> {
        let before = range.start().get().checked_sub(1).map(Iova::new);
        let ends = [Some(range.last()), before].into_iter().flatten();
        let cuts = ends.filter_map(|byte| self.cut_behind(byte).transpose());
        let cuts: Vec<Iova> = cuts.collect::<Result<_, _>>()?;
        self.areas.take_quota(cuts.len() as u64)?;
        Ok(cuts.into_iter().filter_map(|cut| self.split_at(cut)).collect())
    }

    /// Where the area that shows `byte` is cut behind it: nowhere if there is none, or if it is its first or last address.
    fn cut_behind(&self, byte: Iova) -> Result<Option<Iova>, SplitError> {
        let (Some(area), Some(cut)) = (self.area_at(byte), byte.checked_add(1)) else {
            return Ok(None);
        };
        if byte == area.iova().start() || byte == area.iova().last() {
            return Ok(None);
        }
        self.check_split(area, cut)?;
        Ok(Some(cut))
    }

    /// One more area must have been taken out of the quota.
    fn split_at(&mut self, cut: Iova) -> Option<Split<P>> {
        let iova = self.area_at(cut)?.iova();
        let low = IovaRange::new(iova.start(), Iova::new(cut.get().checked_sub(1)?))?;
        let high = IovaRange::new(cut, iova.last())?;
        let area = self.areas.remove(self.area_at(cut)?.id())?;
        self.areas.take_quota_anyway();
        let parts = [low, high].map(|iova| self.insert_part(&area, iova));
        Some(Split { whole: (area.id, area.shape), pages: area.pages, parts })
    }

    fn check_split(&self, area: &Area<P>, cut: Iova) -> Result<(), SplitError> {
        let (iova, accesses, alignment) = (area.iova(), area.accesses(), self.alignment());
        let offset = area.shape().offset_of(cut);
        if !area.is_whole() {
            return Err(SplitError::NotReady { area: iova, cut, state: area.state() });
        }
        if area.new_accesses() == NewAccesses::Prevented {
            return Err(SplitError::Prevented { area: iova, cut });
        }
        if area.pages_writable() == Writable::ByDevicesAlone {
            return Err(SplitError::DevicesAlone { area: iova, cut });
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

    fn insert_part(&mut self, whole: &Area<P>, iova: IovaRange) -> Part {
        let id = self.areas.take_id();
        let shape = AreaShape::new(iova, whole.shape().offset_of(iova.start()));
        self.areas.insert(Area { id, shape, ..whole.clone() });
        (id, shape)
    }
}

#[cfg(test)]
mod tests {
    use super::super::area_map::Holder;
    use super::super::constraints::Owner;
    use super::super::fixture::{mapped, mapped_row, piece, range, table};
    use super::*;
    use crate::storage::ledger::node::Allowance;
    use crate::storage::ledger::resource::Resource;

    fn split_after(table: &mut IoPageTable<u32>, byte: u64) -> Result<Option<Split<u32>>, SplitError> {
        let splits = table.cut_out(range(0, byte));
        table.check();
        splits.map(|splits| splits.into_iter().next())
    }

    fn refusal(table: &mut IoPageTable<u32>, start: u64, last: u64) -> (Errno, &'static str) {
        let before: Vec<_> = table.areas().cloned().collect();
        let error = table.cut_out(range(start, last)).unwrap_err();
        assert!(table.areas().eq(&before), "a refused split changed an area");
        (error.errno(), error.code())
    }

    #[test]
    fn both_parts_show_what_the_area_showed() {
        let mut table = table();
        let old = mapped(&mut table, 0x1000, piece(0x3000, 0x800));
        let split = split_after(&mut table, 0x17ff).unwrap().unwrap();
        assert_eq!((split.whole.0, table.area(old)), (old, None));
        for ((id, shape), (iova, offset)) in
            split.parts.into_iter().zip([(range(0x1000, 0x17ff), 0x800), (range(0x1800, 0x3fff), 0x1000)])
        {
            assert_eq!(shape, AreaShape::new(iova, ByteLen::new(offset)));
            assert_eq!(table.area(id).map(Area::shape), Some(shape));
        }
    }

    #[test]
    fn a_part_is_cut_out_at_both_ends_or_not_at_all() {
        let mut table = table();
        mapped(&mut table, 0x1000, piece(0x5000, 0));
        let held = mapped(&mut table, 0x6000, piece(0x2000, 0));
        table.add_access_to(held, Holder::External);
        assert_eq!(refusal(&mut table, 0x2000, 0x6fff), (Errno::INVAL, "area-accessed"));
        let splits = table.cut_out(range(0x2000, 0x3fff)).unwrap();
        table.check();
        assert_eq!(splits[1].whole, splits[0].parts[0], "the same area, twice");
        let areas: Vec<_> = table.areas().map(Area::iova).collect();
        assert_eq!(areas[..3], [range(0x1000, 0x1fff), range(0x2000, 0x3fff), range(0x4000, 0x5fff)]);
    }

    #[test]
    fn parts_count_as_areas() {
        let mut table = IoPageTable::within(Allowance::alone(Resource::Areas, 2));
        mapped(&mut table, 0x1000, piece(0x3000, 0));
        assert_eq!(refusal(&mut table, 0x2000, 0x2fff).1, Resource::Areas.code());
        assert!(split_after(&mut table, 0x1fff).unwrap().is_some());
        assert_eq!(refusal(&mut table, 0x3000, 0x3fff).1, Resource::Areas.code());
    }

    #[test]
    fn the_first_and_last_byte_and_a_gap_split_nothing() {
        let mut table = table();
        mapped(&mut table, 0x1000, piece(0x1000, 0));
        mapped(&mut table, u64::MAX - 9, piece(10, 0));
        for byte in [0xfff, 0x1000, 0x1fff, 0x2000, u64::MAX] {
            assert_eq!(split_after(&mut table, byte), Ok(None));
        }
    }

    #[test]
    fn a_cut_must_be_aligned_in_the_iova_and_in_the_pages() {
        let mut table = table();
        mapped(&mut table, 0x1000, piece(0x2000, 0));
        table.add_alignment(Owner::Access(1), 0x800).unwrap();
        assert_eq!(refusal(&mut table, 0, 0x1800), (Errno::INVAL, "split-misaligned"));
        assert!(split_after(&mut table, 0x17ff).unwrap().is_some());
    }

    #[test]
    fn a_cut_aligned_in_the_iova_only_is_refused() {
        let mut table = table();
        table.add_alignment(Owner::Access(1), 0x800).unwrap();
        mapped_row(&mut table, 0x1000, &[piece(0x400, 0), piece(0xc00, 0)]);
        assert_eq!(refusal(&mut table, 0, 0x17ff).0, Errno::INVAL);
    }

    #[test]
    fn a_held_area_is_not_split_and_alignment_is_checked_first() {
        let mut table = table();
        let id = mapped(&mut table, 0x1000, piece(0x2000, 0));
        table.add_access_to(id, Holder::External);
        assert_eq!(refusal(&mut table, 0, 0x1fff), (Errno::INVAL, "area-accessed"));
        table.add_alignment(Owner::Access(1), 0x1000).unwrap();
        assert_eq!(refusal(&mut table, 0, 0x17ff).1, "split-misaligned");
    }

    #[test]
    fn a_mapped_area_is_split_only_with_large_pages_off() {
        let mut table = table();
        table.add_domain(Owner::Domain(1), 0x1000, IovaRange::ALL).unwrap();
        mapped(&mut table, 0x1000, piece(0x2000, 0));
        assert_eq!(refusal(&mut table, 0, 0x1fff), (Errno::INVAL, "area-in-large-leaves"));
        table.remove_owner(Owner::Domain(1));
        table.set_large_pages(LargePages::Off).unwrap();
        table.add_domain(Owner::Domain(1), 0x1000, IovaRange::ALL).unwrap();
        assert!(split_after(&mut table, 0x1fff).unwrap().is_some());
    }

    #[test]
    fn an_area_that_is_not_ready_is_busy() {
        let mut table = table();
        let id = mapped(&mut table, 0x1000, piece(0x2000, 0));
        table.begin_retire(id);
        assert_eq!(refusal(&mut table, 0, 0x1fff), (Errno::BUSY, "area-not-ready"));
    }
}
