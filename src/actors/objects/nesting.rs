//! What is nested in a HWPT: tables of a guest, and the slice of an IOMMU that a guest sees.
//!
//! Tables of a guest lie in its own memory. Nothing here reads them: a nested HWPT is what a device of a guest is attached
//! to, and a cache that the guest drops entries of.
//!
//! Imports allowed: objects, error, storage.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

use ioasd_client::ids::ObjectId;

use super::events::{FaultQueueObject, VeventqObject};
use super::mock_state::Words;
use super::regions::Region;
use super::{AccessObject, DeviceObject, HwptObject, Sharing};
use crate::error::Errno;
use crate::storage::refusal::Refusal;

/// Hardware queues of a vIOMMU.
const HW_QUEUES: u32 = 2;

/// A HWPT nested in another.
#[derive(Debug)]
pub struct NestedHwptObject {
    /// Its id.
    pub id: ObjectId,
    /// What it is nested in.
    pub parent: NestParent,
    /// The devices it was made for.
    pub sharing: Sharing,
    /// What it was made to be: `HWPT_*`.
    pub flags: u32,
    /// Where faults of its devices go.
    pub faults: Option<Rc<FaultQueueObject>>,
    /// What its devices have cached.
    pub iotlb: Words,
}

/// What a HWPT is nested in.
#[derive(Clone, Debug)]
pub enum NestParent {
    /// A HWPT.
    Hwpt(Rc<HwptObject>),
    /// A HWPT, through a vIOMMU that knows the devices.
    Viommu(Rc<ViommuObject>),
}

impl NestParent {
    /// The HWPT.
    #[must_use]
    pub fn hwpt(&self) -> &Rc<HwptObject> {
        match self {
            Self::Hwpt(hwpt) => hwpt,
            Self::Viommu(viommu) => &viommu.parent,
        }
    }
}

/// A slice of an IOMMU, for a guest.
#[derive(Debug)]
pub struct ViommuObject {
    /// Its id.
    pub id: ObjectId,
    /// What the guest's tables are nested in.
    pub parent: Rc<HwptObject>,
    /// Its pages that a program can map, if it asked for some.
    pub region: Option<Rc<Region>>,
    /// The devices of the guest, by the guest's numbers.
    devices: RefCell<BTreeMap<u64, Weak<VdeviceObject>>>,
    /// Where its events go, by their type.
    veventqs: RefCell<BTreeMap<u32, Weak<VeventqObject>>>,
    /// Its hardware queues, by their index.
    hw_queues: RefCell<[Weak<HwQueueObject>; HW_QUEUES as usize]>,
}

/// A queue that a guest's driver and the hardware share, in memory of the guest, which stays where it is.
#[derive(Debug)]
pub struct HwQueueObject {
    /// Its id.
    pub id: ObjectId,
    /// The vIOMMU.
    pub viommu: Rc<ViommuObject>,
    /// Which of the vIOMMU's it is.
    pub index: u32,
    /// The one before it, which cannot go before it.
    pub before: Option<Rc<HwQueueObject>>,
    /// What keeps its memory.
    pub access: Rc<AccessObject>,
}

/// A device as a vIOMMU knows it.
#[derive(Debug)]
pub struct VdeviceObject {
    /// Its id.
    pub id: ObjectId,
    /// The vIOMMU.
    pub viommu: Rc<ViommuObject>,
    /// The guest's number of the device.
    pub virt_id: u64,
    /// The device; its end ends this, too.
    pub device: Weak<DeviceObject>,
}

impl ViommuObject {
    /// One that knows no device.
    #[must_use]
    pub fn new(id: ObjectId, parent: Rc<HwptObject>, region: Option<Rc<Region>>) -> Self {
        let (devices, veventqs, hw_queues) = Default::default();
        Self { id, parent, region, devices, veventqs, hw_queues }
    }

    fn hw_queue(&self, index: u32) -> Option<Rc<HwQueueObject>> {
        let index = usize::try_from(index).ok()?;
        self.hw_queues.borrow().get(index)?.upgrade()
    }

    /// The queue before the one with `index`, if there can be one with that index.
    ///
    /// # Errors
    /// EINVAL if there is no such index, EEXIST if it is taken, EIO if the one before is not.
    pub fn before_hw_queue(&self, index: u32) -> Result<Option<Rc<HwQueueObject>>, Refusal> {
        let refused = |errno, text| Err(Refusal::new(errno, "hw-queue-index", text));
        if index >= HW_QUEUES {
            return refused(Errno::INVAL, format!("a viommu has {HW_QUEUES} queues, there is none {index}"));
        }
        if let Some(queue) = self.hw_queue(index) {
            return refused(Errno::EXIST, format!("queue {index} is object {}: destroy it", queue.id));
        }
        match index.checked_sub(1).map(|before| self.hw_queue(before)) {
            Some(None) => {
                refused(Errno::IO, format!("queue {index} needs the one before it: make that first"))
            }
            Some(before) => Ok(before),
            None => Ok(None),
        }
    }

    /// Lets a queue take its index, until it ends.
    pub fn place_hw_queue(&self, queue: &Rc<HwQueueObject>) {
        let index = usize::try_from(queue.index).unwrap_or(usize::MAX);
        if let Some(place) = self.hw_queues.borrow_mut().get_mut(index) {
            *place = Rc::downgrade(queue);
        }
    }

    /// Where events of a type go.
    #[must_use]
    pub fn veventq(&self, kind: u32) -> Option<Rc<VeventqObject>> {
        self.veventqs.borrow().get(&kind).and_then(Weak::upgrade)
    }

    /// Lets a queue take the events of its type, until it ends.
    pub fn tell(&self, queue: &Rc<VeventqObject>) {
        let mut veventqs = self.veventqs.borrow_mut();
        veventqs.retain(|_, queue| queue.strong_count() > 0);
        veventqs.insert(queue.kind, Rc::downgrade(queue));
    }

    /// What it knows under a number of the guest's.
    #[must_use]
    pub fn vdevice(&self, virt_id: u64) -> Option<Rc<VdeviceObject>> {
        self.devices.borrow().get(&virt_id).and_then(Weak::upgrade)
    }

    /// The device under a number of the guest's.
    #[must_use]
    pub fn device(&self, virt_id: u64) -> Option<Rc<DeviceObject>> {
        self.vdevice(virt_id)?.device.upgrade()
    }

    /// Makes a device known, until it or what it is known as ends.
    pub fn know(&self, vdevice: &Rc<VdeviceObject>) {
        let mut devices = self.devices.borrow_mut();
        devices.retain(|_, known| known.strong_count() > 0);
        devices.insert(vdevice.virt_id, Rc::downgrade(vdevice));
    }

    /// The guest's number of a device, if it knows the device.
    #[must_use]
    pub fn virt_id_of(&self, device: &DeviceObject) -> Option<u64> {
        let vdevice = device.vdevice.borrow().upgrade()?;
        std::ptr::eq(&raw const *vdevice.viommu, self).then_some(vdevice.virt_id)
    }
}
