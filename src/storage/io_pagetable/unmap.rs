//! UNMAP, area by area: the walk looks at one area, its caller acts on it and asks for the next.
//!
//! An unmap never splits an area, and what it removed before an error stays removed. Between two steps anything may
//! happen to the table; areas mapped behind the cursor are left alone.
//!
//! Imports allowed: units, error.

use ioasd_client::units::{Iova, IovaRange};

use super::IoPageTable;
use super::area_map::{AreaId, AreaState, NewAccesses};
use crate::error::{Coded, Errno};

/// What an unmap does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmapStep {
    /// No area is left in the range.
    Done,
    /// Accesses hold this area, which takes no new ones from now on: ask them to leave, then repeat the step.
    Accessed {
        /// The area.
        area: AreaId,
        /// What they must let go of; its start is the cursor of the repetition.
        iova: IovaRange,
    },
    /// Nobody holds this area: retire it.
    Take {
        /// The area.
        area: AreaId,
        /// Its IOVAs.
        iova: IovaRange,
        /// Where the walk goes on; `None` if the range ends with this area.
        next: Option<Iova>,
    },
}

/// Why an area cannot be unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnmapError {
    /// The area is being installed or retired.
    #[error("area {area}, in the range {range} to unmap, is {state:?}: wait for the map or unmap under way")]
    NotReady {
        /// The range to unmap.
        range: IovaRange,
        /// The area.
        area: IovaRange,
        /// Where it is in its life.
        state: AreaState,
    },
    /// An internal access holds the area and cannot be asked to leave.
    #[error(
        "area {area}, in the range {range} to unmap, is locked {locks} time(s): destroy what holds it first"
    )]
    Locked {
        /// The range to unmap.
        range: IovaRange,
        /// The area.
        area: IovaRange,
        /// How often.
        locks: u64,
    },
    /// The range ends inside the area, or starts inside it.
    #[error(
        "the range {range} to unmap covers only a part of area {area}: unmap all of it, areas are not split"
    )]
    Partial {
        /// The range to unmap.
        range: IovaRange,
        /// The area.
        area: IovaRange,
    },
    /// The range has no area.
    #[error("nothing is mapped in the range {range} to unmap: check the address")]
    NothingMapped {
        /// The range to unmap.
        range: IovaRange,
    },
}

impl Coded for UnmapError {
    fn errno(&self) -> Errno {
        match self {
            Self::NotReady { .. } | Self::Locked { .. } => Errno::BUSY,
            Self::Partial { .. } | Self::NothingMapped { .. } => Errno::NOENT,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotReady { .. } => "area-not-ready",
            Self::Locked { .. } => "area-locked",
            Self::Partial { .. } => "unmap-cuts-area",
            Self::NothingMapped { .. } => "iova-not-mapped",
        }
    }
}

impl<P> IoPageTable<P> {
    /// The next step of unmapping `range`, everything before `cursor` being done. The walk begins with the start of
    /// the range as its cursor.
    ///
    /// # Errors
    /// If the next area is not ready, or locked, or not wholly in the rest of the range, in this order.
    pub fn unmap_step(&mut self, range: IovaRange, cursor: Iova) -> Result<UnmapStep, UnmapError> {
        let Some(rest) = IovaRange::new(cursor, range.last()) else {
            return Ok(UnmapStep::Done);
        };
        let Some(area) = self.areas.first_in(rest) else {
            return Ok(UnmapStep::Done);
        };
        let (id, iova) = (area.id(), area.iova());
        if !area.is_whole() {
            return Err(UnmapError::NotReady { range, area: iova, state: area.state() });
        }
        if area.locks() > 0 {
            return Err(UnmapError::Locked { range, area: iova, locks: area.locks() });
        }
        if !rest.covers(iova) {
            return Err(UnmapError::Partial { range, area: iova });
        }
        if area.accesses() > 0 {
            self.prevent_accesses(id);
            return Ok(UnmapStep::Accessed { area: id, iova });
        }
        let next = iova.last().checked_add(1).filter(|next| *next <= range.last());
        Ok(UnmapStep::Take { area: id, iova, next })
    }

