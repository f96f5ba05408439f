//! Release: what retired is let go of, after every walker has left it.
//!
//! Pages that something took over meanwhile stay pinned: an access, a filled area, another retirement.
//!
//! Imports allowed: units, and the passive types of this folder.

use super::ending::Ending;
use super::order::{MoveResult, Moved};
use super::pages::{IoptPages, RetireKey};
use super::step::{Next, Reply, StepId};

const LAST_ACTS: StepId = StepId(0);

/// The movement.
#[derive(Debug)]
pub(super) struct Release {
    key: RetireKey,
    ending: Option<Ending>,
}

impl Release {
    pub(super) fn new(key: RetireKey) -> Self {
        Self { key, ending: None }
    }

    pub(super) fn next(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        let key = self.key;
        let ending = self.ending.get_or_insert_with(|| Ending::new(pages.release(key), Ok(Moved::Done)));
        ending.next(pages, LAST_ACTS)
    }

    pub(super) fn supply(&mut self, pages: &mut IoptPages, reply: Reply) {
        if let Some(ending) = &mut self.ending {
            ending.supply(pages, reply);
        }
    }
}
