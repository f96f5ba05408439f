//! Reading and writing by IOVA: bytes, and words that others read and write at the same time.
//!
//! Imports allowed: boundary, error, shell; walker, mapping and units of the client crate.
#![expect(unsafe_code, reason = "exported names, buffers, and pointers to streams")]
#![expect(clippy::missing_safety_doc, reason = "the head of the header says what streams and buffers are")]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;

use ioasd_client::mapping::{SharedSlice, Word};
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::walker::Access;

use crate::boundary::{boundary, bytes, bytes_mut, wanted};
use crate::error::{Failure, Misuse};
use crate::shell::StreamHandle;

/// Copies `length` bytes at `iova` to `into`. Bytes that others change meanwhile may arrive old or new. Only in a burst.
///
/// @return as ioasd_translate(); bytes before the one that cannot be reached are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_read(
    stream: *mut StreamHandle,
    iova: u64,
    into: *mut c_void,
    length: usize,
) -> c_int {
    boundary(|| {
        // SAFETY: the caller has it from ioasd_stream_open.
        let shell = unsafe { StreamHandle::at(stream) }?;
        // SAFETY: a buffer of the caller, who leaves it to us during the call.
        let into = unsafe { bytes_mut(into, length) }?;
        shell.burst()?.read(Iova::new(iova), into).map_err(|fault| shell.faulted(fault))
    })
}

/// Copies `length` bytes of `from` to `iova`. Only in a burst.
///
/// @return as ioasd_translate(); bytes before the one that cannot be reached are copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_write(
    stream: *mut StreamHandle,
    iova: u64,
    from: *const c_void,
    length: usize,
) -> c_int {
    boundary(|| {
        // SAFETY: the caller has it from ioasd_stream_open.
        let shell = unsafe { StreamHandle::at(stream) }?;
        // SAFETY: a buffer of the caller, who leaves it as it is during the call.
        let from = unsafe { bytes(from, length) }?;
        shell.burst()?.write(Iova::new(iova), from).map_err(|fault| shell.faulted(fault))
    })
}

/// Does something with the word at `iova`, which lies in one piece if it is aligned.
#[inline]
fn with_word<W: Word, R>(
    stream: Result<&StreamHandle, Misuse>,
    iova: u64,
    access: Access,
    act: impl FnOnce(SharedSlice<'_>) -> Option<R>,
) -> Result<R, Failure> {
    let (shell, bytes) = (stream?, size_of::<W>());
    let slice = shell.burst()?.slice(Iova::new(iova), ByteLen::new(bytes as u64), access);
    let memory = slice.map_err(|fault| shell.faulted(fault))?.memory;
    Ok(act(memory).ok_or(Misuse::Misaligned { iova, bytes })?)
}

#[inline]
fn load<W: Word>(
    stream: Result<&StreamHandle, Misuse>,
    iova: u64,
    value: Option<&mut MaybeUninit<W>>,
) -> c_int {
    boundary(|| {
        let value = wanted(value, "value")?;
        value.write(with_word::<W, W>(stream, iova, Access::Read, |memory| memory.load(0))?);
        Ok(())
    })
}

#[inline]
fn store<W: Word>(stream: Result<&StreamHandle, Misuse>, iova: u64, value: W) -> c_int {
    boundary(|| with_word::<W, ()>(stream, iova, Access::Write, |memory| memory.store(0, value)))
}

/// Loads the 16 bits at `iova`, in the order of this machine's bytes, with acquire: what their writer wrote before them is
/// seen after them. For the indexes of rings, which others write at the same time. Only in a burst.
///
/// @return as ioasd_translate(); -EINVAL if the address is not a multiple of their length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_load_u16(
    stream: *mut StreamHandle,
    iova: u64,
    value: Option<&mut MaybeUninit<u16>>,
) -> c_int {
    // SAFETY: the caller has it from ioasd_stream_open.
    load(unsafe { StreamHandle::at(stream) }, iova, value)
}

/// The same with 32 bits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_load_u32(
    stream: *mut StreamHandle,
    iova: u64,
    value: Option<&mut MaybeUninit<u32>>,
) -> c_int {
    // SAFETY: the caller has it from ioasd_stream_open.
    load(unsafe { StreamHandle::at(stream) }, iova, value)
}

/// The same with 64 bits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_load_u64(
    stream: *mut StreamHandle,
    iova: u64,
    value: Option<&mut MaybeUninit<u64>>,
) -> c_int {
    // SAFETY: the caller has it from ioasd_stream_open.
    load(unsafe { StreamHandle::at(stream) }, iova, value)
}

/// Stores 16 bits to `iova`, in the order of this machine's bytes, with release: whoever sees them sees what was written
/// before them. Only in a burst.
///
/// @return as ioasd_translate(); -EINVAL if the address is not a multiple of their length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_store_u16(stream: *mut StreamHandle, iova: u64, value: u16) -> c_int {
    // SAFETY: the caller has it from ioasd_stream_open.
    store(unsafe { StreamHandle::at(stream) }, iova, value)
}

/// The same with 32 bits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_store_u32(stream: *mut StreamHandle, iova: u64, value: u32) -> c_int {
    // SAFETY: the caller has it from ioasd_stream_open.
    store(unsafe { StreamHandle::at(stream) }, iova, value)
}

/// The same with 64 bits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_store_u64(stream: *mut StreamHandle, iova: u64, value: u64) -> c_int {
    // SAFETY: the caller has it from ioasd_stream_open.
    store(unsafe { StreamHandle::at(stream) }, iova, value)
}
