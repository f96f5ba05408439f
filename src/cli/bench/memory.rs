//! A memfd whose pages are all in memory.
//!
//! Imports allowed: units, sys.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ioasd_client::units::{ByteLen, PAGE_SIZE};

use super::BenchError;
use crate::sys::client_fd::ClientFd;
use crate::sys::mapping::{self, MapAccess, SharedMapping};
use crate::sys::memfd::{self, Seals};

const NAME: &str = "ioasd-bench";

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

/// Real memory.
pub(super) struct Memory {
    file: OwnedFd,
    mapping: SharedMapping,
}

impl Memory {
    /// `size` bytes, touched.
    pub(super) fn new(size: ByteLen) -> Result<Self, BenchError> {
        let file = memfd::create(NAME, size)?;
        let mapping = mapping::map_shared(&file, NAME, size, MapAccess::ReadWrite)?;
        mapping::populate(&mapping, NAME, ByteLen::new(0), size)?;
        memfd::seal(&file, NAME, Seals::FixedSize)?;
        Ok(Self { file, mapping })
    }

    /// `pages` pages, each filled with its number.
    pub(super) fn numbered(pages: u64) -> Result<Self, BenchError> {
        let memory = Self::new(ByteLen::new(pages * PAGE_SIZE))?;
        for page in 0..pages {
            let filled = (page + 1).to_le_bytes().repeat(PAGE / 8);
            let written = memory.mapping.copy_in(ByteLen::new(page * PAGE_SIZE), &filled);
            written.map_err(|_| BenchError::WrongBytes)?;
        }
        Ok(memory)
    }

    /// A descriptor as a client would pass it.
    pub(super) fn descriptor(&self) -> Result<ClientFd, BenchError> {
        Ok(memfd::duplicate(&self.file, NAME)?.into())
    }

    /// The bytes as the client sees them.
    pub(super) const fn mapping(&self) -> &SharedMapping {
        &self.mapping
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
