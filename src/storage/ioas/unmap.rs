//! UNMAP: areas leave the domains, their accesses, and at last the map.
//!
//! Imports allowed: units, and the passive types of storage.

use ioasd_client::units::{ByteLen, Iova, IovaRange};

use super::{AccessKey, Ioas, Notified, Port, Retired, behind};
use crate::error::{Coded, Errno};
use crate::storage::io_pagetable::{Area, AreaId, UnmapRequest, UnmapStep};
use crate::storage::refusal::Refusal;
use crate::storage::step::DomainKey;

/// Acknowledged tries that got nowhere before an unmap gives up.
const FRUITLESS_TRIES: u32 = 100;

/// Missed deadlines before an unmap gives up.
const MISSED_DEADLINES: u32 = 3;

/// An access does not let go of an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{access} still holds pins in area {area} after {tries} notices, {missed} of them unanswered: unpin them first"
)]
pub struct HeldError {
    /// Who holds it.
    pub access: AccessKey,
    /// What it holds.
    pub area: IovaRange,
    /// Notices sent.
    pub tries: u32,
    /// Notices not answered in time.
    pub missed: u32,
}

impl Coded for HeldError {
    fn errno(&self) -> Errno {
        Errno::DEADLK
    }

    fn code(&self) -> &'static str {
        "area-held-by-access"
    }
}

/// Areas taken out of the map by one UNMAP.
struct Taken<H> {
    areas: Vec<AreaId>,
    retired: Retired<H>,
    domains: Vec<DomainKey>,
    bytes: u64,
}

/// Patience with the accesses of one area.
#[derive(Default)]
struct Tries {
    area: Option<(AreaId, u64)>,
    count: u32,
    missed: u32,
}

impl Tries {
    /// Counts anew when another area is reached, or when this one is held less.
    fn look_at(&mut self, area: AreaId, accesses: u64) {
        if self.area != Some((area, accesses)) {
            *self = Self { area: Some((area, accesses)), count: 0, missed: 0 };
        }
    }
}

impl<P: Port> Ioas<P> {
    /// Removes the areas that lie in the range and tells how many bytes they had.
    ///
    /// # Errors
    /// If an area is busy, held, or lies there only in part, or if there is none. What was removed before stays removed.
    pub async fn unmap(&self, request: UnmapRequest) -> Result<ByteLen, Refusal> {
        let mut taken = Taken { areas: Vec::new(), retired: Vec::new(), domains: Vec::new(), bytes: 0 };
        let walked = self.take_areas(request.range(), &mut taken).await;
        let bytes = ByteLen::new(taken.bytes);
        self.let_go(taken).await;
        walked?;
        request.finish(bytes).map_err(|error| Refusal::of(&error))
    }

    async fn take_areas(&self, range: IovaRange, taken: &mut Taken<P::Pages>) -> Result<(), Refusal> {
        let mut cursor = Some(range.start());
        let mut tries = Tries::default();
        while let Some(from) = cursor {
            cursor = self.take_one(range, from, &mut tries, taken).await?;
        }
        Ok(())
    }

    /// One step of the walk; gives the next cursor.
    async fn take_one(
        &self,
        range: IovaRange,
        cursor: Iova,
        tries: &mut Tries,
        taken: &mut Taken<P::Pages>,
    ) -> Result<Option<Iova>, Refusal> {
        let gate = self.gate.read().await;
        let step = self.core.borrow_mut().table.unmap_step(range, cursor);
        match step.map_err(|error| Refusal::of(&error))? {
            UnmapStep::Done => Ok(None),
            UnmapStep::Take { area, iova, .. } => {
                self.take(area, taken).await;
                Ok(behind(iova).filter(|next| *next <= range.last()))
            }
            UnmapStep::Accessed { area, iova } => {
                drop(gate);
                self.ask_to_leave(area, iova, tries).await?;
                Ok(Some(iova.start()))
            }
        }
    }

    async fn take(&self, id: AreaId, taken: &mut Taken<P::Pages>) {
        self.core.borrow_mut().table.begin_retire(id);
        let domains = self.domains();
        taken.areas.push(id);
        let Some(area) = self.view(id) else { return };
        taken.bytes = taken.bytes.saturating_add(area.shape.iova().length().get());
        taken.retired.extend(self.unfill(&area, domains.clone()).await);
        note_domains(&mut taken.domains, &domains);
    }

    /// One grace period for everything taken, then the pages are let go of and the IOVA is free.
    async fn let_go(&self, taken: Taken<P::Pages>) {
        self.release(&taken.domains, taken.retired).await;
        for area in taken.areas {
            let removed = self.core.borrow_mut().table.remove(area);
            debug_assert!(removed.is_some(), "{area} vanished while it retired");
        }
    }

    /// One notice to everybody. What an access is just pinning or unpinning has no holder to blame yet: that is
    /// waited for, and is no try.
    async fn ask_to_leave(&self, area: AreaId, iova: IovaRange, tries: &mut Tries) -> Result<(), Refusal> {
        let changed = self.holds_changed.notified();
        tries.look_at(area, self.accesses_of(area));
        let missed = self.notify_everybody(iova).await;
        let Some(access) = self.holder(area) else {
            if self.accesses_of(area) > 0 {
                changed.await;
            }
            return Ok(());
        };
        tries.count += 1;
        tries.missed += missed;
        if tries.count <= FRUITLESS_TRIES && tries.missed < MISSED_DEADLINES {
            return Ok(());
        }
        Err(Refusal::of(&HeldError { access, area: iova, tries: tries.count, missed: tries.missed }))
    }

    /// Tells how many deadlines were missed: one for all.
    async fn notify_everybody(&self, iova: IovaRange) -> u32 {
        let everybody: Vec<AccessKey> = self.core.borrow().accesses.keys().copied().collect();
        let mut missed = 0;
        for access in everybody {
            missed = missed.max(u32::from(self.port.notify(access, iova).await == Notified::Missed));
        }
        missed
    }

    fn accesses_of(&self, area: AreaId) -> u64 {
        self.core.borrow().table.area(area).map_or(0, Area::accesses)
    }
}

fn note_domains(all: &mut Vec<DomainKey>, more: &[DomainKey]) {
    for domain in more {
        if !all.contains(domain) {
            all.push(*domain);
        }
    }
}
