//! Operations of a context on devices: what they are attached to.
//!
//! Devices that can share a domain do so on an address space: the HWPT that was made automatically for the first of them
//! serves all, and goes with the last.
//!
//! A device is attached itself, and so may be each of its PASIDs: the one is the other with PASID 0.
//!
//! Imports allowed: state, storage, the object actors, domains::spec.

use std::rc::Rc;

use ioasd_client::formats::FormatId;
use ioasd_client::ids::ObjectId;

use super::hwpts::HwptPlan;
use super::state::ClientState;
use crate::actors::figures::DeviceStats;
use crate::actors::late::note;
use crate::actors::objects::attachment::{AnyHwpt, Pasid};
use crate::actors::objects::{
    AttachTarget, DeviceIdentity, DeviceKind, DeviceObject, HwptObject, IoasObject, Iommu, Object,
};
use crate::domains::spec::TableSpec;
use crate::error::Errno;
use crate::storage::refusal::Refusal;

impl ClientState {
    /// Makes a software device that walks tables of `format`.
    ///
    /// # Errors
    /// If the context has too many objects.
    pub fn device_create(&self, iommu: Iommu, format: FormatId) -> Result<ObjectId, Refusal> {
        let reserved = self.reserve()?;
        let id = reserved.id();
        let device = self.new_device(id, (DeviceKind::Software, iommu), TableSpec::of(format));
        reserved.publish(Object::Device(Rc::new(device)));
        Ok(id)
    }

    /// A device that is listed.
    pub(super) fn new_device(
        &self,
        object: ObjectId,
        (kind, iommu): (DeviceKind, Iommu),
        spec: TableSpec,
    ) -> DeviceObject {
        let (context, format) = (self.number(), spec.format().name());
        let stats = DeviceStats::new(DeviceIdentity { context, object, kind, iommu, format });
        DeviceObject::new(self.agent.registry.register_device(stats), spec)
    }

    /// A device.
    ///
    /// # Errors
    /// ENOENT without such a device.
    pub fn device(&self, device: ObjectId) -> Result<Rc<DeviceObject>, Refusal> {
        self.look(|objects| objects.device(device))
    }

    /// Attaches a device to an address space, or to a HWPT; tells the HWPT that serves it.
    ///
    /// # Errors
    /// ENOENT without such a device or target, EINVAL if the target is of another kind or made for other devices, EBUSY if
    /// the device is attached, and what filling a new domain meets.
    pub async fn device_attach(&self, device: ObjectId, target: ObjectId) -> Result<ObjectId, Refusal> {
        let device = self.look(|objects| objects.device(device))?;
        self.attach(&device, Pasid::NONE, target).await
    }

    /// Attaches a device, which is attached already, to something else instead; tells the HWPT that serves it now. The new
    /// domain is filled before the old one is left.
    ///
    /// # Errors
    /// As attaching, and EINVAL if the device is not attached; it stays where it is then.
    pub async fn device_replace(&self, device: ObjectId, target: ObjectId) -> Result<ObjectId, Refusal> {
        let device = self.look(|objects| objects.device(device))?;
        self.replace(&device, Pasid::NONE, target).await
    }

    /// Detaches a device; a HWPT that was made for an attachment goes with its last device.
    ///
    /// # Errors
    /// ENOENT without such a device. Detaching what is not attached does nothing.
    pub async fn device_detach(&self, device: ObjectId) -> Result<(), Refusal> {
        let device = self.look(|objects| objects.device(device))?;
        self.detach(&device, Pasid::NONE).await;
        Ok(())
    }

    /// Attaches a PASID of a device, or the device itself.
    pub(super) async fn attach(
        &self,
        device: &DeviceObject,
        pasid: Pasid,
        target: ObjectId,
    ) -> Result<ObjectId, Refusal> {
        let target = self.look(|objects| objects.attach_target(target))?;
        note(|operation| operation.note_object(device.id));
        let _changing = device.changing.lock().await;
        if device.hwpt(pasid).is_some() {
            let text = format!("device {} is attached already: replace or detach it", device.id);
            return Err(Refusal::new(Errno::BUSY, "device-attached", text));
        }
        let hwpt = self.hwpt_of(device, pasid, target).await?;
        let (id, _) = self.switch(device, pasid, hwpt).await?;
        Ok(id)
    }

