//! Areas, and the map that finds them by address and by id.
//!
//! Imports allowed: units, area.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use ioasd_client::units::{ByteLen, Iova, IovaRange, Permission};

use crate::storage::area::AreaShape;
use crate::storage::ledger::exceeded::Exceeded;
use crate::storage::ledger::node::Allowance;

/// Names an area for the lifetime of its table; never given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AreaId(u64);

#[cfg(test)]
impl AreaId {
    /// A name that no table gave.
    pub(in crate::storage) const fn new(id: u64) -> Self {
        Self(id)
    }
}

impl fmt::Display for AreaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "area {}", self.0)
    }
}

/// Where an area is in its life. Only a whole area is seen by lookups: one that is ready, or was withdrawn. The IOVA of every
/// area is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AreaState {
    /// Its IOVA is taken, its pages are on their way into the domains.
    Installing,
    /// In every domain, and open to accesses.
    Ready,
    /// Out of every domain for good, because its pages were withdrawn; its IOVA stays taken until it is unmapped.
    Withdrawn,
    /// Out of every domain; its IOVA stays taken until nobody can still hold a translation.
    Retiring,
}

/// Whether the pages of an area can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Writable {
    /// They can.
    Yes,
    /// They are pinned for reading only.
    No,
    /// They are no memory, but a device's: devices read and write them, accesses do neither.
    ByDevicesAlone,
}

/// Whether an area still takes new accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NewAccesses {
    /// It does.
    Admitted,
    /// An unmap has asked its accesses to leave: it never does again.
    Prevented,
}

/// Whether whoever holds an area can be asked to leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Holder {
    /// It can: an unmap sends it a notice.
    External,
    /// It cannot: the area is locked against unmaps.
    Internal,
}

/// One contiguous range of IOVAs that shows a slice of one pages object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area<P> {
    pub(super) id: AreaId,
    pub(super) shape: AreaShape,
    pub(super) permission: Permission,
    pub(super) pages: P,
    pub(super) pages_writable: Writable,
    pub(super) state: AreaState,
    pub(super) accesses: u64,
    pub(super) locks: u64,
    pub(super) new_accesses: NewAccesses,
}

impl<P> Area<P> {
    /// Its name.
    #[must_use]
    pub const fn id(&self) -> AreaId {
        self.id
    }

    /// Where it lies and what it shows.
    #[must_use]
    pub const fn shape(&self) -> AreaShape {
        self.shape
    }

    /// Its IOVAs.
    #[must_use]
    pub const fn iova(&self) -> IovaRange {
        self.shape.iova()
    }

    /// What devices and accesses may do with it.
    #[must_use]
    pub const fn permission(&self) -> Permission {
        self.permission
    }

    /// The pages object behind it.
    #[must_use]
    pub const fn pages(&self) -> &P {
        &self.pages
    }

    /// Whether these pages can be written, whatever the permission of the area.
    #[must_use]
    pub const fn pages_writable(&self) -> Writable {
        self.pages_writable
    }

    /// Where it is in its life.
    #[must_use]
    pub const fn state(&self) -> AreaState {
        self.state
    }

    /// How many pins of accesses hold it.
    #[must_use]
    pub const fn accesses(&self) -> u64 {
        self.accesses
    }

    /// How many of [`Area::accesses`] lock it against unmaps.
    #[must_use]
    pub const fn locks(&self) -> u64 {
        self.locks
    }

    /// Whether it takes new accesses.
    #[must_use]
    pub const fn new_accesses(&self) -> NewAccesses {
        self.new_accesses
    }

    /// Whether it is in every domain, and open to accesses.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == AreaState::Ready
    }

    /// Whether lookups see it: it is neither being installed nor retired.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        matches!(self.state, AreaState::Ready | AreaState::Withdrawn)
    }

    /// Whether start, length and place in the first page are multiples of `alignment`, a power of two.
    #[must_use]
    pub fn is_aligned(&self, alignment: u64) -> bool {
        let iova = self.iova();
        iova.start().is_aligned(alignment)
            && iova.length().is_aligned(alignment)
            && self.shape.page_offset().is_aligned(alignment)
    }
}

/// All areas of a table, disjoint, by start address; every search is logarithmic.
#[derive(Debug)]
pub(super) struct AreaMap<P> {
    by_start: BTreeMap<Iova, Area<P>>,
    starts: HashMap<AreaId, Iova>,
    /// Disjoint ranges can add up to 2^64.
    mapped: u128,
    next_id: u64,
    quota: Allowance,
}

