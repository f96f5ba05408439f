//! Memory of a process that cannot be reached: it can be mapped, as in the kernel, and every pin fails, for one reason.
//!
//! Imports allowed: storage.

use ioasd_client::units::{ByteLen, IndexRange, PageIndex, UserAddr};
use rustix::io::Errno;

use crate::storage::pfn::PfnBatch;
use crate::storage::source::{PageSource, SourceError, Strength};

/// Memory at an address, of which nothing else is known.
#[derive(Debug)]
pub struct AbsentMemory {
    start: UserAddr,
    reason: String,
}

impl AbsentMemory {
    /// The memory from `start` on, and why it cannot be reached.
    #[must_use]
    pub const fn new(start: UserAddr, reason: String) -> Self {
        Self { start, reason }
    }

    fn refused(&self, index: PageIndex) -> SourceError {
        SourceError {
            source_name: self.name(),
            index,
            reason: self.reason.clone(),
            errno: Errno::FAULT,
            code: "source-process-memory",
        }
    }

    fn refused_bytes(&self, offset: ByteLen) -> SourceError {
        self.refused(PageIndex::containing(offset))
    }
}

impl PageSource for AbsentMemory {
    fn name(&self) -> String {
        format!("memory at {:#x}", self.start.get())
    }

    fn strength(&self) -> Strength {
        Strength::Resident
    }

    fn pin(&self, range: IndexRange, _: &mut PfnBatch) -> Result<(), SourceError> {
        Err(self.refused(range.first()))
    }

    fn recall(&self, range: IndexRange, _: &mut PfnBatch) -> Result<(), SourceError> {
        Err(self.refused(range.first()))
    }

    fn unpin(&self, range: IndexRange) {
        debug_assert!(false, "pages {range:?} of what cannot be pinned are unpinned");
    }

    fn read(&self, offset: ByteLen, _: &mut [u8]) -> Result<(), SourceError> {
        Err(self.refused_bytes(offset))
    }

    fn write(&self, offset: ByteLen, _: &[u8]) -> Result<(), SourceError> {
        Err(self.refused_bytes(offset))
    }
}
