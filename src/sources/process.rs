//! Memory of a process as the source of pages: any memory, private or not, by its address.
//!
//! | strength | what holds a page | how bytes move |
//! |---|---|---|
//! | longterm | a ring that the process made and we took over | through the ring: also when the process is gone |
//! | copy | nothing | through `/proc/PID/mem`, while the process has the memory |
//!
//! Nothing is looked at before a pin falls due. Then the process is asked to pin what its address space has there at
//! that moment, which breaks copy-on-write; one ring holds what one call pins, until the last of its pages is unpinned.
//!
//! Frames are places in the frame space: those of the pages object. No walker can translate them.
//!
//! Imports allowed: units, error, storage, sys, frames, upcall.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ioasd_client::units::{ByteLen, IndexRange, PAGE_SIZE, PageIndex, UserAddr};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::frames::Frames;
use super::upcall::{PinUpcall, UpcallError};
use crate::error::Coded;
use crate::storage::frame_window::FileKey;
use crate::storage::pfn::PfnBatch;
use crate::storage::source::{PageSource, SourceError, Strength};
use crate::sys::pidfd::PidFd;
use crate::sys::process_memory::{Access, ProcessMemory};
use crate::sys::ring_channel::RingChannel;

/// Pages that one ring holds at most: 128 MiB, so that pinning and writing tables overlap.
const RING_PAGES: u64 = (128 << 20) / PAGE_SIZE;

/// The number of the last source.
static LAST: AtomicU64 = AtomicU64::new(0);

/// A process, and the memory that it had when it mapped.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The process.
    pub process: Arc<PidFd>,
    /// Its memory.
    pub memory: Arc<ProcessMemory>,
}

impl Owner {
    /// Whether `process` is this one, and has the same memory still.
    #[must_use]
    pub fn is(&self, process: &PidFd) -> bool {
        let same = self.process.pid() == process.pid();
        same && self.process.has_exited() == Ok(false) && self.memory.is_there()
    }
}

/// Whole pages of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessPages {
    /// Where they begin.
    pub start: UserAddr,
    /// How many.
    pub pages: u64,
    /// What is asked of the process's own access to them.
    pub access: Access,
}

/// What holds pinned pages.
#[derive(Clone)]
pub enum ProcessHold {
    /// The kernel, because the process has it do so.
    Rings(Arc<dyn PinUpcall>),
    /// Nothing.
    Copy,
}

/// Memory of a process.
pub struct ProcessSource {
    owner: Owner,
    pages: ProcessPages,
    hold: ProcessHold,
    key: FileKey,
    frames: Arc<dyn Frames>,
    rings: Mutex<BTreeMap<u64, Piece>>,
    held: Arc<AtomicU64>,
}

/// Pinned pages in a row that one ring holds.
#[derive(Clone)]
struct Piece {
    last: u64,
    ring: Arc<HeldRing>,
}

/// A ring that holds pages until it is dropped.
struct HeldRing {
    ring: Mutex<RingChannel>,
    pages: u64,
    held: Arc<AtomicU64>,
}

impl Drop for HeldRing {
    fn drop(&mut self) {
        self.held.fetch_sub(self.pages, Ordering::Relaxed);
    }
}

