//! The last acts of a movement: unpin what nothing keeps, then bring the charge in line with the pins.
//!
//! Imports allowed: units, and the passive types of this folder.

use ioasd_client::units::{IndexRange, PageIndex};

use super::counts::Delta;
use super::order::MoveResult;
use super::pages::IoptPages;
use super::refusal::Refusal;
use super::step::{Next, Reply, Step, StepId};

/// Brings the charge in line with the pins, those that a movement has reserved included.
#[derive(Debug, Default)]
pub(super) struct Settlement(Settling);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Settling {
    #[default]
    Due,
    Asked(Delta),
    Settled,
}

impl Settlement {
    /// What to do next: its one step is `id`; `None` once charge and pins agree.
    pub(super) fn next(&mut self, pages: &IoptPages, id: StepId) -> Option<Next<MoveResult>> {
        if self.0 == Settling::Due {
            let delta = pages.settle();
            if delta != Delta::None {
                self.0 = Settling::Asked(delta);
                return Some(Next::Start(id, Step::Charge { delta }));
            }
            self.0 = Settling::Settled;
        }
        (self.0 != Settling::Settled).then_some(Next::Wait)
    }

    /// Takes the reply.
    pub(super) fn supply(&mut self, pages: &mut IoptPages, reply: Reply) -> Result<(), Refusal> {
        if let (Settling::Asked(delta), Reply::Charged(result)) = (self.0, reply) {
            result?;
            pages.charge(delta);
            self.0 = Settling::Settled;
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
            settlement: Settlement::default(),
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
        self.settlement.next(pages, id).unwrap_or_else(|| Next::Done(self.result.clone()))
    }

    /// Takes the reply to the step under way. What is settled here is a credit, which is never refused: pins are paid for
    /// before they are made.
    pub(super) fn supply(&mut self, pages: &mut IoptPages, reply: Reply) {
        self.unpinning = false;
        let unrefusable = self.settlement.supply(pages, reply);
        debug_assert_eq!(unrefusable, Ok(()), "a credit was refused");
    }
}
