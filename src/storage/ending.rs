//! The last acts of a movement: unpin what nothing keeps, then bring the charge in line with the pins.
//!
//! Imports allowed: units, and the passive types of this folder.

use ioasd_client::units::{IndexRange, PageIndex};

use super::counts::Delta;
use super::order::MoveResult;
use super::pages::IoptPages;
use super::refusal::Refusal;
use super::step::{Enforcement, Next, Reply, Step, StepId};

/// Brings the charge in line with the pins.
#[derive(Debug)]
pub(super) struct Settlement {
    enforcement: Enforcement,
    state: Settling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settling {
    Due,
    Asked(Delta),
    Settled,
}

impl Settlement {
    /// A settlement that limits may refuse, or not.
    pub(super) fn new(enforcement: Enforcement) -> Self {
        Self { enforcement, state: Settling::Due }
    }

    /// The step; `None` if it is under way or nothing differs.
    fn want(&mut self, pages: &IoptPages) -> Option<Step> {
        if self.state != Settling::Due {
            return None;
        }
        let delta = pages.settle();
        self.state = if delta == Delta::None { Settling::Settled } else { Settling::Asked(delta) };
        (delta != Delta::None).then_some(Step::Charge { delta, enforcement: self.enforcement })
    }

    /// What to do next: its one step is `id`; once charge and pins agree, the movement ends with `result`.
    pub(super) fn next(
        &mut self,
        pages: &IoptPages,
        id: StepId,
        result: impl FnOnce() -> MoveResult,
    ) -> Next<MoveResult> {
        match self.want(pages) {
            Some(step) => Next::Start(id, step),
            None if self.state == Settling::Settled => Next::Done(result()),
            None => Next::Wait,
        }
    }

    /// Takes the reply.
    pub(super) fn supply(&mut self, pages: &mut IoptPages, reply: Reply) -> Result<(), Refusal> {
        if let (Settling::Asked(delta), Reply::Charged(result)) = (self.state, reply) {
            result?;
            pages.charge(delta);
            self.state = Settling::Settled;
        }
        Ok(())
    }
}

/// Unpins what nothing keeps of a range all of whose pages hold a pin, credits it, and ends the movement.
#[derive(Debug)]
pub(super) struct Ending {
    next: PageIndex,
    last: Option<PageIndex>,
    unpinning: bool,
    settlement: Settlement,
    result: MoveResult,
}

impl Ending {
    /// Ends with `result` once the unheld pages of `range` are unpinned.
    pub(super) fn new(range: Option<IndexRange>, result: MoveResult) -> Self {
        Self {
            next: range.map_or(PageIndex::new(0), IndexRange::first),
            last: range.map(IndexRange::last),
            unpinning: false,
            settlement: Settlement::new(Enforcement::Forced),
            result,
        }
    }

    /// What to do next; its only step is `id`.
    pub(super) fn next(&mut self, pages: &IoptPages, id: StepId) -> Next<MoveResult> {
        if self.unpinning {
            return Next::Wait;
        }
        if let Some(range) = self.last.and_then(|last| pages.next_unheld(self.next, last)) {
            self.next = range.last().next();
            self.unpinning = true;
            return Next::Start(id, Step::Unpin { range });
        }
        self.settlement.next(pages, id, || self.result.clone())
    }

    /// Takes the reply to the step under way. A charge here is forced or a credit and is never refused.
    pub(super) fn supply(&mut self, pages: &mut IoptPages, reply: Reply) {
        self.unpinning = false;
        let unrefusable = self.settlement.supply(pages, reply);
        debug_assert_eq!(unrefusable, Ok(()), "a forced charge was refused");
    }
}
