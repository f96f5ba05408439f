//! What a context asks of the IOVAs of its address spaces: allowed ranges, usable ranges.
//!
//! Imports allowed: state, storage, messages, the object actors.

use ioasd_client::ids::ObjectId;
use ioasd_client::units::IovaRange;

use super::state::ClientState;
use crate::actors::guard::poisoned;
use crate::actors::messages::ioas::{AllowIovas, LookAtTable};
use crate::storage::refusal::Refusal;

impl ClientState {
    /// IOAS_ALLOW_IOVAS.
    ///
    /// # Errors
    /// ENOENT without such an address space, EINVAL if ranges overlap, EADDRINUSE if one is reserved.
    pub async fn allow_iovas(&self, ioas: ObjectId, ranges: Vec<IovaRange>) -> Result<(), Refusal> {
        let target = self.look(|objects| objects.ioas(ioas))?;
        target.ioas.send(AllowIovas(ranges)).await.unwrap_or_else(|_| Err(poisoned("an ioas")))
    }

    /// IOAS_IOVA_RANGES: the addresses that nobody has reserved, and the alignment.
    ///
    /// # Errors
    /// ENOENT without such an address space.
    pub async fn iova_ranges(&self, ioas: ObjectId) -> Result<(Vec<IovaRange>, u64), Refusal> {
        let target = self.look(|objects| objects.ioas(ioas))?;
        let look = LookAtTable(Box::new(|table| (table.usable_ranges(), table.alignment())));
        target.ioas.send(look).await.map_err(|_| poisoned("an ioas"))
    }
}