    /// Attaches a PASID of a device, or the device itself, to something else instead.
    pub(super) async fn replace(
        &self,
        device: &DeviceObject,
        pasid: Pasid,
        target: ObjectId,
    ) -> Result<ObjectId, Refusal> {
        let target = self.look(|objects| objects.attach_target(target))?;
        note(|operation| operation.note_object(device.id));
        let changing = device.changing.lock().await;
        let Some(old) = device.hwpt(pasid) else {
            let text =
                format!("device {} is attached to nothing that could be replaced: attach it", device.id);
            return Err(Refusal::new(Errno::INVAL, "device-not-attached", text));
        };
        match target {
            AttachTarget::Hwpt(hwpt) if hwpt.is(&old) => Ok(hwpt.id()),
            target => {
                let hwpt = self.hwpt_of(device, pasid, target).await?;
                drop(old);
                let (id, old) = self.switch(device, pasid, hwpt).await?;
                drop(changing);
                self.leave(old).await;
                Ok(id)
            }
        }
    }

    /// Points a device at a HWPT that it uses from now on; gives the one before, which is to be left.
    async fn switch(
        &self,
        device: &DeviceObject,
        pasid: Pasid,
        hwpt: AnyHwpt,
    ) -> Result<(ObjectId, Option<AnyHwpt>), Refusal> {
        if device.mock.set_pasid(pasid.get()).is_err() {
            self.leave(Some(hwpt)).await;
            let text = format!("the mock hardware fails every second attachment of PASID {}", pasid.get());
            return Err(Refusal::new(Errno::NOMEM, "pasid-trapped", text));
        }
        let id = hwpt.id();
        let old = device.attach(pasid, Some(hwpt));
        forget_faults(device, pasid, old.as_ref());
        Ok((id, old))
    }

    pub(super) async fn detach(&self, device: &DeviceObject, pasid: Pasid) {
        note(|operation| operation.note_object(device.id));
        let changing = device.changing.lock().await;
        device.mock.block_pasid(pasid.get());
        let old = device.attach(pasid, None);
        forget_faults(device, pasid, old.as_ref());
        drop(changing);
        self.leave(old).await;
    }

    /// Detaches a device and all of its PASIDs.
    pub(super) async fn detach_all(&self, device: &DeviceObject) {
        for pasid in device.attached_pasids().into_iter().rev() {
            self.detach(device, pasid).await;
        }
    }

    /// The HWPT through which a device uses a target.
    async fn hwpt_of(
        &self,
        device: &DeviceObject,
        pasid: Pasid,
        target: AttachTarget,
    ) -> Result<AnyHwpt, Refusal> {
        match target {
            AttachTarget::Ioas(ioas) => {
                device.admits_automatic(pasid)?;
                Ok(AnyHwpt::Paging(self.hwpt_on(device, ioas).await?))
            }
            AttachTarget::Hwpt(hwpt) => device.admits(pasid, &hwpt).map(|()| hwpt),
        }
    }

    /// The HWPT that a device uses on an address space: one that is there, or a new one.
    async fn hwpt_on(&self, device: &DeviceObject, ioas: Rc<IoasObject>) -> Result<Rc<HwptObject>, Refusal> {
        let _choosing = ioas.choosing.lock().await;
        match ioas.hwpt_for(device.sharing()) {
            Some(hwpt) => Ok(hwpt),
            None => {
                let plan = HwptPlan::automatic(device.spec);
                self.hwpt_create(Rc::clone(&ioas), device.sharing(), plan).await
            }
        }
    }

    /// Drops a device's hold on a HWPT, and ends the HWPT if it was made automatically and this was the last.
    async fn leave(&self, hwpt: Option<AnyHwpt>) {
        let Some(hwpt) = hwpt.and_then(AnyHwpt::automatic) else { return };
        let (id, ioas) = (hwpt.id, Rc::clone(&hwpt.ioas));
        let choosing = ioas.choosing.lock().await;
        drop(hwpt);
        let unused = self.objects.borrow_mut().take(id);
        if let Ok(Object::Hwpt(hwpt)) = unused {
            ioas.forget_hwpt(id);
            drop(choosing);
            self.end_hwpt(hwpt).await;
            self.show_figures();
        }
    }
}

/// Nobody waits for responses to what came through an attachment that has ended.
fn forget_faults(device: &DeviceObject, pasid: Pasid, left: Option<&AnyHwpt>) {
    if let Some(faults) = left.and_then(AnyHwpt::faults) {
        faults.forget(device.key(pasid));
    }
}
