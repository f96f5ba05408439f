//! The memory of another process, by its addresses: its bytes, and what it may do with them.
//!
//! The files of `/proc` are opened once. They go on naming the memory that the process had then: through exec they name
//! memory that is gone, never that of the next program, and a number used again is another process's.
//!
//! A write through `/proc/PID/mem` ignores the protection of the page, so whoever writes looks at the mapping first.
//!
//! Imports allowed: units, failure, mapping_list, pidfd, fault_points, rustix.

use std::fs::{File, OpenOptions};

use ioasd_client::units::{ByteLen, UserAddr};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};

use super::failure::{SysError, call};
use super::mapping_list::MappingList;
use super::pidfd::PidFd;
use crate::fault_points::Point;

const OBJECT: &str = "the memory of a client's process in /proc";

/// Bytes of an entry of a page table in `/proc`.
const ENTRY: usize = 8;

/// The memory of a process as of when it was opened.
#[derive(Debug)]
pub struct ProcessMemory {
    bytes: File,
    entries: File,
    mappings: MappingList,
}

/// What a process may do with a range of its memory, all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Nothing, or there is no memory.
    None,
    /// Read.
    Read,
    /// Read and write.
    Write,
}

impl ProcessMemory {
    /// Opens the memory of `process`.
    ///
    /// # Errors
    /// EACCES if this process may not trace the other; ESRCH if it has ended.
    pub fn open(process: &PidFd) -> Result<Self, SysError> {
        call(Point::ProcRead, "open", OBJECT, || {
            let folder = format!("/proc/{}", process.pid().as_raw_pid());
            let open = |name: &str, options: &OpenOptions| {
                options.open(format!("{folder}/{name}")).map_err(|error| errno(&error))
            };
            let bytes = open("mem", OpenOptions::new().read(true).write(true))?;
            let entries = open("pagemap", OpenOptions::new().read(true))?;
            let mappings = open("maps", OpenOptions::new().read(true))?;
            match process.has_exited()? {
                true => Err(Errno::SRCH),
                false => Ok(Self { bytes, entries, mappings: MappingList::new(mappings) }),
            }
        })
    }

    /// Whether there is still a process that has this memory. Waits for nobody.
    #[must_use]
    pub fn is_there(&self) -> bool {
        let read = retry_on_intr(|| pread(&self.entries, &mut [0; ENTRY], 0));
        read == Ok(ENTRY)
    }

    /// What the process may do with all of `length` bytes from `start` on.
    ///
    /// # Errors
    /// EFAULT if the memory is gone.
    pub fn access(&self, start: UserAddr, length: ByteLen) -> Result<Access, Errno> {
        let mut next = start;
        let end = start.get().checked_add(length.get()).ok_or(Errno::FAULT)?;
        let mut least = Access::Write;
        while next.get() < end && least > Access::None {
            (next, least) = match self.mappings.at(next)? {
                Some(mapping) => (mapping.end, least.min(mapping.access)),
                None => (next, Access::None),
            };
        }
        if self.is_there() { Ok(least) } else { Err(Errno::FAULT) }
    }

    /// The size of the pages of which the memory at an address consists; `None` without memory.
    #[must_use]
    pub fn page_at(&self, address: UserAddr) -> Option<ByteLen> {
        self.mappings.at(address).ok().flatten().map(|mapping| mapping.page)
    }

    /// Fills `into` from `start` on.
    ///
    /// # Errors
    /// EFAULT where there is no memory any more.
    pub fn read(&self, start: UserAddr, into: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            done += moved(retry_on_intr(|| pread(&self.bytes, &mut *rest, start.get() + done as u64)))?;
        }
        Ok(())
    }

    /// Writes `from` from `start` on, if the process may write there.
    ///
    /// # Errors
    /// EFAULT where it may not, or there is no memory any more.
    pub fn write(&self, start: UserAddr, from: &[u8]) -> Result<(), Errno> {
        if self.access(start, ByteLen::new(from.len() as u64))? != Access::Write {
            return Err(Errno::FAULT);
        }
        let mut done = 0;
        while let Some(rest) = from.get(done..).filter(|rest| !rest.is_empty()) {
            done += moved(retry_on_intr(|| pwrite(&self.bytes, rest, start.get() + done as u64)))?;
        }
        Ok(())
    }
}

/// The kernel says EIO where nothing is mapped, and moves nothing if the memory is gone.
fn moved(outcome: Result<usize, Errno>) -> Result<usize, Errno> {
    match outcome {
        Ok(0) | Err(Errno::IO) => Err(Errno::FAULT),
        other => other,
    }
}

fn errno(error: &std::io::Error) -> Errno {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) | None => Errno::SRCH,
        Some(errno) => errno,
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use ioasd_client::units::PAGE_SIZE;
    use rustix::process::{Pid, getpid};

    use super::*;

    fn own() -> ProcessMemory {
        ProcessMemory::open(&PidFd::open(getpid()).unwrap()).unwrap()
    }

    fn address<T>(value: &[T]) -> UserAddr {
        UserAddr::new(value.as_ptr().expose_provenance() as u64)
    }

    #[test]
    fn bytes_are_read_and_only_what_may_be_written_is_written() {
        static CONSTANT: [u8; 16] = [7; 16];
        let (memory, buffer) = (own(), vec![1_u8; 8192]);
        let mut read = [0; 16];
        memory.read(address(&CONSTANT), &mut read).unwrap();
        assert_eq!(read, CONSTANT);
        assert_eq!(memory.access(address(&CONSTANT), ByteLen::new(16)), Ok(Access::Read));
        assert_eq!(memory.write(address(&CONSTANT), &[1]), Err(Errno::FAULT));
        assert_eq!(memory.access(address(&buffer), ByteLen::new(8192)), Ok(Access::Write));
        memory.write(address(&buffer), &[9; 8192]).unwrap();
        assert_eq!(std::hint::black_box(&buffer)[8191], 9);
        assert_eq!(memory.access(UserAddr::new(0), ByteLen::new(1)), Ok(Access::None));
        assert_eq!(memory.read(UserAddr::new(0), &mut read), Err(Errno::FAULT));
        assert_eq!(memory.access(UserAddr::new(u64::MAX), ByteLen::new(2)), Err(Errno::FAULT));
    }

    #[test]
    fn the_memory_of_a_program_that_has_ended_is_gone() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let process = PidFd::open(Pid::from_child(&child)).unwrap();
        let memory = ProcessMemory::open(&process).unwrap();
        assert!(memory.is_there());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!memory.is_there());
        assert_eq!(memory.read(UserAddr::new(0x1000), &mut [0]), Err(Errno::FAULT));
        assert!(memory.access(UserAddr::new(0x1000), ByteLen::new(PAGE_SIZE)).is_err());
        assert!(ProcessMemory::open(&process).is_err());
    }
}
