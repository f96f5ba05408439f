//! The client's memory: a memfd that can neither shrink nor grow.
//!
//! Imports allowed: units, sys, pattern, plan.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ioasd_client::units::{ByteLen, PageIndex};

use super::pattern::{self, Checksum, PAGE_BYTES, Writer, WrongByte};
use super::plan::Plan;
use crate::sys::failure::SysError;
use crate::sys::mapping::{self, MapAccess, OutOfMapping, SharedMapping};
use crate::sys::memfd::{self, Seals};

const NAME: &str = "ioasd-demo";

/// Why the memory is not there, or not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum MemoryError {
    /// It could not be made.
    #[error("cannot make the memory to show")]
    Make(#[from] SysError),
    /// A page outside of it.
    #[error(transparent)]
    Outside(#[from] OutOfMapping),
    /// A device's write did not arrive, or something else was written.
    #[error("in the client's own memory")]
    Wrong(#[from] WrongByte),
}

/// The memory, mapped.
#[derive(Debug)]
pub(super) struct Memory {
    plan: Plan,
    file: OwnedFd,
    mapping: SharedMapping,
}

impl Memory {
    /// Allocates all of it, and seals its size.
    pub(super) fn new(plan: Plan) -> Result<Self, MemoryError> {
        let file = memfd::create(NAME, plan.size())?;
        let mapping = mapping::map_shared(&file, NAME, plan.size(), MapAccess::ReadWrite)?;
        mapping::populate(&mapping, NAME, ByteLen::new(0), plan.size())?;
        memfd::seal(&file, NAME, Seals::FixedSize)?;
        Ok(Self { plan, file, mapping })
    }

    /// Writes every page, and sums up those that no device will write.
    pub(super) fn fill(&self, writer: Writer) -> Result<Checksum, MemoryError> {
        let mut sum = Checksum::new();
        for page in (0..self.plan.pages()).map(PageIndex::new) {
            let bytes = writer.page(page);
            self.mapping.copy_in(page.byte_offset(), &bytes)?;
            if self.plan.owner(page).is_none() {
                sum.add(&bytes);
            }
        }
        Ok(sum)
    }

    /// Checks that every page is what its owner wrote.
    pub(super) fn check_writes(&self) -> Result<(), MemoryError> {
        let mut bytes = [0; PAGE_BYTES];
        for page in (0..self.plan.pages()).map(PageIndex::new) {
            self.mapping.copy_out(page.byte_offset(), &mut bytes)?;
            let writer = self.plan.owner(page).map_or(Writer::Client, Writer::Device);
            pattern::check(writer, page, &bytes)?;
        }
        Ok(())
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::DemoArgs;

    #[test]
    fn the_writes_of_all_devices_must_have_arrived() {
        let args = DemoArgs { size: ByteLen::new(5 * 4096), domains: 2.try_into().unwrap(), hold: false };
        let plan = Plan::new(&args).unwrap();
        let memory = Memory::new(plan).unwrap();
        let filled = memory.fill(Writer::Client).unwrap();
        assert_eq!(filled, memory.fill(Writer::Client).unwrap());
        for device in plan.devices() {
            assert!(matches!(memory.check_writes(), Err(MemoryError::Wrong(_))), "before {device} wrote");
            let page = plan.page_of(device);
            memory.mapping.copy_in(page.byte_offset(), &Writer::Device(device).page(page)).unwrap();
        }
        assert_eq!(memory.check_writes(), Ok(()));
    }

    #[test]
    fn the_memory_is_all_there_and_cannot_change_its_size() {
        let args = DemoArgs { size: ByteLen::new(3 * 4096), domains: 1.try_into().unwrap(), hold: false };
        let memory = Memory::new(Plan::new(&args).unwrap()).unwrap();
        assert!(crate::sys::file_state::state(memory.as_fd()).unwrap().is_fully_allocated());
        assert!(rustix::fs::ftruncate(&memory.file, 0).is_err());
    }
}
