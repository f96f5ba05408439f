//! How much of a client's file is allocated, by `cachestat` (Linux 6.5), which also counts pages that were never
//! written. hugetlbfs has no answer.
//!
//! Imports allowed: units, libc, rustix.
#![expect(unsafe_code, reason = "a system call that rustix does not have")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use ioasd_client::units::PAGE_SIZE;
use rustix::io::Errno;

/// Its number, the same on every architecture.
const CACHESTAT: libc::c_long = 451;

/// What is asked about, in bytes.
#[repr(C)]
struct Range {
    offset: u64,
    length: u64,
}

/// What the kernel answers, in pages.
#[repr(C)]
#[derive(Default)]
struct Counts {
    cached: u64,
    dirty: u64,
    writeback: u64,
    /// For memory: on swap.
    evicted: u64,
    recently_evicted: u64,
}

/// Allocated pages from page `first` up to `behind`, which is not included.
///
/// # Errors
/// ENOSYS before Linux 6.5, EOPNOTSUPP for hugetlbfs; what else the kernel says.
pub fn allocated_pages(file: BorrowedFd<'_>, first: u64, behind: u64) -> Result<u64, Errno> {
    let bytes = |pages: u64| pages.checked_mul(PAGE_SIZE).ok_or(Errno::OVERFLOW);
    // A length of 0 would ask for all that follows.
    let pages = behind.checked_sub(first).filter(|pages| *pages > 0).ok_or(Errno::INVAL)?;
    let range = Range { offset: bytes(first)?, length: bytes(pages)? };
    let mut counts = Counts::default();
    // SAFETY: both structures have the layout of the call and live across it.
    let outcome = unsafe {
        libc::syscall(CACHESTAT, file.as_raw_fd(), ptr::from_ref(&range), ptr::from_mut(&mut counts), 0)
    };
    if outcome == 0 {
        return Ok(counts.cached.saturating_add(counts.evicted));
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
