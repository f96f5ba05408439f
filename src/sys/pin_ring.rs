//! A ring that does nothing but hold pins: io_uring's registered buffers are long-term pins (`FOLL_LONGTERM`).
//!
//! The ring is made disabled and stays so: nothing can ever be submitted to it. Its table has [`SLOTS`] slots; a slot
//! holds the pages of one part of a mapping until it is cleared, whatever becomes of the mapping or the file.
//! Source: io_uring_register(2), `IORING_REGISTER_BUFFERS2` and `IORING_REGISTER_BUFFERS_UPDATE`, Linux 5.19.
//!
//! Imports allowed: fault_points, failure, client_mapping, rustix.
#![expect(unsafe_code, reason = "io_uring_setup and io_uring_register")]

use std::ffi::c_void;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::Errno;
use rustix::io_uring::{
    IoringRegisterOp, IoringRsrcFlags, IoringSetupFlags, io_uring_params, io_uring_ptr, io_uring_register,
    io_uring_rsrc_register, io_uring_rsrc_update2, io_uring_setup, iovec,
};

use super::client_mapping::{ClientMapping, Part};
use super::failure::{SysError, call};
use crate::fault_points::Point;

/// Slots of a ring: the kernel's `IORING_MAX_REG_BUFFERS`.
pub const SLOTS: u32 = 1 << 14;

const OBJECT: &str = "a ring for long-term pins";

/// The ring.
#[derive(Debug)]
pub struct PinRing(OwnedFd);

impl PinRing {
    /// A ring all of whose slots are empty.
    ///
    /// # Errors
    /// EPERM where io_uring is turned off (`kernel.io_uring_disabled`, seccomp); ENOSYS without it; what else the
    /// kernel says.
    pub fn new() -> Result<Self, SysError> {
        let ring = call(Point::RingSetup, "io_uring_setup", OBJECT, setup)?;
        call(Point::RingSetup, "io_uring_register(BUFFERS2)", OBJECT, || register_empty(&ring))?;
        Ok(Self(ring))
    }

    /// The number of its descriptor, for whoever may fetch it.
    #[must_use]
    pub fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Pins `parts` of mappings into consecutive slots from `first` on, which must be empty. Tells how many of them are
    /// pinned, at least 1.
    ///
    /// # Errors
    /// If the first part cannot be pinned: ENOMEM beyond RLIMIT_MEMLOCK, EFAULT where the file has been shortened.
    pub fn pin(&self, first: u32, parts: &[(&ClientMapping, Part)]) -> Result<u32, SysError> {
        call(Point::RingRegister, "io_uring_register(BUFFERS_UPDATE)", OBJECT, || {
            let places = parts.iter().map(|(mapping, part)| mapping.place(*part));
            let places: Result<Vec<_>, Errno> =
                places.map(|place| place.map(|(base, length)| iovec(base, length))).collect();
            self.update(first, &places?)
        })
    }

    /// Clears `slots` slots from `first` on; what they held is unpinned. Tells how many are clear.
    ///
    /// # Errors
    /// If the kernel refuses to clear the first.
    pub fn unpin(&self, first: u32, slots: u32) -> Result<u32, Errno> {
        let empty = vec![iovec(ptr::null_mut(), 0); slots as usize];
        self.update(first, &empty)
    }

    fn update(&self, first: u32, places: &[iovec]) -> Result<u32, Errno> {
        let mut update = io_uring_rsrc_update2::default();
        update.offset = first;
        update.data = io_uring_ptr::new(places.as_ptr().cast_mut().cast());
        update.nr = u32::try_from(places.len()).map_err(|_| Errno::INVAL)?;
        self.register(IoringRegisterOp::RegisterBuffersUpdate, &update)
    }

    fn register<T>(&self, operation: IoringRegisterOp, argument: &T) -> Result<u32, Errno> {
        register(&self.0, operation, argument)
    }
}

const fn iovec(base: *mut c_void, length: usize) -> iovec {
    iovec { iov_base: base, iov_len: length }
}

