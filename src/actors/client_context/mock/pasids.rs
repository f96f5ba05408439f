//! PASIDs of mock devices: what they are attached to.
//!
//! Imports allowed: state, storage, the object actors.

use std::rc::Rc;

use ioasd_client::ids::ObjectId;

use crate::actors::client_context::state::ClientState;
use crate::actors::objects::attachment::{AnyHwpt, Pasid};
use crate::actors::objects::{AttachTarget, DeviceObject};
use crate::error::Errno;
use crate::storage::refusal::Refusal;

impl ClientState {
    fn mock_device_of(&self, stdev: ObjectId) -> Result<Rc<DeviceObject>, Refusal> {
        self.look(|objects| objects.mock_device(stdev)).map(|stdev| Rc::clone(&stdev.device))
    }

    /// Attaches a PASID; tells the HWPT that serves it.
    ///
    /// # Errors
    /// ENOENT without such a test object or target, EBUSY if the PASID is attached, EINVAL if it cannot be attached to that.
    pub async fn mock_pasid_attach(
        &self,
        stdev: ObjectId,
        pasid: Pasid,
        target: ObjectId,
    ) -> Result<ObjectId, Refusal> {
        self.attach(&*self.mock_device_of(stdev)?, pasid, target).await
    }

    /// Attaches a PASID, which is attached already, to something else instead.
    ///
    /// # Errors
    /// As attaching, and EINVAL if it is not attached.
    pub async fn mock_pasid_replace(
        &self,
        stdev: ObjectId,
        pasid: Pasid,
        target: ObjectId,
    ) -> Result<ObjectId, Refusal> {
        self.replace(&*self.mock_device_of(stdev)?, pasid, target).await
    }

    /// Detaches a PASID, if it is attached.
    ///
    /// # Errors
    /// ENOENT without such a test object.
    pub async fn mock_pasid_detach(&self, stdev: ObjectId, pasid: Pasid) -> Result<(), Refusal> {
        self.detach(&*self.mock_device_of(stdev)?, pasid).await;
        Ok(())
    }

    /// Whether a PASID is attached to a HWPT; to none for id 0.
    ///
    /// # Errors
    /// ENOENT without such a test object or HWPT, EINVAL if it is not.
    pub fn mock_pasid_check(&self, stdev: ObjectId, pasid: Pasid, hwpt: ObjectId) -> Result<(), Refusal> {
        let device = self.mock_device_of(stdev)?;
        let expected = if hwpt.get() == 0 { None } else { Some(self.any_hwpt(hwpt)?.id()) };
        let found = device.hwpt(pasid).map(|hwpt| hwpt.id());
        if found == expected {
            return Ok(());
        }
        let text = format!("PASID {} is attached to {found:?}, not {expected:?}", pasid.get());
        Err(Refusal::new(Errno::INVAL, "pasid-elsewhere", text))
    }

    fn any_hwpt(&self, id: ObjectId) -> Result<AnyHwpt, Refusal> {
        match self.look(|objects| objects.attach_target(id)) {
            Ok(AttachTarget::Hwpt(hwpt)) => Ok(hwpt),
            Ok(AttachTarget::Ioas(_)) | Err(_) => {
                Err(Refusal::new(Errno::NOENT, "object-absent", format!("object {id} is not a hwpt")))
            }
        }
    }
}
