//! Shared memory of a process: a file, reached as one, but pinned only while the process has the memory.
//!
//! Imports allowed: units, storage, file, process, pidfd.

use std::sync::Arc;

use ioasd_client::units::{ByteLen, IndexRange};
use rustix::io::Errno;

use super::file::FileSource;
use super::process::Owner;
use crate::storage::pfn::PfnBatch;
use crate::storage::source::{PageSource, SourceError, Strength};
use crate::sys::pidfd::PidFd;

/// Who has mapped the file.
#[derive(Debug)]
pub enum MappedBy {
    /// A process whose memory can be told from that of its next program.
    Owner(Owner),
    /// A process that may not be looked into.
    Process(Arc<PidFd>),
    /// Nobody knows.
    Unknown,
}

impl MappedBy {
    fn has_the_memory(&self) -> bool {
        match self {
            Self::Owner(owner) => owner.memory.is_there(),
            Self::Process(process) => process.has_exited() == Ok(false),
            Self::Unknown => true,
        }
    }
}

/// A file that a process has mapped.
pub struct OwnedFile {
    file: Arc<FileSource>,
    by: MappedBy,
}

impl OwnedFile {
    /// `file`, as mapped by a process.
    #[must_use]
    pub const fn new(file: Arc<FileSource>, by: MappedBy) -> Self {
        Self { file, by }
    }

    /// The file.
    #[must_use]
    pub const fn file(&self) -> &Arc<FileSource> {
        &self.file
    }

    /// Whether `process` has mapped it, and has the memory still.
    #[must_use]
    pub fn is_memory_of(&self, process: &PidFd) -> bool {
        matches!(&self.by, MappedBy::Owner(owner) if owner.is(process))
    }

    fn require_owner(&self, range: IndexRange) -> Result<(), SourceError> {
        if self.by.has_the_memory() {
            return Ok(());
        }
        Err(SourceError {
            source_name: self.name(),
            index: range.first(),
            reason: "the process that mapped it has ended, or has run another program".to_owned(),
            errno: Errno::FAULT,
            code: "source-process-gone",
        })
    }
}

impl PageSource for OwnedFile {
    fn name(&self) -> String {
        self.file.name()
    }

    fn strength(&self) -> Strength {
        self.file.strength()
    }

    fn held(&self) -> u64 {
        self.file.held()
    }

    fn pin(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        self.require_owner(range)?;
        self.file.pin(range, batch).map_err(as_memory)
    }

    fn pin_now(&self, range: IndexRange, batch: &mut PfnBatch) -> Option<Result<(), SourceError>> {
        match self.require_owner(range) {
            Ok(()) => self.file.pin_now(range, batch).map(|pinned| pinned.map_err(as_memory)),
            Err(error) => Some(Err(error)),
        }
    }

    fn unpin_now(&self, range: IndexRange) -> Option<()> {
        self.file.unpin_now(range)
    }

    fn recall(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        self.file.recall(range, batch)
    }

    fn unpin(&self, range: IndexRange) {
        self.file.unpin(range);
    }

    fn read(&self, offset: ByteLen, into: &mut [u8]) -> Result<(), SourceError> {
        self.file.read(offset, into)
    }

    fn write(&self, offset: ByteLen, from: &[u8]) -> Result<(), SourceError> {
        self.file.write(offset, from)
    }
}

/// Where a file ends, memory that shows it cannot be touched.
fn as_memory(error: SourceError) -> SourceError {
    match error.errno {
        Errno::INVAL => SourceError { errno: Errno::FAULT, ..error },
        _ => error,
    }
}
