//! Operations of a context on accesses.
//!
//! Imports allowed: state, storage, messages, the object actors.

use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use ioasd_client::ids::ObjectId;
use ioasd_client::units::{Iova, IovaRange};

use super::state::ClientState;
use crate::actors::access::{Access, NoticeSink};
use crate::actors::figures::AccessStats;
use crate::actors::guard::poisoned;
use crate::actors::messages::ioas::{
    AttachAccess, DetachAccess, PinRange, ReadBytes, UnpinRange, WriteBytes,
};
use crate::actors::objects::{AccessObject, Object};
use crate::fault_points::{self, Point};
use crate::storage::io_pagetable::Transfer;
use crate::storage::ioas::{AccessKey, AccessNeeds};
use crate::storage::pfn::PfnBatch;
use crate::storage::refusal::Refusal;

impl ClientState {
    /// Makes an access of an address space; `sink` takes notices to its user.
    ///
    /// # Errors
    /// ENOENT without such an address space, EADDRINUSE if its areas are not aligned for pins.
    pub async fn access_create(
        &self,
        ioas: ObjectId,
        needs: AccessNeeds,
        sink: NoticeSink,
    ) -> Result<ObjectId, Refusal> {
        let ioas = self.look(|objects| objects.ioas(ioas))?;
        let reserved = self.reserve()?;
        fault_points::hit(Point::ActorStart).map_err(|injected| Refusal::of(&injected))?;
        let (id, key) = (reserved.id(), AccessKey(self.agent.next_number()));
        let access = Access::new(sink).start();
        let stats = self.agent.registry.register_access(AccessStats::new(ioas.number, id, needs));
        let attach = AttachAccess { key, needs, access: access.clone(), stats: stats.share() };
        let attached = ioas.ioas.send(attach).await;
        attached.unwrap_or_else(|_| Err(poisoned("an ioas")))?;
        reserved.publish(Object::Access(Rc::new(AccessObject { id, key, ioas, access, stats })));
        Ok(id)
    }

    /// Pins a range; tells its frames.
    ///
    /// # Errors
    /// As the spec of pin says.
    pub async fn access_pin(
        &self,
        access: ObjectId,
        range: IovaRange,
        direction: Transfer,
    ) -> Result<Vec<Arc<PfnBatch>>, Refusal> {
        let object = self.look(|objects| objects.access(access))?;
        let pinned = object.ioas.ioas.send(PinRange { access: object.key, range, direction }).await;
        pinned.unwrap_or_else(|_| Err(poisoned("an ioas")))
    }

    /// Undoes one pin of exactly this range.
    ///
    /// # Errors
    /// ENOENT if there is none.
    pub async fn access_unpin(&self, access: ObjectId, range: IovaRange) -> Result<(), Refusal> {
        let object = self.look(|objects| objects.access(access))?;
        let unpinned = object.ioas.ioas.send(UnpinRange { access: object.key, range }).await;
        unpinned.unwrap_or_else(|_| Err(poisoned("an ioas")))
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// As the spec of rw says.
    pub async fn access_read(&self, access: ObjectId, range: IovaRange) -> Result<Vec<u8>, Refusal> {
        let object = self.look(|objects| objects.access(access))?;
        let read = object.ioas.ioas.send(ReadBytes { access: object.key, range }).await;
        read.unwrap_or_else(|_| Err(poisoned("an ioas")))
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// As the spec of rw says.
    pub async fn access_write(&self, access: ObjectId, iova: Iova, bytes: Vec<u8>) -> Result<(), Refusal> {
        let object = self.look(|objects| objects.access(access))?;
        let written = object.ioas.ioas.send(WriteBytes { access: object.key, iova, bytes }).await;
        written.unwrap_or_else(|_| Err(poisoned("an ioas")))
    }

    /// Ends an access that is out of the table: drops what it holds.
    pub(super) async fn end_access(&self, object: Rc<AccessObject>) {
        let detached = object.ioas.ioas.send(DetachAccess(object.key)).await;
        if !matches!(detached, Ok(Ok(()))) {
            tracing::error!(id = object.id.get(), ?detached, "an access could not be ended");
        }
    }
}
