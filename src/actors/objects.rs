//! The objects of one context, by id.
//!
//! Ids go from 1 to 2^31-1; the lowest free one is given next. An object is referred to by others through the same
//! [`Rc`], and by operations that are running on it; DESTROY never waits for a referrer, it is EBUSY.
//!
//! ```text
//!   MockDevice ──▶ Device ──▶ Hwpt ──▶ Ioas ◀── Access
//!                     └──▶ NestedHwpt ──▶ Viommu ──▶ Hwpt
//!                     │          Vdevice ──┘      └── Veventq
//!                     └──▶ Hwpt, NestedHwpt ──▶ FaultQueue
//! ```
//!
//! What is nested in a HWPT is in [`nesting`], what a device is attached to in [`attachment`], queues that are read in
//! [`events`], pages that are mapped in [`regions`].
//!
//! Imports allowed: messages, the object actors, domains::spec, the client crate's formats.

pub mod attachment;
pub mod events;
pub mod mock_state;
pub mod nesting;
pub mod regions;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};

use actix::Addr;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::ObjectId;
use tokio::sync::Mutex;

use self::attachment::{AnyHwpt, Attached};
use self::events::{FaultQueueObject, VeventqObject};
use self::mock_state::MockState;
use self::nesting::{HwQueueObject, NestedHwptObject, VdeviceObject, ViommuObject};
use super::access::Access;
use super::domain::Domain;
use super::figures::{AccessStats, DeviceStats, IoasStats};
pub use super::figures::{DeviceIdentity, DeviceKind, Iommu};
use super::ioas::{Ioas, IoasCell};
use super::number::Number;
use super::registry::Registered;
use crate::domains::dirty::Tracking;
use crate::domains::spec::{Recording, TableSpec};
use crate::error::{Coded, Errno};
use crate::fault_points::{self, Injected, Point};
use crate::storage::ioas::{AccessKey, AccessNeeds};
use crate::storage::ledger::exceeded::Exceeded;
use crate::storage::ledger::node::Allowance;
use crate::storage::step::DomainKey;

/// An IO address space.
#[derive(Debug)]
pub struct IoasObject {
    /// Its id.
    pub id: ObjectId,
    /// The actor.
    pub ioas: Addr<Ioas>,
    /// The address space itself.
    pub cell: Rc<IoasCell>,
    /// Its number in the registry.
    pub number: Number<IoasStats>,
    /// The HWPTs that show it, in the order in which they were made.
    pub hwpts: RefCell<Vec<Weak<HwptObject>>>,
    /// Held while a HWPT is looked for or made, so that devices that can share one do.
    pub choosing: Mutex<()>,
}

/// Who asked for a HWPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// An attach to its address space; it goes with its last device.
    Automatically,
    /// A client; it stays until it is destroyed, and is chosen only by its id.
    ByHand,
}

/// The devices that can share a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All behind the shared IOMMU that walk this format.
    Shared(FormatId),
    /// The one device with this number.
    Only(Number<DeviceStats>),
}

/// A domain as the uAPI sees it.
#[derive(Debug)]
pub struct HwptObject {
    /// Its id.
    pub id: ObjectId,
    /// The address space it shows.
    pub ioas: Rc<IoasObject>,
    /// The actor.
    pub domain: Addr<Domain>,
    /// Where the table is.
    pub key: DomainKey,
    /// The devices it was made for.
    pub sharing: Sharing,
    /// Who asked for it.
    pub made: Made,
    /// What its table is.
    pub spec: TableSpec,
    /// What it was made to be: `HWPT_*`.
    pub flags: u32,
    /// Whether what devices write is being tracked.
    pub tracking: Cell<Tracking>,
    /// Where faults of its devices go.
    pub faults: Option<Rc<FaultQueueObject>>,
}

/// A test object: a mock device and its being there.
#[derive(Debug)]
pub struct MockDeviceObject {
    /// Its id.
    pub id: ObjectId,
    /// The device.
    pub device: Rc<DeviceObject>,
}

