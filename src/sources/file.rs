//! A client's file as the source of pages: memfd, shmem, hugetlbfs.
//!
//! Page 0 of the source is page `first` of the file. The file is asked at each pin whether it is there: memory at all,
//! long enough, without holes (`presence`). What holds the pages then is the source's strength (`hold`). A client can
//! take pages away from its file at any time; reads and writes then fail, they never fault, because the agent never looks
//! into a mapping. Frames are those of the agent's frame space and follow from the offset alone.
//!
//! What is not memory can be mapped, as in the kernel, but never pinned, and is never asked for anything.
//!
//! Imports allowed: units, error, storage, sys, the parts of this folder.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use ioasd_client::units::{ByteLen, IndexRange, PAGE_SIZE, PageIndex, Pfn};
use rustix::io::Errno;

use super::frames::Frames;
use super::hold::Hold;
use super::kept_file::KeptFile;
use super::physical::fitting;
use super::pin_host::{MemoryFile, PinHost};
use super::pinned_places::PinnedPlaces;
use super::presence::{Absent, FirstTouch, Wanted, bytes};
use super::slots::SLOT_PAGES;
use crate::error::Coded;
use crate::storage::among::Among;
use crate::storage::extents::Extents;
use crate::storage::frame_window::FileKey;
use crate::storage::ledger::exceeded::Exceeded;
use crate::storage::pfn::PfnBatch;
use crate::storage::source::{PageSource, SourceError, Strength};
use crate::sys::client_fd::ClientFd;
use crate::sys::failure::SysError;
use crate::sys::file_state::{self, FileAccess, FileKind, FileState};
use crate::sys::identity::MemlockLimit;
use crate::sys::{file_io, own_memory};

/// Pages pinned at most where waiting is not allowed.
const PINNED_AT_ONCE: u64 = 512;

/// A slice of a client's file.
pub struct FileSource {
    file: ClientFd,
    pages: IndexRange,
    /// `None` if the file is not memory.
    memory: Option<Memory>,
    access: FileAccess,
    touch: FirstTouch,
    frames: Arc<dyn Frames>,
}

/// What a source keeps of a file that is memory.
struct Memory {
    key: FileKey,
    kept: Arc<KeptFile>,
    hold: Hold,
    pinned: Arc<PinnedPlaces>,
}

impl FileSource {
    /// The source whose pages are `pages` of `file`. The file may be anything that is open, and as short as it likes;
    /// that counts when pages are pinned.
    ///
    /// # Errors
    /// EBADF if the file was opened with `O_PATH`; EPERM if memory that cannot be written must be pinned long-term;
    /// what the kernel says about the state of memory.
    pub fn new(
        file: impl Into<ClientFd>,
        pages: IndexRange,
        host: &PinHost,
        touch: FirstTouch,
    ) -> Result<Self, SourceError> {
        Self::held_among(Among::all(), (file, pages), host, touch)
    }

    /// The same, held at one of the strengths that are `allowed`.
    ///
    /// # Errors
    /// As [`FileSource::new`].
    pub fn held_among(
        allowed: Among<Strength>,
        (file, pages): (impl Into<ClientFd>, IndexRange),
        host: &PinHost,
        touch: FirstTouch,
    ) -> Result<Self, SourceError> {
        let file = file.into();
        let (memory, access) = match key_of(file.as_fd()).map_err(unusable)? {
            None => (None, FileAccess::ReadWrite),
            Some(key) => {
                let access = file_state::access(file.as_fd()).map_err(unusable)?;
                let hold = host.hold(&MemoryFile { key, access, pages, allowed });
                let hold = hold.ok_or_else(|| read_only(key))?;
                (Some(Memory { key, kept: host.kept(key), hold, pinned: PinnedPlaces::of(key) }), access)
            }
        };
        let frames = Arc::clone(host.frames());
        if let Some(memory) = &memory {
            frames.retain(memory.key);
        }
        Ok(Self { file, pages, memory, access, touch, frames })
    }

    /// Which file it is; `None` if it is not memory.
    #[must_use]
    pub fn key(&self) -> Option<FileKey> {
        self.memory.as_ref().map(|memory| memory.key)
    }

    /// The size of its pages, if it is memory of huge ones.
    #[must_use]
    pub fn huge_page(&self) -> Option<ByteLen> {
        let memory = self.memory.as_ref();
        memory.and_then(|_| file_state::huge_page(self.file.as_fd()).ok().flatten())
    }

