//! Address spaces.
//!
//! Imports allowed: boundary, connection, constants; calls, ids and units of the client crate.
#![expect(unsafe_code, reason = "exported names")]

use std::ffi::c_int;
use std::mem::MaybeUninit;

use ioasd_client::calls::{FileSlice, Placement};
use ioasd_client::ids::{IoasId, ObjectId};
use ioasd_client::units::{ByteLen, Iova, IovaRange};

use crate::boundary::{lent, wanted};
use crate::connection::{ConnectionHandle, call};
use crate::constants::permission;
use crate::error::Misuse;

/// The `length` bytes at `iova`.
pub(crate) fn range(iova: u64, length: u64) -> Result<IovaRange, Misuse> {
    let range = IovaRange::from_length(Iova::new(iova), ByteLen::new(length));
    range.ok_or(Misuse::Argument("length", "at least 1, and the range must end below 2^64"))
}

/// Makes an IO address space. Its number is stored to `ioas`.
///
/// @return 0 or a negative errno.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_ioas_alloc(
    connection: *mut ConnectionHandle,
    ioas: Option<&mut MaybeUninit<u32>>,
) -> c_int {
    call(connection, |agent| {
        let ioas = wanted(ioas, "ioas")?;
        ioas.write(agent.ioas_alloc()?.get());
        Ok(())
    })
}

/// Destroys an object, whatever it is: an address space (with all that is mapped in it), a device, a HWPT, an access.
///
/// @return 0; -ENOENT if there is none with this number, -EBUSY if another object still needs it.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_destroy(connection: *mut ConnectionHandle, object: u32) -> c_int {
    call(connection, |agent| Ok(agent.destroy(ObjectId::new(object))?))
}

/// Maps `length` bytes of a file from `offset` on, where the agent finds room. The IOVA is stored to `iova`.
///
/// The file must be memory (a memfd, or a file of tmpfs or hugetlbfs), and its bytes must be there: write or fallocate()
/// them first. Seal it against shrinking (F_SEAL_SHRINK), or walkers are not given it. The agent keeps a descriptor of
/// its own; `fd` stays yours to close.
///
/// @param permission IOASD_READ, IOASD_WRITE or both: what devices may do.
/// @return 0; -ENOMEM if a limit is in the way or bytes are not there, -EINVAL if it is not memory, -ENOSPC if there is
/// no room.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_map_file(
    connection: *mut ConnectionHandle,
    ioas: u32,
    fd: c_int,
    offset: u64,
    length: u64,
    permission: u32,
    iova: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    call(connection, |agent| {
        let iova = wanted(iova, "iova")?;
        let (slice, permission) = (slice(fd, offset, length)?, self::permission(permission)?);
        iova.write(agent.map_file(IoasId::new(ioas), slice, permission, Placement::Any)?.get());
        Ok(())
    })
}

/// The same, at an IOVA that you choose.
///
/// @return as ioasd_map_file(); -EEXIST if something is mapped there, -EINVAL if the address is not aligned or reserved.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_map_file_at(
    connection: *mut ConnectionHandle,
    ioas: u32,
    fd: c_int,
    offset: u64,
    length: u64,
    permission: u32,
    iova: u64,
) -> c_int {
    call(connection, |agent| {
        let (slice, permission) = (slice(fd, offset, length)?, self::permission(permission)?);
        agent.map_file(IoasId::new(ioas), slice, permission, Placement::Fixed(Iova::new(iova)))?;
        Ok(())
    })
}

fn slice<'a>(fd: c_int, offset: u64, length: u64) -> Result<FileSlice<'a>, Misuse> {
    Ok(FileSlice { file: lent(fd)?, offset: ByteLen::new(offset), length: ByteLen::new(length) })
}

/// Removes what is mapped within `length` bytes at `iova`, which must not cut a mapping in two. When it returns, no device
/// looks at the memory any more: the agent has waited for every burst that might.
///
/// @param unmapped if not NULL, the number of bytes that were mapped is stored there.
/// @return 0; -ENOENT if nothing is mapped there or a mapping would be cut, -EDEADLK if this thread is in a burst or an
/// access does not let go, -ETIMEDOUT if a walker does not leave and the agent is set up not to wait longer.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_unmap(
    connection: *mut ConnectionHandle,
    ioas: u32,
    iova: u64,
    length: u64,
    unmapped: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    call(connection, |agent| {
        let bytes = agent.unmap(IoasId::new(ioas), range(iova, length)?)?;
        unmapped.map(|unmapped| unmapped.write(bytes.get()));
        Ok(())
    })
}

/// Removes everything that is mapped in an address space.
///
/// @param unmapped if not NULL, the number of bytes that were mapped is stored there.
/// @return as ioasd_unmap().
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_unmap_all(
    connection: *mut ConnectionHandle,
    ioas: u32,
    unmapped: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    call(connection, |agent| {
        let bytes = agent.unmap_all(IoasId::new(ioas))?;
        unmapped.map(|unmapped| unmapped.write(bytes.get()));
        Ok(())
    })
}

/// Shows `length` bytes at `source_iova` of the address space `source` in the address space `target` (or the same) as
/// well, where the agent finds room. The memory is pinned and charged once, however often it is shown.
///
/// @param permission not more than what the source has.
/// @return 0; -ENOENT if the source is not mapped, and as ioasd_map_file().
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_copy(
    connection: *mut ConnectionHandle,
    source: u32,
    source_iova: u64,
    length: u64,
    target: u32,
    permission: u32,
    iova: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    call(connection, |agent| {
        let iova = wanted(iova, "iova")?;
        let (from, to) = ((IoasId::new(source), range(source_iova, length)?), IoasId::new(target));
        iova.write(agent.copy(from, (to, Placement::Any), self::permission(permission)?)?.get());
        Ok(())
    })
}

/// The same, at an IOVA that you choose.
///
/// @return as ioasd_copy() and ioasd_map_file_at().
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_copy_at(
    connection: *mut ConnectionHandle,
    source: u32,
    source_iova: u64,
    length: u64,
    target: u32,
    permission: u32,
    iova: u64,
) -> c_int {
    call(connection, |agent| {
        let from = (IoasId::new(source), range(source_iova, length)?);
        let to = (IoasId::new(target), Placement::Fixed(Iova::new(iova)));
        agent.copy(from, to, self::permission(permission)?)?;
        Ok(())
    })
}
