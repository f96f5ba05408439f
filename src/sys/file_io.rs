//! Bytes of a client's file, by read and write at an offset: the agent never maps what a client can shrink.
//!
//! Imports allowed: units, error, fault_points, rustix.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use ioasd_client::units::ByteLen;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::{Errno, ReadWriteFlags, pread, pwrite, pwritev2, retry_on_intr};

use super::file_state;
use crate::error::Coded;
use crate::fault_points::{self, Point};

/// Write where asked, although the client has set `O_APPEND` on the open file (Linux 6.9).
const NO_APPEND: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x20);

/// Fills `into` from `offset` on.
///
/// # Errors
/// EFAULT if the file ends before; what the kernel says otherwise.
pub fn read_exact_at(file: BorrowedFd<'_>, offset: ByteLen, into: &mut [u8]) -> Result<(), Errno> {
    fault_points::hit(Point::FileIo).map_err(|injected| injected.errno())?;
    let (mut rest, mut at) = (into, offset);
    while !rest.is_empty() {
        let count = retry_on_intr(|| pread(file, &mut *rest, at.get()))?;
        at = advance(at, count)?;
        rest = rest.split_at_mut_checked(count).map(|(_, behind)| behind).unwrap_or_default();
    }
    Ok(())
}

/// Writes all of `from` from `offset` on, never beyond the end of the file.
///
/// # Errors
/// EFAULT if the file ends before; EPERM if it is sealed; what the kernel says otherwise.
pub fn write_all_at(file: BorrowedFd<'_>, offset: ByteLen, from: &[u8]) -> Result<(), Errno> {
    fault_points::hit(Point::FileIo).map_err(|injected| injected.errno())?;
    let end = offset.checked_add(from.len() as u64).ok_or(Errno::FAULT)?;
    if end > file_state::state(file)?.size {
        return Err(Errno::FAULT);
    }
    let (mut rest, mut at) = (from, offset);
    while !rest.is_empty() {
        let count = retry_on_intr(|| write_some(file, rest, at.get()))?;
        (rest, at) = (rest.get(count..).unwrap_or_default(), advance(at, count)?);
    }
    Ok(())
}

/// A transfer of nothing has met the end of the file.
fn advance(at: ByteLen, count: usize) -> Result<ByteLen, Errno> {
    if count == 0 {
        return Err(Errno::FAULT);
    }
    at.checked_add(count as u64).ok_or(Errno::FAULT)
}

fn write_some(file: BorrowedFd<'_>, from: &[u8], at: u64) -> Result<usize, Errno> {
    match pwritev2(file, &[IoSlice::new(from)], at, NO_APPEND) {
        Err(Errno::OPNOTSUPP) => write_unless_appending(file, from, at),
        outcome => outcome,
    }
}

/// For kernels that cannot overrule `O_APPEND`.
fn write_unless_appending(file: BorrowedFd<'_>, from: &[u8], at: u64) -> Result<usize, Errno> {
    if fcntl_getfl(file)?.contains(OFlags::APPEND) {
        return Err(Errno::PERM);
    }
    pwrite(file, from, at)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::{MemfdFlags, fcntl_setfl, fstat, ftruncate, memfd_create};

    use super::*;

    fn memfd(size: u64) -> OwnedFd {
        let file = memfd_create("file_io", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, size).unwrap();
        file
    }

    #[test]
    fn what_was_written_is_read_back_at_the_same_offset() {
        let file = memfd(100);
        write_all_at(file.as_fd(), ByteLen::new(90), &[7; 10]).unwrap();
        let mut bytes = [1; 12];
        read_exact_at(file.as_fd(), ByteLen::new(88), &mut bytes).unwrap();
        assert_eq!(bytes, [0, 0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
    }

    #[test]
    fn nothing_is_read_or_written_beyond_the_end() {
        let file = memfd(100);
        assert_eq!(read_exact_at(file.as_fd(), ByteLen::new(90), &mut [0; 11]), Err(Errno::FAULT));
        assert_eq!(write_all_at(file.as_fd(), ByteLen::new(90), &[0; 11]), Err(Errno::FAULT));
        assert_eq!(write_all_at(file.as_fd(), ByteLen::new(u64::MAX), &[0; 2]), Err(Errno::FAULT));
        assert_eq!(fstat(&file).unwrap().st_size, 100);
    }

    #[test]
    fn a_client_cannot_turn_a_write_into_an_append() {
        let file = memfd(100);
        fcntl_setfl(&file, OFlags::APPEND).unwrap();
        let outcome = write_all_at(file.as_fd(), ByteLen::new(0), &[9]);
        assert_eq!(fstat(&file).unwrap().st_size, 100);
        if outcome.is_ok() {
            let mut byte = [0];
            read_exact_at(file.as_fd(), ByteLen::new(0), &mut byte).unwrap();
            assert_eq!(byte, [9]);
        }
        assert_eq!(write_unless_appending(file.as_fd(), &[9], 0), Err(Errno::PERM));
    }
}
