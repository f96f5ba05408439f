//! Unfill and UnmapFrom: an area out of its domains.
//!
//! [`Unfill`] takes an area out of all its domains. Its pages retire first, in one step with leaving the tree of filled
//! areas, so that they stay pinned while walkers may still be inside; who unmapped them releases them after the grace
//! period. [`UnmapFrom`] takes an area out of one domain of several; nothing is unpinned then.
//!
//! Neither can fail.
//!
//! Imports allowed: units, and the passive types of this folder.

use std::sync::Arc;

use super::area::AreaShape;
use super::carry::WholeRuns;
use super::movement::{MoveResult, Moved};
use super::pages::{AreaKey, IoptPages, RetireKey};
use super::reader::Tuning;
use super::refusal::Refusal;
use super::step::{DomainKey, Next, Reply, StepId};
use crate::error::Errno;

const UNMAP: StepId = StepId(0);

/// Takes an area out of all its domains.
#[derive(Debug)]
pub(super) struct Unfill {
    area: AreaKey,
    shape: AreaShape,
    runs: WholeRuns,
    retiring: Option<RetireKey>,
}

impl Unfill {
    pub(super) fn new(area: AreaKey, shape: AreaShape, domains: Arc<[DomainKey]>, tuning: Tuning) -> Self {
        let runs = WholeRuns::new(shape, shape.indexes(), domains, tuning.unmap_pages);
        Self { area, shape, runs, retiring: None }
    }

    pub(super) fn next(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        let key = match self.retiring {
            Some(key) => key,
            None => match self.retire(pages) {
                Some(key) => key,
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
        pages.unshow(shown);
        self.retiring = Some(key);
        Some(key)
    }

    pub(super) fn supply(&mut self, reply: Reply) {
        self.runs.supply(reply);
    }
}

/// Takes an area out of one domain while others go on showing it.
#[derive(Debug)]
pub(super) struct UnmapFrom {
    area: AreaKey,
    shape: AreaShape,
    storage: DomainKey,
    runs: WholeRuns,
}

impl UnmapFrom {
    pub(super) fn new(
        area: AreaKey,
        shape: AreaShape,
        domain: DomainKey,
        storage: DomainKey,
        tuning: Tuning,
    ) -> Self {
        let runs = WholeRuns::new(shape, shape.indexes(), Arc::new([domain]), tuning.unmap_pages);
        Self { area, shape, storage, runs }
    }

    pub(super) fn next(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        if let Some(shown) = pages.shown(self.area, self.shape.indexes()) {
            pages.move_storage(shown, self.storage);
        }
        match self.runs.want() {
            Some(step) => Next::Start(UNMAP, step),
            None if self.runs.is_finished() => Next::Done(Ok(Moved::Done)),
            None => Next::Wait,
        }
    }

    pub(super) fn supply(&mut self, reply: Reply) {
        self.runs.supply(reply);
    }
}

fn not_shown(area: AreaKey) -> Refusal {
    Refusal::new(Errno::IO, "area-not-filled", format!("{} of ioas {} is in no domain", area.area, area.ioas))
}
