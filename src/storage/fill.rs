//! Fill: the frames of an area into domains.
//!
//! ```text
//!   Reserving ──accepted──▶ Reading ──all read and delivered──▶ done
//!      │                       │
//!      └───── failure ─────────┴──▶ Draining ▶ Unmapping ▶ Ending ▶ failed
//! ```
//!
//! The pages are charged before any of them is pinned, by the difference, so that pages which are pinned already cost
//! nothing and nothing is pinned that no account pays for. Batch k+1 is read while batch k is written. On a failure every
//! domain is unmapped as far as it got; what was ever handed to a domain retires, because a walker may have seen it, and
//! stays charged until it is released; what was only pinned is unpinned at once, and it and what never was is credited.
//!
//! Imports allowed: units, and the passive types of this folder.

use std::sync::Arc;

use ioasd_client::units::{IndexRange, PageIndex, Permission};

use super::area::AreaShape;
use super::carry::WholeRuns;
use super::ending::{Ending, Settlement};
use super::io_pagetable::LargePages;
use super::order::{MoveFailure, MoveResult, Moved, Showing};
use super::pages::{AreaKey, CacheClaim, IoptPages, RetireKey, Shown};
use super::pfn::PfnBatch;
use super::reader::{Read, Reader, Tuning, Want};
use super::refusal::Refusal;
use super::step::{DomainKey, Next, Reply, Step, StepId};

const READ: StepId = StepId(0);
const DELIVER: StepId = StepId(1);
const RESERVE: StepId = StepId(2);
const LAST_ACTS: StepId = StepId(3);

/// The movement.
#[derive(Debug)]
pub(super) struct Fill {
    area: AreaKey,
    shape: AreaShape,
    permission: Permission,
    large_pages: LargePages,
    domains: Arc<[DomainKey]>,
    showing: Showing,
    tuning: Tuning,
    reader: Reader,
    waiting: Option<Arc<PfnBatch>>,
    delivering: Option<PageIndex>,
    /// For each domain the page behind the last one it maps.
    filled_to: Vec<PageIndex>,
    /// The page behind the last one that was ever handed to a domain.
    published_to: PageIndex,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Reserving(Settlement),
    Reading,
    Draining(Refusal),
    Unmapping(Refusal, Vec<WholeRuns>),
    Ending(Ending),
}

impl Fill {
    pub(super) fn new(
        area: AreaKey,
        (shape, permission, large_pages): (AreaShape, Permission, LargePages),
        domains: Arc<[DomainKey]>,
        showing: Showing,
        tuning: Tuning,
    ) -> Self {
        let range = shape.indexes();
        Self {
            area,
            shape,
            permission,
            large_pages,
            showing,
            tuning,
            reader: Reader::new(range, tuning, CacheClaim::Ignored),
            waiting: None,
            delivering: None,
            filled_to: vec![range.first(); domains.len()],
            published_to: range.first(),
            domains,
            phase: Phase::Reserving(Settlement::default()),
        }
    }

    pub(super) fn is_interruptible(&self) -> bool {
        matches!(self.phase, Phase::Reading) && !self.reader.is_asking_cache()
    }

    /// Starts the way back, if pages are being read.
    pub(super) fn cancel(&mut self, refusal: Refusal) {
        if matches!(self.phase, Phase::Reading) {
            self.phase = Phase::Draining(refusal);
        }
    }

    pub(super) fn next(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        match &mut self.phase {
            Phase::Reserving(settlement) => {
                pages.reserve(Some(self.shape.indexes()));
                settlement.next(pages, RESERVE).unwrap_or_else(|| self.read(pages))
            }
            Phase::Reading => self.read(pages),
            Phase::Draining(_) => self.drain(pages),
            Phase::Unmapping(..) => self.unmap(pages),
            Phase::Ending(ending) => ending.next(pages, LAST_ACTS),
        }
    }

    pub(super) fn supply(&mut self, pages: &mut IoptPages, id: StepId, reply: Reply) {
        let result = match (id, reply) {
            (READ, Reply::Frames(batch, result)) => self.reader.supply(pages, batch, result),
            (DELIVER, Reply::Delivered(outcomes)) => self.delivered(outcomes),
            (_, reply) => self.other_done(pages, reply),
        };
        if let (Err(refusal), Phase::Reserving(_) | Phase::Reading) = (result, &self.phase) {
            self.phase = Phase::Draining(refusal);
        }
    }

    fn read(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        self.phase = Phase::Reading;
        self.read_and_deliver(pages).unwrap_or_else(|refusal| self.fail(pages, refusal))
    }

