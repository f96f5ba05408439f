//! The program's memory, through the kernel: a bad address is EFAULT, never a fault of ours.
//!
//! `process_vm_readv` on ourselves is the short way. Where a sandbox forbids it, the bytes go through a pipe.
//!
//! Imports allowed: sys, `libc`.

#![expect(unsafe_code, reason = "addresses of the program are given to the kernel")]

use libc::{c_long, c_void, iovec, pid_t, ssize_t};

use crate::sys::{self, Errno, pipe, result};

/// Bytes of a page.
const PAGE: usize = 4096;
/// Bytes that surely fit into a pipe at once.
const PIECE: usize = 4096;

/// An address of the program, good or bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) u64);

/// A range of the program's memory, good or bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// Where it begins.
    pub(crate) start: Address,
    /// Its bytes.
    pub(crate) len: usize,
}

impl Address {
    /// The address so many bytes behind; addresses wrap as they do in the processor.
    pub(crate) const fn behind(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes as u64))
    }

    /// As the kernel is told it.
    pub(crate) fn pointer(self) -> *mut c_void {
        std::ptr::with_exposed_provenance_mut(usize::try_from(self.0).unwrap_or(usize::MAX))
    }
}

impl Range {
    /// Where our own bytes are that the kernel will write.
    pub(crate) fn of_mut(bytes: &mut [u8]) -> Self {
        Self { start: Address(bytes.as_mut_ptr().expose_provenance() as u64), len: bytes.len() }
    }

    /// Where our own bytes are.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { start: Address(bytes.as_ptr().expose_provenance() as u64), len: bytes.len() }
    }

    /// As the kernel is told it.
    pub(crate) fn iovec(self) -> iovec {
        iovec { iov_base: self.start.pointer(), iov_len: self.len }
    }
}

/// Fills `bytes` from `from`.
///
/// # Errors
/// EFAULT if not all of it is readable.
pub(crate) fn read(from: Address, bytes: &mut [u8]) -> Result<(), Errno> {
    let local = iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let remote = Range { start: from, len: bytes.len() }.iovec();
    match whole(move_bytes(libc::process_vm_readv, &local, &remote), bytes.len()) {
        Err(Errno::NOSYS | Errno::PERM) => read_through_pipe(from, bytes),
        other => other,
    }
}

/// Writes `bytes` to `to`.
///
/// # Errors
/// EFAULT if not all of it is writable; some bytes may be written then.
pub(crate) fn write(to: Address, bytes: &[u8]) -> Result<(), Errno> {
    let local = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = Range { start: to, len: bytes.len() }.iovec();
    match whole(move_bytes(libc::process_vm_writev, &local, &remote), bytes.len()) {
        Err(Errno::NOSYS | Errno::PERM) => write_through_pipe(to, bytes),
        other => other,
    }
}

/// How many of the first bytes of a range can be written. Pages are brought in for that, and stay as they are.
pub(crate) fn writable(range: Range) -> usize {
    let populated = |start: usize, len: usize| {
        let (advice, first) = (libc::MADV_POPULATE_WRITE.cast_unsigned() as usize, start & !(PAGE - 1));
        let filled = sys::call(libc::SYS_madvise, [first, start - first + len, advice, 0]);
        !matches!(filled, Err(Errno::FAULT | Errno::INVAL | Errno::NOMEM))
    };
    let start = range.start.pointer().addr();
    if range.len == 0 || populated(start, range.len) {
        return range.len;
    }
    let mut done = 0;
    while done < range.len {
        let at = start.wrapping_add(done);
        let here = (PAGE - at % PAGE).min(range.len - done);
        if !populated(at, here) {
            break;
        }
        done += here;
    }
    done
}

/// Copies memory of the program to other memory of it.
///
/// # Errors
/// EFAULT if not all of one is readable, or of the other writable; some bytes may be copied then.
pub(crate) fn copy(from: Range, to: Address) -> Result<(), Errno> {
    let (local, remote) = (Range { start: to, len: from.len }.iovec(), from.iovec());
    match whole(move_bytes(libc::process_vm_readv, &local, &remote), from.len) {
        Err(Errno::NOSYS | Errno::PERM) => copy_in_pieces(from, to),
        other => other,
    }
}

fn copy_in_pieces(from: Range, to: Address) -> Result<(), Errno> {
    let mut done = 0;
    while done < from.len {
        let mut piece = [0; PIECE];
        let here = (from.len - done).min(PIECE);
        let bytes = piece.get_mut(..here).unwrap_or_default();
        read(from.start.behind(done), bytes)?;
        write(to.behind(done), bytes)?;
        done += here;
    }
    Ok(())
}

type Move = unsafe extern "C" fn(
    pid_t,
    *const iovec,
    libc::c_ulong,
    *const iovec,
    libc::c_ulong,
    libc::c_ulong,
) -> ssize_t;