impl ProcessSource {
    /// The source that consists of `pages` of `owner`.
    #[must_use]
    pub fn new(owner: Owner, pages: ProcessPages, hold: ProcessHold, frames: Arc<dyn Frames>) -> Self {
        let key = FileKey::of_process(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        frames.retain(key);
        let (rings, held) = Default::default();
        Self { owner, pages, hold, key, frames, rings, held }
    }

    /// Whose memory it is.
    #[must_use]
    pub const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What its frames are listed under.
    #[must_use]
    pub const fn key(&self) -> FileKey {
        self.key
    }

    /// Where it begins, and how many pages it has.
    #[must_use]
    pub const fn pages(&self) -> ProcessPages {
        self.pages
    }

    /// The size of the pages at its beginning, if they are huge.
    #[must_use]
    pub fn huge_page(&self) -> Option<ByteLen> {
        self.owner.memory.page_at(self.pages.start).filter(|page| page.get() > PAGE_SIZE)
    }

    /// The address of a page.
    fn address(&self, page: PageIndex) -> Option<UserAddr> {
        let offset = page.get().checked_mul(PAGE_SIZE)?;
        self.pages.start.get().checked_add(offset).map(UserAddr::new)
    }

    /// The address of a byte.
    fn byte(&self, offset: u64) -> UserAddr {
        UserAddr::new(self.pages.start.get().wrapping_add(offset))
    }

    /// Pins from the start of `range` with one ring, and tells how far.
    fn pin_with_ring(&self, upcall: &dyn PinUpcall, range: IndexRange) -> Result<IndexRange, SourceError> {
        let range = IndexRange::from_length(range.first(), range.pages().min(RING_PAGES)).unwrap_or(range);
        let Some(start) = self.address(range.first()) else { return Err(self.absent(range.first())) };
        let length = ByteLen::new(range.pages() * PAGE_SIZE);
        let ring = upcall.pin(start, length).map_err(|error| self.not_pinned(range, &error))?;
        self.held.fetch_add(range.pages(), Ordering::Relaxed);
        let held = Arc::clone(&self.held);
        let ring = Arc::new(HeldRing { ring: Mutex::new(ring), pages: range.pages(), held });
        let piece = Piece { last: range.last().get(), ring };
        self.rings.lock().insert(range.first().get(), piece);
        Ok(range)
    }

    /// Sees that there is memory, as much as a pin would.
    fn require(&self, range: IndexRange) -> Result<(), SourceError> {
        let Some(start) = self.address(range.first()) else { return Err(self.absent(range.first())) };
        let found = self.owner.memory.access(start, ByteLen::new(range.pages() * PAGE_SIZE));
        match found {
            Ok(access) if access >= self.pages.access => Ok(()),
            Ok(_) | Err(_) => Err(self.absent(range.first())),
        }
    }

    fn append_frames(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<u64, SourceError> {
        let mut done = 0;
        while done < range.pages() {
            let at = PageIndex::new(range.first().get() + done);
            let (first, pages) = match self.frames.run(self.key, at, range.pages() - done) {
                Ok(run) => run,
                Err(_) if done > 0 => break,
                Err(error) => return Err(self.error(at, &error, error.to_string())),
            };
            let taken = batch.push(first, pages);
            done += taken;
            if taken < pages {
                break;
            }
        }
        Ok(done)
    }

    /// The ring that holds the page of a byte, and how many bytes of `length` it holds from there; without a ring, how
    /// many bytes no ring holds.
    fn holder(&self, offset: u64, length: u64) -> (Option<Arc<HeldRing>>, u64) {
        let page = offset / PAGE_SIZE;
        let rings = self.rings.lock();
        let until = |behind: u64| behind.saturating_mul(PAGE_SIZE).saturating_sub(offset).min(length);
        match rings.range(..=page).next_back().filter(|(_, piece)| piece.last >= page) {
            Some((_, piece)) => (Some(Arc::clone(&piece.ring)), until(piece.last + 1)),
            None => {
                let next = rings.range(page..).next().map_or(u64::MAX, |(first, _)| *first);
                (None, until(next))
            }
        }
    }
}

/// What is wrong, in words.
impl ProcessSource {
    fn error(&self, index: PageIndex, error: &impl Coded, reason: String) -> SourceError {
        SourceError { source_name: self.name(), index, reason, errno: error.errno(), code: error.code() }
    }

    fn not_pinned(&self, range: IndexRange, error: &UpcallError) -> SourceError {
        let advice = match error {
            UpcallError::Refused(Errno::FAULT) => {
                "; every page must be mapped, and writable, when it is pinned (a device that only reads pins as well)"
            }
            UpcallError::Refused(Errno::NOMEM) => "; raise RLIMIT_MEMLOCK of the process, or map less",
            _ => "",
        };
        self.error(range.first(), error, format!("{range} are not pinned: {error}{advice}"))
    }

    fn absent(&self, index: PageIndex) -> SourceError {
        let reason = match self.owner.memory.is_there() {
            true => "there is no memory, or the process may not do with it what the mapping allows",
            false => "the process has ended, or has run another program: its memory is gone",
        };
        let (errno, code) = (Errno::FAULT, "source-process-memory");
        SourceError { source_name: self.name(), index, reason: reason.to_owned(), errno, code }
    }

    fn io_failed(&self, offset: u64, errno: Errno) -> SourceError {
        let index = PageIndex::containing(ByteLen::new(offset));
        if errno == Errno::FAULT {
            return self.absent(index);
        }
        let reason = format!("the bytes cannot be reached: {errno}; the process disturbs its own pins");
        SourceError { source_name: self.name(), index, reason, errno, code: "source-ring-failed" }
    }
}

impl PageSource for ProcessSource {
    fn name(&self) -> String {
        let (pid, start) = (self.owner.process.pid().as_raw_pid(), self.pages.start.get());
        format!("memory of process {pid} at {start:#x}")
    }

    fn strength(&self) -> Strength {
        match self.hold {
            ProcessHold::Rings(_) => Strength::Longterm,
            ProcessHold::Copy => Strength::Copy,
        }
    }

    fn waits_for_its_client(&self) -> bool {
        true
    }

    fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    fn pin(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        let pinned = match &self.hold {
            ProcessHold::Rings(upcall) => self.pin_with_ring(&**upcall, range)?,
            ProcessHold::Copy => self.require(range).map(|()| range)?,
        };
        let appended = self.append_frames(pinned, batch);
        let done = appended.as_ref().map_or(0, |pages| *pages);
        if let Some(rest) = IndexRange::from_length(
            PageIndex::new(pinned.first().get() + done),
            pinned.pages().saturating_sub(done),
        ) {
            self.unpin(rest);
        }
        appended.map(drop)
    }

    fn recall(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        self.append_frames(range, batch).map(drop)
    }

    /// Rings end outside of the lock: the kernel unpins while they do.
    fn unpin(&self, range: IndexRange) {
        let mut rings = self.rings.lock();
        let (first, last) = (range.first().get(), range.last().get());
        cut_before(&mut rings, first);
        if let Some(behind) = last.checked_add(1) {
            cut_before(&mut rings, behind);
        }
        let gone: Vec<u64> = rings.range(first..=last).map(|(at, _)| *at).collect();
        let ended: Vec<Piece> = gone.into_iter().filter_map(|at| rings.remove(&at)).collect();
        drop(rings);
        drop(ended);
    }

    fn read(&self, offset: ByteLen, into: &mut [u8]) -> Result<(), SourceError> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.get() + done as u64;
            let (ring, bytes) = self.holder(at, rest.len() as u64);
            let here = usize::try_from(bytes).unwrap_or(usize::MAX).clamp(1, rest.len());
            let piece = rest.get_mut(..here).unwrap_or_default();
            let read = match ring {
                Some(ring) => ring.ring.lock().read(self.byte(at), piece),
                None => self.owner.memory.read(self.byte(at), piece),
            };
            read.map_err(|errno| self.io_failed(at, errno))?;
            done += here;
        }
        Ok(())
    }

    fn write(&self, offset: ByteLen, from: &[u8]) -> Result<(), SourceError> {
        let mut done = 0;
        while let Some(rest) = from.get(done..).filter(|rest| !rest.is_empty()) {
            let at = offset.get() + done as u64;
            let (ring, bytes) = self.holder(at, rest.len() as u64);
            let here = usize::try_from(bytes).unwrap_or(usize::MAX).clamp(1, rest.len());
            let piece = rest.get(..here).unwrap_or_default();
            let written = match ring {
                Some(ring) => ring.ring.lock().write(self.byte(at), piece),
                None => self.owner.memory.write(self.byte(at), piece),
            };
            written.map_err(|errno| self.io_failed(at, errno))?;
            done += here;
        }
        Ok(())
    }
}

impl Drop for ProcessSource {
    fn drop(&mut self) {
        self.frames.release(self.key);
    }
}

/// Makes `page` the first of its piece, if it lies inside one.
fn cut_before(rings: &mut BTreeMap<u64, Piece>, page: u64) {
    let Some((_, piece)) = rings.range_mut(..page).next_back() else { return };
    if piece.last >= page {
        let behind = piece.clone();
        piece.last = page - 1;
        rings.insert(page, behind);
    }
}
