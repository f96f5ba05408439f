//! Operations of a context on dirty HWPTs: what devices have written through them.
//!
//! Tables are gone through in turns, between which others of the arbiter get theirs. Whatever becomes dirty meanwhile is
//! reported now or stays dirty.
//!
//! Imports allowed: state, storage, domains, the object actors.

use std::rc::Rc;

use ioasd_client::ids::ObjectId;
use ioasd_client::units::{Iova, IovaRange};

use super::state::ClientState;
use crate::actors::fan_out::WithTable;
use crate::actors::guard::poisoned;
use crate::actors::messages::ioas::LookAtTable;
use crate::actors::objects::{HwptObject, Tracking};
use crate::actors::tables::TURN;
use crate::domains::dirty::{Cleaning, Marked};
use crate::domains::dirty_bitmap::DirtyBitmap;
use crate::domains::spec::Recording;
use crate::domains::table::{Budget, DomainTable};
use crate::error::Errno;
use crate::storage::io_pagetable::IoPageTable;
use crate::storage::refusal::Refusal;

impl ClientState {
    /// A HWPT, and what every range of its address space must be aligned to.
    ///
    /// # Errors
    /// ENOENT without such a HWPT.
    pub async fn hwpt_to_ask(&self, hwpt: ObjectId) -> Result<(Rc<HwptObject>, u64), Refusal> {
        let hwpt = self.look(|objects| objects.hwpt(hwpt))?;
        let look = LookAtTable(Box::new(IoPageTable::alignment));
        let alignment = hwpt.ioas.ioas.send(look).await.map_err(|_| poisoned("an ioas"))?;
        Ok((hwpt, alignment))
    }

    /// HWPT_SET_DIRTY_TRACKING. What is dirty when tracking begins is forgotten.
    ///
    /// # Errors
    /// ENOENT without such a HWPT, EOPNOTSUPP if its table records nothing.
    pub async fn set_dirty_tracking(&self, hwpt: ObjectId, tracking: Tracking) -> Result<(), Refusal> {
        let hwpt = self.look(|objects| objects.hwpt(hwpt))?;
        require_recording(&hwpt)?;
        if tracking == Tracking::On {
            self.clean(&hwpt).await?;
        }
        hwpt.tracking.set(tracking);
        Ok(())
    }

    async fn clean(&self, hwpt: &HwptObject) -> Result<(), Refusal> {
        let mut rest = Some(hwpt.spec.aperture());
        while let Some(range) = rest {
            let swept = self.with_table(hwpt, move |table| {
                table.sweep_dirty(range, Cleaning::Clean, &mut Budget::new(TURN), &mut |_| ())
            });
            rest = swept.await?.and_then(|next| IovaRange::new(next, range.last()));
        }
        Ok(())
    }

    /// Sets the bits of all pages that were written to, if there is a bitmap.
    ///
    /// # Errors
    /// EOPNOTSUPP if the table records nothing.
    pub async fn read_dirty(
        &self,
        hwpt: &HwptObject,
        bitmap: Option<DirtyBitmap>,
        cleaning: Cleaning,
    ) -> Result<Option<DirtyBitmap>, Refusal> {
        require_recording(hwpt)?;
        let Some(mut bitmap) = bitmap else { return Ok(None) };
        let mut rest = Some(bitmap.range());
        while let Some(range) = rest {
            let swept = self.with_table(hwpt, move |table| {
                let mut report = |leaf| bitmap.set(leaf);
                let next = table.sweep_dirty(range, cleaning, &mut Budget::new(TURN), &mut report);
                (bitmap, next)
            });
            let next;
            (bitmap, next) = swept.await?;
            rest = next.and_then(|next| IovaRange::new(next, range.last()));
        }
        Ok(Some(bitmap))
    }

    /// Marks pages as a device does that writes to them; tells how many there are, mapped or not.
    ///
    /// # Errors
    /// EINVAL if what devices write is not being tracked.
    pub async fn mark_dirty(&self, hwpt: &HwptObject, pages: Vec<Iova>) -> Result<u64, Refusal> {
        if hwpt.tracking.get() == Tracking::Off {
            let text = format!("nothing is tracked that is written through hwpt {}: begin to", hwpt.id);
            return Err(Refusal::new(Errno::INVAL, "dirty-tracking-off", text));
        }
        let count = pages.len() as u64;
        let marked = self.with_table(hwpt, move |table| {
            pages.into_iter().filter(|page| table.mark_dirty(*page) == Marked::Leaf).count()
        });
        let marked = marked.await?;
        tracing::trace!(hwpt = hwpt.id.get(), count, marked, "pages are marked");
        Ok(count)
    }

    async fn with_table<R: Send + 'static>(
        &self,
        hwpt: &HwptObject,
        work: impl FnOnce(&mut dyn DomainTable) -> R + Send + 'static,
    ) -> Result<R, Refusal> {
        let shard = self.agent.shards.get(hwpt.key.fan_out).ok_or_else(|| poisoned("a FanOut"))?;
        let worked = shard.fan_out.send(WithTable::new(hwpt.key.id, work)).await;
        worked.ok().flatten().ok_or_else(|| poisoned("a FanOut"))
    }
}

fn require_recording(hwpt: &HwptObject) -> Result<(), Refusal> {
    if hwpt.spec.recording() == Recording::Writes {
        return Ok(());
    }
    let text = format!("hwpt {} records nothing: allocate one with the flag DIRTY_TRACKING", hwpt.id);
    Err(Refusal::new(Errno::OPNOTSUPP, "dirty-tracking-unsupported", text))
}
