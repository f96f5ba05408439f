//! Unfill and UnmapFrom: an area out of its domains, or out of one of several.
//!
//! The pages retire first, in one step with what leaves the books, so that they stay pinned while walkers may still be
//! inside, whatever else lets go of them meanwhile; who unmapped them releases them after the grace period. Out of all
//! its domains, the area leaves the tree of filled areas; out of one of several, it is read back from one that stays.
//!
//! Neither can fail. An area without domains has nothing to leave; taking it out waits for the movements before it alone,
//! so that bytes on their way have arrived.
//!
//! Imports allowed: units, and the passive types of this folder.

use std::sync::Arc;

use super::area::AreaShape;
use super::carry::WholeRuns;
use super::order::{MoveResult, Moved};
use super::pages::{AreaKey, IoptPages, RetireKey};
use super::reader::Tuning;
use super::refusal::Refusal;
use super::step::{DomainKey, Next, Reply, StepId};
use crate::error::Errno;

const UNMAP: StepId = StepId(0);

/// What goes on showing an area that leaves some domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remaining {
    /// No domain.
    None,
    /// This domain, among others perhaps.
    Storage(DomainKey),
}

/// Takes an area out of domains.
#[derive(Debug)]
pub(super) struct Unfill {
    area: AreaKey,
    shape: AreaShape,
    remaining: Remaining,
    runs: WholeRuns,
    retiring: Option<RetireKey>,
}

impl Unfill {
    pub(super) fn new(
        area: AreaKey,
        shape: AreaShape,
        domains: Arc<[DomainKey]>,
        remaining: Remaining,
        tuning: Tuning,
    ) -> Self {
        let runs = WholeRuns::new(shape, shape.indexes(), domains, tuning.unmap_pages);
        Self { area, shape, remaining, runs, retiring: None }
    }

    pub(super) fn next(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        let key = match self.retiring {
            Some(key) => key,
            None => match self.retire(pages) {
                Some(key) => key,
                None if self.runs.is_finished() => return Next::Done(Ok(Moved::Done)),
                None => return Next::Done(Err(not_shown(self.area).into())),
            },
        };
        match self.runs.want() {
            Some(step) => Next::Start(UNMAP, step),
            None if self.runs.is_finished() => Next::Done(Ok(Moved::Retiring(key))),
            None => Next::Wait,
        }
    }

    fn retire(&mut self, pages: &mut IoptPages) -> Option<RetireKey> {
        let shown = pages.shown(self.area, self.shape.indexes())?;
        let key = pages.retire(self.shape.indexes());
        match self.remaining {
            Remaining::None => pages.unshow(shown),
            Remaining::Storage(storage) => pages.move_storage(shown, storage),
        }
        self.retiring = Some(key);
        Some(key)
    }

    pub(super) fn supply(&mut self, reply: Reply) {
        self.runs.supply(reply);
    }
}

fn not_shown(area: AreaKey) -> Refusal {
    Refusal::new(Errno::IO, "area-not-filled", format!("{} of ioas {} is in no domain", area.area, area.ioas))
}
