//! A client's file as the source of pages: memfd, shmem, hugetlbfs. Strength `resident`.
//!
//! Page 0 of the source is page `first` of the file. The file is asked at each pin whether it is there: memory at all,
//! long enough, without holes. Nothing holds the pages after that, so a client can take them away; reads and writes then
//! fail, they never fault, because the agent never maps the file. Frames are those of the agent's frame space and follow
//! from the offset alone.
//!
//! What is not memory can be mapped, as in the kernel, but never pinned, and is never asked for anything.
//!
//! Imports allowed: units, error, storage, sys, frames.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ioasd_client::units::{ByteLen, IndexRange, PAGE_SIZE, PageIndex, Pfn};
use rustix::io::Errno;

use super::frames::Frames;
use crate::error::Coded;
use crate::storage::frame_window::FileKey;
use crate::storage::pfn::PfnBatch;
use crate::storage::source::{PageSource, SourceError, Strength};
use crate::sys::client_fd::ClientFd;
use crate::sys::file_io;
use crate::sys::file_state::{self, FileKind, FileState, Population};

/// A slice of a client's file.
pub struct FileSource {
    file: ClientFd,
    pages: IndexRange,
    /// `None` if the file is not memory.
    key: Option<FileKey>,
    frames: Arc<dyn Frames>,
    pinned: AtomicU64,
}

impl FileSource {
    /// The source whose pages are `pages` of `file`. The file may be anything that is open, and as short as it likes;
    /// that counts when pages are pinned.
    ///
    /// # Errors
    /// EBADF if the file was opened with `O_PATH`; what the kernel says about the state of memory.
    pub fn new(
        file: impl Into<ClientFd>,
        pages: IndexRange,
        frames: Arc<dyn Frames>,
    ) -> Result<Self, SourceError> {
        let file = file.into();
        let key = key_of(file.as_fd()).map_err(|errno| SourceError {
            source_name: "file".to_owned(),
            index: PageIndex::new(0),
            reason: format!("cannot tell what file was passed ({errno}); pass an open memfd or shmem file"),
            errno,
            code: "source-unusable",
        })?;
        if let Some(key) = key {
            frames.retain(key);
        }
        Ok(Self { file, pages, key, frames, pinned: AtomicU64::new(0) })
    }

    /// Which file it is; `None` if it is not memory.
    #[must_use]
    pub const fn key(&self) -> Option<FileKey> {
        self.key
    }

    /// The pages of the file that the source consists of.
    #[must_use]
    pub const fn pages(&self) -> IndexRange {
        self.pages
    }

    /// Pages pinned now.
    #[must_use]
    pub fn pinned(&self) -> u64 {
        self.pinned.load(Ordering::Relaxed)
    }

    /// Panics unless the source keeps its rules. For tests.
    pub fn check(&self) {
        let (pinned, pages) = (self.pinned(), self.pages.pages());
        assert!(pinned <= pages, "{pinned} of {pages} pages are pinned: unpinned more than was pinned");
        assert!(self.key.is_some() || pinned == 0, "pages of what is not memory are pinned");
    }

    /// The file's identity, or EINVAL.
    fn memory(&self) -> Result<FileKey, SourceError> {
        self.key.ok_or_else(|| {
            let reason = "it is not memory; map a memfd, shmem or hugetlbfs file".to_owned();
            self.error(PageIndex::new(0), Errno::INVAL, "source-not-memory", reason)
        })
    }

    /// The place in the file of page `index` of the source.
    fn page_in_file(&self, index: PageIndex) -> Option<PageIndex> {
        self.pages.first().checked_add(index.get())
    }

    /// The bytes in the file of `range`, first and end; `None` beyond what a file can have.
    fn bytes_in_file(&self, range: IndexRange) -> Option<(ByteLen, ByteLen)> {
        let offset = |page: PageIndex| page.get().checked_mul(PAGE_SIZE).map(ByteLen::new);
        let first = self.page_in_file(range.first())?;
        Some((offset(first)?, offset(first.checked_add(range.pages())?)?))
    }

