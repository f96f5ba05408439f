//! Operations of a context on what is nested in a HWPT: nested HWPTs, vIOMMUs, vDEVICEs.
//!
//! Imports allowed: state, storage, the object actors.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, PAGE_SIZE};
use ioasd_client::wire::uapi::HWPT_NEST_PARENT;

use super::state::ClientState;
use crate::actors::objects::mock_state::Words;
use crate::actors::objects::nesting::{NestParent, NestedHwptObject, VdeviceObject, ViommuObject};
use crate::actors::objects::regions::Place;
use crate::actors::objects::{DeviceObject, HwptObject, Made, Object};
use crate::error::Errno;
use crate::storage::ledger::resource::Resource;
use crate::storage::refusal::Refusal;

/// Bytes of a vIOMMU that a program can map.
const VIOMMU_BYTES: ByteLen = ByteLen::new(2 * PAGE_SIZE);

/// What HWPT_INVALIDATE is about.
#[derive(Clone, Debug)]
pub enum Invalidated {
    /// What the devices of a nested HWPT have cached.
    Nested(Rc<NestedHwptObject>),
    /// What the devices of a vIOMMU have cached.
    Viommu(Rc<ViommuObject>),
}

/// What a nested HWPT shall be.
#[derive(Clone, Copy, Debug)]
pub struct NestedPlan {
    /// `HWPT_*`.
    pub flags: u32,
    /// What its cache begins with.
    pub word: u32,
    /// The queue for faults of its devices.
    pub faults: Option<ObjectId>,
}

impl ClientState {
    /// Makes a HWPT that is nested in another.
    ///
    /// # Errors
    /// ENOENT without such a fault queue; if the context has too many objects.
    pub fn nested_alloc(
        &self,
        device: &DeviceObject,
        parent: NestParent,
        NestedPlan { flags, word, faults }: NestedPlan,
    ) -> Result<ObjectId, Refusal> {
        let (reserved, faults) = (self.reserve()?, self.fault_queue(faults)?);
        let (id, sharing, iotlb) = (reserved.id(), device.sharing(), Words::new(word));
        let nested = NestedHwptObject { id, parent, sharing, flags, faults, iotlb };
        reserved.publish(Object::NestedHwpt(Rc::new(nested)));
        Ok(id)
    }

    /// The device that VIOMMU_ALLOC names.
    ///
    /// # Errors
    /// ENOENT.
    pub fn viommu_device(&self, device: ObjectId) -> Result<Rc<DeviceObject>, Refusal> {
        self.look(|objects| objects.device(device))
    }

    /// The HWPT in which tables of guests are nested.
    ///
    /// # Errors
    /// ENOENT without such a HWPT, EINVAL if it was not made for that.
    pub fn viommu_parent(&self, device: &DeviceObject, hwpt: ObjectId) -> Result<Rc<HwptObject>, Refusal> {
        let hwpt = self.look(|objects| objects.hwpt(hwpt))?;
        hwpt.require_nest_parent(device)?;
        Ok(hwpt)
    }

    /// Makes a vIOMMU, with pages that the program can map and that begin with `word`, if there is one; tells where they are.
    ///
    /// # Errors
    /// If the context has too many objects, or too much memory of tables, which these pages count as.
    pub fn viommu_alloc(
        &self,
        parent: Rc<HwptObject>,
        word: Option<u32>,
    ) -> Result<(ObjectId, Option<Place>), Refusal> {
        let reserved = self.reserve()?;
        let id = reserved.id();
        let allowance = || self.allowance(Resource::Tables);
        let region = word.map(|word| self.regions.add(VIOMMU_BYTES, &word.to_ne_bytes(), allowance()));
        let region = region.transpose()?;
        let place = region.as_ref().map(|region| region.place);
        reserved.publish(Object::Viommu(Rc::new(ViommuObject::new(id, parent, region))));
        Ok((id, place))
    }

    /// A descriptor to map what is at `place` in the open device.
    ///
    /// # Errors
    /// ENXIO if nothing is exactly there; what the kernel says.
    pub fn region_open(&self, place: Place) -> Result<OwnedFd, Refusal> {
        self.regions.open(place)
    }

    /// Makes a device known to a vIOMMU under a number of the guest's.
    ///
    /// # Errors
    /// ENOENT without such a vIOMMU or device; EINVAL if the device is behind another IOMMU; EEXIST if the device is known
    /// to a vIOMMU already, or another is known under the number.
    pub fn vdevice_alloc(
        &self,
        viommu: ObjectId,
        device: ObjectId,
        virt_id: u64,
    ) -> Result<ObjectId, Refusal> {
        let viommu = self.look(|objects| objects.viommu(viommu))?;
        let device = self.look(|objects| objects.device(device))?;
        if viommu.parent.sharing != device.sharing() {
            let text = format!("device {} is behind another IOMMU than viommu {}", device.id, viommu.id);
            return Err(Refusal::new(Errno::INVAL, "viommu-other-iommu", text));
        }
        let known = device.vdevice.borrow().upgrade().or_else(|| viommu.vdevice(virt_id));
        if let Some(known) = known {
            let text = format!("vdevice {} stands for that device or number already: destroy it", known.id);
            return Err(Refusal::new(Errno::EXIST, "vdevice-exists", text));
        }
        let reserved = self.reserve()?;
        let id = reserved.id();
        let vdevice = Rc::new(VdeviceObject {
            id,
            viommu: Rc::clone(&viommu),
            virt_id,
            device: Rc::downgrade(&device),
        });
        viommu.know(&vdevice);
        device.vdevice.replace(Rc::downgrade(&vdevice));
        reserved.publish(Object::Vdevice(vdevice));
        Ok(id)
    }

    /// Ends what a vIOMMU knows of a device that ends; its id names nothing any more, and never will.
    pub(super) fn bury_vdevice(&self, device: &DeviceObject) {
        let vdevice = device.vdevice.borrow().upgrade().map(|vdevice| vdevice.id);
        if let Some(id) = vdevice {
            self.objects.borrow_mut().bury(id);
        }
    }

    /// What HWPT_INVALIDATE names.
    ///
    /// # Errors
    /// ENOENT without such an object, EINVAL if it is of another kind.
    pub fn invalidated(&self, id: ObjectId) -> Result<Invalidated, Refusal> {
        match self.look(|objects| objects.any(id))? {
            Object::NestedHwpt(nested) => Ok(Invalidated::Nested(nested)),
            Object::Viommu(viommu) => Ok(Invalidated::Viommu(viommu)),
            _ => {
                let text = format!("object {id} is neither a nested hwpt nor a viommu");
                Err(Refusal::new(Errno::INVAL, "nothing-to-invalidate", text))
            }
        }
    }
}

impl HwptObject {
    /// Fails unless tables for `device` can be nested in it.
    ///
    /// # Errors
    /// EINVAL.
    pub fn require_nest_parent(&self, device: &DeviceObject) -> Result<(), Refusal> {
        let fits = self.made == Made::ByHand && self.flags & HWPT_NEST_PARENT != 0;
        if fits && self.sharing == device.sharing() {
            return Ok(());
        }
        let text = format!("hwpt {} was not made to be a parent: name an ioas", self.id);
        Err(Refusal::new(Errno::INVAL, "hwpt-no-parent", text))
    }
}
