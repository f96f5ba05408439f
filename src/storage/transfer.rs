//! Transfer: bytes of pages, read or written by a software user.
//!
//! Pages that nothing pins are pinned for the duration, part by part, and never charged.
//!
//! Imports allowed: units, and the passive types of this folder.

use ioasd_client::units::{ByteLen, IndexRange, PAGE_SIZE, PageIndex};

use super::ending::Ending;
use super::order::{MoveFailure, MoveResult, Moved};
use super::pages::{IoptPages, Tier};
use super::pfn::PfnBatch;
use super::reader::Tuning;
use super::refusal::Refusal;
use super::step::{Next, Reply, Step, StepId, Transfer};
use crate::error::Errno;

const STEP: StepId = StepId(0);

/// The movement.
#[derive(Debug)]
pub(super) struct TransferBytes {
    transfer: Transfer,
    tuning: Tuning,
    done: u64,
    read: Vec<u8>,
    phase: Phase,
}

/// A part: a span of pages of the same tier.
#[derive(Debug)]
enum Phase {
    Choosing,
    Pinning,
    Pinned(IndexRange),
    Moving(IndexRange),
    Unpinning(Ending),
    Failed(Refusal),
}

impl TransferBytes {
    pub(super) fn new(transfer: Transfer, tuning: Tuning) -> Self {
        Self { transfer, tuning, done: 0, read: Vec::new(), phase: Phase::Choosing }
    }

    pub(super) fn next(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        match &mut self.phase {
            Phase::Choosing => self.choose(pages),
            Phase::Pinning | Phase::Moving(_) => Next::Wait,
            Phase::Failed(refusal) => Next::Done(Err(refusal.clone().into())),
            Phase::Pinned(part) => {
                let part = *part;
                self.move_part(part)
            }
            Phase::Unpinning(ending) => match ending.next(pages, STEP) {
                Next::Done(Ok(_)) => {
                    self.phase = Phase::Choosing;
                    self.next(pages)
                }
                next => next,
            },
        }
    }

    fn span(&self) -> (u64, u64) {
        match &self.transfer {
            Transfer::Read { offset, length } => (offset.get(), length.get()),
            Transfer::Write { offset, bytes } => (offset.get(), bytes.len() as u64),
        }
    }

    /// The pages that still have to be visited.
    fn rest(&self) -> Option<IndexRange> {
        let (offset, length) = self.span();
        let last = (offset + length).checked_sub(1)?;
        if self.done >= length {
            return None;
        }
        let (first, last) = (ByteLen::new(offset + self.done), ByteLen::new(last));
        IndexRange::new(PageIndex::containing(first), PageIndex::containing(last))
    }

    fn choose(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        let Some(rest) = self.rest() else {
            return Next::Done(Ok(Moved::Bytes(std::mem::take(&mut self.read))));
        };
        let (tier, span) = pages.tier_at(rest.first(), rest.last());
        let part =
            IndexRange::from_length(span.first(), span.pages().min(self.tuning.batch_pages)).unwrap_or(span);
        if tier != Tier::Origin {
            return self.move_part(part);
        }
        match PfnBatch::new(part.first(), self.tuning.runs) {
            Ok(batch) => {
                self.phase = Phase::Pinning;
                Next::Start(STEP, Step::Pin { range: part, batch })
            }
            Err(error) => Next::Done(Err(Refusal::of(&error).into())),
        }
    }

    fn move_part(&mut self, part: IndexRange) -> Next<MoveResult> {
        let (offset, length) = self.span();
        let from = offset + self.done;
        let to = (offset + length).min((part.last().get() + 1) * PAGE_SIZE);
        let step = match &self.transfer {
            Transfer::Read { .. } => {
                Transfer::Read { offset: ByteLen::new(from), length: ByteLen::new(to - from) }
            }
            Transfer::Write { bytes, .. } => {
                let done = usize::try_from(self.done).unwrap_or(usize::MAX);
                let end = usize::try_from(self.done + to - from).unwrap_or(usize::MAX).min(bytes.len());
                Transfer::Write { offset: ByteLen::new(from), bytes: bytes.slice(done.min(end)..end) }
            }
        };
        self.done += to - from;
        self.phase = Phase::Moving(part);
        Next::Start(STEP, Step::Transfer(step))
    }

    pub(super) fn supply(&mut self, pages: &mut IoptPages, reply: Reply) {
        match (&mut self.phase, reply) {
            (Phase::Pinning, Reply::Frames(batch, result)) => self.phase = pinned(&batch, result),
            (Phase::Moving(part), Reply::Transferred(result)) => {
                let part = *part;
                let outcome = result.map(|bytes| append(&mut self.read, bytes));
                let outcome = outcome.map(|()| Moved::Done).map_err(MoveFailure::from);
                self.phase = Phase::Unpinning(Ending::new(Some(part), outcome));
            }
            (Phase::Unpinning(ending), reply) => ending.supply(pages, reply),
            _ => {}
        }
    }
}

/// Appends without a copy where nothing is there yet.
pub(super) fn append(all: &mut Vec<u8>, more: Vec<u8>) {
    if all.is_empty() {
        *all = more;
    } else {
        all.extend(more);
    }
}

fn pinned(batch: &PfnBatch, result: Result<(), Refusal>) -> Phase {
    match (result, batch.range()) {
        (Err(refusal), _) => Phase::Failed(refusal),
        (Ok(()), Some(part)) => Phase::Pinned(part),
        (Ok(()), None) => Phase::Failed(Refusal::new(Errno::IO, "tier-silent", "the source pinned nothing")),
    }
}
