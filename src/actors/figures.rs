//! The figures that each kind of object shows of itself: plain atomics with one writer, the object's actor. What a device is
//! attached to, which changes seldom, is behind a lock.
//!
//! What never changes is a plain field. Reads take no lock; see the registry for what that means for sums.
//!
//! Imports allowed: units, `storage::{source, ioas}`, `sources::pinned_places`, `domains::walker_faults`, `sys::opener`, the registry's numbers, inbox and its questions.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::SystemTime;

use ioasd_client::ids::ObjectId;
use ioasd_client::units::ByteLen;
use parking_lot::Mutex;
use rustix::process::{Pid, Uid};

use super::inbox::Inbox;
use super::messages::questions::{
    AreasFrom, GapsAt, GapsFrom, HoldersOf, OutlookFor, PayerOf, RulesFrom, TableOf,
};
use super::number::Number;
pub use crate::domains::walker_faults::{FaultPart, FaultSeen, WalkerFaults, cause};
use crate::sources::pinned_places::PinnedPlaces;
use crate::storage::ioas::AccessNeeds;
use crate::storage::ledger::holder::TenantName;
use crate::storage::source::Strength;
use crate::sys::opener::Program;

/// A number of bytes that one actor writes and anybody reads.
#[derive(Debug, Default)]
pub struct Bytes(AtomicU64);

impl Bytes {
    /// Shows `bytes` from now on.
    pub fn set(&self, bytes: ByteLen) {
        self.0.store(bytes.get(), Ordering::Relaxed);
    }

    /// The bytes shown last.
    #[must_use]
    pub fn get(&self) -> ByteLen {
        ByteLen::new(self.0.load(Ordering::Relaxed))
    }
}

/// A number of things that one actor writes and anybody reads.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Shows `count` from now on.
    pub fn set(&self, count: u64) {
        self.0.store(count, Ordering::Relaxed);
    }

    /// The count shown last.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number of things that are under way, each of which holds a place in it.
#[derive(Debug, Default)]
pub struct Depth(AtomicU64);

/// One thing under way; counted until it is dropped.
#[derive(Debug)]
pub struct UnderWay(Arc<Depth>);

