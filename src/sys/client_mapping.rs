//! A mapping of a client's file that the agent never looks into.
//!
//! It only gives the kernel an address to pin, lock or write at. A client can shorten the file at any time; whoever touched the
//! mapping then would be killed (`SIGBUS`), so there is no way to touch it: no reference and no pointer leaves this
//! folder. The calls made here report missing pages as errors. The mapping is left out of core dumps and of children.
//!
//! Imports allowed: units, fault_points, failure, client_fd, file_state, rustix.
#![expect(unsafe_code, reason = "mmap, madvise and mlock")]

use std::ffi::c_void;
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};

use ioasd_client::units::ByteLen;
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MlockFlags, ProtFlags, madvise, mlock_with, mmap, munlock, munmap};

use super::client_fd::reap_memory;
use super::failure::{SysError, call};
use super::file_state::FileAccess;
use crate::fault_points::Point;

const OBJECT: &str = "a client's file";

/// The mapping.
#[derive(Debug)]
pub struct ClientMapping(Option<Mapped>);

/// A part of a mapping, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// First byte.
    pub offset: ByteLen,
    /// Number of bytes.
    pub length: ByteLen,
}

/// Unmaps when dropped.
#[derive(Debug)]
struct Mapped {
    base: NonNull<c_void>,
    length: usize,
}

// SAFETY: nothing is ever read or written through the mapping; its address is only told to the kernel.
unsafe impl Send for Mapped {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapped {}

impl ClientMapping {
    /// Maps `part` of a file that is memory. Nothing is allocated or reserved for that.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(file: BorrowedFd<'_>, part: Part, access: FileAccess) -> Result<Self, SysError> {
        let mapped = call(Point::Mmap, "mmap", OBJECT, || Mapped::new(file, part, access))?;
        call(Point::Mmap, "madvise(MADV_DONTDUMP)", OBJECT, || mapped.hide())?;
        Ok(Self(Some(mapped)))
    }

    /// Brings the pages of `part` in, so that pinning them finds them mapped. A hole would be allocated.
    ///
    /// # Errors
    /// EFAULT if the file has been shortened; what else the kernel says.
    pub fn populate(&self, part: Part) -> Result<(), SysError> {
        call(Point::Populate, "madvise(MADV_POPULATE_READ)", OBJECT, || {
            let (address, length) = self.place(part)?;
            // SAFETY: the place lies within this mapping, whose pages the advice only brings in.
            unsafe { madvise(address, length, Advice::LinuxPopulateRead) }
        })
    }

    /// Locks the pages of `part`. Nothing stays locked after an error.
    ///
    /// # Errors
    /// ENOMEM beyond RLIMIT_MEMLOCK or where the file has been shortened; what else the kernel says.
    pub fn lock(&self, part: Part) -> Result<(), SysError> {
        let locked = call(Point::Lock, "mlock2", OBJECT, || {
            let (address, length) = self.place(part)?;
            // SAFETY: the place lies within this mapping, whose pages are only brought in and kept.
            unsafe { mlock_with(address, length, MlockFlags::empty()) }
        });
        if locked.is_err() {
            let undone = self.unlock(part);
            tracing::debug!(?undone, "what could not be locked whole is unlocked");
        }
        locked
    }

    /// Unlocks the pages of `part`.
    ///
    /// # Errors
    /// ENOMEM if the mapping would fall into more pieces than `vm.max_map_count` allows; the pages stay locked then.
    pub fn unlock(&self, part: Part) -> Result<(), Errno> {
        let (address, length) = self.place(part)?;
        // SAFETY: the place lies within this mapping.
        unsafe { munlock(address, length) }
    }

    /// Has the kernel write `from` to the beginning of `part`.
    ///
    /// # Errors
    /// EFAULT if the file has been shortened, or `part` is shorter; what else the kernel says.
    pub fn write(&self, part: Part, from: &[u8]) -> Result<(), SysError> {
        call(Point::FileIo, "process_vm_writev", OBJECT, || {
            let (address, length) = self.place(part)?;
            if from.len() > length {
                return Err(Errno::FAULT);
            }
            let local = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
            let remote = libc::iovec { iov_base: address, iov_len: from.len() };
            // SAFETY: the kernel reads what was borrowed, and writes within this mapping, which nobody looks into.
            let written = unsafe {
                libc::process_vm_writev(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
            };
            match usize::try_from(written) {
                Ok(written) if written == from.len() => Ok(()),
                Ok(_) => Err(Errno::FAULT),
                Err(_) => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::FAULT)),
            }
        })
    }

    /// The address of `part`, for the kernel; EFAULT if it is not part of the mapping.
    pub(super) fn place(&self, part: Part) -> Result<(*mut c_void, usize), Errno> {
        let mapped = self.0.as_ref().ok_or(Errno::FAULT)?;
        let end = part.offset.checked_add(part.length.get()).ok_or(Errno::FAULT)?;
        if end.get() > mapped.length as u64 {
            return Err(Errno::FAULT);
        }
        let offset = usize::try_from(part.offset.get()).map_err(|_| Errno::FAULT)?;
        let length = usize::try_from(part.length.get()).map_err(|_| Errno::FAULT)?;
        Ok((mapped.base.as_ptr().wrapping_byte_add(offset), length))
    }
}

