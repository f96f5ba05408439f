//! Mock devices that cannot reach an address, or have something to tell the guest.
//!
//! Imports allowed: state, storage, the object actors, the client crate's wire.

use ioasd_client::ids::ObjectId;
use ioasd_client::wire::mock::VEVENTQ_MOCK;

use crate::actors::client_context::state::ClientState;
use crate::actors::objects::DeviceObject;
use crate::actors::objects::attachment::{AnyHwpt, Pasid};
use crate::actors::objects::events::Fault;
use crate::actors::objects::nesting::NestParent;
use crate::error::Errno;
use crate::storage::refusal::Refusal;

/// What a mock device reports.
#[derive(Clone, Copy, Debug)]
pub struct MockFault {
    /// The PASID it used.
    pub pasid: Pasid,
    /// The group of faults.
    pub group: u32,
    /// What it wanted to do.
    pub access: u32,
    /// Where.
    pub address: u64,
}

impl ClientState {
    /// Lets a device report a fault; without a queue that takes it, it is dropped.
    ///
    /// # Errors
    /// ENOENT without such a device.
    pub fn mock_fault(&self, device: ObjectId, fault: MockFault) -> Result<(), Refusal> {
        let device = self.look(|objects| objects.device(device))?;
        let MockFault { pasid, group, access, address } = fault;
        let Some((hwpt, through)) = device.serving(pasid) else { return Ok(()) };
        let Some(queue) = hwpt.faults() else { return Ok(()) };
        queue.report(Fault { through, device: device.id, pasid, group, access, address });
        self.show_events(queue.id);
        Ok(())
    }

    /// Lets a device report an event to the vIOMMU through which its HWPT is nested.
    ///
    /// # Errors
    /// ENOENT without such a device, or if it has no such HWPT, or the vIOMMU does not know it, or by number 0; EOPNOTSUPP
    /// without a queue for the event.
    pub fn mock_vevent(&self, device: ObjectId) -> Result<(), Refusal> {
        let device = self.look(|objects| objects.device(device))?;
        let (viommu, virt_id) = match device.hwpt(Pasid::NONE) {
            Some(AnyHwpt::Nested(nested)) => match &nested.parent {
                NestParent::Viommu(viommu) => (std::rc::Rc::clone(viommu), viommu.virt_id_of(&device)),
                NestParent::Hwpt(_) => return Err(no_guest(&device)),
            },
            Some(AnyHwpt::Paging(_)) | None => return Err(no_guest(&device)),
        };
        let virt_id = virt_id.filter(|virt_id| *virt_id != 0).ok_or_else(|| no_guest(&device))?;
        let queue = viommu.veventq(VEVENTQ_MOCK).ok_or_else(|| {
            let text = format!("viommu {} has no queue for the event", viommu.id);
            Refusal::new(Errno::OPNOTSUPP, "veventq-absent", text)
        })?;
        // The event has the lower half of the number.
        let [a, b, c, d, ..] = virt_id.to_le_bytes();
        queue.report(&[a, b, c, d]);
        self.show_events(queue.id);
        Ok(())
    }
}

fn no_guest(device: &DeviceObject) -> Refusal {
    let text =
        format!("device {} is not attached to a guest's hwpt, or has no number in the guest", device.id);
    Refusal::new(Errno::NOENT, "vdevice-absent", text)
}
