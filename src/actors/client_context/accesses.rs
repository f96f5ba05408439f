//! Operations of a context on accesses.
//!
//! Imports allowed: state, storage, messages, the object actors.

use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use ioasd_client::ids::ObjectId;
use ioasd_client::units::{Iova, IovaRange};
use tokio::sync::MutexGuard;

use super::state::ClientState;
use crate::actors::access::{Access, NoticeSink};
use crate::actors::figures::AccessStats;
use crate::actors::guard::poisoned;
use crate::actors::late::note;
use crate::actors::messages::ioas::{AttachAccess, DetachAccess, ReadBytes, UnpinRange, WriteBytes};
use crate::actors::objects::{AccessObject, Attachment, IoasObject, Object};
use crate::actors::pages_handle::PagesHandle;
use crate::error::Errno;
use crate::fault_points::{self, Point};
use crate::storage::io_pagetable::{AccessWalk, Transfer};
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
        let id = reserved.id();
        let object = self.access_of(id, ioas, (needs, sink)).await?;
        reserved.publish(Object::Access(object));
        Ok(id)
    }

    /// An access of an address space, for the object `id`.
    pub(super) async fn access_of(
        &self,
        id: ObjectId,
        ioas: Rc<IoasObject>,
        (needs, sink): (AccessNeeds, NoticeSink),
    ) -> Result<Rc<AccessObject>, Refusal> {
        fault_points::hit(Point::ActorStart).map_err(|injected| Refusal::of(&injected))?;
        let (key, access) = (AccessKey(self.agent.next_number()), Access::new(sink).start());
        let (attached, changing) = Default::default();
        let object = Rc::new(AccessObject { id, key, needs, access, attached, changing });
        let attachment = self.attach_access(&object, ioas).await?;
        object.attached.replace(Some(attachment));
        Ok(object)
    }

    async fn attach_access(
        &self,
        object: &AccessObject,
        ioas: Rc<IoasObject>,
    ) -> Result<Attachment, Refusal> {
        let stats = AccessStats::new(ioas.number, object.id, object.needs);
        let stats = self.agent.registry.register_access(stats);
        let AccessObject { key, needs, access, .. } = object;
        let attach = AttachAccess { key: *key, needs: *needs, access: access.clone(), stats: stats.share() };
        ioas.ioas.send(attach).await.unwrap_or_else(|_| Err(poisoned("an ioas")))?;
        Ok(Attachment { ioas, stats })
    }

    /// Attaches an access that is attached to nothing.
    ///
    /// # Errors
    /// EINVAL if it is attached, ENOENT without such an address space, EADDRINUSE if its areas are not aligned for pins,
    /// EBUSY while its attachment changes.
    pub async fn access_attach(&self, access: ObjectId, ioas: ObjectId) -> Result<(), Refusal> {
        let object = self.look(|objects| objects.access(access))?;
        let _changing = changing(&object)?;
        if object.attached.borrow().is_some() {
            let text = format!("access {access} is attached already: replace or detach it");
            return Err(Refusal::new(Errno::INVAL, "access-attached", text));
        }
        let ioas = self.look(|objects| objects.ioas(ioas))?;
        let attachment = self.attach_access(&object, ioas).await?;
        object.attached.replace(Some(attachment));
        Ok(())
    }

    /// Moves an access to another address space, once it has let go of everything in the old one.
    ///
    /// # Errors
    /// ENOENT if it is not attached, or without such an address space; EADDRINUSE if its areas are not aligned for pins;
    /// EDEADLK if it does not let go; EBUSY while its attachment changes. It stays where it is then.
    pub async fn access_replace(&self, access: ObjectId, ioas: ObjectId) -> Result<(), Refusal> {
        let object = self.look(|objects| objects.access(access))?;
        let _changing = changing(&object)?;
        let old = ioas_of(&object)?;
        let new = self.look(|objects| objects.ioas(ioas))?;
        if Rc::ptr_eq(&old, &new) {
            return Ok(());
        }
        let attachment = self.attach_access(&object, Rc::clone(&new)).await?;
        if let Err(refusal) = leave(&object, &old).await {
            detach(&object, &new).await;
            return Err(refusal);
        }
        object.attached.replace(Some(attachment));
        Ok(())
    }

    /// Detaches an access, once it has let go of everything.
    ///
    /// # Errors
    /// ENOENT if it is not attached, EDEADLK if it does not let go: it stays attached then; EBUSY while its attachment
    /// changes.
    pub async fn access_detach(&self, access: ObjectId) -> Result<(), Refusal> {
        let object = self.look(|objects| objects.access(access))?;
        let _changing = changing(&object)?;
        let ioas = ioas_of(&object)?;
        leave(&object, &ioas).await?;
        object.attached.take();
        Ok(())
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
        pin(&object, range, direction).await
    }

    /// Undoes one pin of exactly this range.
    ///
    /// # Errors
    /// ENOENT if there is none.
    pub async fn access_unpin(&self, access: ObjectId, range: IovaRange) -> Result<(), Refusal> {
        let object = self.look(|objects| objects.access(access))?;
        let unpinned = ioas_of(&object)?.ioas.send(UnpinRange { access: object.key, range }).await;
        unpinned.unwrap_or_else(|_| Err(poisoned("an ioas")))
    }

    /// What bytes of a range would move through.
    ///
    /// # Errors
    /// ENOENT without such an access, or if it is not attached.
    pub fn access_walk(
        &self,
        access: ObjectId,
        range: IovaRange,
        direction: Transfer,
    ) -> Result<AccessWalk<PagesHandle>, Refusal> {
        let object = self.look(|objects| objects.access(access))?;
        ioas_of(&object)?.cell.walk_of_transfer(object.key, range, direction)
    }

    /// Reads bytes.
    ///
    /// # Errors
    /// As the spec of rw says.
    pub async fn access_read(&self, access: ObjectId, range: IovaRange) -> Result<Vec<u8>, Refusal> {
        let object = self.look(|objects| objects.access(access))?;
        let read = ioas_of(&object)?.ioas.send(ReadBytes { access: object.key, range }).await;
        read.unwrap_or_else(|_| Err(poisoned("an ioas")))
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// As the spec of rw says.
    pub async fn access_write(&self, access: ObjectId, iova: Iova, bytes: Vec<u8>) -> Result<(), Refusal> {
        let object = self.look(|objects| objects.access(access))?;
        let written =
            ioas_of(&object)?.ioas.send(WriteBytes { access: object.key, iova, bytes: bytes.into() }).await;
        written.unwrap_or_else(|_| Err(poisoned("an ioas")))
    }

    /// Ends an access that is out of the table: drops what it holds.
    pub(super) async fn end_access(&self, object: Rc<AccessObject>) {
        let attached = object.attached.take();
        if let Some(Attachment { ioas, .. }) = attached {
            detach(&object, &ioas).await;
        }
    }
}