impl Drop for ClientMapping {
    /// Unmapping gigabytes takes long, so it is done by a thread of its own.
    fn drop(&mut self) {
        if let Some(mapped) = self.0.take() {
            reap_memory(mapped);
        }
    }
}

impl Mapped {
    fn new(file: BorrowedFd<'_>, part: Part, access: FileAccess) -> Result<Self, Errno> {
        let length = usize::try_from(part.length.get()).map_err(|_| Errno::NOMEM)?;
        let protection = match access {
            FileAccess::Read => ProtFlags::READ,
            FileAccess::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses the place, so no existing mapping is touched.
        let base = unsafe { mmap(ptr::null_mut(), length, protection, flags, file, part.offset.get()) }?;
        NonNull::new(base).map(|base| Self { base, length }).ok_or(Errno::NOMEM)
    }

    fn hide(&self) -> Result<(), Errno> {
        for advice in [Advice::LinuxDontDump, Advice::LinuxDontFork] {
            // SAFETY: the range is this mapping; neither advice changes what it holds.
            unsafe { madvise(self.base.as_ptr(), self.length, advice) }?;
        }
        Ok(())
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, which nothing refers to any more.
        let unmapped = unsafe { munmap(self.base.as_ptr(), self.length) };
        debug_assert_eq!(unmapped, Ok(()), "a mapping of a client's file cannot be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use ioasd_client::units::PAGE_SIZE;
    use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};

    use super::*;
    use crate::error::Coded;

    fn memfd(pages: u64) -> OwnedFd {
        let file = memfd_create("client-mapping", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, pages * PAGE_SIZE).unwrap();
        file
    }

    fn part(first: u64, pages: u64) -> Part {
        Part { offset: ByteLen::new(first * PAGE_SIZE), length: ByteLen::new(pages * PAGE_SIZE) }
    }

    #[test]
    fn mapping_allocates_nothing_and_populating_what_it_is_told() {
        let file = memfd(8);
        let mapping = ClientMapping::new(file.as_fd(), part(0, 8), FileAccess::ReadWrite).unwrap();
        assert_eq!(fstat(&file).unwrap().st_blocks, 0);
        mapping.populate(part(2, 3)).unwrap();
        assert_eq!(fstat(&file).unwrap().st_blocks, 3 * 8);
    }

    #[test]
    fn a_file_that_shrank_under_its_mapping_is_an_error_and_no_signal() {
        let file = memfd(8);
        let mapping = ClientMapping::new(file.as_fd(), part(0, 8), FileAccess::ReadWrite).unwrap();
        mapping.populate(part(0, 8)).unwrap();
        ftruncate(&file, 2 * PAGE_SIZE).unwrap();
        assert_eq!(mapping.populate(part(0, 8)).unwrap_err().errno(), Errno::FAULT);
        assert_eq!(mapping.lock(part(4, 1)).unwrap_err().errno(), Errno::NOMEM);
        mapping.populate(part(0, 2)).unwrap();
    }

    #[test]
    fn the_kernel_writes_where_the_file_is_and_says_where_it_ends() {
        let file = memfd(4);
        let mapping = ClientMapping::new(file.as_fd(), part(0, 4), FileAccess::ReadWrite).unwrap();
        let at = |offset, length| Part { offset: ByteLen::new(offset), length: ByteLen::new(length) };
        mapping.write(at(4090, 20), &[7; 20]).unwrap();
        let mut read = [1; 22];
        rustix::io::pread(&file, &mut read, 4089).unwrap();
        assert_eq!(read, [&[0][..], &[7; 20], &[0]].concat()[..]);
        ftruncate(&file, PAGE_SIZE).unwrap();
        assert_eq!(mapping.write(at(4090, 20), &[8; 20]).unwrap_err().errno(), Errno::FAULT);
        assert_eq!(mapping.write(at(0, 4), &[8; 5]).unwrap_err().errno(), Errno::FAULT);
        mapping.write(at(0, 5), &[8; 5]).unwrap();
    }

    #[test]
    fn parts_that_are_not_of_the_mapping_are_refused() {
        let file = memfd(8);
        let mapping = ClientMapping::new(file.as_fd(), part(4, 4), FileAccess::Read).unwrap();
        for outside in [part(0, 5), part(4, 1), part(u64::MAX >> 12, 2)] {
            assert_eq!(mapping.populate(outside).unwrap_err().errno(), Errno::FAULT, "{outside:?}");
        }
    }
}