fn setup() -> Result<OwnedFd, Errno> {
    let mut parameters = io_uring_params::default();
    parameters.flags = IoringSetupFlags::R_DISABLED;
    // SAFETY: the parameters are a valid structure; the ring's memory is never mapped here.
    unsafe { io_uring_setup(1, &mut parameters) }
}

fn register_empty(ring: &OwnedFd) -> Result<u32, Errno> {
    let mut table = io_uring_rsrc_register::default();
    table.nr = SLOTS;
    table.flags = IoringRsrcFlags::REGISTER_SPARSE;
    register(ring, IoringRegisterOp::RegisterBuffers2, &table)
}

fn register<T>(ring: &OwnedFd, operation: IoringRegisterOp, argument: &T) -> Result<u32, Errno> {
    let size = u32::try_from(size_of::<T>()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the argument is the structure that the operation reads and names its size; the addresses in it are read
    // during the call only. Pinning keeps pages, it neither reads nor writes them, and the ring is never enabled.
    unsafe { io_uring_register(ring, operation, ptr::from_ref(argument).cast(), size) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use ioasd_client::units::{ByteLen, PAGE_SIZE};
    use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};

    use super::*;
    use crate::error::Coded;
    use crate::sys::file_state::FileAccess;

    fn memfd(pages: u64) -> OwnedFd {
        let file = memfd_create("pin-ring", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, pages * PAGE_SIZE).unwrap();
        file
    }

    fn part(first: u64, pages: u64) -> Part {
        Part { offset: ByteLen::new(first * PAGE_SIZE), length: ByteLen::new(pages * PAGE_SIZE) }
    }

    /// A ring, unless the host does not allow one.
    fn ring(test: &str) -> Option<PinRing> {
        let ring = PinRing::new();
        if let Err(error) = &ring {
            crate::skip!("{test}: {error}");
        }
        ring.ok()
    }

    #[test]
    fn pins_hold_pages_that_the_file_has_lost() {
        let Some(ring) = ring("pins_hold_pages_that_the_file_has_lost") else { return };
        let file = memfd(4);
        fallocate(&file, FallocateFlags::empty(), 0, 4 * PAGE_SIZE).unwrap();
        let mapping = ClientMapping::new(file.as_fd(), part(0, 4), FileAccess::ReadWrite).unwrap();
        assert_eq!(ring.pin(7, &[(&mapping, part(0, 2)), (&mapping, part(3, 1))]), Ok(2));
        ftruncate(&file, 0).unwrap();
        drop(mapping);
        assert_eq!(ring.unpin(7, 2), Ok(2));
        assert_eq!(ring.unpin(7, 2), Ok(2), "clearing an empty slot is no error");
    }

    #[test]
    fn a_part_beyond_the_end_stops_the_call_at_the_part_before() {
        let Some(ring) = ring("a_part_beyond_the_end_stops_the_call_at_the_part_before") else { return };
        let file = memfd(2);
        let mapping = ClientMapping::new(file.as_fd(), part(0, 4), FileAccess::ReadWrite).unwrap();
        let parts = [(&mapping, part(0, 1)), (&mapping, part(2, 1)), (&mapping, part(1, 1))];
        assert_eq!(ring.pin(0, &parts), Ok(1));
        assert_eq!(ring.pin(1, &parts[1..]).unwrap_err().errno(), Errno::FAULT);
        assert_eq!(ring.pin(SLOTS, &parts).unwrap_err().errno(), Errno::INVAL);
    }

    #[test]
    fn a_read_only_mapping_cannot_be_pinned() {
        let Some(ring) = ring("a_read_only_mapping_cannot_be_pinned") else { return };
        let file = memfd(1);
        let mapping = ClientMapping::new(file.as_fd(), part(0, 1), FileAccess::Read).unwrap();
        assert_eq!(ring.pin(0, &[(&mapping, part(0, 1))]).unwrap_err().errno(), Errno::FAULT);
    }
}
