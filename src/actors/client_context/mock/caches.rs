//! What the caches of mock hardware hold.
//!
//! Imports allowed: state, storage, the object actors.

use ioasd_client::ids::ObjectId;

use crate::actors::client_context::state::ClientState;
use crate::actors::objects::mock_state::Words;
use crate::error::Errno;
use crate::storage::refusal::Refusal;

impl ClientState {
    /// Whether word `index` of what devices of a nested HWPT have cached is `value`.
    ///
    /// # Errors
    /// ENOENT without such a HWPT, EINVAL if not.
    pub fn mock_check_iotlb(&self, hwpt: ObjectId, index: u32, value: u32) -> Result<(), Refusal> {
        let hwpt = self.look(|objects| objects.nested_hwpt(hwpt))?;
        compare(&hwpt.iotlb, index, value)
    }

    /// Whether word `index` of what a device has cached is `value`.
    ///
    /// # Errors
    /// ENOENT without such a device, EINVAL if not.
    pub fn mock_check_cache(&self, device: ObjectId, index: u32, value: u32) -> Result<(), Refusal> {
        let device = self.look(|objects| objects.device(device))?;
        compare(&device.mock.cache, index, value)
    }
}

fn compare(words: &Words, index: u32, value: u32) -> Result<(), Refusal> {
    if words.holds(index, value) {
        return Ok(());
    }
    let text = format!("word {index} of {words:x?} is not {value:#x}");
    Err(Refusal::new(Errno::INVAL, "cache-differs", text))
}