impl Depth {
    /// One more.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> UnderWay {
        self.0.fetch_add(1, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// How many there are.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a context shows.
#[derive(Debug)]
pub struct ContextStats {
    /// The user who opened it.
    pub uid: Uid,
    /// The tenant whose account it uses.
    pub tenant: TenantName,
    /// The process that opened it, if it lives in a pid namespace we can see.
    pub pid: Option<Pid>,
    /// What that process was.
    pub program: Program,
    /// When it was opened.
    pub since: SystemTime,
    /// Objects in its namespace.
    pub objects: Count,
    /// Requests that were read and not answered yet.
    pub requests: Arc<Depth>,
    /// Tells who would pay.
    pub payer: Inbox<PayerOf>,
}

impl ContextStats {
    /// A context without objects.
    #[must_use]
    pub fn new(uid: Uid, pid: Option<Pid>) -> Self {
        let (tenant, program, objects, requests, payer) = Default::default();
        Self { uid, tenant, pid, program, since: SystemTime::now(), objects, requests, payer }
    }

    /// On the account of `tenant`.
    #[must_use]
    pub fn of(self, tenant: TenantName) -> Self {
        Self { tenant, ..self }
    }

    /// Opened by `program`.
    #[must_use]
    pub fn by(self, program: Program) -> Self {
        Self { program, ..self }
    }
}

/// What an IO address space shows.
#[derive(Debug)]
pub struct IoasStats {
    /// The context it belongs to.
    pub context: Number<ContextStats>,
    /// Its id there.
    pub object: ObjectId,
    /// Areas in its IOVA map.
    pub areas: Count,
    /// Bytes of IOVA that its areas cover.
    pub mapped: Bytes,
    /// Tells its areas.
    pub inbox: Inbox<AreasFrom>,
    /// Tells its gaps.
    pub gaps: Inbox<GapsFrom>,
    /// Tells what is free around addresses.
    pub gaps_at: Inbox<GapsAt>,
    /// Tells what is reserved and allowed in it.
    pub rules: Inbox<RulesFrom>,
    /// Tells what a MAP would meet in it.
    pub outlook: Inbox<OutlookFor>,
}

impl IoasStats {
    /// An empty address space, `object` of `context`.
    #[must_use]
    pub fn new(context: Number<ContextStats>, object: ObjectId) -> Self {
        let (areas, mapped, inbox, gaps, gaps_at, rules, outlook) = Default::default();
        Self { context, object, areas, mapped, inbox, gaps, gaps_at, rules, outlook }
    }
}

/// A user that one actor writes and anybody reads.
#[derive(Debug)]
pub struct User(AtomicU32);

impl User {
    /// Shows `user`.
    #[must_use]
    pub const fn new(user: Uid) -> Self {
        Self(AtomicU32::new(user.as_raw()))
    }

    /// Shows `user` from now on.
    pub fn set(&self, user: Uid) {
        self.0.store(user.as_raw(), Ordering::Relaxed);
    }

    /// The user shown last.
    #[must_use]
    pub fn get(&self) -> Uid {
        Uid::from_raw(self.0.load(Ordering::Relaxed))
    }
}

/// What of a pages object never changes.
#[derive(Clone, Debug)]
pub struct PagesIdentity {
    /// The context it was made in.
    pub context: Number<ContextStats>,
    /// Where its pages come from, in words an operator recognises.
    pub source: String,
    /// Bytes of the whole array.
    pub length: ByteLen,
    /// What holds its pins.
    pub strength: Strength,
    /// Which pages of its file it has pinned; `None` if it is not over a file.
    pub places: Option<Arc<PinnedPlaces>>,
}

/// What a pages object shows. Length, pinned and charged are three different things.
#[derive(Debug)]
pub struct PagesStats {
    /// What never changes.
    pub identity: PagesIdentity,
    /// The user whose account pays.
    pub account: User,
    /// Bytes that hold a pin now.
    pub pinned: Bytes,
    /// Bytes that the kernel holds for these pins; 0 at strength resident, where nothing does.
    pub held: Bytes,
    /// Bytes the account has been billed for.
    pub charged: Bytes,
    /// Bytes unmapped everywhere that wait for walkers before they are unpinned; part of `pinned`.
    pub retiring: Bytes,
    /// Movements that wait for their turn, the running one included.
    pub movements: Arc<Depth>,
    /// Tells what holds its pages.
    pub inbox: Inbox<HoldersOf>,
}

impl PagesStats {
    /// An array nothing of which is pinned, paid by `account`.
    #[must_use]
    pub fn new(identity: PagesIdentity, account: Uid) -> Self {
        let (pinned, held, charged, retiring, movements, inbox) = Default::default();
        Self { identity, account: User::new(account), pinned, held, charged, retiring, movements, inbox }
    }
}

impl Deref for PagesStats {
    type Target = PagesIdentity;

    fn deref(&self) -> &PagesIdentity {
        &self.identity
    }
}

/// What of a domain never changes.
#[derive(Clone, Copy, Debug)]
pub struct DomainIdentity {
    /// The page-table format, in the word used in reports and metrics.
    pub format: &'static str,
    /// The address space whose areas it maps.
    pub ioas: Number<IoasStats>,
    /// The id of its HWPT in the context.
    pub object: ObjectId,
    /// The name its table has in the agent.
    pub key: u64,
}

/// What a domain shows.
#[derive(Debug)]
pub struct DomainStats {
    /// What never changes.
    pub identity: DomainIdentity,
    /// Bytes of IOVA that its table translates.
    pub mapped: Bytes,
    /// Bytes of page-table pages.
    pub table: Bytes,
    /// Walkers registered.
    pub walkers: Count,
    /// What they tell of their faults.
    pub faults: Arc<WalkerFaults>,
    /// Tells its table.
    pub inbox: Inbox<TableOf>,
}

impl DomainStats {
    /// An empty table, whose walkers tell of `faults`.
    #[must_use]
    pub fn new(identity: DomainIdentity, faults: Arc<WalkerFaults>) -> Self {
        let (mapped, table, walkers, inbox) = Default::default();
        Self { identity, mapped, table, walkers, faults, inbox }
    }
}

impl Deref for DomainStats {
    type Target = DomainIdentity;

    fn deref(&self) -> &DomainIdentity {
        &self.identity
    }
}

/// What of a device never changes.
#[derive(Clone, Copy, Debug)]
pub struct DeviceIdentity {
    /// The context it belongs to.
    pub context: Number<ContextStats>,
    /// Its object id there.
    pub object: ObjectId,
    /// What it stands for.
    pub kind: DeviceKind,
    /// The IOMMU it is behind.
    pub iommu: Iommu,
    /// The page-table format it walks, in the word used in reports and metrics.
    pub format: &'static str,
}

/// What a device stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A program that walks the table.
    Software,
    /// Nothing: the test command looks at the table in its place.
    Mock,
}

/// Which IOMMU a software device is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iommu {
    /// The one that all such devices share: devices on one IOAS share a domain.
    Shared,
    /// One of its own: it has a domain of its own.
    Own,
}

