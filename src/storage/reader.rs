//! `pfn_reader`: cuts a range of pages into spans by tier and fills batches from them.
//!
//! The order of the tiers is decided page by page: the cache first, a domain next, the source last. The reader asks
//! for one span at a time and hands out a batch when it is full, long enough, or the range ends. Which batches come
//! out depends on the limits; the frames in them do not.
//!
//! Everything it has asked for or holds is claimed in the pages object, so that an unpin which runs between two batches
//! leaves those pages alone.
//!
//! Imports allowed: units, and the passive types of this folder.

use ioasd_client::units::{IndexRange, PageIndex};

use crate::error::Errno;

use super::io_pagetable::LargePages;
use super::pages::{CacheClaim, Claim, IoptPages, Tier};
use super::pfn::{PfnBatch, RunLimit};
use super::refusal::Refusal;
use super::step::Step;

/// Limits of a movement. Which frames are mapped does not depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Runs a batch may hold.
    pub runs: RunLimit,
    /// Pages after which a batch is handed on although more would fit, so that reading and writing overlap.
    pub batch_pages: u64,
    /// Pages unmapped in one step, to the next cut point.
    pub unmap_pages: u64,
    /// Whether leaves may be larger than a page, where the address space lets them.
    pub large_pages: LargePages,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            runs: RunLimit::DEFAULT,
            batch_pages: 1 << 17,
            unmap_pages: 1 << 18,
            large_pages: LargePages::On,
        }
    }
}

/// A batch with the answer to: did tier 1 supply it?
#[derive(Debug)]
pub(super) enum Read {
    /// Every frame came from tier 1.
    Cached(PfnBatch),
    /// Frames came from tiers 2 and 3; where the claim ignores the cache also from tier 1.
    Other(PfnBatch),
}

/// What the reader wants next.
#[derive(Debug)]
pub(super) enum Want {
    /// Carry out this step.
    Ask(Step),
    /// Take this batch.
    Take(Read),
    /// The reply to the last step is due.
    Wait,
    /// All pages have been handed out.
    Finished,
}

/// Reads the frames of a range, batch by batch.
#[derive(Debug)]
pub(super) struct Reader {
    range: IndexRange,
    next: PageIndex,
    tuning: Tuning,
    cache: CacheClaim,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No batch is being assembled.
    Empty,
    /// A tier has the batch.
    Asked { from_cache: bool },
    /// The batch is here; `ended` if the last tier could not add to it.
    Holding { batch: PfnBatch, from_cache: bool, ended: bool },
}

impl Reader {
    /// A reader of `range`. With [`CacheClaim::Kept`] no batch mixes cached pages with others.
    pub(super) fn new(range: IndexRange, tuning: Tuning, cache: CacheClaim) -> Self {
        Self { range, next: range.first(), tuning, cache, state: State::Empty }
    }

    /// The pages read so far, handed out or not.
    pub(super) fn done(&self) -> Option<IndexRange> {
        let last = self.next.get().checked_sub(1)?;
        IndexRange::new(self.range.first(), PageIndex::new(last))
    }

    /// Whether a step is under way.
    pub(super) fn is_asking(&self) -> bool {
        matches!(self.state, State::Asked { .. })
    }

    /// Whether tier 1 has the batch. It must not forget pages then: what it does not append is claimed no longer.
    pub(super) fn is_asking_cache(&self) -> bool {
        matches!(self.state, State::Asked { from_cache: true })
    }

    /// What to do next.
    pub(super) fn want(&mut self, pages: &mut IoptPages) -> Result<Want, Refusal> {
        if self.is_asking() {
            return Ok(Want::Wait);
        }
        if self.next > self.range.last() {
            return Ok(self.take().map_or(Want::Finished, Want::Take));
        }
        let (tier, span) = pages.tier_at(self.next, self.range.last());
        if self.must_hand_out(tier)
            && let Some(read) = self.take()
        {
            return Ok(Want::Take(read));
        }
        self.ask(pages, tier, span).map(Want::Ask)
    }

    fn must_hand_out(&self, tier: Tier) -> bool {
        let State::Holding { batch, from_cache, ended } = &self.state else { return false };
        let changes_tier = self.cache == CacheClaim::Kept && *from_cache != (tier == Tier::Cache);
        *ended || batch.is_full() || batch.pages() >= self.tuning.batch_pages || changes_tier
    }

    fn take(&mut self) -> Option<Read> {
        match std::mem::replace(&mut self.state, State::Empty) {
            State::Holding { batch, from_cache: true, .. } => Some(Read::Cached(batch)),
            State::Holding { batch, from_cache: false, .. } => Some(Read::Other(batch)),
            State::Empty | State::Asked { .. } => None,
        }
    }

    fn ask(&mut self, pages: &mut IoptPages, tier: Tier, span: IndexRange) -> Result<Step, Refusal> {
        let asked = State::Asked { from_cache: tier == Tier::Cache };
        let batch = match std::mem::replace(&mut self.state, State::Empty) {
            State::Holding { batch, .. } => batch,
            State::Empty | State::Asked { .. } => {
                PfnBatch::new(self.next, self.tuning.runs).map_err(|error| Refusal::of(&error))?
            }
        };
        let room = self.tuning.batch_pages.saturating_sub(batch.pages()).max(1);
        let range = IndexRange::from_length(self.next, room.min(span.pages())).unwrap_or(span);
        self.claim(pages, range.last());
        self.state = asked;
        Ok(match tier {
            Tier::Cache => Step::ReadCache { range, batch },
            Tier::Domain(shown) => {
                Step::ReadDomain { domain: shown.storage, shape: shown.shape, range, batch }
            }
            Tier::Held => Step::Recall { range, batch },
            Tier::Origin => Step::Pin { range, batch },
        })
    }

    fn claim(&self, pages: &mut IoptPages, last: PageIndex) {
        let claim = IndexRange::new(self.range.first(), last).map(|range| Claim { range, cache: self.cache });
        pages.set_claim(claim);
    }

    /// Takes the reply to the step asked for.
    pub(super) fn supply(
        &mut self,
        pages: &mut IoptPages,
        batch: PfnBatch,
        result: Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let from_cache = matches!(self.state, State::Asked { from_cache: true });
        let ended = batch.end() <= self.next;
        self.next = self.next.max(batch.end());
        self.state =
            if batch.is_empty() { State::Empty } else { State::Holding { batch, from_cache, ended } };
        match self.done() {
            Some(done) => self.claim(pages, done.last()),
            None => pages.set_claim(None),
        }
        match (result, &self.state) {
            (Ok(()), State::Empty) => Err(Refusal::new(
                Errno::IO,
                "tier-silent",
                format!("no tier told the frame of page {}", self.next),
            )),
            (result, _) => result,
        }
    }
}
