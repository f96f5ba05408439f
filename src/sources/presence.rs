//! Whether the pages of a file are there before they are pinned, and what is done about those that are not.
//!
//! The count of allocated blocks alone proves nothing: a client may have allocated as much beyond the end of the file as it
//! left out before (`FALLOC_FL_KEEP_SIZE`). So the range is searched for holes. The count does prove it for a file that
//! was searched whole once while count and size agreed and that is sealed against growing: there was nothing beyond the end
//! then, and nothing can be allocated there since. Such a file costs one `fstat` a pin.
//!
//! hugetlbfs cannot be searched. There the count is believed; a client that fools it makes its own huge pages appear
//! where it left them out, out of the pool it could have taken them from anyway.
//!
//! Holes are refused unless the context may still first-touch as many bytes; then they are allocated, which the agent's
//! own memory pays for.
//!
//! Imports allowed: units, storage, sys, kept_file.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ioasd_client::units::{ByteLen, IndexRange, PAGE_SIZE, PageIndex};
use rustix::io::Errno;

use super::kept_file::KeptFile;
use crate::storage::ledger::exceeded::Exceeded;
use crate::storage::ledger::node::Allowance;
use crate::storage::ledger::resource::Resource;
use crate::sys::file_state::{self, FileState, Population};
use crate::sys::page_cache::allocated_pages;

/// What one context may first-touch, and the count of it over the whole agent.
#[derive(Clone, Debug)]
pub struct FirstTouch {
    /// What the context may have allocated, in bytes; given back with the context.
    pub allowed: Allowance,
    /// Bytes that the agent has allocated for clients.
    pub total: Arc<AtomicU64>,
}

impl FirstTouch {
    /// Nothing may be first-touched.
    #[must_use]
    pub fn none() -> Self {
        Self { allowed: Allowance::alone(Resource::FirstTouch, 0), total: Arc::default() }
    }
}

/// Pages that are not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// The file is not that long.
    BeyondTheEnd(FileState),
    /// A hole, at this page of the file.
    Hole(PageIndex, Exceeded),
    /// Less is allocated than the size needs, and nobody can tell where.
    Somewhere(FileState, Exceeded),
    /// The kernel refuses to tell, or to allocate.
    Failed(Errno),
}

impl From<Errno> for Absent {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

/// Pages of a file that must be there.
pub(super) struct Wanted<'a> {
    pub(super) file: BorrowedFd<'a>,
    pub(super) kept: &'a KeptFile,
    /// Pages of the file that the source consists of.
    pub(super) source: IndexRange,
    pub(super) touch: &'a FirstTouch,
}

impl Wanted<'_> {
    /// Checks that every page of `range`, pages of the file, is there; allocates those that are not, if that is allowed.
    pub(super) fn require(&self, range: IndexRange) -> Result<(), Absent> {
        let state = file_state::state(self.file)?;
        let Some((start, end)) = bytes(range).filter(|(_, end)| *end <= state.size) else {
            return Err(Absent::BeyondTheEnd(state));
        };
        if state.is_fully_allocated()
            && (self.kept.counts_prove() || self.find_out_whether_counts_prove(&state)?)
        {
            return Ok(());
        }
        match file_state::population(self.file, start, end)? {
            Population::Whole => Ok(()),
            Population::HoleAt(page) => {
                let (hole, _) = bytes(IndexRange::single(page)).ok_or(Errno::OVERFLOW)?;
                self.touch((hole, end), state)
                    .map_err(|cause| refusal(cause, |exceeded| Absent::Hole(page, exceeded)))
            }
            Population::Unknown if state.is_fully_allocated() => Ok(()),
            Population::Unknown => self
                .touch((start, end), state)
                .map_err(|cause| refusal(cause, |exceeded| Absent::Somewhere(state, exceeded))),
        }
    }

    /// Whether every page of `range`, pages of the file, is there: found out without waiting for anybody who uses the file.
    /// A no proves nothing.
    pub(super) fn is_surely_there(&self, range: IndexRange) -> bool {
        let end = bytes(range).map(|(_, end)| end);
        let inside = file_state::state(self.file).is_ok_and(|state| end.is_some_and(|end| end <= state.size));
        let (first, behind) = (range.first().get(), range.last().next().get());
        inside && allocated_pages(self.file, first, behind) == Ok(range.pages())
    }

    /// Searches the whole file, once, if a good part of it will be wanted anyway.
    fn find_out_whether_counts_prove(&self, state: &FileState) -> Result<bool, Errno> {
        let much = self.source.pages().saturating_mul(2 * PAGE_SIZE) >= state.size.get();
        if !much || !file_state::cannot_grow(self.file)? {
            return Ok(false);
        }
        let whole = file_state::population(self.file, ByteLen::new(0), state.size)? == Population::Whole;
        if whole {
            self.kept.let_counts_prove();
        }
        Ok(whole)
    }

    /// Allocates what is missing from `start` to `end`; what was really allocated is counted.
    fn touch(&self, (start, end): (ByteLen, ByteLen), before: FileState) -> Result<(), TouchRefused> {
        let at_most = file_state::missing(self.file, start, end).get();
        self.touch.allowed.take(at_most).map_err(TouchRefused::NotAllowed)?;
        let allocated = file_state::allocate(self.file, start, end);
        let after = allocated.and_then(|()| file_state::state(self.file));
        let grown =
            after.map_or(at_most, |after| after.allocated.get().saturating_sub(before.allocated.get()));
        self.touch.allowed.give_back(at_most.saturating_sub(grown));
        self.touch.total.fetch_add(grown.min(at_most), Ordering::Relaxed);
        allocated.map_err(TouchRefused::Failed)
    }
}

enum TouchRefused {
    NotAllowed(Exceeded),
    Failed(Errno),
}

fn refusal(refused: TouchRefused, not_allowed: impl FnOnce(Exceeded) -> Absent) -> Absent {
    match refused {
        TouchRefused::NotAllowed(exceeded) => not_allowed(exceeded),
        TouchRefused::Failed(errno) => Absent::Failed(errno),
    }
}

/// The bytes of `range`, first and end; `None` beyond what a file can have.
pub(super) fn bytes(range: IndexRange) -> Option<(ByteLen, ByteLen)> {
    let offset = |page: PageIndex| page.get().checked_mul(PAGE_SIZE).map(ByteLen::new);
    Some((offset(range.first())?, offset(range.first().checked_add(range.pages())?)?))
}
