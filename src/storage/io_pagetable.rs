//! The IOVA map of one IOAS (`io_pagetable`): which areas lie where, and which addresses are free.
//!
//! The table owns the areas, and what attached things ask of its addresses. It does not own pages or domains: an area
//! carries a handle `P` to its pages, and whoever owns the table fills domains, pins pages and then says so here.
//!
//! ```text
//!   reserve ──▶ Installing ── publish ──▶ Ready ── begin_retire ──▶ Retiring ── remove ──▶ gone
//!                    └─ abort ──▶ gone      └─ withdraw ──▶ Withdrawn ─┘
//! ```
//!
//! Each call is one step that succeeds or changes nothing (an unmap step may in addition stop new accesses). A call
//! costs the logarithm of the number of areas, but for automatic placement, which walks the used ranges below its
//! result, and for raising the alignment, which looks at every area.
//!
//! Imports allowed: units, error, fault_points, area, iova_allocator, the ledger.

mod alignment;
mod allowed;
mod area_map;
mod constraints;
#[cfg(test)]
mod fixture;
mod free;
mod large_pages;
mod lookup;
#[cfg(test)]
mod model;
mod place_error;
mod placement;
mod prospect;
mod range_set;
mod request;
mod reserved;
mod split;
mod unmap;

pub use alignment::LargePages;
pub use allowed::{AllowError, check_allowed_range};
pub use area_map::{Area, AreaId, AreaState, Holder, NewAccesses, Writable};
pub use constraints::{AttachError, Owner};
pub use free::{GapLimits, Gaps, OWNERS_NAMED, Ruled};
pub use large_pages::LargePagesError;
pub use lookup::{AccessKind, AccessPart, AccessWalk, LookupError, Transfer};
pub use place_error::PlaceError;
pub use placement::{Piece, Placement, Reservation};
pub use prospect::{AREAS_NAMED, Outlook, Pinning, Prospect};
pub use request::{
    Field, RequestError, UnmapRequest, check_copy_request, check_file_range, check_map_request, check_range,
    check_unmap_request, check_user_memory,
};
pub use split::{Part, Split, SplitError};
pub use unmap::{UnmapError, UnmapStep};

use ioasd_client::units::{ByteLen, Iova, IovaRange};

use alignment::Alignments;
use area_map::AreaMap;
use range_set::RangeSet;
use reserved::Reserved;

use crate::storage::ledger::node::Allowance;
use crate::storage::ledger::resource::Resource;

/// The IOVA map of one IOAS.
#[derive(Debug)]
pub struct IoPageTable<P> {
    areas: AreaMap<P>,
    reserved: Reserved,
    allowed: RangeSet,
    alignments: Alignments,
}

impl<P> Default for IoPageTable<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> IoPageTable<P> {
    /// An empty table: no areas, nothing reserved, no restriction, alignment 1, no limit of areas.
    #[must_use]
    pub fn new() -> Self {
        Self::within(Allowance::unlimited(Resource::Areas))
    }

    /// An empty table whose areas count towards `quota`.
    #[must_use]
    pub fn within(quota: Allowance) -> Self {
        Self {
            areas: AreaMap::new(quota),
            reserved: Reserved::default(),
            allowed: RangeSet::default(),
            alignments: Alignments::new(),
        }
    }

    /// The area of that name, in any state.
    #[must_use]
    pub fn area(&self, id: AreaId) -> Option<&Area<P>> {
        self.areas.get(id)
    }

    /// The area, in any state, that shows `iova`.
    #[must_use]
    pub fn area_at(&self, iova: Iova) -> Option<&Area<P>> {
        self.areas.first_in(IovaRange::new(iova, iova)?)
    }

    /// All areas in IOVA order.
    pub fn areas(&self) -> impl Iterator<Item = &Area<P>> {
        self.areas.iter()
    }

    /// The areas in IOVA order, from the one on that shows `from` or is the first behind it.
    pub fn areas_from(&self, from: Iova) -> impl Iterator<Item = &Area<P>> {
        IovaRange::new(from, IovaRange::ALL.last())
            .into_iter()
            .flat_map(|range| self.areas.intersecting(range))
    }