    fn prevent_accesses(&mut self, id: AreaId) {
        if let Some(area) = self.areas.get_mut(id) {
            area.new_accesses = NewAccesses::Prevented;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::area_map::Holder;
    use super::super::fixture::{mapped, piece, range, table};
    use super::super::lookup::{AccessKind, Transfer};
    use super::*;

    fn step(table: &mut IoPageTable<u32>, at: IovaRange, cursor: u64) -> Result<UnmapStep, Errno> {
        let step = table.unmap_step(at, Iova::new(cursor)).map_err(|error| error.errno());
        table.check();
        step
    }

    #[test]
    fn an_unmap_takes_the_areas_in_order_and_stops_at_the_last_address() {
        let mut table = table();
        let low = mapped(&mut table, 0x1000, piece(0x1000, 0));
        let high = mapped(&mut table, u64::MAX - 9, piece(10, 0));
        let all = IovaRange::ALL;
        let (iova, next) = (range(0x1000, 0x1fff), Some(Iova::new(0x2000)));
        assert_eq!(step(&mut table, all, 0), Ok(UnmapStep::Take { area: low, iova, next }));
        let iova = range(u64::MAX - 9, u64::MAX);
        assert_eq!(step(&mut table, all, 0x2000), Ok(UnmapStep::Take { area: high, iova, next: None }));
        assert_eq!(step(&mut table, range(0x2000, 0x3000), 0x2000), Ok(UnmapStep::Done));
        assert_eq!(step(&mut table, range(0x2000, 0x3000), 0x3001), Ok(UnmapStep::Done));
    }

    #[test]
    fn an_unmap_goes_on_for_the_one_byte_that_is_left() {
        let mut table = table();
        mapped(&mut table, 0x1000, piece(0x1000, 0));
        let UnmapStep::Take { next, .. } = step(&mut table, range(0x1000, 0x2000), 0x1000).unwrap() else {
            panic!("the area was not taken");
        };
        assert_eq!(next, Some(Iova::new(0x2000)));
        let UnmapStep::Take { next, .. } = step(&mut table, range(0x1000, 0x1fff), 0x1000).unwrap() else {
            panic!("the area was not taken");
        };
        assert_eq!(next, None);
    }

    #[test]
    fn not_ready_comes_before_locked_before_partial_before_accesses() {
        let mut table = table();
        let id = mapped(&mut table, 0x1000, piece(0x1000, 0));
        let (part, whole) = (range(0x1000, 0x1ffe), range(0x1000, 0x1fff));
        table.add_access_to(id, Holder::External);
        assert_eq!(step(&mut table, part, 0x1000), Err(Errno::NOENT));
        assert_eq!(step(&mut table, range(0x1001, 0x1fff), 0x1001), Err(Errno::NOENT));
        table.add_access_to(id, Holder::Internal);
        assert_eq!(step(&mut table, part, 0x1000), Err(Errno::BUSY));
        table.drop_access_from(id, Holder::Internal);
        assert_eq!(step(&mut table, whole, 0x1000), Ok(UnmapStep::Accessed { area: id, iova: whole }));
        table.drop_access_from(id, Holder::External);
        table.begin_retire(id);
        assert_eq!(step(&mut table, part, 0x1000), Err(Errno::BUSY));
    }

    #[test]
    fn an_area_once_asked_for_takes_no_new_access_even_if_the_unmap_gives_up() {
        let mut table = table();
        let id = mapped(&mut table, 0x1000, piece(0x1000, 0));
        table.add_access_to(id, Holder::External);
        step(&mut table, range(0x1000, 0x1fff), 0x1000).unwrap();
        let walk = table.access_walk(range(0x1000, 0x1fff), AccessKind::Copy(Transfer::Read));
        assert_eq!(walk.end.unwrap_err().errno(), Errno::INVAL);
        assert_eq!(table.copy_pieces(range(0x1000, 0x1fff)).unwrap().len(), 1);
        assert_eq!(table.cut_out(range(0, 0x17ff)).unwrap_err().errno(), Errno::BUSY);
    }

    #[test]
    fn a_withdrawn_area_is_in_the_way_until_it_is_unmapped() {
        let mut table = table();
        let id = mapped(&mut table, 0x1000, piece(0x1000, 0));
        table.withdraw(id);
        table.check();
        let whole = range(0x1000, 0x1fff);
        assert_eq!(
            (table.ready_areas().count(), table.copy_pieces(whole).map(|pieces| pieces.len())),
            (0, Ok(1))
        );
        assert!(table.add_reserved(super::super::Owner::Command, whole).is_err());
        assert_eq!(step(&mut table, range(0x1000, 0x1ffe), 0x1000), Err(Errno::NOENT));
        assert_eq!(
            step(&mut table, whole, 0x1000),
            Ok(UnmapStep::Take { area: id, iova: whole, next: None })
        );
        assert_eq!(table.begin_retire(id), AreaState::Withdrawn);
        assert_eq!(step(&mut table, whole, 0x1000), Err(Errno::BUSY));
        assert!(table.remove(id).is_some());
    }

    #[test]
    fn a_retiring_area_keeps_its_iova_until_it_is_removed() {
        let mut table = table();
        let id = mapped(&mut table, 0x1000, piece(0x1000, 0));
        table.begin_retire(id);
        assert!(table.add_reserved(super::super::Owner::Command, range(0x1fff, 0x2fff)).is_err());
        assert_eq!(table.remove(id).map(|area| area.iova()), Some(range(0x1000, 0x1fff)));
        assert_eq!(table.remove(id), None);
        assert_ne!(mapped(&mut table, 0x1000, piece(0x1000, 0)), id, "an id came back");
    }
}