    /// What may be done through the descriptor. What is not memory is never reached, so nothing is refused for it.
    #[must_use]
    pub const fn access(&self) -> FileAccess {
        self.access
    }

    /// The pages of the file that the source consists of.
    #[must_use]
    pub const fn pages(&self) -> IndexRange {
        self.pages
    }

    /// Pages pinned now.
    #[must_use]
    pub fn pinned(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| memory.pinned.count())
    }

    /// The places in the file of the pages pinned; `None` if it is not memory.
    #[must_use]
    pub fn pinned_places(&self) -> Option<Arc<PinnedPlaces>> {
        self.memory.as_ref().map(|memory| Arc::clone(&memory.pinned))
    }

    /// Panics unless the source keeps its rules. For tests.
    pub fn check(&self) {
        let (pinned, pages) = (self.pinned(), self.pages.pages());
        assert!(pinned <= pages, "{pinned} of {pages} pages are pinned: unpinned more than was pinned");
        match &self.memory {
            Some(memory) => {
                memory.hold.check(pinned);
                memory.pinned.look(Extents::check);
            }
            None => assert_eq!(pinned, 0, "pages of what is not memory are pinned"),
        }
    }

    /// The memory, or EINVAL.
    fn memory(&self) -> Result<&Memory, SourceError> {
        self.memory.as_ref().ok_or_else(|| {
            let reason = "it is not memory; map a memfd, shmem or hugetlbfs file".to_owned();
            self.error(PageIndex::new(0), Errno::INVAL, "source-not-memory", reason)
        })
    }

    /// The place in the file of page `index` of the source.
    fn page_in_file(&self, index: PageIndex) -> Option<PageIndex> {
        self.pages.first().checked_add(index.get())
    }

    /// `range` of the source as pages of the file.
    fn in_file(&self, range: IndexRange) -> Option<IndexRange> {
        IndexRange::new(self.page_in_file(range.first())?, self.page_in_file(range.last())?)
    }

    /// Notes that `pages` pages from `first` of the source are pinned.
    fn note_pinned(&self, memory: &Memory, first: PageIndex, pages: u64) {
        let range = IndexRange::from_length(first, pages).and_then(|range| self.in_file(range));
        if let Some(range) = range {
            memory.pinned.pinned(range);
        }
    }

    fn wanted<'a>(&'a self, memory: &'a Memory) -> Wanted<'a> {
        Wanted { file: self.file.as_fd(), kept: &memory.kept, source: self.pages, touch: &self.touch }
    }

    /// Sees that pages from the start of `range`, pages of the file, are there, and holds them. Tells how many.
    fn hold(&self, memory: &Memory, range: IndexRange) -> Result<u64, SourceError> {
        let reach = memory.hold.reach(range);
        self.wanted(memory).require(reach).map_err(|absent| self.absent(reach, absent))?;
        let held = memory.hold.hold(self.file.as_fd(), reach);
        held.map_err(|cause| self.not_held(memory, reach, cause))
    }

    /// Appends frames until `range` ends, the batch is full, or none are left; tells how many.
    fn append_frames(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<u64, SourceError> {
        let memory = self.memory()?;
        if let Some(frames) = memory.hold.frames() {
            return frames.append(range, batch).map_err(|errno| self.failed(range.first(), errno));
        }
        let key = memory.key;
        let mut done = 0;
        while let Some(rest) = tail(range, done) {
            match self.run(key, rest) {
                Ok((pfn, pages)) => {
                    let taken = batch.push(pfn, pages);
                    done += taken;
                    if taken < pages {
                        break;
                    }
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn run(&self, key: FileKey, rest: IndexRange) -> Result<(Pfn, u64), SourceError> {
        let Some(first) = self.page_in_file(rest.first()) else {
            return Err(self.failed(rest.first(), Errno::OVERFLOW));
        };
        let run = self.frames.run(key, first, rest.pages());
        run.map_err(|error| self.error(rest.first(), error.errno(), error.code(), error.to_string()))
    }

    /// Files of hugetlbfs cannot be written as others are.
    fn write_at(&self, at: ByteLen, from: &[u8]) -> Result<(), Errno> {
        match (file_io::write_all_at(self.file.as_fd(), at, from), &self.memory) {
            (Err(Errno::INVAL), Some(memory)) => {
                let written = memory.kept.mapping().write(self.file.as_fd(), at, from);
                written.map_err(|error| error.errno())
            }
            (written, _) => written,
        }
    }

    fn offset_in_file(&self, offset: ByteLen) -> Result<ByteLen, Errno> {
        let (start, _) = bytes(IndexRange::single(self.pages.first())).ok_or(Errno::FAULT)?;
        start.checked_add(offset.get()).ok_or(Errno::FAULT)
    }
}

/// What is wrong, in words.
impl FileSource {
    fn error(&self, index: PageIndex, errno: Errno, code: &'static str, reason: String) -> SourceError {
        SourceError { source_name: self.name(), index, reason, errno, code }
    }

    fn failed(&self, index: PageIndex, errno: Errno) -> SourceError {
        self.error(index, errno, "source-failed", format!("the kernel refuses: {errno}"))
    }

    /// The page of the source that is `page` of the file.
    fn index_of(&self, page: PageIndex) -> PageIndex {
        PageIndex::new(page.get().saturating_sub(self.pages.first().get()))
    }

    /// Why `range`, pages of the file, is not there.
    fn absent(&self, range: IndexRange, absent: Absent) -> SourceError {
        let first = self.index_of(range.first());
        match absent {
            Absent::BeyondTheEnd(state) => self.beyond_the_end(range, &state),
            Absent::Failed(errno) => self.failed(first, errno),
            Absent::Hole(page, exceeded) => {
                let what = format!("page {page} of the file is a hole");
                self.missing(self.index_of(page), &what, &exceeded)
            }
            Absent::Somewhere(FileState { size, allocated, .. }, exceeded) => {
                let what = format!("only {} of {} bytes are allocated", allocated.get(), size.get());
                self.missing(first, &what, &exceeded)
            }
        }
    }

    fn missing(&self, index: PageIndex, what: &str, exceeded: &Exceeded) -> SourceError {
        let reason = format!("{what}; write or populate it before mapping ({exceeded})");
        self.error(index, Errno::NOMEM, "source-hole", reason)
    }

    /// `range` in pages of the file.
    fn beyond_the_end(&self, range: IndexRange, state: &FileState) -> SourceError {
        let behind = PageIndex::containing(state.size).get();
        let page = PageIndex::new(behind.clamp(range.first().get(), range.last().get()));
        let reason = format!(
            "pages {range} of the file do not lie within its {} bytes; enlarge it before mapping",
            state.size.get()
        );
        self.error(self.index_of(page), Errno::INVAL, "source-beyond-end", reason)
    }

    /// Why `range`, pages of the file that were there, could not be held.
    fn not_held(&self, memory: &Memory, range: IndexRange, cause: SysError) -> SourceError {
        let index = self.index_of(range.first());
        if let Some(reason) = over_limit(memory.hold.strength(), range, cause) {
            return self.error(index, Errno::NOMEM, "source-over-memlock", reason);
        }
        let strength = memory.hold.strength().name();
        let reason = format!("it cannot be held at strength {strength}: {cause}");
        self.error(index, cause.errno(), "source-not-held", reason)
    }

    fn io_failed(&self, offset: ByteLen, errno: Errno) -> SourceError {
        let index = PageIndex::containing(offset);
        match errno {
            Errno::FAULT => {
                let reason = "the file has been shortened under its mapping; the bytes are gone".to_owned();
                self.error(index, errno, "source-shrunk", reason)
            }
            Errno::BADF | Errno::PERM | Errno::ACCESS => {
                let reason =
                    "the file was not opened for that, or is sealed; pass it open for reading and writing";
                self.error(index, Errno::PERM, "source-no-permission", reason.to_owned())
            }
            _ => self.failed(index, errno),
        }
    }
}

impl PageSource for FileSource {
    fn name(&self) -> String {
        let pages = self.pages;
        match self.key() {
            Some(key) => format!("{key} {pages}"),
            None => format!("file that is not memory, {pages}"),
        }
    }

    /// What is not memory holds nothing, ever.
    fn strength(&self) -> Strength {
        self.memory.as_ref().map_or(Strength::Resident, |memory| memory.hold.strength())
    }

    fn held(&self) -> u64 {
        self.memory.as_ref().map_or(0, |memory| memory.hold.held())
    }

    /// The first hole, or page beyond the end of the file, among those that one call reaches refuses them all, and is named.
    fn pin(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        let memory = self.memory()?;
        let Some(in_file) = self.in_file(range) else {
            return Err(self.failed(range.first(), Errno::INVAL));
        };
        let wanted = match memory.hold.frames() {
            Some(_) => fitting(in_file, batch, SLOT_PAGES),
            None => Some(in_file),
        };
        let Some(wanted) = wanted else { return Ok(()) };
        let held = self.hold(memory, wanted)?;
        let Some(reached) = IndexRange::from_length(range.first(), held) else { return Ok(()) };
        let appended = self.append_frames(reached, batch);
        let pages = appended.as_ref().map_or(0, |pages| *pages);
        if let Some(rest) = tail(reached, pages).and_then(|rest| self.in_file(rest)) {
            memory.hold.release(rest);
        }
        self.note_pinned(memory, range.first(), pages);
        appended.map(drop)
    }

    /// At once if nothing holds the pages, they are few, and they are surely there.
    fn pin_now(&self, range: IndexRange, batch: &mut PfnBatch) -> Option<Result<(), SourceError>> {
        let memory = self.memory.as_ref().filter(|memory| memory.hold.is_nothing())?;
        let in_file = self.in_file(range).filter(|pages| pages.pages() <= PINNED_AT_ONCE)?;
        self.wanted(memory).is_surely_there(in_file).then(|| {
            let pages = self.append_frames(range, batch)?;
            self.note_pinned(memory, range.first(), pages);
            Ok(())
        })
    }

    fn unpin_now(&self, range: IndexRange) -> Option<()> {
        let held = self.memory.as_ref().is_some_and(|memory| !memory.hold.is_nothing());
        (!held).then(|| self.unpin(range))
    }

    fn recall(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        self.append_frames(range, batch).map(|_| ())
    }

    fn unpin(&self, range: IndexRange) {
        if let (Some(memory), Some(range)) = (&self.memory, self.in_file(range)) {
            memory.hold.release(range);
            memory.pinned.unpinned(range);
        }
    }

    fn read(&self, offset: ByteLen, into: &mut [u8]) -> Result<(), SourceError> {
        self.memory()?;
        let at = self.offset_in_file(offset);
        let read = at.and_then(|at| file_io::read_exact_at(self.file.as_fd(), at, into));
        read.map_err(|errno| self.io_failed(offset, errno))
    }

    fn write(&self, offset: ByteLen, from: &[u8]) -> Result<(), SourceError> {
        self.memory()?;
        let at = self.offset_in_file(offset);
        let written = at.and_then(|at| self.write_at(at, from));
        written.map_err(|errno| self.io_failed(offset, errno))
    }
}

impl AsFd for FileSource {
    /// The file itself, for walkers that may have it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for FileSource {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory {
            self.frames.release(memory.key);
        }
    }
}

fn key_of(file: BorrowedFd<'_>) -> Result<Option<FileKey>, Errno> {
    match file_state::kind(file)? {
        FileKind::Other => Ok(None),
        FileKind::Memory(_) => {
            let FileState { device, inode, .. } = file_state::state(file)?;
            Ok(Some(FileKey { dev: device, inode }))
        }
    }
}

fn unusable(errno: Errno) -> SourceError {
    SourceError {
        source_name: "file".to_owned(),
        index: PageIndex::new(0),
        reason: format!("cannot tell what file was passed ({errno}); pass an open memfd or shmem file"),
        errno,
        code: "source-unusable",
    }
}

fn read_only(key: FileKey) -> SourceError {
    SourceError {
        source_name: key.to_string(),
        index: PageIndex::new(0),
        reason: "it cannot be written, and long-term pins are made as if for writing; pass it open for reading and writing, \
                 or let the operator set strength \"auto\""
            .to_owned(),
        errno: Errno::PERM,
        code: "source-read-only",
    }
}

/// Whether it was RLIMIT_MEMLOCK that did not let the agent hold `range`, in words.
fn over_limit(strength: Strength, range: IndexRange, cause: SysError) -> Option<String> {
    let MemlockLimit::Bytes(limit) = own_memory::memlock() else { return None };
    let view =
        own_memory::kernel_view().ok().filter(|_| matches!(cause.errno(), Errno::NOMEM | Errno::PERM))?;
    let used = if strength == Strength::Locked { view.locked } else { view.pinned };
    let (limit, used, needed) = (limit.get(), used.get(), range.pages().saturating_mul(PAGE_SIZE));
    Some(format!(
        "RLIMIT_MEMLOCK of the agent is {limit} bytes, {used} are in use by it and {needed} more are needed at strength {}; \
         raise it (LimitMEMLOCK= of the service, ulimit -l) or give the agent CAP_IPC_LOCK",
        strength.name()
    ))
}

/// `range` without its first `done` pages.
fn tail(range: IndexRange, done: u64) -> Option<IndexRange> {
    IndexRange::new(range.first().checked_add(done)?, range.last())
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