/// What a device is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachedTo {
    /// The object id of its HWPT.
    pub hwpt: ObjectId,
    /// The address space that shows.
    pub ioas: Number<IoasStats>,
    /// Since when.
    pub since: SystemTime,
}

/// What a device shows.
#[derive(Debug)]
pub struct DeviceStats {
    /// What never changes.
    pub identity: DeviceIdentity,
    /// When it was made.
    pub since: SystemTime,
    attached: Mutex<Option<AttachedTo>>,
}

impl DeviceStats {
    /// A device that is attached to nothing.
    #[must_use]
    pub fn new(identity: DeviceIdentity) -> Self {
        Self { identity, since: SystemTime::now(), attached: Mutex::default() }
    }

    /// Shows `attached` from now on. Rare, so that it may take a lock for a moment.
    pub fn show(&self, attached: Option<AttachedTo>) {
        *self.attached.lock() = attached;
    }

    /// What it is attached to.
    #[must_use]
    pub fn attached(&self) -> Option<AttachedTo> {
        *self.attached.lock()
    }
}

impl Deref for DeviceStats {
    type Target = DeviceIdentity;

    fn deref(&self) -> &DeviceIdentity {
        &self.identity
    }
}

/// What an access shows.
#[derive(Debug)]
pub struct AccessStats {
    /// The address space it uses.
    pub ioas: Number<IoasStats>,
    /// Its id in the context.
    pub object: ObjectId,
    /// What it was made for.
    pub needs: AccessNeeds,
    /// Pins it holds.
    pub pins: Count,
    /// Bytes of IOVA under these pins; what is pinned twice counts twice.
    pub pinned: Bytes,
}

impl AccessStats {
    /// An access that holds nothing.
    #[must_use]
    pub fn new(ioas: Number<IoasStats>, object: ObjectId, needs: AccessNeeds) -> Self {
        let (pins, pinned) = Default::default();
        Self { ioas, object, needs, pins, pinned }
    }
}

/// Figures that no object writes, for tests of those who read them.
#[cfg(test)]
pub(crate) mod examples {
    use ioasd_client::units::{IndexRange, PAGE_SIZE};

    use super::*;
    use crate::storage::frame_window::FileKey;

    pub(crate) fn pages(length: u64, account: u32) -> PagesStats {
        let identity = PagesIdentity {
            context: Number::new(1),
            source: "a test".to_owned(),
            length: ByteLen::new(length),
            strength: Strength::Resident,
            places: None,
        };
        PagesStats::new(identity, Uid::from_raw(account))
    }

    /// A pages object that has these pages of a file pinned.
    pub(crate) fn pages_of(file: FileKey, range: IndexRange, account: u32) -> PagesStats {
        let places = PinnedPlaces::of(file);
        places.pinned(range);
        let mut stats = pages(range.pages() * PAGE_SIZE, account);
        stats.identity.places = Some(places);
        stats
    }

    pub(crate) fn domain(format: &'static str, ioas: Number<IoasStats>) -> DomainStats {
        let identity = DomainIdentity { format, ioas, object: ObjectId::new(3), key: 1 };
        DomainStats::new(identity, Arc::default())
    }
}