/// A software or mock device.
#[derive(Debug)]
pub struct DeviceObject {
    /// Its id.
    pub id: ObjectId,
    /// The page table it walks unless another is asked for.
    pub spec: TableSpec,
    /// Its figures, and what it stands for.
    pub stats: Registered<DeviceStats>,
    /// How many PASIDs it has.
    pub pasids: u32,
    /// What it leaves behind where it writes: mock hardware in tables, a program that walks them in its dirty log.
    pub recording: Recording,
    attached: RefCell<Attached>,
    /// Held while that changes.
    pub changing: Mutex<()>,
    /// What a vIOMMU knows it as.
    pub vdevice: RefCell<Weak<VdeviceObject>>,
    /// What mock hardware keeps of it.
    pub mock: MockState,
}

impl DeviceObject {
    /// A device that is attached to nothing.
    #[must_use]
    pub fn new(stats: Registered<DeviceStats>, spec: TableSpec) -> Self {
        let (attached, changing, vdevice, mock) = Default::default();
        let (pasids, recording) = (0, Recording::Writes);
        Self { id: stats.object, spec, stats, pasids, recording, attached, changing, vdevice, mock }
    }

    /// The same, marking this in tables.
    #[must_use]
    pub fn with_recording(self, recording: Recording) -> Self {
        Self { recording, ..self }
    }

    /// The same with so many PASIDs.
    #[must_use]
    pub fn with_pasids(self, pasids: u32) -> Self {
        Self { pasids, ..self }
    }

    /// The devices it can share a domain with.
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        match self.stats.iommu {
            Iommu::Shared => Sharing::Shared(self.spec.format()),
            Iommu::Own => Sharing::Only(self.stats.number()),
        }
    }
}

impl IoasObject {
    /// An address space that nothing shows.
    #[must_use]
    pub fn new(id: ObjectId, (ioas, cell): (Addr<Ioas>, Rc<IoasCell>), number: Number<IoasStats>) -> Self {
        Self { id, ioas, cell, number, hwpts: RefCell::default(), choosing: Mutex::new(()) }
    }

    /// The first HWPT made automatically that these devices can share.
    #[must_use]
    pub fn hwpt_for(&self, sharing: Sharing) -> Option<Rc<HwptObject>> {
        let hwpts = self.hwpts.borrow();
        let mut hwpts = hwpts.iter().filter_map(Weak::upgrade);
        hwpts.find(|hwpt| hwpt.made == Made::Automatically && hwpt.sharing == sharing)
    }

    /// Notes one more HWPT, and forgets those that are gone.
    pub fn add_hwpt(&self, hwpt: &Rc<HwptObject>) {
        let mut hwpts = self.hwpts.borrow_mut();
        hwpts.retain(|hwpt| hwpt.strong_count() > 0);
        hwpts.push(Rc::downgrade(hwpt));
    }

    /// Offers a HWPT to nobody any more, because it ends.
    pub fn forget_hwpt(&self, id: ObjectId) {
        let is_other = |hwpt: &Weak<HwptObject>| hwpt.upgrade().is_some_and(|hwpt| hwpt.id != id);
        self.hwpts.borrow_mut().retain(is_other);
    }
}

/// A software user.
#[derive(Debug)]
pub struct AccessObject {
    /// Its id.
    pub id: ObjectId,
    /// Its name in the agent.
    pub key: AccessKey,
    /// What it will do.
    pub needs: AccessNeeds,
    /// The actor.
    pub access: Addr<Access>,
    /// The address space it uses, if it is attached to one.
    pub attached: RefCell<Option<Attachment>>,
    /// Held while that changes.
    pub changing: Mutex<()>,
}

/// An access on an address space.
#[derive(Debug)]
pub struct Attachment {
    /// The address space.
    pub ioas: Rc<IoasObject>,
    /// What the access holds there.
    pub stats: Registered<AccessStats>,
}

