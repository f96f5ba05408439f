//! Addresses that are told as the number of an area and an offset in it, as fuzzers of the kernel do.
//!
//! Imports allowed: state, accesses, storage, messages, the object actors.

use ioasd_client::ids::ObjectId;
use ioasd_client::units::Iova;

use crate::actors::client_context::accesses::ioas_of;
use crate::actors::client_context::state::ClientState;
use crate::actors::guard::poisoned;
use crate::actors::messages::ioas::LookAtTable;
use crate::actors::objects::IoasObject;
use crate::storage::refusal::Refusal;

impl ClientState {
    /// The address that `named` stands for in the address space of an access.
    ///
    /// # Errors
    /// ENOENT without such an access, or if it is attached to nothing.
    pub async fn mock_address_of_access(&self, access: ObjectId, named: u64) -> Result<Iova, Refusal> {
        let access = self.look(|objects| objects.access(access))?;
        address_in(&*ioas_of(&access)?, named).await
    }

    /// The address that `named` stands for in an address space.
    ///
    /// # Errors
    /// ENOENT without such an address space.
    pub async fn mock_address_in(&self, ioas: ObjectId, named: u64) -> Result<Iova, Refusal> {
        address_in(&*self.look(|objects| objects.ioas(ioas))?, named).await
    }
}

/// The lower half is the number of an area, in the order of addresses; the upper half counts from its start. Where there is no
/// such area, the number stands for itself.
async fn address_in(ioas: &IoasObject, named: u64) -> Result<Iova, Refusal> {
    let area = usize::try_from(named & u64::from(u32::MAX)).unwrap_or(usize::MAX);
    let look = LookAtTable(Box::new(move |table| table.areas().nth(area).map(|area| area.iova().start())));
    let start = ioas.ioas.send(look).await.map_err(|_| poisoned("an ioas"))?;
    let meant = start.and_then(|start| start.checked_add(named >> u32::BITS));
    Ok(meant.unwrap_or(Iova::new(named)))
}
