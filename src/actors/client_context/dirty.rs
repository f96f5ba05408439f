//! Operations of a context on dirty HWPTs: what devices have written through them.
//!
//! Tables are gone through in turns, between which others of the arbiter get theirs. Whatever becomes dirty meanwhile is
//! reported now or stays dirty. What was taken is told only when the walkers that wrote it have left their bursts, as after
//! an unmap: then it is written, and whoever writes there again says so again.
//!
//! Imports allowed: state, storage, domains, the object actors, retirement, late.

use std::rc::Rc;
use std::sync::Arc;

use ioasd_client::ids::ObjectId;
use ioasd_client::layout::LogShape;
use ioasd_client::units::{Iova, IovaRange};

use super::state::ClientState;
use crate::actors::fan_out::WithTable;
use crate::actors::guard::poisoned;
use crate::actors::late::{current, note};
use crate::actors::messages::ioas::LookAtTable;
use crate::actors::objects::HwptObject;
use crate::actors::operation::Waiting;
use crate::actors::retirement::Grace;
use crate::actors::tables::TURN;
use crate::domains::dirty::{Cleaning, Marked, Tracking};
use crate::domains::dirty_bitmap::DirtyBitmap;
use crate::domains::epoch::Epochs;
use crate::domains::spec::Recording;
use crate::domains::table::{Budget, DomainTable};
use crate::domains::written::Written;
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

    /// HWPT_SET_DIRTY_TRACKING. What is dirty when tracking begins is forgotten. When this is over, walkers log whatever they
    /// write.
    ///
    /// # Errors
    /// ENOENT without such a HWPT, EOPNOTSUPP if its table records nothing, ETIMEDOUT if a walker does not leave its burst.
    pub async fn set_dirty_tracking(&self, hwpt: ObjectId, tracking: Tracking) -> Result<(), Refusal> {
        let hwpt = self.look(|objects| objects.hwpt(hwpt))?;
        require_recording(&hwpt)?;
        let epochs = self.epochs_of(&hwpt).await?;
        let shape = LogShape::of(hwpt.spec.geometry());
        epochs.track(tracking, shape);
        if tracking == Tracking::On {
            let forgotten = self.take_written(&hwpt, &epochs, hwpt.spec.aperture()).await;
            forgotten.inspect_err(|_| epochs.track(hwpt.tracking.get(), shape))?;
        }
        hwpt.tracking.set(tracking);
        Ok(())
    }

    /// Sets the bits of all pages that were written to, if there is a bitmap.
    ///
    /// # Errors
    /// EOPNOTSUPP if the table records nothing, ETIMEDOUT if a walker does not leave its burst.
    pub async fn read_dirty(
        &self,
        hwpt: &HwptObject,
        bitmap: Option<DirtyBitmap>,
        cleaning: Cleaning,
    ) -> Result<Option<DirtyBitmap>, Refusal> {
        require_recording(hwpt)?;
        let Some(mut bitmap) = bitmap else { return Ok(None) };
        let written = match cleaning {
            Cleaning::Keep => {
                let mut written = Written::nothing(LogShape::of(hwpt.spec.geometry()));
                self.sweep(hwpt, bitmap.range(), cleaning, &mut written).await.map(|()| written)
            }
            Cleaning::Clean => {
                let epochs = self.epochs_of(hwpt).await?;
                self.take_written(hwpt, &epochs, bitmap.range()).await
            }
        };
        written?.ranges().for_each(|range| bitmap.set(range));
        Ok(Some(bitmap))
    }

    /// Takes all pages of a range that were written to; whoever wrote there has left when this is over. If it fails, they
    /// are told by the next that asks; what was mapped anew meanwhile may be among them.
    async fn take_written(
        &self,
        hwpt: &HwptObject,
        epochs: &Arc<Epochs>,
        range: IovaRange,
    ) -> Result<Written, Refusal> {
        let mut written = Written::nothing(LogShape::of(hwpt.spec.geometry()));
        let taken = match self.sweep(hwpt, range, Cleaning::Clean, &mut written).await {
            Ok(()) => self.wait_for_walkers(epochs).await,
            Err(refusal) => Err(refusal),
        };
        match taken {
            Ok(()) => Ok(written),
            Err(refusal) => {
                self.with_table(hwpt, move |table| table.put_back(&written)).await?;
                Err(refusal)
            }
        }
    }

    /// Goes through a range of the table, and adds what was written to.
    async fn sweep(
        &self,
        hwpt: &HwptObject,
        range: IovaRange,
        cleaning: Cleaning,
        written: &mut Written,
    ) -> Result<(), Refusal> {
        let (shape, mut rest) = (written.shape(), Some(range));
        while let Some(range) = rest {
            let (found, next) = self
                .with_table(hwpt, move |table| {
                    let mut found = Written::nothing(shape);
                    let mut report = |range| found.add_range(range);
                    let next = table.sweep_dirty(range, cleaning, &mut Budget::new(TURN), &mut report);
                    (found, next)
                })
                .await?;
            written.add_all(&found);
            let next = next.map_err(|error| Refusal::of(&error))?;
            rest = next.and_then(|next| IovaRange::new(next, range.last()));
        }
        Ok(())
    }

    /// Waits until every walker has left the burst it is in.
    async fn wait_for_walkers(&self, epochs: &Arc<Epochs>) -> Result<(), Refusal> {
        if !epochs.has_walkers() {
            return Ok(());
        }
        note(|operation| operation.wait_for(Waiting::Walkers));
        let grace = Grace { domains: vec![Arc::clone(epochs)], operation: current() };
        self.local.retirement.send(grace).await.map_err(|_| poisoned("Retirement"))?;
        if current().is_some_and(|operation| operation.is_answered()) {
            return Err(Refusal::new(Errno::TIMEDOUT, "walker-hung", "this was answered before it was over"));
        }
        Ok(())
    }

    async fn epochs_of(&self, hwpt: &HwptObject) -> Result<Arc<Epochs>, Refusal> {
        self.with_table(hwpt, |table| table.epochs()).await
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
