//! UnpinAccess: one software user lets go of a range it pinned.
//!
//! Where no other access covers a page, tier 1 forgets it; where nothing else keeps it either, it is unpinned. What a
//! movement that is interrupted by this one has claimed is left to that movement.
//!
//! Imports allowed: units, and the passive types of this folder.

use ioasd_client::units::{IndexRange, PageIndex};

use super::ending::Ending;
use super::order::{MoveResult, Moved};
use super::pages::{IoptPages, LastUser};
use super::refusal::Refusal;
use super::step::{Next, Reply, Step, StepId};
use crate::error::Errno;

const STEP: StepId = StepId(0);

/// The movement.
#[derive(Debug)]
pub(super) struct UnpinAccess {
    range: IndexRange,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Start,
    Erasing { next: PageIndex, asked: bool },
    Ending(Ending),
}

impl UnpinAccess {
    pub(super) fn new(range: IndexRange) -> Self {
        Self { range, phase: Phase::Start }
    }

    pub(super) fn next(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        match &mut self.phase {
            Phase::Start => self.start(pages),
            Phase::Erasing { asked: true, .. } => Next::Wait,
            Phase::Erasing { next, asked } => match pages.next_uncached(*next, self.range.last()) {
                Some(range) => {
                    (*next, *asked) = (range.last().next(), true);
                    Next::Start(STEP, Step::EraseCache { range })
                }
                None => {
                    self.phase = Phase::Ending(Ending::new(Some(self.range), Ok(Moved::Done)));
                    self.next(pages)
                }
            },
            Phase::Ending(ending) => ending.next(pages, STEP),
        }
    }

    fn start(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        match pages.drop_access(self.range) {
            None => Next::Done(Err(not_pinned(self.range).into())),
            Some(LastUser::No) => Next::Done(Ok(Moved::Done)),
            Some(LastUser::Yes) => {
                self.phase = Phase::Erasing { next: self.range.first(), asked: false };
                self.next(pages)
            }
        }
    }

    pub(super) fn supply(&mut self, pages: &mut IoptPages, reply: Reply) {
        match &mut self.phase {
            Phase::Start => {}
            Phase::Erasing { asked, .. } => *asked = false,
            Phase::Ending(ending) => ending.supply(pages, reply),
        }
    }
}

fn not_pinned(range: IndexRange) -> Refusal {
    Refusal::new(Errno::INVAL, "not-pinned", format!("no access pins exactly {range}"))
}