/// Any object.
#[derive(Clone, Debug)]
pub enum Object {
    /// An address space.
    Ioas(Rc<IoasObject>),
    /// A domain.
    Hwpt(Rc<HwptObject>),
    /// A device.
    Device(Rc<DeviceObject>),
    /// An access.
    Access(Rc<AccessObject>),
    /// A test object.
    MockDevice(Rc<MockDeviceObject>),
    /// A HWPT nested in another.
    NestedHwpt(Rc<NestedHwptObject>),
    /// A slice of an IOMMU.
    Viommu(Rc<ViommuObject>),
    /// A device as a vIOMMU knows it.
    Vdevice(Rc<VdeviceObject>),
    /// A queue of faults.
    FaultQueue(Rc<FaultQueueObject>),
    /// A queue of a vIOMMU's events.
    Veventq(Rc<VeventqObject>),
    /// A queue of a vIOMMU's hardware.
    HwQueue(Rc<HwQueueObject>),
}

/// What a device can be attached to.
#[derive(Clone, Debug)]
pub enum AttachTarget {
    /// An address space, through a domain of its own choice.
    Ioas(Rc<IoasObject>),
    /// A HWPT.
    Hwpt(AnyHwpt),
}

impl Object {
    /// References besides the one of the table.
    fn referrers(&self) -> usize {
        let all = match self {
            Self::Ioas(object) => Rc::strong_count(object),
            Self::Hwpt(object) => Rc::strong_count(object),
            Self::Device(object) => Rc::strong_count(object) + object.attached.borrow().count(),
            Self::Access(object) => Rc::strong_count(object),
            Self::MockDevice(object) => Rc::strong_count(object),
            Self::NestedHwpt(object) => Rc::strong_count(object),
            Self::Viommu(object) => Rc::strong_count(object),
            Self::Vdevice(object) => Rc::strong_count(object),
            Self::FaultQueue(object) => Rc::strong_count(object),
            Self::Veventq(object) => Rc::strong_count(object),
            Self::HwQueue(object) => Rc::strong_count(object),
        };
        all.saturating_sub(1)
    }

    /// How many of what a program can map of it, it has mapped.
    fn mapped(&self) -> usize {
        match self {
            Self::Viommu(object) => object.region.iter().filter(|region| region.is_mapped()).count(),
            _ => 0,
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Ioas(_) => "an ioas",
            Self::Hwpt(_) => "a hwpt",
            Self::Device(_) => "a device",
            Self::Access(_) => "an access",
            Self::MockDevice(_) => "a mock device",
            Self::NestedHwpt(_) => "a nested hwpt",
            Self::Viommu(_) => "a viommu",
            Self::Vdevice(_) => "a vdevice",
            Self::FaultQueue(_) => "a fault queue",
            Self::Veventq(_) => "a veventq",
            Self::HwQueue(_) => "a hw queue",
        }
    }
}

