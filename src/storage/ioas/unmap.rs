//! UNMAP: areas leave the domains, their accesses, and at last the map.
//!
//! Imports allowed: units, and the passive types of storage.

use ioasd_client::units::{ByteLen, Iova, IovaRange};

use super::notices::Tries;
use super::{Ioas, Port, Retired, behind};
use crate::storage::io_pagetable::{AreaId, AreaState, UnmapRequest, UnmapStep};
use crate::storage::refusal::Refusal;
use crate::storage::step::DomainKey;

/// Areas taken out of the map, to be let go of together.
struct Taken<H> {
    areas: Vec<AreaId>,
    retired: Retired<H>,
    domains: Vec<DomainKey>,
    bytes: u64,
}

impl<H> Taken<H> {
    const fn nothing() -> Self {
        Self { areas: Vec::new(), retired: Vec::new(), domains: Vec::new(), bytes: 0 }
    }
}

impl<P: Port> Ioas<P> {
    /// Removes the areas that lie in the range and tells how many bytes they had.
    ///
    /// # Errors
    /// If an area is busy, held, or lies there only in part, or if there is none. What was removed before stays removed.
    pub async fn unmap(&self, request: UnmapRequest) -> Result<ByteLen, Refusal> {
        let mut taken = Taken::nothing();
        let walked = self.take_areas(request.range(), &mut taken).await;
        let bytes = ByteLen::new(taken.bytes);
        self.let_go(taken).await;
        walked?;
        request.finish(bytes).map_err(|error| Refusal::of(&error))
    }

    /// Several UNMAPs, one after the other, with one grace period for all. Until then the IOVAs are taken, also for those
    /// that come later in the list.
    pub async fn unmap_many(&self, requests: &[UnmapRequest]) -> Vec<Result<ByteLen, Refusal>> {
        let (mut taken, mut outcomes) = (Taken::nothing(), Vec::with_capacity(requests.len()));
        for request in requests {
            let before = taken.bytes;
            let walked = self.take_areas(request.range(), &mut taken).await;
            let bytes = ByteLen::new(taken.bytes - before);
            outcomes.push(walked.and_then(|()| request.finish(bytes).map_err(|error| Refusal::of(&error))));
        }
        self.let_go(taken).await;
        outcomes
    }

    async fn take_areas(&self, range: IovaRange, taken: &mut Taken<P::Pages>) -> Result<(), Refusal> {
        let mut cursor = Some(range.start());
        let mut tries = Tries::new();
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
        tries: &mut Tries<(AreaId, u64)>,
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
        let before = self.core.borrow_mut().table.begin_retire(id);
        let domains = if before == AreaState::Ready { self.domains() } else { [].into() };
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
}

fn note_domains(all: &mut Vec<DomainKey>, more: &[DomainKey]) {
    for domain in more {
        if !all.contains(domain) {
            all.push(*domain);
        }
    }
}
