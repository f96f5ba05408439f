//! Mock devices: a device behind one IOMMU that all of them share, and a test object that holds it.
//!
//! Imports allowed: state, storage, messages, the object actors, domains::spec.

use std::rc::Rc;

use ioasd_client::formats::FormatId;
use ioasd_client::ids::ObjectId;
use ioasd_client::units::{Iova, IovaRange, PAGE_SIZE};

use crate::actors::client_context::state::ClientState;
use crate::actors::guard::poisoned;
use crate::actors::messages::ioas::ChangeTable;
use crate::actors::objects::{DeviceKind, Iommu, MockDeviceObject, Object};
use crate::domains::spec::{Recording, TableSpec};
use crate::storage::io_pagetable::Owner;
use crate::storage::refusal::Refusal;

/// First and last address that a mock domain translates unless another table is asked for.
const APERTURE: (u64, u64) = (0x100_0000, 0x7fff_ffff);
/// Bytes of the one large page of the other table.
const HUGE: u64 = 1 << 20;

/// The ids of a mock device that was made and attached.
#[derive(Clone, Copy, Debug)]
pub struct MockDomain {
    /// The test object.
    pub stdev: ObjectId,
    /// The HWPT that serves the device.
    pub hwpt: ObjectId,
    /// The device.
    pub idev: ObjectId,
}

/// What a mock domain can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MockTable {
    /// A small aperture and leaves from half a page on.
    Default,
    /// All addresses, and leaves of a page or 1 MiB.
    Huge,
}

impl MockTable {
    /// The table.
    ///
    /// # Errors
    /// If the format cannot be that, which is a mistake of ours.
    pub fn spec(self) -> Result<TableSpec, Refusal> {
        let all = TableSpec::of(FormatId::AmdV1Granule2K);
        let (start, last) = APERTURE;
        let spec = match self {
            Self::Default => match IovaRange::new(Iova::new(start), Iova::new(last)) {
                Some(aperture) => all.with_aperture(aperture),
                None => Ok(all),
            },
            Self::Huge => all.with_page_sizes(ioasd_client::formats::PageSizes::new(HUGE | PAGE_SIZE)),
        };
        spec.map_err(|error| Refusal::of(&error))
    }
}

impl ClientState {
    /// Keeps areas out of a range for as long as the address space lives.
    ///
    /// # Errors
    /// ENOENT without such an address space, EADDRINUSE if something is there.
    pub async fn mock_reserve(&self, ioas: ObjectId, range: IovaRange) -> Result<(), Refusal> {
        let ioas = self.look(|objects| objects.ioas(ioas))?;
        let change = ChangeTable(Box::new(move |table| table.add_reserved(Owner::Command, range)));
        let added = ioas.ioas.send(change).await.map_err(|_| poisoned("an ioas"))?;
        added.map_err(|error| Refusal::of(&error))
    }

    /// Makes a mock device with so many PASIDs, and attaches it to `target`; if that fails nothing is left.
    ///
    /// # Errors
    /// As attaching.
    pub async fn mock_domain(
        &self,
        target: ObjectId,
        pasids: u32,
        recording: Recording,
    ) -> Result<MockDomain, Refusal> {
        let (stdev, device) = (self.reserve()?, self.reserve()?);
        let (stdev_id, idev) = (stdev.id(), device.id());
        let spec = MockTable::Default.spec()?;
        let object = self.new_device(idev, (DeviceKind::Mock, Iommu::Shared), spec);
        let object = Rc::new(object.with_pasids(pasids).with_recording(recording));
        device.publish(Object::Device(Rc::clone(&object)));
        stdev.publish(Object::MockDevice(Rc::new(MockDeviceObject { id: stdev_id, device: object })));
        match self.device_attach(idev, target).await {
            Ok(hwpt) => Ok(MockDomain { stdev: stdev_id, hwpt, idev }),
            Err(refusal) => {
                self.destroy(stdev_id).await?;
                Err(refusal)
            }
        }
    }

    /// Attaches a mock device to something else; tells the HWPT that serves it now.
    ///
    /// # Errors
    /// ENOENT without such a mock device; as replacing.
    pub async fn mock_domain_replace(&self, stdev: ObjectId, target: ObjectId) -> Result<ObjectId, Refusal> {
        let stdev = self.look(|objects| objects.mock_device(stdev))?;
        self.device_replace(stdev.device.id, target).await
    }

    /// Ends a mock device that is out of the table.
    pub(in crate::actors::client_context) async fn end_mock_device(&self, stdev: Rc<MockDeviceObject>) {
        let id = stdev.device.id;
        self.detach_all(&stdev.device).await;
        self.bury_vdevice(&stdev.device);
        drop(stdev);
        let ended = self.objects.borrow_mut().take(id);
        if let Err(error) = ended {
            tracing::error!(%error, "the device of a mock device could not be ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tables_can_be_made() {
        let small = MockTable::Default.spec().unwrap();
        assert_eq!((small.alignment(), small.aperture().start().get()), (2048, APERTURE.0));
        let huge = MockTable::Huge.spec().unwrap();
        assert_eq!((huge.alignment(), huge.page_sizes().bitmap()), (4096, 0x10_1000));
    }
}
