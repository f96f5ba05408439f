//! Watching a movement: what its steps say of the operation that it is for.
//!
//! Imports allowed: operation, storage's orders, steps and refusals.

use std::sync::Arc;

use super::{Doing, Operation, Waiting};
use crate::storage::order::Order;
use crate::storage::refusal::Refusal;
use crate::storage::step::Step;

/// One movement of an operation, or of none.
#[derive(Debug)]
pub struct Watching {
    operation: Option<Arc<Operation>>,
    doing: Doing,
    pins: u32,
    tables: u32,
}

/// What a step says, until it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stepping {
    tier: Tier,
    pages: u64,
}

/// Who carries a step out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tier {
    Pins,
    Tables,
    Here,
}

impl Watching {
    /// A movement that begins.
    #[must_use]
    pub fn new(operation: Option<Arc<Operation>>, order: &Order) -> Self {
        Self { operation, doing: Doing::of(order), pins: 0, tables: 0 }
    }

    /// It is its turn.
    pub fn begin(&self) {
        self.note(|operation| operation.turn_to(self.doing));
    }

    /// Why it is to be given up, if it is.
    pub fn cancelled(&self) -> Option<Refusal> {
        let refusal = self.operation.as_ref().filter(|_| !self.doing.takes_back())?.cancelled()?;
        self.note(|operation| operation.turn_to(Doing::Undoing));
        Some(refusal)
    }

    /// It waits, not for a step.
    pub fn wait_for(&self, waiting: Waiting) {
        self.note(|operation| operation.wait_for(waiting));
    }

    /// A step begins.
    pub fn step(&mut self, step: &Step) -> Stepping {
        let stepping = self.stepping(step);
        match stepping.tier {
            Tier::Pins => self.pins += 1,
            Tier::Tables => self.tables += 1,
            Tier::Here => {}
        }
        stepping
    }

    /// A movement that puts in and clears tables nevertheless goes its way back.
    fn stepping(&self, step: &Step) -> Stepping {
        let (tier, pages) = match step {
            Step::Pin { .. } | Step::Recall { .. } | Step::Transfer(_) => (Tier::Pins, 0),
            Step::Unpin { range } => {
                (Tier::Pins, if self.doing == Doing::LettingGo { range.pages() } else { 0 })
            }
            Step::Deliver { batch, .. } => (Tier::Tables, batch.pages()),
            Step::ReadDomain { .. } => (Tier::Tables, 0),
            Step::Unmap { range, .. } => {
                if self.doing == Doing::Filling {
                    self.note(|operation| operation.turn_to(Doing::Undoing));
                }
                (Tier::Tables, range.pages())
            }
            Step::StoreCache { batch } => (Tier::Here, batch.pages()),
            Step::ReadCache { .. } | Step::EraseCache { .. } | Step::Charge { .. } => (Tier::Here, 0),
        };
        Stepping { tier, pages }
    }

    /// A step is over.
    pub fn stepped(&mut self, Stepping { tier, pages }: Stepping) {
        match tier {
            Tier::Pins => self.pins -= 1,
            Tier::Tables => self.tables -= 1,
            Tier::Here => {}
        }
        self.note(|operation| operation.advance(pages));
    }

    /// It waits for its steps.
    pub fn wait(&self) {
        self.wait_for(if self.tables > 0 || self.pins == 0 { Waiting::Tables } else { Waiting::Pins });
    }

    fn note(&self, note: impl FnOnce(&Operation)) {
        if let Some(operation) = &self.operation {
            note(operation);
        }
    }
}
