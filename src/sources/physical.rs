//! Physical frames of long-term pins: those of the pages that are really pinned, whatever the client does meanwhile.
//!
//! The frame is read from the agent's own page tables after the pin. It must be the pinned page's, or a device would
//! write to memory that is somebody else's by then. A client can take a page out of its file at any time, which clears the
//! entry, and put another one in; but only a fault of the agent can fill the entry again. So pins of a file are made one
//! at a time, all pages are brought in first, and the thread's count of faults must not change while the kernel pins: then
//! each entry that is there afterwards is the one that was pinned. Otherwise the pins are let go and made again. An entry that
//! is gone refuses the pin. Pinned pages do not migrate.
//!
//! Frames are kept as long as the pins, because the entries are not: the client may clear them.
//!
//! Imports allowed: units, storage, sys, kept_mapping, ring_pool.

use std::sync::Arc;

use ioasd_client::units::{IndexRange, PageIndex};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::kept_mapping::{MappedPart, bring_in_anew};
use super::ring_pool::{Place, RingPool};
use crate::error::Coded;
use crate::storage::pfn::{PfnBatch, RunLimit};
use crate::storage::pinned_pfns::PinnedPfns;
use crate::sys::failure::SysError;
use crate::sys::faults::page_faults;
use crate::sys::pagemap::Pagemap;

/// How often pins are made again because pages had to be brought in meanwhile. The kernel itself moves pages out of places
/// where nothing may be pinned for long, once.
const TRIES: u32 = 8;

/// Frames of one source, by page of the source.
#[derive(Debug)]
pub(super) struct PhysicalFrames {
    pagemap: Arc<Pagemap>,
    /// The page of the file that is page 0 of the source.
    origin: PageIndex,
    frames: Mutex<PinnedPfns>,
}

impl PhysicalFrames {
    pub(super) fn new(pagemap: Arc<Pagemap>, origin: PageIndex) -> Self {
        Self { pagemap, origin, frames: Mutex::default() }
    }

    /// Pins `parts`, at least the first, and keeps their frames. Nobody else may bring in pages of the mapping meanwhile.
    ///
    /// # Errors
    /// EAGAIN if the pages change too fast; EFAULT if one is gone; what else the kernel says.
    pub(super) fn pin(&self, rings: &RingPool, parts: &[MappedPart]) -> Result<Vec<Place>, SysError> {
        let wanted: Vec<_> = parts.iter().map(MappedPart::place).collect();
        for _ in 0..TRIES {
            bring_in_anew(parts)?;
            let before = page_faults();
            let places = rings.pin(&wanted)?;
            let pinned = parts.get(..places.len()).unwrap_or(parts);
            let kept = if page_faults() == before { self.keep(pinned) } else { Err(CHANGED) };
            match kept {
                Ok(()) => return Ok(places),
                Err(error) => {
                    rings.unpin(places);
                    if error != CHANGED {
                        return Err(error);
                    }
                }
            }
        }
        Err(CHANGED)
    }

    /// Reads and keeps the frames of pinned parts, all or none.
    fn keep(&self, parts: &[MappedPart]) -> Result<(), SysError> {
        let Some(first) = parts.first() else { return Ok(()) };
        let mut batch = PfnBatch::new(self.index_of(first.pages().first()), RunLimit::new(u32::MAX))?;
        for part in parts {
            let (mapping, place) = part.place();
            for run in self.pagemap.frames(mapping, place)? {
                let taken = batch.push(run.first, run.pages);
                debug_assert_eq!(taken, run.pages, "a batch without a limit is full");
            }
        }
        self.frames.lock().store(&batch).map_err(|error| SysError::Refused {
            call: "keeping",
            object: "physical frames",
            errno: error.errno(),
        })
    }

    fn index_of(&self, page: PageIndex) -> PageIndex {
        PageIndex::new(page.get().saturating_sub(self.origin.get()))
    }

    /// Appends the frames of `range`, pinned pages of the source, as many as fit.
    ///
    /// # Errors
    /// If one of them is not pinned.
    pub(super) fn append(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<u64, Errno> {
        let before = batch.pages();
        let read = self.frames.lock().read(range, batch);
        match (batch.pages() - before, read) {
            (0, Err(error)) => Err(error.errno()),
            (pages, _) => Ok(pages),
        }
    }

    /// Forgets the frames of `range`, pages of the file.
    pub(super) fn forget(&self, range: IndexRange) {
        if let Some(range) = IndexRange::new(self.index_of(range.first()), self.index_of(range.last())) {
            self.frames.lock().erase(range);
        }
    }

    /// Pages whose frames are kept.
    pub(super) fn pages(&self) -> u64 {
        self.frames.lock().pages()
    }
}

const CHANGED: SysError = SysError::Refused {
    call: "pinning",
    object: "pages that change while they are pinned",
    errno: Errno::AGAIN,
};

/// As much of `range` as fits a batch, whatever its frames are; ends at the edge of a slot if it can.
pub(super) fn fitting(range: IndexRange, batch: &PfnBatch, slot_pages: u64) -> Option<IndexRange> {
    let room = batch.limit().get().saturating_sub(batch.runs().len()) as u64;
    let first = range.first().get();
    let behind = first.saturating_add(room);
    let edge = behind - behind % slot_pages;
    let behind = if edge > first { edge } else { behind };
    let last = behind.checked_sub(1)?.min(range.last().get());
    IndexRange::new(range.first(), PageIndex::new(last))
}
