//! Sockets that a service manager bound for the agent before it started: sd_listen_fds(3).
//!
//! They come as descriptors 3, 4, … of the process. [`inherit`] takes them once, at the start; whoever is to listen at a
//! path asks [`take`] first. A socket that nobody took by then is an error of the operator: clients would connect to it
//! and wait for ever.
//!
//! Imports allowed: error, rustix, `sd_notify`.
#![expect(unsafe_code, reason = "the descriptors come as numbers")]

use std::ffi::OsStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::net::{SocketAddrUnix, getsockname};

/// A process has one set of such descriptors, and they are taken once.
static TAKEN: AtomicBool = AtomicBool::new(false);
static INHERITED: Mutex<Vec<(PathBuf, OwnedFd)>> = Mutex::new(Vec::new());

/// Why inherited descriptors cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ActivationError {
    /// The variables of the service manager make no sense.
    #[error("LISTEN_PID and LISTEN_FDS do not say which sockets were inherited")]
    Variables(#[source] io::Error),
    /// Not a Unix socket that is bound to a path.
    #[error(
        "inherited descriptor {number} is not a Unix socket with a path: let the socket unit listen at paths only"
    )]
    NotAPath {
        /// Which one.
        number: i32,
    },
    /// Nobody listens there.
    #[error(
        "the inherited socket {} is none that the configuration names: set server.socket or admin.socket to it",
        path.display()
    )]
    Unclaimed {
        /// Where it is bound.
        path: PathBuf,
    },
}

/// Takes the descriptors that the service manager left, if there are any. Later calls find none.
///
/// # Errors
/// If they are not Unix sockets bound to paths.
pub fn inherit() -> Result<(), ActivationError> {
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    for number in sd_notify::listen_fds().map_err(ActivationError::Variables)? {
        // SAFETY: the service manager opened this number for the process with our number and nobody else; only this
        // function takes it, once, before the agent opens descriptors of its own. It was just marked close-on-exec, so
        // it is open.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        let path = path_of(&socket).ok_or(ActivationError::NotAPath { number })?;
        INHERITED.lock().push((path, socket));
    }
    Ok(())
}

/// The inherited socket that is bound to `path`; at most once.
#[must_use]
pub fn take(path: &Path) -> Option<OwnedFd> {
    let mut inherited = INHERITED.lock();
    let place = inherited.iter().position(|(bound, _)| bound == path)?;
    Some(inherited.swap_remove(place).1)
}

/// Checks that every inherited socket was taken.
///
/// # Errors
/// Names one that was not.
pub fn all_taken() -> Result<(), ActivationError> {
    match INHERITED.lock().pop() {
        Some((path, _)) => Err(ActivationError::Unclaimed { path }),
        None => Ok(()),
    }
}

fn path_of(socket: &OwnedFd) -> Option<PathBuf> {
    let address = SocketAddrUnix::try_from(getsockname(socket).ok()?).ok()?;
    let path = address.path()?;
    Some(PathBuf::from(OsStr::from_bytes(path.to_bytes())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_process_without_a_service_manager_inherits_nothing() {
        inherit().unwrap();
        assert!(take(Path::new("/run/ioasd/ioasd.sock")).is_none());
        assert!(all_taken().is_ok());
    }

    #[test]
    fn only_a_socket_with_a_path_has_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(path_of(&OwnedFd::from(listener)), Some(path));
        let (nameless, _other) = UnixStream::pair().unwrap();
        assert_eq!(path_of(&OwnedFd::from(nameless)), None);
        assert_eq!(path_of(&OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap())), None);
        assert_eq!(path_of(&OwnedFd::from(std::fs::File::open("/dev/null").unwrap())), None);
    }
}
