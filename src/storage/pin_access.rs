//! PinAccess: frames into tier 1 and to a software user.
//!
//! ```text
//!   Reserving ──accepted──▶ Reading ──all read and stored──▶ done
//!      │                       │
//!      └───── failure ─────────┴──▶ Draining ▶ Erasing ▶ Ending ▶ failed
//! ```
//!
//! The pages are charged before any of them is pinned, as those of a fill are.
//! The cache is filled although a domain may hold the frames as well, so that removing a domain never needs memory.
//!
//! Imports allowed: units, and the passive types of this folder.

use std::sync::Arc;

use ioasd_client::units::{IndexRange, PageIndex};

use super::ending::{Ending, Settlement};
use super::order::{MoveFailure, MoveResult, Moved};
use super::pages::{CacheClaim, IoptPages};
use super::pfn::PfnBatch;
use super::reader::{Read, Reader, Tuning, Want};
use super::refusal::Refusal;
use super::step::{Next, Reply, Step, StepId};

const READ: StepId = StepId(0);
const STORE: StepId = StepId(1);
const RESERVE: StepId = StepId(2);
const LAST_ACTS: StepId = StepId(3);

/// The movement.
#[derive(Debug)]
pub(super) struct PinAccess {
    range: IndexRange,
    reader: Reader,
    waiting: Option<Read>,
    storing: Option<Arc<PfnBatch>>,
    frames: Vec<Arc<PfnBatch>>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Reserving(Settlement),
    Reading,
    Draining(Refusal),
    Erasing { refusal: Refusal, next: PageIndex, asked: bool },
    Ending(Ending),
}

impl PinAccess {
    pub(super) fn new(range: IndexRange, tuning: Tuning) -> Self {
        Self {
            range,
            reader: Reader::new(range, tuning, CacheClaim::Kept),
            waiting: None,
            storing: None,
            frames: Vec::new(),
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
                pages.reserve(Some(self.range));
                settlement.next(pages, RESERVE).unwrap_or_else(|| self.read(pages))
            }
            Phase::Reading => self.read(pages),
            Phase::Draining(_) => self.drain(pages),
            Phase::Erasing { .. } => self.erase(pages),
            Phase::Ending(ending) => ending.next(pages, LAST_ACTS),
        }
    }

    pub(super) fn supply(&mut self, pages: &mut IoptPages, id: StepId, reply: Reply) {
        let result = match (id, reply) {
            (READ, Reply::Frames(batch, result)) => self.reader.supply(pages, batch, result),
            (STORE, Reply::Stored(result)) => self.stored(result),
            (_, reply) => self.other_done(pages, reply),
        };
        if let (Err(refusal), Phase::Reserving(_) | Phase::Reading) = (result, &self.phase) {
            self.phase = Phase::Draining(refusal);
        }
    }

    fn read(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        self.phase = Phase::Reading;
        self.read_and_store(pages).unwrap_or_else(|refusal| {
            self.phase = Phase::Draining(refusal);
            self.drain(pages)
        })
    }

    fn read_and_store(&mut self, pages: &mut IoptPages) -> Result<Next<MoveResult>, Refusal> {
        if self.storing.is_none()
            && let Some(read) = self.waiting.take()
        {
            return self.keep(pages, read);
        }
        if self.waiting.is_some() {
            return Ok(Next::Wait);
        }
        match self.reader.want(pages)? {
            Want::Ask(step) => Ok(Next::Start(READ, step)),
            Want::Take(read) => {
                self.waiting = Some(read);
                self.read_and_store(pages)
            }
            Want::Finished if self.storing.is_none() => Ok(self.note(pages)),
            Want::Wait | Want::Finished => Ok(Next::Wait),
        }
    }

    fn keep(&mut self, pages: &mut IoptPages, read: Read) -> Result<Next<MoveResult>, Refusal> {
        match read {
            Read::Cached(batch) => {
                self.frames.push(Arc::new(batch));
                self.read_and_store(pages)
            }
            Read::Other(batch) => {
                let batch = Arc::new(batch);
                self.storing = Some(Arc::clone(&batch));
                Ok(Next::Start(STORE, Step::StoreCache { batch }))
            }
        }
    }

    fn stored(&mut self, result: Result<(), Refusal>) -> Result<(), Refusal> {
        let batch = self.storing.take();
        result?;
        self.frames.extend(batch);
        Ok(())
    }

    /// What was reserved is pinned: nothing is left to be settled.
    fn note(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        pages.set_claim(None);
        pages.add_access(self.range);
        pages.reserve(None);
        Next::Done(Ok(Moved::Frames(std::mem::take(&mut self.frames))))
    }

    /// Waits for the steps under way, then starts the way back.
    fn drain(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        if self.reader.is_asking() || self.storing.is_some() {
            return Next::Wait;
        }
        pages.set_claim(None);
        if let Phase::Draining(refusal) = &self.phase {
            self.phase = Phase::Erasing { refusal: refusal.clone(), next: self.range.first(), asked: false };
        }
        self.erase(pages)
    }

    fn erase(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        let Phase::Erasing { refusal, next, asked } = &mut self.phase else { return Next::Wait };
        if *asked {
            return Next::Wait;
        }
        let done = self.reader.done();
        if let Some(range) = done.and_then(|done| pages.next_uncached(*next, done.last())) {
            (*next, *asked) = (range.last().next(), true);
            return Next::Start(LAST_ACTS, Step::EraseCache { range });
        }
        let failure = MoveFailure::from(refusal.clone());
        pages.reserve(None);
        self.phase = Phase::Ending(Ending::new(done, Err(failure)));
        self.next(pages)
    }

    fn other_done(&mut self, pages: &mut IoptPages, reply: Reply) -> Result<(), Refusal> {
        match &mut self.phase {
            Phase::Reserving(settlement) => return settlement.supply(pages, reply),
            Phase::Erasing { asked, .. } => *asked = false,
            Phase::Ending(ending) => ending.supply(pages, reply),
            Phase::Reading | Phase::Draining(_) => {}
        }
        Ok(())
    }
}
