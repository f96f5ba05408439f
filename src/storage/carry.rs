//! Unmapping in whole runs: cut points and the carry.
//!
//! A domain may have merged contiguous pages into one large entry and need not split one. A part of an area can
//! therefore only be unmapped up to a cut point: a page whose successor has another frame, or the end of the area. A
//! long range is unmapped in windows, so that no step occupies a table for long; where a window ends in the middle of
//! a run, the run is read back to its end and unmapped whole. The pages behind the window that are gone with it are
//! the *carry*: the next window begins behind them.
//!
//! ```text
//!   frames      10 11 12 13 | 40 41 | 7 8 9        one window of 3 pages after the other
//!   window 1    [------]                           the run goes on: unmap 10..13, carry 1
//!   window 2               ^  [--]                 starts behind the carry: unmap 40..41
//! ```
//!
//! Imports allowed: units, and the passive types of this folder.

use std::sync::Arc;

use ioasd_client::units::{IndexRange, PageIndex};

use super::area::AreaShape;
use super::pfn::{PfnBatch, RunLimit};
use super::step::{DomainKey, Reply, Step};

/// Unmaps a range of one area from some domains, window by window.
#[derive(Debug)]
pub(super) struct WholeRuns {
    shape: AreaShape,
    domains: Arc<[DomainKey]>,
    last: PageIndex,
    window: u64,
    window_end: PageIndex,
    carried_to: PageIndex,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    AskedRun,
    CutKnown { last: PageIndex },
    AskedUnmap { last: PageIndex },
}

impl WholeRuns {
    /// Unmaps `range`, which begins and ends at cut points, from `domains`, each of which maps it.
    pub(super) fn new(shape: AreaShape, range: IndexRange, domains: Arc<[DomainKey]>, window: u64) -> Self {
        Self {
            shape,
            domains,
            last: range.last(),
            window: window.max(1),
            window_end: range.first(),
            carried_to: range.first(),
            state: State::Idle,
        }
    }

    /// The next step; `None` if one is under way or everything is gone (see [`WholeRuns::is_finished`]).
    pub(super) fn want(&mut self) -> Option<Step> {
        match self.state {
            State::AskedRun | State::AskedUnmap { .. } => None,
            State::CutKnown { last } => self.unmap_to(last),
            State::Idle => self.next_window(),
        }
    }

    /// Whether the whole range is gone from every domain.
    pub(super) fn is_finished(&self) -> bool {
        self.state == State::Idle && (self.carried_to > self.last || self.domains.is_empty())
    }

    fn next_window(&mut self) -> Option<Step> {
        if self.is_finished() {
            return None;
        }
        while self.window_end <= self.carried_to {
            self.window_end = PageIndex::new(self.window_end.get().saturating_add(self.window));
        }
        let window_last = PageIndex::new(self.window_end.get() - 1);
        if window_last >= self.last { self.unmap_to(self.last) } else { self.ask_run(window_last) }
    }

    /// Asks how far the run goes that holds the last page of the window. Without memory for the question everything
    /// left is unmapped in one step, which is always right.
    fn ask_run(&mut self, from: PageIndex) -> Option<Step> {
        let question = IndexRange::new(from, self.last).zip(PfnBatch::new(from, RunLimit::new(1)).ok());
        let Some((range, batch)) = question else { return self.unmap_to(self.last) };
        self.state = State::AskedRun;
        let domain = self.domains.first().copied()?;
        Some(Step::ReadDomain { domain, shape: self.shape, range, batch })
    }

    fn unmap_to(&mut self, last: PageIndex) -> Option<Step> {
        let range = IndexRange::new(self.carried_to, last)?;
        self.state = State::AskedUnmap { last };
        Some(Step::Unmap { shape: self.shape, range, domains: Arc::clone(&self.domains) })
    }

    /// Takes the reply to the step under way.
    pub(super) fn supply(&mut self, reply: Reply) {
        self.state = match (self.state, reply) {
            (State::AskedRun, Reply::Frames(run, _)) => {
                State::CutKnown { last: run.range().map_or(self.last, IndexRange::last) }
            }
            (State::AskedUnmap { last }, _) => {
                self.carried_to = last.next();
                State::Idle
            }
            (state, _) => state,
        };
    }
}

#[cfg(test)]
mod tests {
    use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, Pfn};

    use super::*;

    /// Runs the machine over `frames` and tells which page ranges it unmapped.
    fn unmapped(frames: &[u64], window: u64) -> Vec<(u64, u64)> {
        let length = ByteLen::new(frames.len() as u64 * PAGE_SIZE);
        let shape =
            AreaShape::new(IovaRange::from_length(Iova::new(0x10_0000), length).unwrap(), ByteLen::new(0));
        let domains: Arc<[DomainKey]> = Arc::new([DomainKey { fan_out: 0, id: 1 }]);
        let mut machine = WholeRuns::new(shape, shape.indexes(), domains, window);
        let mut gone = Vec::new();
        while !machine.is_finished() {
            match machine.want().unwrap() {
                Step::ReadDomain { range, mut batch, .. } => {
                    let wanted = (0..).zip(frames).skip_while(|(page, _)| *page < range.first().get());
                    assert!(wanted.map(|(_, frame)| batch.push(Pfn::new(*frame), 1)).all(|taken| taken <= 1));
                    machine.supply(Reply::Frames(batch, Ok(())));
                }
                Step::Unmap { range, .. } => {
                    gone.push((range.first().get(), range.last().get()));
                    machine.supply(Reply::Done);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        gone
    }

    #[test]
    fn a_window_that_ends_in_a_run_is_extended_and_the_next_begins_behind_the_carry() {
        assert_eq!(unmapped(&[10, 11, 12, 13, 40, 41, 7, 8, 9], 3), [(0, 3), (4, 5), (6, 8)]);
    }

    #[test]
    fn a_carry_may_swallow_whole_windows() {
        assert_eq!(unmapped(&[1, 2, 3, 4, 5, 6, 7, 90], 2), [(0, 6), (7, 7)]);
        assert_eq!(unmapped(&[1, 2, 3, 4], 1), [(0, 3)]);
    }

    #[test]
    fn scattered_frames_are_unmapped_window_by_window() {
        assert_eq!(unmapped(&[5, 3, 1], 1), [(0, 0), (1, 1), (2, 2)]);
        assert_eq!(unmapped(&[5, 3, 1], 100), [(0, 2)]);
    }
}
