//! Accesses: software users of an address space that pin, read and write through the agent.
//!
//! Imports allowed: boundary, connection, constants, ioas, notices; calls, ids and units of the client crate.
#![expect(unsafe_code, reason = "exported names, and buffers")]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use ioasd_client::calls::{AccessKind, PinIntent};
use ioasd_client::ids::{AccessId, IoasId};
use ioasd_client::units::Iova;
use ioasd_client::walker::Access;

use crate::boundary::{bytes, bytes_mut, wanted};
use crate::connection::{ConnectionHandle, call};
use crate::constants::{IOASD_ACCESS_MAY_PIN, access, only_flag};
use crate::error::Misuse;
use crate::ioas::range;
use crate::notices::{self, NoticesHandle};

fn kind(flags: u32) -> Result<AccessKind, Misuse> {
    only_flag(flags, IOASD_ACCESS_MAY_PIN, AccessKind::Pinning, AccessKind::Bytes)
}

/// Makes an access of an address space. Its number is stored to `access`.
///
/// @param flags 0 or IOASD_ACCESS_MAY_PIN.
/// @return 0 or a negative errno.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_access_create(
    connection: *mut ConnectionHandle,
    ioas: u32,
    flags: u32,
    access: Option<&mut MaybeUninit<u32>>,
) -> c_int {
    call(connection, |agent| {
        let access = wanted(access, "access")?;
        access.write(agent.access_create(IoasId::new(ioas), kind(flags)?)?.get());
        Ok(())
    })
}

/// The same, for an access that is told what to let go of before it is unmapped. What tells it is stored to `notices`;
/// close it with ioasd_notices_close().
///
/// @return 0 or a negative errno.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_access_create_with_notices(
    connection: *mut ConnectionHandle,
    ioas: u32,
    flags: u32,
    access: Option<&mut MaybeUninit<u32>>,
    notices: Option<&mut MaybeUninit<*mut NoticesHandle>>,
) -> c_int {
    call(connection, |agent| {
        let (access, notices) = (wanted(access, "access")?, wanted(notices, "notices")?);
        let (id, channel) = agent.access_create_with_notices(IoasId::new(ioas), kind(flags)?)?;
        access.write(id.get());
        notices.write(notices::open(channel));
        Ok(())
    })
}

/// Pins the pages behind `length` bytes at `iova`.
///
/// @param intent IOASD_READ, or IOASD_WRITE if they are to be written as well.
/// @return 0; -ENOENT if not all of it is mapped, -EPERM if it may not be written, -ENOMEM if a limit is in the way.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_access_pin(
    connection: *mut ConnectionHandle,
    access: u32,
    iova: u64,
    length: u64,
    intent: u32,
) -> c_int {
    call(connection, |agent| {
        let intent = match self::access(intent)? {
            Access::Read => PinIntent::Read,
            Access::Write => PinIntent::Write,
        };
        Ok(agent.access_pin(AccessId::new(access), range(iova, length)?, intent)?)
    })
}

/// Lets go of what was pinned with the same range.
///
/// @return 0; -ENOENT if it was not pinned.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_access_unpin(
    connection: *mut ConnectionHandle,
    access: u32,
    iova: u64,
    length: u64,
) -> c_int {
    call(connection, |agent| Ok(agent.access_unpin(AccessId::new(access), range(iova, length)?)?))
}

/// Reads `length` bytes at `iova`, at most 61440, into `into`. A message to the agent and back; for devices that are not
/// given the memory itself.
///
/// @return 0; -ENOENT if not all of it is mapped, -EPERM if it may not be read.
#[unsafe(no_mangle)]
#[expect(clippy::missing_safety_doc, reason = "the head of the header says what buffers are")]
pub unsafe extern "C" fn ioasd_access_read(
    connection: *mut ConnectionHandle,
    access: u32,
    iova: u64,
    into: *mut c_void,
    length: usize,
) -> c_int {
    call(connection, |agent| {
        // SAFETY: a buffer of the caller, who leaves it to us during the call.
        let into = unsafe { bytes_mut(into, length) }?;
        Ok(agent.access_read(AccessId::new(access), Iova::new(iova), into)?)
    })
}

/// Writes `length` bytes of `from`, at most 61440, to `iova`.
///
/// @return 0; -ENOENT if not all of it is mapped, -EPERM if it may not be written.
#[unsafe(no_mangle)]
#[expect(clippy::missing_safety_doc, reason = "the head of the header says what buffers are")]
pub unsafe extern "C" fn ioasd_access_write(
    connection: *mut ConnectionHandle,
    access: u32,
    iova: u64,
    from: *const c_void,
    length: usize,
) -> c_int {
    call(connection, |agent| {
        // SAFETY: a buffer of the caller, who leaves it as it is during the call.
        let from = unsafe { bytes(from, length) }?;
        Ok(agent.access_write(AccessId::new(access), Iova::new(iova), from)?)
    })
}