/// Why an object cannot be had, made or destroyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// No such object, or one of another kind.
    #[error("object {id} is not {wanted} of this context")]
    Absent {
        /// The id.
        id: ObjectId,
        /// What it should be.
        wanted: &'static str,
    },
    /// It exists, but is of a kind that cannot be meant.
    #[error("object {id} is {kind}, wanted is {wanted}")]
    WrongKind {
        /// The id.
        id: ObjectId,
        /// What it is.
        kind: &'static str,
        /// What it should be.
        wanted: &'static str,
    },
    /// Something refers to it.
    #[error("object {id} is {kind} in use {referrers} time(s): detach, destroy or unmap what uses it first")]
    Busy {
        /// The id.
        id: ObjectId,
        /// What it is.
        kind: &'static str,
        /// How often.
        referrers: usize,
    },
    /// An account has all the objects it may have.
    #[error(transparent)]
    TooMany(#[from] Exceeded),
    /// A test made it fail.
    #[error(transparent)]
    Injected(#[from] Injected),
}

impl Coded for ObjectError {
    fn errno(&self) -> Errno {
        match self {
            Self::Absent { .. } => Errno::NOENT,
            Self::WrongKind { .. } => Errno::INVAL,
            Self::Busy { .. } => Errno::BUSY,
            Self::TooMany(exceeded) => exceeded.errno(),
            Self::Injected(_) => Errno::NOMEM,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Absent { .. } => "object-absent",
            Self::WrongKind { .. } => "object-wrong-kind",
            Self::Busy { .. } => "object-busy",
            Self::TooMany(exceeded) => exceeded.code(),
            Self::Injected(injected) => injected.code(),
        }
    }
}

/// Declares how objects of one kind are found: any other is absent.
macro_rules! lookups {
    ($($(#[doc = $note:literal])* $name:ident: $kind:ident($object:ty), $wanted:literal;)*) => {
        impl Objects { $(
            $(#[doc = $note])*
            ///
            /// # Errors
            /// If there is none.
            pub fn $name(&self, id: ObjectId) -> Result<Rc<$object>, ObjectError> {
                match self.get(id, $wanted)? {
                    Object::$kind(object) => Ok(Rc::clone(object)),
                    _ => Err(ObjectError::Absent { id, wanted: $wanted }),
                }
            }
        )* }
    };
}

lookups! {
    /// The address space `id`.
    ioas: Ioas(IoasObject), "an ioas";
    /// The domain `id`.
    hwpt: Hwpt(HwptObject), "a hwpt";
    /// The device `id`.
    device: Device(DeviceObject), "a device";
    /// The access `id`.
    access: Access(AccessObject), "an access";
    /// The test object `id`.
    mock_device: MockDevice(MockDeviceObject), "a mock device";
    /// The nested HWPT `id`.
    nested_hwpt: NestedHwpt(NestedHwptObject), "a nested hwpt";
    /// The vIOMMU `id`.
    viommu: Viommu(ViommuObject), "a viommu";
    /// The fault queue `id`.
    fault_queue: FaultQueue(FaultQueueObject), "a fault queue";
}

/// The table of objects.
#[derive(Debug)]
pub struct Objects {
    /// `None` is an id that is taken for an object under construction.
    slots: BTreeMap<u32, Option<Object>>,
    /// Ids below `fresh` that are free.
    free: BTreeSet<u32>,
    /// Ids below `fresh` that name nothing any more, and never will.
    buried: BTreeSet<u32>,
    /// The lowest id never given.
    fresh: u32,
    /// Counts ids that are taken.
    allowance: Allowance,
    hwpts: u64,
}

impl Objects {
    /// An empty table whose objects count towards `allowance`.
    #[must_use]
    pub const fn new(allowance: Allowance) -> Self {
        Self {
            slots: BTreeMap::new(),
            free: BTreeSet::new(),
            buried: BTreeSet::new(),
            fresh: 1,
            allowance,
            hwpts: 0,
        }
    }

    /// Takes the lowest free id; nobody finds an object there until [`Objects::publish`].
    ///
    /// # Errors
    /// If the context has too many objects.
    pub fn reserve(&mut self) -> Result<ObjectId, ObjectError> {
        fault_points::hit(Point::ObjectId)?;
        self.allowance.take(1)?;
        let id = self.lowest_free();
        self.slots.insert(id, None);
        Ok(ObjectId::new(id))
    }

    fn lowest_free(&mut self) -> u32 {
        self.free.pop_first().unwrap_or_else(|| {
            self.fresh += 1;
            self.fresh - 1
        })
    }

    fn remove(&mut self, id: u32) -> Option<Object> {
        let object = self.vacate(id)?;
        self.allowance.give_back(1);
        self.free.insert(id);
        object
    }

    /// Empties the slot of a taken id.
    fn vacate(&mut self, id: u32) -> Option<Option<Object>> {
        let object = self.slots.remove(&id)?;
        self.hwpts -= u64::from(matches!(object, Some(Object::Hwpt(_))));
        Some(object)
    }

    /// Lets the object be found under a reserved id.
    pub fn publish(&mut self, id: ObjectId, object: Object) {
        let slot = self.slots.get_mut(&id.get());
        debug_assert!(matches!(slot, Some(None)), "{id:?} was not reserved");
        if let Some(slot) = slot {
            self.hwpts += u64::from(matches!(object, Object::Hwpt(_)));
            *slot = Some(object);
        }
    }

    /// Gives an id back.
    pub fn forget(&mut self, id: ObjectId) {
        drop(self.remove(id.get()));
    }

    fn get(&self, id: ObjectId, wanted: &'static str) -> Result<&Object, ObjectError> {
        self.slots.get(&id.get()).and_then(Option::as_ref).ok_or(ObjectError::Absent { id, wanted })
    }

    /// The object `id`, whatever it is.
    ///
    /// # Errors
    /// If there is none.
    pub fn any(&self, id: ObjectId) -> Result<Object, ObjectError> {
        self.get(id, "an object").cloned()
    }

    /// What a device is to be attached to.
    ///
    /// # Errors
    /// If there is none, or it is something else.
    pub fn attach_target(&self, id: ObjectId) -> Result<AttachTarget, ObjectError> {
        const WANTED: &str = "an ioas or a hwpt";
        match self.get(id, WANTED)? {
            Object::Ioas(object) => Ok(AttachTarget::Ioas(Rc::clone(object))),
            Object::Hwpt(object) => Ok(AttachTarget::Hwpt(AnyHwpt::Paging(Rc::clone(object)))),
            Object::NestedHwpt(object) => Ok(AttachTarget::Hwpt(AnyHwpt::Nested(Rc::clone(object)))),
            other => Err(ObjectError::WrongKind { id, kind: other.kind(), wanted: WANTED }),
        }
    }

    /// Takes an object that nothing refers to out of the table.
    ///
    /// # Errors
    /// If there is none, or something refers to it, or a program has mapped it.
    pub fn take(&mut self, id: ObjectId) -> Result<Object, ObjectError> {
        let object = self.get(id, "an object")?;
        let referrers = object.referrers() + object.mapped();
        if referrers > 0 {
            return Err(ObjectError::Busy { id, kind: object.kind(), referrers });
        }
        let taken = self.remove(id.get());
        taken.ok_or(ObjectError::Absent { id, wanted: "an object" })
    }

    /// Takes an object that something else takes down with itself out of the table; nothing gets its id again, which goes on to
    /// count.
    pub fn bury(&mut self, id: ObjectId) {
        if self.vacate(id.get()).is_some() {
            self.buried.insert(id.get());
        }
    }

    /// Takes the access `id` out of the table, even if something is under way on it.
    pub fn take_access(&mut self, id: ObjectId) -> Option<Rc<AccessObject>> {
        let object = self.access(id).ok()?;
        self.remove(id.get());
        Some(object)
    }

    /// An object that nothing refers to, for a context that ends.
    pub fn take_any_unreferenced(&mut self) -> Option<Object> {
        let free = self
            .slots
            .iter()
            .find(|(_, object)| object.as_ref().is_some_and(|object| object.referrers() == 0));
        let id = free.map(|(id, _)| *id)?;
        self.remove(id)
    }

    /// The address spaces, in the order of their ids.
    #[must_use]
    pub fn ioases(&self) -> Vec<Rc<IoasObject>> {
        let ioases = self.slots.values().flatten().filter_map(|object| match object {
            Object::Ioas(ioas) => Some(Rc::clone(ioas)),
            _ => None,
        });
        ioases.collect()
    }

    /// The devices, for a context that ends.
    #[must_use]
    pub fn devices(&self) -> Vec<Rc<DeviceObject>> {
        let devices = self.slots.values().flatten().filter_map(|object| match object {
            Object::Device(device) => Some(Rc::clone(device)),
            _ => None,
        });
        devices.collect()
    }

    /// Panics unless ids are given as promised. For tests.
    pub fn check(&self) {
        let taken = self.slots.len().saturating_add(self.buried.len());
        assert!(self.allowance.used() >= taken as u64, "objects are not counted");
        let hwpts = self.slots.values().filter(|object| matches!(object, Some(Object::Hwpt(_))));
        assert_eq!(hwpts.count() as u64, self.hwpts, "the count of hwpts drifted");
        for id in 1..self.fresh {
            assert!(
                [self.slots.contains_key(&id), self.free.contains(&id), self.buried.contains(&id)]
                    .into_iter()
                    .filter(|holds| *holds)
                    .count()
                    == 1,
                "id {id} is not one of free, taken and buried"
            );
        }
        assert!(
            self.slots.keys().chain(&self.free).all(|id| (1..self.fresh).contains(id)),
            "an id never given is listed"
        );
    }

    /// How many HWPTs there are.
    #[must_use]
    pub const fn hwpt_count(&self) -> u64 {
        self.hwpts
    }

    /// How many objects there are, those under construction included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::registry::Registry;
    use crate::storage::ledger::resource::Resource;

    fn device(id: ObjectId) -> Object {
        let (kind, iommu, format) = (DeviceKind::Software, Iommu::Own, FormatId::AmdV1.name());
        let identity = DeviceIdentity { context: Number::new(1), object: id, kind, iommu, format };
        let stats = Registry::new().register_device(DeviceStats::new(identity));
        Object::Device(Rc::new(DeviceObject::new(stats, TableSpec::of(FormatId::AmdV1))))
    }

    #[test]
    fn the_lowest_free_id_is_given_and_given_again_at_once() {
        let mut objects = Objects::new(Allowance::alone(Resource::Objects, 10));
        let ids: Vec<_> = (0..4).map(|_| objects.reserve().unwrap().get()).collect();
        assert_eq!(ids, [1, 2, 3, 4]);
        objects.forget(ObjectId::new(2));
        objects.forget(ObjectId::new(3));
        objects.check();
        assert_eq!(objects.reserve().unwrap().get(), 2);
        assert_eq!(objects.reserve().unwrap().get(), 3);
        assert_eq!(objects.reserve().unwrap().get(), 5);
        objects.check();
    }

    #[test]
    fn an_object_under_construction_is_absent_and_one_referred_to_is_busy() {
        let mut objects = Objects::new(Allowance::alone(Resource::Objects, 1));
        let id = objects.reserve().unwrap();
        assert_eq!(objects.device(id).unwrap_err().errno(), Errno::NOENT);
        assert_eq!(objects.reserve().unwrap_err().errno(), Errno::NOMEM);
        objects.publish(id, device(id));
        let running = objects.device(id).unwrap();
        assert_eq!(objects.take(id).unwrap_err().errno(), Errno::BUSY);
        assert_eq!(objects.ioas(id).unwrap_err().errno(), Errno::NOENT);
        drop(running);
        assert!(objects.take(id).is_ok());
        assert_eq!(objects.take(id).unwrap_err().errno(), Errno::NOENT);
        objects.check();
    }

    #[test]
    fn the_id_of_a_buried_object_is_never_given_again_and_counts() {
        let mut objects = Objects::new(Allowance::alone(Resource::Objects, 2));
        let id = objects.reserve().unwrap();
        objects.publish(id, device(id));
        objects.bury(id);
        objects.bury(id);
        objects.check();
        assert_eq!(objects.take(id).unwrap_err().errno(), Errno::NOENT);
        assert_eq!(objects.reserve().unwrap().get(), 2);
        assert_eq!(objects.reserve().unwrap_err().errno(), Errno::NOMEM);
        assert_eq!(objects.count(), 1);
    }
}
