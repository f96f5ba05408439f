//! The last failure of each thread, and what the library says about itself.
//!
//! Nothing is put into words before it is asked for: faults are everyday life for a device.
//!
//! Imports allowed: constants, error.
#![expect(unsafe_code, reason = "exported names")]

use std::cell::RefCell;
use std::error::Error;
use std::ffi::{CStr, CString, c_char, c_int};

use crate::constants::IOASD_ABI;
use crate::error::Failure;

/// The last failure of a thread, and what was said about it.
struct Last {
    failure: Option<Failure>,
    text: Option<CString>,
    code: Option<CString>,
}

thread_local! {
    static LAST: RefCell<Last> = const { RefCell::new(Last { failure: None, text: None, code: None }) };
}

/// Keeps `failure` for this thread, and makes it what a function returns.
pub(crate) fn failed(failure: Failure) -> c_int {
    let errno = failure.errno().raw_os_error();
    let last = Last { failure: Some(failure), text: None, code: None };
    // A thread that is ending keeps nothing any more.
    drop(LAST.try_with(|place| place.replace(last)));
    -errno
}

/// What is `said` about the last failure, in words that `say` finds when they are asked for first.
fn about_the_last(
    said: impl FnOnce(&mut Last) -> &mut Option<CString>,
    say: impl FnOnce(&Failure) -> String,
) -> *const c_char {
    let found = LAST.try_with(|last| {
        let last = &mut *last.borrow_mut();
        let words = last.failure.as_ref().map(say).unwrap_or_default().replace('\0', "?");
        said(last).get_or_insert_with(|| CString::new(words).unwrap_or_default()).as_ptr()
    });
    found.unwrap_or(c"".as_ptr())
}

/// `failure` and what led to it.
fn in_words(failure: &Failure) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What the last function that failed on this thread has to say, in words for people: which object, which range, what
/// was found, what to do. "" if none has failed. Good until another function fails on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_error_text() -> *const c_char {
    about_the_last(|last| &mut last.text, in_words)
}

/// The name of the kind of error with which the last function failed on this thread, for programs: the agent's code, such
/// as "no-such-object", or one of this library, such as "not-in-burst". Names do not change between versions. "" if none
/// has failed. Good until another function fails on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_error_code() -> *const c_char {
    about_the_last(|last| &mut last.code, |failure| failure.code().to_owned())
}

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version has no zero bytes"),
};

/// The version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The interface of the library: the IOASD_ABI of the header it was built with.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_abi() -> u32 {
    IOASD_ABI
}
