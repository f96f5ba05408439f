//! Where the agent's socket is: `$IOASD_SOCKET`, else where an agent of this user listens by default.
//!
//! The same rule as the agent's own; `ioasd run` always sets the variable.
//!
//! Imports allowed: sys, `libc`.

#![expect(unsafe_code, reason = "the environment is read without allocating")]

use std::ffi::CStr;

use crate::sys::is_root;

/// A socket path has at most this many bytes.
const PATH_MAX: usize = 107;

/// A path, without allocation.
pub(crate) struct Place {
    bytes: [u8; PATH_MAX],
    len: usize,
}

impl Place {
    /// The place by the rule at the head of this module; `None` if it is too long for a socket.
    pub(crate) fn of_process() -> Option<Self> {
        if let Some(path) = variable(c"IOASD_SOCKET") {
            return Self::joined(path, b"");
        }
        if is_root() {
            return Self::joined(b"/run/ioasd", b"/ioasd.sock");
        }
        match variable(c"XDG_RUNTIME_DIR").filter(|folder| folder.first() == Some(&b'/')) {
            Some(folder) => Self::joined(folder, b"/ioasd/ioasd.sock"),
            None => Self::joined(b"./.ioasd", b"/ioasd.sock"),
        }
    }

    fn joined(folder: &[u8], rest: &[u8]) -> Option<Self> {
        let mut bytes = [0; PATH_MAX];
        let mut room = bytes.iter_mut();
        for byte in folder.iter().chain(rest) {
            *room.next()? = *byte;
        }
        Some(Self { bytes, len: folder.len().saturating_add(rest.len()) })
    }

    /// The path.
    pub(crate) fn path(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// A variable of the environment; an empty one counts as unset.
fn variable(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: the name is a C string.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: a value of the environment is a C string; nobody changes it while a program opens a device.
    let value = unsafe { CStr::from_ptr(value) }.to_bytes();
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_no_socket_can_have_is_none() {
        assert_eq!(Place::joined(b"/run", b"/x").unwrap().path(), b"/run/x");
        assert_eq!(Place::joined(&[b'a'; 100], b"1234567").unwrap().path().len(), PATH_MAX);
        assert!(Place::joined(&[b'a'; 100], b"12345678").is_none());
    }
}
