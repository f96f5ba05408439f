//! The C functions that stand before those of the C library: the `open` family, `ioctl`, `read`, `write` and `mmap`.
//!
//! Each looks whether it is meant, and passes the call on if not. A function with variable arguments is declared with
//! the one that may follow: on this processor an argument that was not given is a register with any value, and is passed
//! on as such.
//!
//! They may be unwound through, as those of the C library: a thread can be cancelled in `open`.
//!
//! Imports allowed: call, channels, events, lease, memory, next, region, sys.

#![expect(unsafe_code, reason = "these are C functions")]

use std::ffi::{c_char, c_int, c_ulong, c_void};

use libc::{off_t, size_t, ssize_t};

use crate::lease::{self, Device, OnExec};
use crate::memory::{Address, Range};
use crate::next::{self, Next};
use crate::region::{self, Wanted};
use crate::sys::{Errno, Fd, errno, set_errno};
use crate::{call, channels, events};

/// Devices that lead to the agent.
const DEVICES: [(&[u8], Device); 2] =
    [(b"/dev/iommu\0", Device::Iommu), (b"/dev/vfio/vfio\0", Device::Container)];

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

/// Which of the devices a path is, if it is one.
///
/// # Safety
/// `path` is a C string, or an address at which no program has memory.
unsafe fn device_at(path: *const c_char) -> Option<Device> {
    if !USER_MEMORY.contains(&path.addr()) {
        return None;
    }
    let is_at = |name: &[u8]| {
        // SAFETY: bytes are read one by one and only while they are equal, so never behind the string's end.
        name.iter().enumerate().all(|(at, byte)| unsafe { *path.add(at).cast::<u8>() } == *byte)
    };
    DEVICES.into_iter().find(|(name, _)| is_at(name)).map(|(_, device)| device)
}

/// Answers an open if it is for a device.
///
/// # Safety
/// As `open`.
unsafe fn opened(path: *const c_char, flags: c_int) -> Option<c_int> {
    if flags & NO_USE != 0 {
        return None;
    }
    // SAFETY: as the caller's.
    let device = unsafe { device_at(path) }?;
    let on_exec = if flags & libc::O_CLOEXEC == 0 { OnExec::Keep } else { OnExec::Close };
    Some(returned(|| lease::open(device, on_exec).map(Fd::into_number)))
}

/// Runs a call as the kernel would: the result, or -1 and an errno; without an error, errno is untouched.
fn returned<T: From<i8>>(call: impl FnOnce() -> Result<T, Errno>) -> T {
    let before = errno();
    match call() {
        Ok(value) => {
            set_errno(before);
            value
        }
        Err(error) => {
            set_errno(error.raw_os_error());
            T::from(-1)
        }
    }
}

fn missing<T: From<i8>>() -> T {
    returned(|| Err(Errno::NOSYS))
}

/// Answers a read or write if it is of a queue of events.
fn of_queue(fd: c_int, call: impl FnOnce() -> Result<usize, Errno>) -> Option<ssize_t> {
    if !events::expected() {
        return None;
    }
    let before = errno();
    let is_queue = events::is_queue(fd);
    set_errno(before);
    is_queue.then(|| returned(|| call().map(|count| ssize_t::try_from(count).unwrap_or(ssize_t::MAX))))
}

fn range(start: *const c_void, len: size_t) -> Range {
    Range { start: Address(start.expose_provenance() as u64), len }
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

/// `read`.
///
/// # Safety
/// As in C.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn read(fd: c_int, buffer: *mut c_void, count: size_t) -> ssize_t {
    match (of_queue(fd, || events::read(fd, range(buffer, count))), next::READ.read()) {
        (Some(answer), _) => answer,
        // SAFETY: the arguments are the caller's.
        (None, Some(read)) => unsafe { read(fd, buffer, count) },
        (None, None) => missing(),
    }
}

/// `__read_chk`: `read` in a program that was built with checks.
///
/// # Safety
/// As in C.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn __read_chk(
    fd: c_int,
    buffer: *mut c_void,
    count: size_t,
    room: size_t,
) -> ssize_t {
    let answer = if count > room { None } else { of_queue(fd, || events::read(fd, range(buffer, count))) };
    match (answer, next::READ_CHECKED.read_checked()) {
        (Some(answer), _) => answer,
        // SAFETY: the arguments are the caller's.
        (None, Some(read)) => unsafe { read(fd, buffer, count, room) },
        (None, None) => missing(),
    }
}

/// `write`.
///
/// # Safety
/// As in C.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn write(fd: c_int, buffer: *const c_void, count: size_t) -> ssize_t {
    match (of_queue(fd, || events::write(fd, range(buffer, count))), next::WRITE.write()) {
        (Some(answer), _) => answer,
        // SAFETY: the arguments are the caller's.
        (None, Some(write)) => unsafe { write(fd, buffer, count) },
        (None, None) => missing(),
    }
}

/// The kernel maps no socket. So it is asked first, and only what it refuses as it refuses a socket can be ours.
///
/// # Safety
/// As `mmap`.
unsafe fn mmap_or(next: &Next, wanted: Wanted) -> *mut c_void {
    let Wanted { start, length, protection, flags, fd, offset } = wanted;
    let mapped = match next.mmap_found() {
        // SAFETY: the arguments are the caller's.
        Some(mmap) => unsafe { mmap(start, length, protection, flags, fd, offset) },
        None => mapped(|| wanted.as_it_is()),
    };
    if mapped != libc::MAP_FAILED || !matches!(errno(), libc::ENODEV | libc::EPERM) {
        return mapped;
    }
    match lease::of(fd) {
        Some(lease) => self::mapped(|| region::map(lease, wanted)),
        None => mapped,
    }
}

/// An address, or `MAP_FAILED` and an errno.
fn mapped(map: impl FnOnce() -> Result<usize, Errno>) -> *mut c_void {
    map().map_or_else(
        |error| {
            set_errno(error.raw_os_error());
            libc::MAP_FAILED
        },
        std::ptr::with_exposed_provenance_mut,
    )
}

/// `mmap`.
///
/// # Safety
/// As in C.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn mmap(
    start: *mut c_void,
    length: size_t,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: as the caller's.
    unsafe { mmap_or(&next::MMAP, Wanted { start, length, protection, flags, fd, offset }) }
}

/// `mmap64`.
///
/// # Safety
/// As in C.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C-unwind" fn mmap64(
    start: *mut c_void,
    length: size_t,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: as the caller's.
    unsafe { mmap_or(&next::MMAP64, Wanted { start, length, protection, flags, fd, offset }) }
}