/// Keeps the attachment of an access from being changed by others.
fn changing(object: &AccessObject) -> Result<MutexGuard<'_, ()>, Refusal> {
    object.changing.try_lock().map_err(|_| {
        let text = format!("access {} is being attached, replaced or detached: wait for that", object.id);
        Refusal::new(Errno::BUSY, "access-changing", text)
    })
}

/// The address space that an access uses.
pub(super) fn ioas_of(object: &AccessObject) -> Result<Rc<IoasObject>, Refusal> {
    let attached = object.attached.borrow();
    let ioas = attached.as_ref().map(|attachment| Rc::clone(&attachment.ioas));
    ioas.ok_or_else(|| {
        let text = format!("access {} is attached to no address space: attach it", object.id);
        Refusal::new(Errno::NOENT, "access-not-attached", text)
    })
}

/// Pins a range through an access; tells its frames.
pub(super) async fn pin(
    object: &AccessObject,
    range: IovaRange,
    direction: Transfer,
) -> Result<Vec<Arc<PfnBatch>>, Refusal> {
    note(|operation| operation.note_object(object.id));
    ioas_of(object)?.cell.pin(object.key, range, direction).await
}

/// Takes an access away from `ioas` once it has let go.
async fn leave(object: &AccessObject, ioas: &IoasObject) -> Result<(), Refusal> {
    note(|operation| operation.note_object(object.id));
    ioas.cell.leave(object.key).await
}

/// Takes an access away from `ioas`, whatever it holds.
async fn detach(object: &AccessObject, ioas: &IoasObject) {
    let detached = ioas.ioas.send(DetachAccess(object.key)).await;
    if !matches!(detached, Ok(Ok(()))) {
        tracing::error!(id = object.id.get(), ?detached, "an access could not be ended");
    }
}
