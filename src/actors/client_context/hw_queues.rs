//! Operations of a context on hardware queues: their memory is kept where it is.
//!
//! Imports allowed: state, accesses, storage, the object actors.

use std::rc::Rc;
use std::sync::Arc;

use ioasd_client::ids::ObjectId;
use ioasd_client::units::{Iova, IovaRange, PAGE_SIZE};

use super::accesses;
use super::state::ClientState;
use crate::actors::objects::nesting::{HwQueueObject, ViommuObject};
use crate::actors::objects::{AccessObject, Object};
use crate::error::Errno;
use crate::storage::io_pagetable::Transfer;
use crate::storage::ioas::AccessNeeds;
use crate::storage::pfn::PfnBatch;
use crate::storage::refusal::Refusal;

impl ClientState {
    /// The vIOMMU `id`.
    ///
    /// # Errors
    /// ENOENT.
    pub fn viommu(&self, id: ObjectId) -> Result<Rc<ViommuObject>, Refusal> {
        self.look(|objects| objects.viommu(id))
    }

    /// Makes a queue with `index`, in the memory of the pages that `range` touches.
    ///
    /// # Errors
    /// What pinning these pages meets, EFAULT if their frames are not contiguous, and if there can be no queue with that index.
    pub async fn hw_queue_alloc(
        &self,
        viommu: Rc<ViommuObject>,
        index: u32,
        range: IovaRange,
    ) -> Result<ObjectId, Refusal> {
        let reserved = self.reserve()?;
        let (id, ioas) = (reserved.id(), Rc::clone(&viommu.parent.ioas));
        let nobody = Box::new(|_| Box::pin(std::future::ready(())) as _);
        let access = self.access_of(id, ioas, (AccessNeeds::Keeps, nobody)).await?;
        match kept(&access, range).await.and_then(|()| viommu.before_hw_queue(index)) {
            Ok(before) => {
                let queue = Rc::new(HwQueueObject { id, viommu: Rc::clone(&viommu), index, before, access });
                viommu.place_hw_queue(&queue);
                reserved.publish(Object::HwQueue(queue));
                Ok(id)
            }
            Err(refusal) => {
                self.end_access(access).await;
                Err(refusal)
            }
        }
    }

    /// Ends a queue that is out of the table: its memory can be unmapped.
    pub(super) async fn end_hw_queue(&self, queue: Rc<HwQueueObject>) {
        let access = Rc::clone(&queue.access);
        drop(queue);
        self.end_access(access).await;
    }
}

/// Pins the pages that a range touches, if their frames are contiguous.
async fn kept(access: &AccessObject, range: IovaRange) -> Result<(), Refusal> {
    let first = Iova::new(range.start().get() & !(PAGE_SIZE - 1));
    let pages = IovaRange::new(first, Iova::new(range.last().get() | (PAGE_SIZE - 1)));
    let frames = accesses::pin(access, pages.unwrap_or(range), Transfer::Read).await?;
    if are_contiguous(&frames) {
        return Ok(());
    }
    let text = format!("the frames behind {range} are not contiguous: the hardware needs one piece");
    Err(Refusal::new(Errno::FAULT, "hw-queue-scattered", text))
}

fn are_contiguous(frames: &[Arc<PfnBatch>]) -> bool {
    let runs: Vec<_> = frames.iter().flat_map(|batch| batch.runs()).collect();
    runs.windows(2).all(|pair| match pair {
        [run, next] => run.pfn.get().checked_add(run.pages.into()) == Some(next.pfn.get()),
        _ => true,
    })
}
