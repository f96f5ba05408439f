//! Operations of a context on lists of ranges: many MAPs or UNMAPs in one go, each with its own outcome.
//!
//! They are carried out in the order of the list; what fails leaves the others as they are.
//!
//! Imports allowed: state and its operations, storage, messages, the object actors.

use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, Iova, IovaRange};

use super::address_spaces::{FileSlice, Mapping};
use super::state::ClientState;
use crate::actors::guard::poisoned;
use crate::storage::io_pagetable::UnmapRequest;
use crate::storage::refusal::Refusal;
use crate::sys::sender::Sender;

/// Pages objects made before others get their turn.
const TURN: usize = 64;

impl ClientState {
    /// IOAS_MAP_FILES. `who` pays. What was refused before is passed through.
    ///
    /// # Errors
    /// ENOENT without such an address space; each outcome as MAP_FILE.
    pub async fn map_files(
        &self,
        ioas: ObjectId,
        ranges: Vec<Result<(FileSlice, Mapping), Refusal>>,
        who: Option<Sender>,
    ) -> Result<Vec<Result<Iova, Refusal>>, Refusal> {
        let target = self.look(|objects| objects.ioas(ioas))?;
        let payer = self.payer(who.as_ref());
        let (mut maps, mut refusals) = (Vec::with_capacity(ranges.len()), Vec::with_capacity(ranges.len()));
        for (made, range) in ranges.into_iter().enumerate() {
            let map =
                range.and_then(|(slice, mapping)| self.file_map(slice, mapping, (payer.clone(), &target)));
            refusals.push(map.map(|map| maps.push(map)).err());
            if made % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        let mapped = target.cell.map_many(maps).await?;
        let mut mapped = mapped.into_iter();
        let mut next = || mapped.next().unwrap_or_else(|| Err(poisoned("an ioas")));
        let outcomes = refusals.into_iter().map(|refusal| refusal.map_or_else(&mut next, Err));
        Ok(outcomes.map(|outcome| outcome.map(IovaRange::start)).collect())
    }

    /// IOAS_UNMAP_RANGES; tells the bytes unmapped of each.
    ///
    /// # Errors
    /// ENOENT without such an address space; each outcome as UNMAP.
    pub async fn unmap_ranges(
        &self,
        ioas: ObjectId,
        requests: Vec<UnmapRequest>,
    ) -> Result<Vec<Result<ByteLen, Refusal>>, Refusal> {
        let target = self.look(|objects| objects.ioas(ioas))?;
        target.cell.unmap_many(&requests).await
    }
}
