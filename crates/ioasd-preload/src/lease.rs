//! Leases: what a program holds as its open `/dev/iommu`.
//!
//! A lease is a socket, connected to the agent and bound to an abstract name that only leases have: `PREFIX` and 64
//! random bits. The name makes it known again wherever its descriptor goes, also in another process or container, and
//! tells one lease from another. Nothing is ever sent to a socket without such a name.
//!
//! Imports allowed: memory, place, report, `libc`, rustix.

#![expect(unsafe_code, reason = "descriptors come as numbers")]

use std::ffi::c_int;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, socket_with,
};

use crate::memory::result;
use crate::place::Place;
use crate::report;

/// What every lease's name begins with.
const PREFIX: &[u8] = b"ioasd/lease/";

/// Random bytes that follow.
const KEY_BYTES: usize = size_of::<u64>();

/// Names that are tried; one is taken only if the same 64 bits were drawn before.
const TRIES: usize = 4;

/// Tells a lease from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseKey(u64);

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
pub(crate) struct Lease<'fd> {
    /// The descriptor.
    pub(crate) fd: BorrowedFd<'fd>,
    /// Which lease it is.
    pub(crate) key: LeaseKey,
}

/// Connects to the agent.
///
/// # Errors
/// ENOENT if there is no agent, which is said on standard error; EMFILE or ENFILE if descriptors are short.
pub(crate) fn open(on_exec: OnExec) -> Result<OwnedFd, Errno> {
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

fn connected(path: &[u8], on_exec: OnExec) -> Result<OwnedFd, Errno> {
    let flags = match on_exec {
        OnExec::Close => SocketFlags::CLOEXEC,
        OnExec::Keep => SocketFlags::empty(),
    };
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    give_name(&socket)?;
    let agent = SocketAddrUnix::new(path)?;
    retry_on_intr(|| connect(&socket, &agent))?;
    Ok(socket)
}

fn give_name(socket: &OwnedFd) -> Result<(), Errno> {
    let mut outcome = Err(Errno::ADDRINUSE);
    for _ in 0..TRIES {
        outcome = bind(socket, &SocketAddrUnix::new_abstract_name(&name(random_key()?))?);
        if outcome != Err(Errno::ADDRINUSE) {
            break;
        }
    }
    outcome
}

fn random_key() -> Result<LeaseKey, Errno> {
    let mut bytes = [0; KEY_BYTES];
    retry_on_intr(|| {
        let (start, len, flags) = (bytes.as_mut_ptr(), bytes.len(), 0);
        // SAFETY: the buffer is ours and has that many bytes.
        result(unsafe { libc::syscall(libc::SYS_getrandom, start, len, flags) })
    })?;
    Ok(LeaseKey(u64::from_ne_bytes(bytes)))
}

/// The lease that `fd` is, if it is one.
pub(crate) fn of(fd: c_int) -> Option<Lease<'static>> {
    if fd < 0 {
        return None;
    }
    // SAFETY: not -1. The caller of the C function vouches for the descriptor as long as the call lasts; if it is not
    // open, the kernel says so.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let own = SocketAddrUnix::try_from(getsockname(fd).ok()?).ok()?;
    Some(Lease { fd, key: key(own.abstract_name()?)? })
}

fn name(LeaseKey(key): LeaseKey) -> [u8; PREFIX.len() + KEY_BYTES] {
    let mut name = [0; PREFIX.len() + KEY_BYTES];
    for (to, from) in name.iter_mut().zip(PREFIX.iter().chain(&key.to_be_bytes())) {
        *to = *from;
    }
    name
}

fn key(name: &[u8]) -> Option<LeaseKey> {
    let key = <[u8; KEY_BYTES]>::try_from(name.strip_prefix(PREFIX)?).ok()?;
    Some(LeaseKey(u64::from_be_bytes(key)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_name_leads_back_to_its_key_and_other_names_to_none() {
        for bits in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            assert_eq!(key(&name(LeaseKey(bits))), Some(LeaseKey(bits)));
        }
        for other in [&b"ioasd/lease/0123456"[..], b"ioasd/lease/012345678", b"other/lease/01234567", b""] {
            assert_eq!(key(other), None);
        }
    }

    #[test]
    fn only_a_named_socket_is_a_lease() {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        assert!(of(socket.as_raw_fd()).is_none(), "a socket without name");
        give_name(&socket).unwrap();
        let copy = socket.try_clone().unwrap();
        assert_eq!(of(socket.as_raw_fd()).unwrap().key, of(copy.as_raw_fd()).unwrap().key);
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        for other in [-1, i32::MAX, pipe.as_raw_fd()] {
            assert!(of(other).is_none(), "descriptor {other}");
        }
    }
}
