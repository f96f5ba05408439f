//! The C functions that stand before those of the C library: the `open` family and `ioctl`.
//!
//! Each looks whether it is meant, and passes the call on if not. A function with variable arguments is declared with
//! the one that may follow: on this processor an argument that was not given is a register with any value, and is passed
//! on as such.
//!
//! They may be unwound through, as those of the C library: a thread can be cancelled in `open`.
//!
//! Imports allowed: call, channels, lease, memory, next, sys.

#![expect(unsafe_code, reason = "these are C functions")]

use std::ffi::{c_char, c_int, c_ulong, c_void};

use crate::lease::{self, OnExec};
use crate::memory::Address;
use crate::next::{self, Next};
use crate::sys::{Errno, Fd, errno, set_errno};
use crate::{call, channels};

/// Devices that lead to the agent.
const DEVICES: [&[u8]; 2] = [b"/dev/iommu\0", b"/dev/vfio/vfio\0"];

/// Bits 8 to 15 of an ioctl that is for iommufd or VFIO: the letter `;`.
const LETTER: u32 = 0x3b00;

/// Opens that do not use a device: the kernel answers them.
const NO_USE: c_int = libc::O_PATH | libc::O_DIRECTORY;

/// No program has memory below or above.
const USER_MEMORY: std::ops::Range<usize> = 0x1000..0x7fff_ffff_f000;

/// Runs when the shim is loaded, before `main`.
extern "C" fn loaded() {
    next::find_all();
    channels::prepare();
}

#[used]
// SAFETY: the section holds addresses of functions that are called when the library is loaded.
#[unsafe(link_section = ".init_array")]
static LOADED: extern "C" fn() = loaded;

/// Whether a path is one of the devices.
///
/// # Safety
/// `path` is a C string, or an address at which no program has memory.
unsafe fn is_device(path: *const c_char) -> bool {
    if !USER_MEMORY.contains(&path.addr()) {
        return false;
    }
    DEVICES.iter().any(|device| {
        // SAFETY: bytes are read one by one and only while they are equal, so never behind the string's end.
        device.iter().enumerate().all(|(at, byte)| unsafe { *path.add(at).cast::<u8>() } == *byte)
    })
}

/// Answers an open if it is for a device.
///
/// # Safety
/// As `open`.
unsafe fn opened(path: *const c_char, flags: c_int) -> Option<c_int> {
    // SAFETY: as the caller's.
    if !unsafe { is_device(path) } || flags & NO_USE != 0 {
        return None;
    }
    let on_exec = if flags & libc::O_CLOEXEC == 0 { OnExec::Keep } else { OnExec::Close };
    Some(returned(|| lease::open(on_exec).map(Fd::into_number)))
}

/// Runs a call as the kernel would: the result, or -1 and an errno; without an error, errno is untouched.
fn returned(call: impl FnOnce() -> Result<c_int, Errno>) -> c_int {
    let before = errno();
    let outcome = call();
    set_errno(outcome.map_or_else(Errno::raw_os_error, |_| before));
    outcome.unwrap_or(-1)
}

fn missing() -> c_int {
    set_errno(libc::ENOSYS);
    -1
}

unsafe fn open_or(next: &Next, path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: as the caller's.
    match (unsafe { opened(path, flags) }, next.open()) {
        (Some(answer), _) => answer,
        // SAFETY: the arguments are the caller's.
        (None, Some(open)) => unsafe { open(path, flags, mode) },
        (None, None) => missing(),
    }
}

unsafe fn open_at_or(
    next: &Next,
    (at, path): (c_int, *const c_char),
    flags: c_int,
    mode: libc::mode_t,
) -> c_int {
    // SAFETY: as the caller's.
    match (unsafe { opened(path, flags) }, next.open_at()) {
        (Some(answer), _) => answer,
        // SAFETY: the arguments are the caller's.
        (None, Some(open)) => unsafe { open(at, path, flags, mode) },
        (None, None) => missing(),
    }
}

/// `open`.
///
/// # Safety
/// As in C.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn open(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: as the caller's.
    unsafe { open_or(&next::OPEN, path, flags, mode) }
}

/// `open64`.
///
/// # Safety
/// As in C.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn open64(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: as the caller's.
    unsafe { open_or(&next::OPEN64, path, flags, mode) }
}

/// `openat`.
///
/// # Safety
/// As in C.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn openat(
    at: c_int,
    path: *const c_char,
    flags: c_int,
    mode: libc::mode_t,
) -> c_int {
    // SAFETY: as the caller's.
    unsafe { open_at_or(&next::OPENAT, (at, path), flags, mode) }
}

/// `openat64`.
///
/// # Safety
/// As in C.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn openat64(
    at: c_int,
    path: *const c_char,
    flags: c_int,
    mode: libc::mode_t,
) -> c_int {
    // SAFETY: as the caller's.
    unsafe { open_at_or(&next::OPENAT64, (at, path), flags, mode) }
}

/// `__open_2`: `open` without mode in a program that was built with checks.
///
/// # Safety
/// As in C.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn __open_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: as the caller's.
    unsafe { open_or(&next::OPEN_2, path, flags, 0) }
}

/// `__open64_2`.
///
/// # Safety
/// As in C.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: as the caller's.
    unsafe { open_or(&next::OPEN64_2, path, flags, 0) }
}

/// `__openat_2`.
///
/// # Safety
/// As in C.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn __openat_2(at: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: as the caller's.
    unsafe { open_at_or(&next::OPENAT_2, (at, path), flags, 0) }
}

/// `__openat64_2`.
///
/// # Safety
/// As in C.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn __openat64_2(at: c_int, path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: as the caller's.
    unsafe { open_at_or(&next::OPENAT64_2, (at, path), flags, 0) }
}

/// `ioctl`.
///
/// # Safety
/// As in C.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    // The kernel, too, looks at 32 bits only.
    #[expect(clippy::cast_possible_truncation, reason = "what the kernel does")]
    let command = request as u32;
    if command & 0xff00 == LETTER {
        let before = errno();
        if let Some(lease) = lease::of(fd) {
            set_errno(before);
            let argument = Address(argument.expose_provenance() as u64);
            return returned(|| call::ioctl(lease, command, argument));
        }
    }
    match next::IOCTL.ioctl() {
        // SAFETY: the arguments are the caller's.
        Some(ioctl) => unsafe { ioctl(fd, request, argument) },
        None => missing(),
    }
}
