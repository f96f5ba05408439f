//! The objects of one context, by id.
//!
//! Ids go from 1 to 2^31-1; the lowest free one is given next. An object is referred to by others through the same
//! [`Rc`], and by operations that are running on it; DESTROY never waits for a referrer, it is EBUSY.
//!
//! ```text
//!   MockDevice ──▶ Device ──▶ Hwpt ──▶ Ioas ◀── Access
//! ```
//!
//! Imports allowed: messages, the object actors, domains::spec, the client crate's formats.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};
use std::time::SystemTime;

use actix::Addr;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::ObjectId;
use tokio::sync::Mutex;

use super::access::Access;
use super::domain::Domain;
use super::figures::{AccessStats, AttachedTo, DeviceStats, IoasStats};
pub use super::figures::{DeviceIdentity, DeviceKind, Iommu};
use super::ioas::{Ioas, IoasCell};
use super::number::Number;
use super::registry::Registered;
use crate::domains::spec::TableSpec;
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
    attached: RefCell<Option<Rc<HwptObject>>>,
    /// Held while that changes.
    pub changing: Mutex<()>,
}

impl DeviceObject {
    /// A device that is attached to nothing.
    #[must_use]
    pub fn new(stats: Registered<DeviceStats>, spec: TableSpec) -> Self {
        let (attached, changing) = Default::default();
        Self { id: stats.object, spec, stats, attached, changing }
    }

    /// The devices it can share a domain with.
    #[must_use]
    pub fn sharing(&self) -> Sharing {
        match self.stats.iommu {
            Iommu::Shared => Sharing::Shared(self.spec.format()),
            Iommu::Own => Sharing::Only(self.stats.number()),
        }
    }

    /// The HWPT it is attached to.
    #[must_use]
    pub fn hwpt(&self) -> Option<Rc<HwptObject>> {
        self.attached.borrow().clone()
    }

    /// Attaches it to `hwpt`, or to nothing; gives what it was attached to.
    pub fn attach(&self, hwpt: Option<Rc<HwptObject>>) -> Option<Rc<HwptObject>> {
        let shown = |hwpt: &Rc<HwptObject>| AttachedTo {
            hwpt: hwpt.id,
            ioas: hwpt.ioas.number,
            since: SystemTime::now(),
        };
        self.stats.show(hwpt.as_ref().map(shown));
        self.attached.replace(hwpt)
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
}

/// What a device can be attached to.
#[derive(Clone, Debug)]
pub enum AttachTarget {
    /// An address space, through a domain of its own choice.
    Ioas(Rc<IoasObject>),
    /// A domain.
    Hwpt(Rc<HwptObject>),
}

impl Object {
    /// References besides the one of the table.
    fn referrers(&self) -> usize {
        let all = match self {
            Self::Ioas(object) => Rc::strong_count(object),
            Self::Hwpt(object) => Rc::strong_count(object),
            Self::Device(object) => {
                Rc::strong_count(object) + usize::from(object.attached.borrow().is_some())
            }
            Self::Access(object) => Rc::strong_count(object),
            Self::MockDevice(object) => Rc::strong_count(object),
        };
        all.saturating_sub(1)
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Ioas(_) => "an ioas",
            Self::Hwpt(_) => "a hwpt",
            Self::Device(_) => "a device",
            Self::Access(_) => "an access",
            Self::MockDevice(_) => "a mock device",
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
    #[error("object {id} is {kind} in use {referrers} time(s): detach or destroy what uses it first")]
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

/// The table of objects.
#[derive(Debug)]
pub struct Objects {
    /// `None` is an id that is taken for an object under construction.
    slots: BTreeMap<u32, Option<Object>>,
    /// Ids below `fresh` that are free.
    free: BTreeSet<u32>,
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
        Self { slots: BTreeMap::new(), free: BTreeSet::new(), fresh: 1, allowance, hwpts: 0 }
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
        let object = self.slots.remove(&id)?;
        self.allowance.give_back(1);
        self.free.insert(id);
        self.hwpts -= u64::from(matches!(object, Some(Object::Hwpt(_))));
        object
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

    /// The address space `id`.
    ///
    /// # Errors
    /// If there is none.
    pub fn ioas(&self, id: ObjectId) -> Result<Rc<IoasObject>, ObjectError> {
        match self.get(id, "an ioas")? {
            Object::Ioas(object) => Ok(Rc::clone(object)),
            _ => Err(ObjectError::Absent { id, wanted: "an ioas" }),
        }
    }

    /// The domain `id`.
    ///
    /// # Errors
    /// If there is none.
    pub fn hwpt(&self, id: ObjectId) -> Result<Rc<HwptObject>, ObjectError> {
        match self.get(id, "a hwpt")? {
            Object::Hwpt(object) => Ok(Rc::clone(object)),
            _ => Err(ObjectError::Absent { id, wanted: "a hwpt" }),
        }
    }

    /// What a device is to be attached to.
    ///
    /// # Errors
    /// If there is none, or it is something else.
    pub fn attach_target(&self, id: ObjectId) -> Result<AttachTarget, ObjectError> {
        const WANTED: &str = "an ioas or a hwpt";
        match self.get(id, WANTED)? {
            Object::Ioas(object) => Ok(AttachTarget::Ioas(Rc::clone(object))),
            Object::Hwpt(object) => Ok(AttachTarget::Hwpt(Rc::clone(object))),
            other => Err(ObjectError::WrongKind { id, kind: other.kind(), wanted: WANTED }),
        }
    }

    /// The device `id`.
    ///
    /// # Errors
    /// If there is none.
    pub fn device(&self, id: ObjectId) -> Result<Rc<DeviceObject>, ObjectError> {
        match self.get(id, "a device")? {
            Object::Device(object) => Ok(Rc::clone(object)),
            _ => Err(ObjectError::Absent { id, wanted: "a device" }),
        }
    }

    /// The access `id`.
    ///
    /// # Errors
    /// If there is none.
    pub fn access(&self, id: ObjectId) -> Result<Rc<AccessObject>, ObjectError> {
        match self.get(id, "an access")? {
            Object::Access(object) => Ok(Rc::clone(object)),
            _ => Err(ObjectError::Absent { id, wanted: "an access" }),
        }
    }

    /// Takes an object that nothing refers to out of the table.
    ///
    /// # Errors
    /// If there is none, or something refers to it.
    pub fn take(&mut self, id: ObjectId) -> Result<Object, ObjectError> {
        let object = self.get(id, "an object")?;
        let referrers = object.referrers();
        if referrers > 0 {
            return Err(ObjectError::Busy { id, kind: object.kind(), referrers });
        }
        let taken = self.remove(id.get());
        taken.ok_or(ObjectError::Absent { id, wanted: "an object" })
    }

    /// The test object `id`.
    ///
    /// # Errors
    /// If there is none.
    pub fn mock_device(&self, id: ObjectId) -> Result<Rc<MockDeviceObject>, ObjectError> {
        match self.get(id, "a mock device")? {
            Object::MockDevice(object) => Ok(Rc::clone(object)),
            _ => Err(ObjectError::Absent { id, wanted: "a mock device" }),
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
        assert!(self.allowance.used() >= self.slots.len() as u64, "objects are not counted");
        let hwpts = self.slots.values().filter(|object| matches!(object, Some(Object::Hwpt(_))));
        assert_eq!(hwpts.count() as u64, self.hwpts, "the count of hwpts drifted");
        for id in 1..self.fresh {
            assert!(
                self.slots.contains_key(&id) != self.free.contains(&id),
                "id {id} is both free and taken, or neither"
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
}
