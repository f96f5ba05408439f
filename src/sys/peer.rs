//! Who is at the other end of a connected socket, as of when it connected.
//!
//! Imports allowed: sys::socket, sys::pidfd.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{PeerCredentials, PeerPidfd};
use rustix::net::{SocketAddrUnix, getpeername};
use rustix::process::Pid;

use super::pidfd::PidFd;
use super::socket::Credentials;

/// The process that connected; its number is unknown if it lives in a pid namespace we cannot see.
///
/// # Errors
/// If the descriptor is not a connected local socket.
pub fn opener(socket: &impl AsFd) -> io::Result<Credentials> {
    let peer = getsockopt(socket, PeerCredentials)?;
    Ok(Credentials { pid: Pid::from_raw(peer.pid()), uid: peer.uid(), gid: peer.gid() })
}

/// A handle on the process that connected; `None` if it has ended, its number is unknown, or the kernel is older than 6.5.
#[must_use]
pub fn opener_handle(socket: &impl AsFd, opener: Credentials) -> Option<PidFd> {
    let fd = getsockopt(socket, PeerPidfd).ok()?;
    PidFd::passed(fd, opener.pid?).ok()
}

/// Whether the other end has an abstract name that begins with `prefix`.
#[must_use]
pub fn is_named(socket: &impl AsFd, prefix: &[u8]) -> bool {
    let address = getpeername(socket).ok().flatten();
    let address = address.and_then(|address| SocketAddrUnix::try_from(address).ok());
    address.is_some_and(|address| address.abstract_name().is_some_and(|name| name.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_opener_of_a_pair_is_this_process() {
        let (own, _given) = super::super::socket::pair().unwrap();
        let opener = opener(&own).unwrap();
        assert_eq!(opener.pid, Some(rustix::process::getpid()));
        assert_eq!(opener.uid, rustix::process::getuid().as_raw());
        if let Some(handle) = opener_handle(&own, opener) {
            assert_eq!((Some(handle.pid()), handle.has_exited()), (opener.pid, Ok(false)));
        }
    }

    #[test]
    fn the_other_end_is_known_by_the_beginning_of_its_name() {
        let (own, given) = super::super::socket::pair().unwrap();
        assert!(!is_named(&own, b"ioasd/"), "it has no name");
        let name = format!("ioasd/test/{}", std::process::id());
        super::super::socket::give_name(given.as_fd(), name.as_bytes()).unwrap();
        assert!(is_named(&own, b"ioasd/test/"));
        assert!(!is_named(&own, b"ioasd/other/") && !is_named(&given, b"ioasd/test/"));
    }
}
