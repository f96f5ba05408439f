//! What comes from C and goes to C.
//!
//! Imports allowed: error, last, rustix.
#![expect(unsafe_code, reason = "pointers and descriptors of C")]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::{ffi::OsStr, os::unix::ffi::OsStrExt, slice};

use crate::error::{Failure, Misuse};
use crate::last::failed;

/// Does `work`, and gives what a function returns: its result or 0, else a negative errno. Panics end here.
#[inline]
pub(crate) fn boundary<R: Returned>(work: impl FnOnce() -> Result<R, Failure>) -> c_int {
    contained(|| match work() {
        Ok(result) => result.returned(),
        Err(failure) => failed(failure),
    })
}

/// The same for `work` that has called [`failed`] itself if it had to, and so needs no room for a [`Failure`].
#[inline]
pub(crate) fn contained(work: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| failed(Failure::Panicked))
}

/// What a function returns that succeeded.
pub(crate) trait Returned {
    /// As a number that is not negative.
    fn returned(self) -> c_int;
}

impl Returned for () {
    #[inline]
    fn returned(self) -> c_int {
        0
    }
}

impl Returned for c_int {
    #[inline]
    fn returned(self) -> c_int {
        self
    }
}

/// Where a result goes. To be asked for before anything is done.
#[inline]
pub(crate) fn wanted<'a, T>(place: Option<&'a mut T>, name: &'static str) -> Result<&'a mut T, Misuse> {
    place.ok_or(Misuse::Null(name))
}

/// A descriptor that stays the caller's.
pub(crate) fn lent<'a>(fd: c_int) -> Result<BorrowedFd<'a>, Misuse> {
    if fd < 0 {
        return Err(Misuse::NotOpen("file descriptor"));
    }
    // SAFETY: it is not -1. The caller keeps it open during the call, as the header asks; if not, the kernel says so.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// A descriptor of our own for what the caller keeps open as well.
pub(crate) fn duplicated(fd: c_int) -> Result<OwnedFd, Failure> {
    let duplicate = rustix::io::fcntl_dupfd_cloexec(lent(fd)?, 3);
    duplicate.map_err(|errno| Failure::Sys("duplicate the descriptor", errno))
}

/// A path.
///
/// # Safety
/// `text` is null or ends with a zero byte, and stays as it is for `'a`.
pub(crate) unsafe fn path<'a>(text: *const c_char, name: &'static str) -> Result<&'a Path, Misuse> {
    if text.is_null() {
        return Err(Misuse::Null(name));
    }
    // SAFETY: see above.
    let text = unsafe { CStr::from_ptr(text) };
    Ok(Path::new(OsStr::from_bytes(text.to_bytes())))
}

/// Bytes to be read.
///
/// # Safety
/// `start` is null, or `length` bytes there stay as they are for `'a`.
pub(crate) unsafe fn bytes<'a>(start: *const c_void, length: usize) -> Result<&'a [u8], Misuse> {
    match (start.is_null(), length) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Misuse::Null("from")),
        // SAFETY: see above; no object is larger than isize::MAX.
        (false, _) => Ok(unsafe { slice::from_raw_parts(start.cast(), length) }),
    }
}

/// Bytes to be written.
///
/// # Safety
/// `start` is null, or `length` bytes there are nobody else's for `'a`.
pub(crate) unsafe fn bytes_mut<'a>(start: *mut c_void, length: usize) -> Result<&'a mut [u8], Misuse> {
    match (start.is_null(), length) {
        (_, 0) => Ok(&mut []),
        (true, _) => Err(Misuse::Null("into")),
        // SAFETY: see above; any bytes are valid as u8, and what C allocated has some.
        (false, _) => Ok(unsafe { slice::from_raw_parts_mut(start.cast(), length) }),
    }
}
