//! The functions that would have been called without us: the next library in the search order that has them.
//!
//! They are looked up when the shim is loaded, because looking up is not safe everywhere a program may call from.
//!
//! Imports allowed: `libc`.

#![expect(unsafe_code, reason = "functions of other libraries are called by their address")]

use std::ffi::{CStr, c_char, c_int, c_ulong, c_void};
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{off_t, size_t, ssize_t};

/// `open`, `open64`.
pub(crate) type Open = unsafe extern "C-unwind" fn(*const c_char, c_int, ...) -> c_int;
/// `openat`, `openat64`.
pub(crate) type OpenAt = unsafe extern "C-unwind" fn(c_int, *const c_char, c_int, ...) -> c_int;
/// `read`.
pub(crate) type Read = unsafe extern "C-unwind" fn(c_int, *mut c_void, size_t) -> ssize_t;
/// `__read_chk`.
pub(crate) type ReadChecked = unsafe extern "C-unwind" fn(c_int, *mut c_void, size_t, size_t) -> ssize_t;
/// `write`.
pub(crate) type Write = unsafe extern "C-unwind" fn(c_int, *const c_void, size_t) -> ssize_t;
/// `mmap`, `mmap64`.
pub(crate) type Mmap =
    unsafe extern "C-unwind" fn(*mut c_void, size_t, c_int, c_int, c_int, off_t) -> *mut c_void;
/// `ioctl`.
pub(crate) type Ioctl = unsafe extern "C-unwind" fn(c_int, c_ulong, ...) -> c_int;

/// A function of another library.
pub(crate) struct Next {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

/// `open`.
pub(crate) static OPEN: Next = Next::new(c"open");
/// `open64`.
pub(crate) static OPEN64: Next = Next::new(c"open64");
/// `openat`.
pub(crate) static OPENAT: Next = Next::new(c"openat");
/// `openat64`.
pub(crate) static OPENAT64: Next = Next::new(c"openat64");
/// `__open_2`.
pub(crate) static OPEN_2: Next = Next::new(c"__open_2");
/// `__open64_2`.
pub(crate) static OPEN64_2: Next = Next::new(c"__open64_2");
/// `__openat_2`.
pub(crate) static OPENAT_2: Next = Next::new(c"__openat_2");
/// `__openat64_2`.
pub(crate) static OPENAT64_2: Next = Next::new(c"__openat64_2");
/// `read`.
pub(crate) static READ: Next = Next::new(c"read");
/// `__read_chk`.
pub(crate) static READ_CHECKED: Next = Next::new(c"__read_chk");
/// `write`.
pub(crate) static WRITE: Next = Next::new(c"write");
/// `mmap`.
pub(crate) static MMAP: Next = Next::new(c"mmap");
/// `mmap64`.
pub(crate) static MMAP64: Next = Next::new(c"mmap64");
/// `ioctl`.
pub(crate) static IOCTL: Next = Next::new(c"ioctl");

const ALL: [&Next; 14] = [
    &OPEN,
    &OPEN64,
    &OPENAT,
    &OPENAT64,
    &OPEN_2,
    &OPEN64_2,
    &OPENAT_2,
    &OPENAT64_2,
    &READ,
    &READ_CHECKED,
    &WRITE,
    &MMAP,
    &MMAP64,
    &IOCTL,
];

/// Looks all of them up.
pub(crate) fn find_all() {
    for next in ALL {
        next.address();
    }
}

impl Next {
    const fn new(name: &'static CStr) -> Self {
        Self { name, found: AtomicPtr::new(null_mut()) }
    }

    /// Its address; null if no library has it.
    fn address(&self) -> *mut c_void {
        let known = self.found.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name is a C string, and RTLD_NEXT asks for the libraries behind this one.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.found.store(found, Ordering::Relaxed);
        found
    }

    /// As one of the `open` family without directory.
    pub(crate) fn open(&self) -> Option<Open> {
        // SAFETY: used only for functions of this signature, and a null address is no function.
        unsafe { transmute::<*mut c_void, Option<Open>>(self.address()) }
    }

    /// As one of the `open` family with directory.
    pub(crate) fn open_at(&self) -> Option<OpenAt> {
        // SAFETY: used only for functions of this signature, and a null address is no function.
        unsafe { transmute::<*mut c_void, Option<OpenAt>>(self.address()) }
    }

    /// As `read`.
    pub(crate) fn read(&self) -> Option<Read> {
        // SAFETY: used only for functions of this signature, and a null address is no function.
        unsafe { transmute::<*mut c_void, Option<Read>>(self.address()) }
    }

    /// As `__read_chk`.
    pub(crate) fn read_checked(&self) -> Option<ReadChecked> {
        // SAFETY: used only for functions of this signature, and a null address is no function.
        unsafe { transmute::<*mut c_void, Option<ReadChecked>>(self.address()) }
    }

    /// As `write`.
    pub(crate) fn write(&self) -> Option<Write> {
        // SAFETY: used only for functions of this signature, and a null address is no function.
        unsafe { transmute::<*mut c_void, Option<Write>>(self.address()) }
    }

    /// As `mmap`, if it was found already: looking up may need memory, for which a program's allocator may call `mmap`.
    pub(crate) fn mmap_found(&self) -> Option<Mmap> {
        // SAFETY: used only for functions of this signature, and a null address is no function.
        unsafe { transmute::<*mut c_void, Option<Mmap>>(self.found.load(Ordering::Relaxed)) }
    }

    /// As `ioctl`.
    pub(crate) fn ioctl(&self) -> Option<Ioctl> {
        // SAFETY: used only for functions of this signature, and a null address is no function.
        unsafe { transmute::<*mut c_void, Option<Ioctl>>(self.address()) }
    }
}