impl<P> AreaMap<P> {
    /// An empty map whose areas count towards `quota`.
    pub(super) fn new(quota: Allowance) -> Self {
        Self { by_start: BTreeMap::new(), starts: HashMap::new(), mapped: 0, next_id: 0, quota }
    }

    /// Takes `areas` areas out of the quota, to be inserted now.
    pub(super) fn take_quota(&self, areas: u64) -> Result<(), Exceeded> {
        self.quota.take(areas)
    }

    /// Out of what new areas are taken.
    pub(super) const fn quota(&self) -> &Allowance {
        &self.quota
    }

    /// Takes one more area out of the quota, whatever its limit.
    pub(super) fn take_quota_anyway(&self) {
        self.quota.take_anyway(1);
    }

    pub(super) const fn take_id(&mut self) -> AreaId {
        let id = AreaId(self.next_id);
        self.next_id += 1;
        id
    }

    /// Adds an area whose range must be free, and for which quota was taken.
    pub(super) fn insert(&mut self, area: Area<P>) {
        debug_assert!(self.first_in(area.iova()).is_none(), "{} lies on another area", area.id);
        self.mapped += u128::from(area.iova().length().get());
        self.starts.insert(area.id, area.iova().start());
        self.by_start.insert(area.iova().start(), area);
    }

    pub(super) fn remove(&mut self, id: AreaId) -> Option<Area<P>> {
        let start = self.starts.remove(&id)?;
        let area = self.by_start.remove(&start)?;
        self.quota.give_back(1);
        self.mapped -= u128::from(area.iova().length().get());
        Some(area)
    }

    pub(super) fn len(&self) -> usize {
        self.by_start.len()
    }

    pub(super) fn mapped(&self) -> ByteLen {
        ByteLen::new(u64::try_from(self.mapped).unwrap_or(u64::MAX))
    }

    pub(super) fn get(&self, id: AreaId) -> Option<&Area<P>> {
        self.by_start.get(self.starts.get(&id)?)
    }

    pub(super) fn get_mut(&mut self, id: AreaId) -> Option<&mut Area<P>> {
        self.by_start.get_mut(self.starts.get(&id)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Area<P>> {
        self.by_start.values()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// The areas that share an address with `range`, in IOVA order.
    pub(super) fn intersecting(&self, range: IovaRange) -> impl Iterator<Item = &Area<P>> {
        let reaching_in = self.last_below(range.start()).filter(|area| area.iova().intersects(range));
        let within = self.by_start.range(range.start()..=range.last()).map(|(_, area)| area);
        reaching_in.into_iter().chain(within)
    }

    pub(super) fn first_in(&self, range: IovaRange) -> Option<&Area<P>> {
        self.intersecting(range).next()
    }

    /// The last area that begins below `iova`.
    pub(super) fn last_below(&self, iova: Iova) -> Option<&Area<P>> {
        self.by_start.range(..iova).next_back().map(|(_, area)| area)
    }

    pub(super) fn check(&self) {
        assert_eq!(self.by_start.len(), self.starts.len(), "the index of areas drifted");
        assert!(self.quota.used() >= self.by_start.len() as u64, "areas are missing in the quota");
        let mapped: u128 = self.iter().map(|area| u128::from(area.iova().length().get())).sum();
        assert_eq!(self.mapped, mapped, "the count of mapped bytes drifted");
        let mut free_from = Some(Iova::new(0));
        for (start, area) in &self.by_start {
            assert_eq!(*start, area.iova().start(), "{} is filed under a wrong address", area.id);
            assert_eq!(self.starts.get(&area.id), Some(start), "{} is not in the index", area.id);
            assert!(free_from.is_some_and(|free| free <= *start), "{} overlaps the one before", area.id);
            free_from = area.iova().last().checked_add(1);
            area.check(self.next_id);
        }
    }
}

impl<P> Drop for AreaMap<P> {
    fn drop(&mut self) {
        self.quota.give_back(self.by_start.len() as u64);
    }
}

impl<P> Area<P> {
    fn check(&self, next_id: u64) {
        assert!(self.id.0 < next_id, "{} has an id never given out", self.id);
        assert!(self.locks <= self.accesses, "{} has more locks than accesses", self.id);
        assert!(self.accesses == 0 || self.is_ready(), "{} is held but not ready", self.id);
    }
}
