//! Leases: what a program holds as its open `/dev/iommu`.
//!
//! A lease is a socket, connected to the agent and bound to an abstract name that only leases have: `PREFIX` and 64
//! random bits. The name makes it known again wherever its descriptor goes, also in another process or container, and
//! tells one lease from another. Nothing is ever sent to a socket without such a name.
//!
//! Imports allowed: place, report, sys.

use std::ffi::c_int;

use crate::place::Place;
use crate::report;
use crate::sys::{self, Errno, Fd};

/// What every lease's name begins with.
const PREFIX: &[u8] = b"ioasd/lease/";

/// Random bytes that follow.
const KEY_BYTES: usize = size_of::<u64>();

/// Names that are tried; one is taken only if the same 64 bits were drawn before.
const TRIES: usize = 4;

/// Tells a lease from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseKey(u64);

impl LeaseKey {
    /// Tells a lease in one process from every other, and is not 0.
    pub(crate) fn mixed_with(self, process: c_int) -> u64 {
        (self.0 ^ u64::from(process.cast_unsigned()).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1
    }
}

/// Whether a descriptor survives exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnExec {
    /// It is closed.
    Close,
    /// It stays open.
    Keep,
}

/// A descriptor that is a lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    /// The descriptor.
    pub(crate) fd: c_int,
    /// Which lease it is.
    pub(crate) key: LeaseKey,
}

/// Connects to the agent.
///
/// # Errors
/// ENOENT if there is no agent, which is said on standard error; EMFILE or ENFILE if descriptors are short.
pub(crate) fn open(on_exec: OnExec) -> Result<Fd, Errno> {
    let Some(place) = Place::of_process() else {
        report::no_agent(b"$IOASD_SOCKET", Errno::NAMETOOLONG);
        return Err(Errno::NOENT);
    };
    match connected(place.path(), on_exec) {
        Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => Err(errno),
        Err(errno) => {
            report::no_agent(place.path(), errno);
            Err(Errno::NOENT)
        }
        Ok(lease) => Ok(lease),
    }
}

fn connected(path: &[u8], on_exec: OnExec) -> Result<Fd, Errno> {
    let socket = sys::socket(match on_exec {
        OnExec::Close => libc::SOCK_CLOEXEC,
        OnExec::Keep => 0,
    })?;
    give_name(&socket)?;
    sys::connect(&socket, path)?;
    Ok(socket)
}

fn give_name(socket: &Fd) -> Result<(), Errno> {
    let mut outcome = Err(Errno::ADDRINUSE);
    for _ in 0..TRIES {
        outcome = sys::bind_abstract(socket, &name(LeaseKey(u64::from_be_bytes(sys::random()?))));
        if outcome != Err(Errno::ADDRINUSE) {
            break;
        }
    }
    outcome
}

/// The lease that `fd` is, if it is one.
pub(crate) fn of(fd: c_int) -> Option<Lease> {
    let key = sys::abstract_name(fd)?.behind(PREFIX)?;
    Some(Lease { fd, key: LeaseKey(u64::from_be_bytes(key)) })
}

fn name(LeaseKey(key): LeaseKey) -> [u8; PREFIX.len() + KEY_BYTES] {
    let mut name = [0; PREFIX.len() + KEY_BYTES];
    for (to, from) in name.iter_mut().zip(PREFIX.iter().chain(&key.to_be_bytes())) {
        *to = *from;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_named_socket_is_a_lease() {
        let socket = sys::socket(libc::SOCK_CLOEXEC).unwrap();
        assert!(of(socket.number()).is_none(), "a socket without name");
        give_name(&socket).unwrap();
        let copy = sys::duplicate_from(&socket, 100).unwrap();
        assert_eq!(of(socket.number()).unwrap().key, of(copy.number()).unwrap().key);
        let other = sys::socket(libc::SOCK_CLOEXEC).unwrap();
        sys::bind_abstract(&other, &[b"other/lease/".as_slice(), &sys::random::<8>().unwrap()].concat())
            .unwrap();
        let (pipe, _) = sys::pipe().unwrap();
        for other in [-1, i32::MAX, pipe.number(), other.number()] {
            assert!(of(other).is_none(), "descriptor {other}");
        }
    }
}
