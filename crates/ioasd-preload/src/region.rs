//! What a program maps through its open device: the agent gives memory to be mapped in place of it.
//!
//! Imports allowed: channels, lease, message, sys, the client crate's wire, `libc`.

use std::ffi::{c_int, c_void};

use ioasd_client::units::ByteLen;
use ioasd_client::wire::channels::RegionOpen;
use libc::off_t;

use crate::channels;
use crate::lease::Lease;
use crate::message::{Outbound, Packed, exchange};
use crate::sys::{self, Errno};

/// Bytes of a page.
const PAGE: usize = 4096;

/// The arguments of `mmap`.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// Where it is to be, or may be.
    pub(crate) start: *mut c_void,
    /// Bytes.
    pub(crate) length: usize,
    /// `PROT_*`.
    pub(crate) protection: c_int,
    /// `MAP_*`.
    pub(crate) flags: c_int,
    /// What is mapped.
    pub(crate) fd: c_int,
    /// From where on.
    pub(crate) offset: off_t,
}

impl Wanted {
    /// Has the kernel map it; gives the address.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn as_it_is(self) -> Result<usize, Errno> {
        let number = |value: c_int| value.cast_unsigned() as usize;
        let offset = usize::try_from(self.offset).unwrap_or(usize::MAX);
        let start = self.start.expose_provenance();
        let places =
            [start, self.length, number(self.protection), number(self.flags), number(self.fd), offset];
        sys::call_long(libc::SYS_mmap, places)
    }
}

/// Maps pages of an object of `lease`; gives the address.
///
/// # Errors
/// EINVAL unless it is shared, EPERM if it is to be executed, ENXIO unless it is exactly what a command has told; what the
/// kernel says.
pub(crate) fn map(lease: Lease, wanted: Wanted) -> Result<usize, Errno> {
    if !matches!(wanted.flags & libc::MAP_TYPE, libc::MAP_SHARED | libc::MAP_SHARED_VALIDATE) {
        return Err(Errno::INVAL);
    }
    if wanted.protection & libc::PROT_EXEC != 0 {
        return Err(Errno::PERM);
    }
    let length = ByteLen::new(wanted.length.next_multiple_of(PAGE) as u64);
    let offset = ByteLen::new(wanted.offset.cast_unsigned());
    let packed = Packed::of(&RegionOpen { offset, length, ..RegionOpen::default() });
    let reply = channels::call(lease, |channel| exchange(channel, Outbound::plain(&packed), None))?;
    reply.outcome()?;
    let region = reply.fd.ok_or(Errno::MFILE)?;
    Wanted { fd: region.number(), offset: 0, ..wanted }.as_it_is()
}