    fn read_and_deliver(&mut self, pages: &mut IoptPages) -> Result<Next<MoveResult>, Refusal> {
        if self.delivering.is_none()
            && let Some(batch) = self.waiting.take()
        {
            return Ok(self.deliver(batch));
        }
        if self.waiting.is_some() {
            return Ok(Next::Wait);
        }
        match self.reader.want(pages)? {
            Want::Ask(step) => Ok(Next::Start(READ, step)),
            Want::Take(Read::Cached(batch) | Read::Other(batch)) => {
                self.waiting = Some(Arc::new(batch));
                self.read_and_deliver(pages)
            }
            Want::Finished if self.delivering.is_none() => Ok(self.show(pages)),
            Want::Wait | Want::Finished => Ok(Next::Wait),
        }
    }

    fn deliver(&mut self, batch: Arc<PfnBatch>) -> Next<MoveResult> {
        self.delivering = Some(batch.end());
        self.published_to = batch.end();
        let (shape, permission, large_pages) = (self.shape, self.permission, self.large_pages);
        let domains = Arc::clone(&self.domains);
        Next::Start(DELIVER, Step::Deliver { batch, shape, permission, large_pages, domains })
    }

    fn delivered(&mut self, outcomes: Vec<Result<(), Refusal>>) -> Result<(), Refusal> {
        let Some(end) = self.delivering.take() else { return Ok(()) };
        let mut first_failure = Ok(());
        for (filled_to, outcome) in self.filled_to.iter_mut().zip(outcomes) {
            match outcome {
                Ok(()) => *filled_to = end,
                Err(refusal) => first_failure = first_failure.and(Err(refusal)),
            }
        }
        first_failure
    }

    fn shown(&self) -> Option<Shown> {
        let storage = self.domains.first().copied()?;
        (self.showing == Showing::First).then_some(Shown { area: self.area, shape: self.shape, storage })
    }

    /// What was reserved is pinned: nothing is left to be settled.
    fn show(&self, pages: &mut IoptPages) -> Next<MoveResult> {
        pages.set_claim(None);
        if let Some(shown) = self.shown() {
            pages.show(shown);
        }
        pages.reserve(None);
        Next::Done(Ok(Moved::Done))
    }

    fn fail(&mut self, pages: &mut IoptPages, refusal: Refusal) -> Next<MoveResult> {
        self.phase = Phase::Draining(refusal);
        self.drain(pages)
    }

    /// Waits for the steps under way, then starts the way back.
    fn drain(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        if self.reader.is_asking() || self.delivering.is_some() {
            return Next::Wait;
        }
        if let Phase::Draining(refusal) = &self.phase {
            self.phase = Phase::Unmapping(refusal.clone(), self.partial_unmaps());
        }
        self.unmap(pages)
    }

    /// One unmapping for all domains that got equally far. A domain takes a batch whole or not at all and the frames
    /// of a run that two batches share were written by two calls, so that where a domain ends is a cut point.
    fn partial_unmaps(&self) -> Vec<WholeRuns> {
        let mut ends: Vec<PageIndex> = self.filled_to.clone();
        ends.sort_unstable();
        ends.dedup();
        let groups = ends.into_iter().filter_map(|end| {
            let range =
                IndexRange::new(self.shape.indexes().first(), PageIndex::new(end.get().checked_sub(1)?))?;
            let domains =
                self.domains.iter().zip(&self.filled_to).filter(|(_, filled_to)| **filled_to == end);
            let domains = domains.map(|(domain, _)| *domain).collect();
            Some(WholeRuns::new(self.shape, range, domains, self.tuning.unmap_pages))
        });
        groups.collect()
    }

    fn unmap(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        let Phase::Unmapping(refusal, unmaps) = &mut self.phase else { return Next::Wait };
        while let Some(unmap) = unmaps.last_mut() {
            match unmap.want() {
                Some(step) => return Next::Start(LAST_ACTS, step),
                None if unmap.is_finished() => drop(unmaps.pop()),
                None => return Next::Wait,
            }
        }
        let refusal = refusal.clone();
        pages.set_claim(None);
        let failure = MoveFailure { refusal, retiring: self.retire_published(pages) };
        pages.reserve(None);
        self.phase = Phase::Ending(Ending::new(self.reader.done(), Err(failure)));
        self.next(pages)
    }

    fn retire_published(&self, pages: &mut IoptPages) -> Option<RetireKey> {
        let last = PageIndex::new(self.published_to.get().checked_sub(1)?);
        IndexRange::new(self.shape.indexes().first(), last).map(|range| pages.retire(range))
    }

    fn other_done(&mut self, pages: &mut IoptPages, reply: Reply) -> Result<(), Refusal> {
        match &mut self.phase {
            Phase::Reserving(settlement) => return settlement.supply(pages, reply),
            Phase::Unmapping(_, unmaps) => {
                if let Some(unmap) = unmaps.last_mut() {
                    unmap.supply(reply);
                }
            }
            Phase::Ending(ending) => ending.supply(pages, reply),
            Phase::Reading | Phase::Draining(_) => {}
        }
        Ok(())
    }
}