    /// The ready areas in IOVA order: what every domain shows.
    pub fn ready_areas(&self) -> impl Iterator<Item = &Area<P>> {
        self.areas().filter(|area| area.is_ready())
    }

    /// How many areas there are, in any state.
    #[must_use]
    pub fn area_count(&self) -> u64 {
        self.areas.len() as u64
    }

    /// Bytes of IOVA that all areas take, in any state.
    #[must_use]
    pub fn mapped(&self) -> ByteLen {
        self.areas.mapped()
    }

    /// Bytes of the areas that lie in `range` or reach into it.
    #[must_use]
    pub fn mapped_in(&self, range: IovaRange) -> ByteLen {
        if range == IovaRange::ALL {
            return self.mapped();
        }
        ByteLen::new(self.areas.intersecting(range).map(|area| area.iova().length().get()).sum())
    }

    /// Whether there is no area in any state.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.areas.is_empty()
    }

    /// Makes all areas of a reservation ready in one step.
    pub fn publish(&mut self, reservation: &Reservation) {
        for id in reservation.areas() {
            self.advance(*id, AreaState::Installing, AreaState::Ready);
        }
    }

    /// Gives the IOVAs of a reservation back, as if it had never been made.
    pub fn abort(&mut self, reservation: Reservation) {
        for id in reservation.into_areas() {
            debug_assert!(self.is_in(id, AreaState::Installing), "{id} is aborted, but not being installed");
            self.areas.remove(id);
        }
    }

    /// Takes a whole area that no access holds out of every lookup; its IOVA stays taken. Tells what it was.
    pub fn begin_retire(&mut self, id: AreaId) -> AreaState {
        let before =
            if self.is_in(id, AreaState::Withdrawn) { AreaState::Withdrawn } else { AreaState::Ready };
        self.advance(id, before, AreaState::Retiring);
        before
    }

    /// Leaves a ready area to be in no domain any more.
    pub fn withdraw(&mut self, id: AreaId) {
        self.advance(id, AreaState::Ready, AreaState::Withdrawn);
    }

    /// Frees the IOVA of a retiring area; `None` if there is no such retiring area.
    pub fn remove(&mut self, id: AreaId) -> Option<Area<P>> {
        if self.is_in(id, AreaState::Retiring) { self.areas.remove(id) } else { None }
    }

    /// Counts a pin on a ready area. One call a pin and area, in the same step as the walk that found the area.
    pub fn add_access_to(&mut self, id: AreaId, holder: Holder) {
        debug_assert!(self.is_in(id, AreaState::Ready), "{id} gets an access, but is not ready");
        let Some(area) = self.areas.get_mut(id) else {
            return;
        };
        area.accesses += 1;
        area.locks += u64::from(holder == Holder::Internal);
    }

    /// Takes back one [`IoPageTable::add_access_to`] of the same holder.
    pub fn drop_access_from(&mut self, id: AreaId, holder: Holder) {
        let Some(area) = self.areas.get_mut(id) else {
            return;
        };
        debug_assert!(area.accesses > 0, "{id} loses an access it does not have");
        area.accesses = area.accesses.saturating_sub(1);
        area.locks = area.locks.saturating_sub(u64::from(holder == Holder::Internal));
    }

    fn advance(&mut self, id: AreaId, from: AreaState, to: AreaState) {
        debug_assert!(self.is_in(id, from), "{id} becomes {to:?}, but is not {from:?}");
        if let Some(area) = self.areas.get_mut(id) {
            area.state = to;
        }
    }

    fn is_in(&self, id: AreaId, state: AreaState) -> bool {
        self.area(id).is_some_and(|area| area.state() == state)
    }

    /// Panics unless the table keeps its rules. For tests.
    pub fn check(&self) {
        self.areas.check();
        self.reserved.check();
        self.allowed.check();
        self.alignments.check();
        for reserved in self.reserved.union().iter() {
            assert!(self.areas.first_in(reserved).is_none(), "an area lies in reserved {reserved}");
            assert!(self.allowed.first_in(reserved).is_none(), "reserved {reserved} is allowed");
        }
    }
}
