//! Leases: what a program holds as its open `/dev/iommu`.
//!
//! A lease is a socket, connected to the agent and bound to an abstract name that only leases have: what it was opened
//! as, and 64 random bits. The name makes it known again wherever its descriptor goes, also in another process or container, and
//! tells one lease from another. Nothing is ever sent to a socket without such a name.
//!
//! Imports allowed: place, report, sys, the client crate's wire.

use std::ffi::c_int;

use ioasd_client::wire::channels::{CONTAINER_NAME, LEASE_KEY_BYTES, LEASE_NAME};

use crate::place::Place;
use crate::report;
use crate::sys::{self, Errno, Fd};

/// Bytes of the longest name.
const NAME_MAX: usize = CONTAINER_NAME.len() + LEASE_KEY_BYTES;

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

/// What a program opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// `/dev/iommu`.
    Iommu,
    /// `/dev/vfio/vfio`.
    Container,
}

impl Device {
    /// What the names of its leases begin with.
    const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Iommu => LEASE_NAME,
            Self::Container => CONTAINER_NAME,
        }
    }
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
pub(crate) fn open(device: Device, on_exec: OnExec) -> Result<Fd, Errno> {
    let Some(place) = Place::of_process() else {
        report::no_agent(b"$IOASD_SOCKET", Errno::NAMETOOLONG);
        return Err(Errno::NOENT);
    };
    match connected(place.path(), device, on_exec) {
        Err(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => Err(errno),
        Err(errno) => {
            report::no_agent(place.path(), errno);
            Err(Errno::NOENT)
        }
        Ok(lease) => Ok(lease),
    }
}

fn connected(path: &[u8], device: Device, on_exec: OnExec) -> Result<Fd, Errno> {
    let socket = sys::socket(match on_exec {
        OnExec::Close => libc::SOCK_CLOEXEC,
        OnExec::Keep => 0,
    })?;
    give_name(&socket, device)?;
    sys::connect(&socket, path)?;
    Ok(socket)
}

fn give_name(socket: &Fd, device: Device) -> Result<(), Errno> {
    let mut outcome = Err(Errno::ADDRINUSE);
    for _ in 0..TRIES {
        let (name, len) = name(device, sys::random()?);
        outcome = sys::bind_abstract(socket, name.get(..len).unwrap_or_default());
        if outcome != Err(Errno::ADDRINUSE) {
            break;
        }
    }
    outcome
}

/// The lease that `fd` is, if it is one.
pub(crate) fn of(fd: c_int) -> Option<Lease> {
    let name = sys::abstract_name(fd)?;
    let key = name.behind(LEASE_NAME).or_else(|| name.behind(CONTAINER_NAME))?;
    Some(Lease { fd, key: LeaseKey(u64::from_be_bytes(key)) })
}

/// A name, and how long it is.
fn name(device: Device, key: [u8; LEASE_KEY_BYTES]) -> ([u8; NAME_MAX], usize) {
    let mut name = [0; NAME_MAX];
    for (to, from) in name.iter_mut().zip(device.prefix().iter().chain(&key)) {
        *to = *from;
    }
    (name, device.prefix().len() + LEASE_KEY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_named_socket_is_a_lease() {
        let socket = sys::socket(libc::SOCK_CLOEXEC).unwrap();
        assert!(of(socket.number()).is_none(), "a socket without name");
        give_name(&socket, Device::Iommu).unwrap();
        let copy = sys::duplicate_from(&socket, 100).unwrap();
        assert_eq!(of(socket.number()).unwrap().key, of(copy.number()).unwrap().key);
        let container = sys::socket(libc::SOCK_CLOEXEC).unwrap();
        give_name(&container, Device::Container).unwrap();
        assert_ne!(of(container.number()).unwrap().key, of(socket.number()).unwrap().key);
        let other = sys::socket(libc::SOCK_CLOEXEC).unwrap();
        sys::bind_abstract(&other, &[b"other/lease/".as_slice(), &sys::random::<8>().unwrap()].concat())
            .unwrap();
        let (pipe, _) = sys::pipe().unwrap();
        for other in [-1, i32::MAX, pipe.number(), other.number()] {
            assert!(of(other).is_none(), "descriptor {other}");
        }
    }
}