    /// Checks that the file has every page of `range`: inside of its size, and not in a hole.
    fn require_present(&self, range: IndexRange) -> Result<(), SourceError> {
        let state =
            file_state::state(self.file.as_fd()).map_err(|errno| self.failed(range.first(), errno))?;
        let bytes = self.bytes_in_file(range).filter(|(_, end)| *end <= state.size);
        let Some((start, end)) = bytes else { return Err(self.beyond_the_end(range, &state)) };
        if state.is_fully_allocated() {
            return Ok(());
        }
        let population = file_state::population(self.file.as_fd(), start, end);
        match population.map_err(|errno| self.failed(range.first(), errno))? {
            Population::Whole => Ok(()),
            Population::HoleAt(page) => Err(self.hole(page)),
            Population::Unknown => Err(self.partly_allocated(range.first(), &state)),
        }
    }

    /// Appends frames until `range` ends, the batch is full, or none are left; tells how many.
    fn append_frames(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<u64, SourceError> {
        let key = self.memory()?;
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

    fn offset_in_file(&self, offset: ByteLen) -> Result<ByteLen, Errno> {
        let (start, _) = self.bytes_in_file(IndexRange::single(PageIndex::new(0))).ok_or(Errno::FAULT)?;
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

    fn beyond_the_end(&self, range: IndexRange, state: &FileState) -> SourceError {
        let pages_there = PageIndex::containing(state.size).get().saturating_sub(self.pages.first().get());
        let index = PageIndex::new(pages_there.clamp(range.first().get(), range.last().get()));
        let reason =
            format!("{range} do not lie within the file's {} bytes; enlarge it before mapping", state.size);
        self.error(index, Errno::INVAL, "source-beyond-end", reason)
    }

    fn hole(&self, page: PageIndex) -> SourceError {
        let index = PageIndex::new(page.get().saturating_sub(self.pages.first().get()));
        let reason = format!("page {page} of the file is a hole; write or populate it before mapping");
        self.error(index, Errno::NOMEM, "source-hole", reason)
    }

    fn partly_allocated(&self, index: PageIndex, state: &FileState) -> SourceError {
        let FileState { size, allocated, .. } = state;
        let reason =
            format!("only {allocated} of {size} bytes are allocated; populate all of it before mapping");
        self.error(index, Errno::NOMEM, "source-hole", reason)
    }

    fn io_failed(&self, offset: ByteLen, errno: Errno) -> SourceError {
        let index = PageIndex::containing(offset);
        match errno {
            Errno::FAULT => {
                let reason = "the file has been shortened under its mapping; the bytes are gone".to_owned();
                self.error(index, errno, "source-shrunk", reason)
            }
            Errno::BADF | Errno::PERM => {
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
        match self.key {
            Some(key) => format!("{key} {pages}"),
            None => format!("file that is not memory, {pages}"),
        }
    }

    fn strength(&self) -> Strength {
        Strength::Resident
    }

    /// A range with a hole, or beyond the end of the file, is refused whole: the error names its first such page.
    fn pin(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        self.memory()?;
        self.require_present(range)?;
        let pages = self.append_frames(range, batch)?;
        self.pinned.fetch_add(pages, Ordering::Relaxed);
        Ok(())
    }

    fn recall(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        self.append_frames(range, batch).map(|_| ())
    }

    fn unpin(&self, range: IndexRange) {
        self.pinned.fetch_sub(range.pages(), Ordering::Relaxed);
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
        let written = at.and_then(|at| file_io::write_all_at(self.file.as_fd(), at, from));
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
        if let Some(key) = self.key {
            self.frames.release(key);
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

/// `range` without its first `done` pages.
fn tail(range: IndexRange, done: u64) -> Option<IndexRange> {
    IndexRange::new(range.first().checked_add(done)?, range.last())
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