fn move_bytes(mover: Move, local: &iovec, remote: &iovec) -> Result<usize, Errno> {
    // SAFETY: both vectors have one element; the local one describes a buffer that the caller of this function has
    // borrowed for the direction of the move, or memory of the program. What the program names the kernel checks.
    result(unsafe { mover(sys::process(), local, 1, remote, 1, 0) } as c_long)
}

fn whole(moved: Result<usize, Errno>, wanted: usize) -> Result<(), Errno> {
    if moved? == wanted { Ok(()) } else { Err(Errno::FAULT) }
}

fn read_through_pipe(from: Address, bytes: &mut [u8]) -> Result<(), Errno> {
    let (reader, writer) = pipe()?;
    let mut start = from;
    for piece in bytes.chunks_mut(PIECE) {
        whole(move_piece(libc::SYS_write, &writer, start, piece.len()), piece.len())?;
        whole(sys::read(&reader, piece), piece.len())?;
        start = start.behind(piece.len());
    }
    Ok(())
}

fn write_through_pipe(to: Address, bytes: &[u8]) -> Result<(), Errno> {
    let (reader, writer) = pipe()?;
    let mut start = to;
    for piece in bytes.chunks(PIECE) {
        let ours = Range::of(piece).start;
        whole(move_piece(libc::SYS_write, &writer, ours, piece.len()), piece.len())?;
        whole(move_piece(libc::SYS_read, &reader, start, piece.len()), piece.len())?;
        start = start.behind(piece.len());
    }
    Ok(())
}

/// Reads or writes a descriptor with memory that the kernel checks.
fn move_piece(way: c_long, fd: &sys::Fd, start: Address, len: usize) -> Result<usize, Errno> {
    sys::call(way, [fd.number().cast_unsigned() as usize, start.pointer().addr(), len, 0])
}

#[cfg(test)]
mod tests {
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};

    use super::*;

    /// Two pages, of which only the first may be used for anything.
    fn page_before_nothing() -> Address {
        // SAFETY: a new mapping where the kernel likes it.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                2 * PAGE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        };
        let start = start.unwrap();
        // SAFETY: nobody uses the mapping yet.
        unsafe { mprotect(start.add(PAGE), PAGE, MprotectFlags::empty()).unwrap() };
        Address(start.expose_provenance() as u64)
    }

    fn both_ways(
        read: fn(Address, &mut [u8]) -> Result<(), Errno>,
        write: fn(Address, &[u8]) -> Result<(), Errno>,
    ) {
        let page = page_before_nothing();
        let data: Vec<u8> = (0..=255).cycle().take(PAGE).collect();
        assert_eq!(write(page, &data), Ok(()));
        let mut back = vec![0; PAGE];
        assert_eq!(read(page, &mut back), Ok(()));
        assert_eq!(back, data);
        assert_eq!(read(page.behind(PAGE - 3), &mut [0; 4]), Err(Errno::FAULT));
        assert_eq!(write(page.behind(PAGE - 3), &[0; 4]), Err(Errno::FAULT));
        assert_eq!(read(page.behind(PAGE - 4), &mut [0; 4]), Ok(()));
        for bad in [0, 8, u64::MAX, u64::MAX - 1] {
            assert_eq!(read(Address(bad), &mut [0; 4]), Err(Errno::FAULT), "{bad:#x}");
            assert_eq!(write(Address(bad), &[0; 4]), Err(Errno::FAULT), "{bad:#x}");
        }
    }

    #[test]
    fn the_bytes_before_a_bad_page_can_be_written() {
        let page = page_before_nothing();
        let of = |start: Address, len| writable(Range { start, len });
        assert_eq!([of(page, PAGE), of(page.behind(9), PAGE - 9), of(page, 0)], [PAGE, PAGE - 9, 0]);
        assert_eq!([of(page, PAGE + 1), of(page.behind(9), 2 * PAGE - 9)], [PAGE, PAGE - 9]);
        assert_eq!([of(page.behind(PAGE), 1), of(Address(8), 64), of(Address(u64::MAX), 1)], [0; 3]);
    }

    #[test]
    fn good_bytes_move_and_bad_addresses_are_faults() {
        both_ways(read, write);
    }

    #[test]
    fn memory_is_copied_as_far_as_both_ends_are_good() {
        for copy in [copy, copy_in_pieces] {
            let (from, to) = (page_before_nothing(), page_before_nothing());
            let data: Vec<u8> = (0..=250).cycle().take(PAGE).collect();
            write(from, &data).unwrap();
            let mut back = vec![0; PAGE];
            assert_eq!(copy(Range { start: from, len: PAGE }, to), Ok(()));
            read(to, &mut back).unwrap();
            assert_eq!(back, data);
            assert_eq!(copy(Range { start: from, len: PAGE + 1 }, to), Err(Errno::FAULT));
            assert_eq!(copy(Range { start: from, len: 8 }, to.behind(PAGE - 7)), Err(Errno::FAULT));
            assert_eq!(copy(Range { start: Address(8), len: 8 }, to), Err(Errno::FAULT));
        }
    }

    #[test]
    fn the_same_through_a_pipe() {
        both_ways(read_through_pipe, write_through_pipe);
    }
}
