//! What a context asks of the IOVAs of its address spaces: allowed ranges, usable ranges, large pages.
//!
//! Imports allowed: state, storage, messages, the object actors.

use ioasd_client::ids::ObjectId;
use ioasd_client::units::IovaRange;

use super::state::ClientState;
use crate::actors::guard::poisoned;
use crate::actors::messages::ioas::{AllowIovas, LookAtTable, SetLargePages};
use crate::storage::io_pagetable::{IoPageTable, LargePages};
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

    /// OPTION, HUGE_PAGES, GET.
    ///
    /// # Errors
    /// ENOENT without such an address space.
    pub async fn large_pages(&self, ioas: ObjectId) -> Result<LargePages, Refusal> {
        let target = self.look(|objects| objects.ioas(ioas))?;
        let look = LookAtTable(Box::new(IoPageTable::large_pages));
        target.ioas.send(look).await.map_err(|_| poisoned("an ioas"))
    }

    /// OPTION, HUGE_PAGES, SET.
    ///
    /// # Errors
    /// ENOENT without such an address space; when switching off, EINVAL if there are domains and areas, EADDRINUSE if an
    /// area is not page aligned.
    pub async fn set_large_pages(&self, ioas: ObjectId, large_pages: LargePages) -> Result<(), Refusal> {
        let target = self.look(|objects| objects.ioas(ioas))?;
        target.ioas.send(SetLargePages(large_pages)).await.unwrap_or_else(|_| Err(poisoned("an ioas")))
    }
}
