//! The socket that clients connect to: bound once, cleaned up when an agent has died.
//!
//! Two agents never share a path: each holds a lock on `<path>.lock` as long as it listens. With the lock held, a socket
//! that nobody answers is a left-over and is removed; one that somebody answers, or a file that is no socket, is not
//! touched.
//!
//! A socket that a service manager bound is listened to as it is: its path, its permissions and its life are the
//! manager's.
//!
//! Imports allowed: error, fault_points, rustix.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags, chmod, flock, lstat, open, unlink};
use rustix::io::{Errno, ioctl_fionbio, retry_on_intr};
use rustix::net::sockopt::{set_socket_passcred, socket_type};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

use super::activation;
use crate::error::Coded;
use crate::fault_points::{self, Point};

/// Connections that may wait for being accepted.
const BACKLOG: i32 = 128;

/// Why the agent cannot listen at a path.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another agent does.
    #[error("another agent listens at {path}: stop it, or choose another socket")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// There is something else.
    #[error("{path} is there and is no socket: remove it, or choose another path")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A service manager listens there in another way.
    #[error(
        "the inherited socket {path} is not of type SOCK_SEQPACKET: write ListenSequentialPacket= in its unit"
    )]
    WrongType {
        /// The path.
        path: PathBuf,
    },
    /// The kernel refuses.
    #[error("cannot {doing} {path}")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
}

/// A listening socket. If it is the agent's own, its path is removed when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    _path: Option<OwnPath>,
}

/// A path that this agent bound, and the lock that says so.
#[derive(Debug)]
struct OwnPath {
    path: PathBuf,
    _lock: OwnedFd,
}

impl Listener {
    /// Listens at `path`: with the socket that a service manager bound there, else with one of its own, which gets the
    /// permissions `mode` before anybody can connect.
    ///
    /// # Errors
    /// If somebody else listens there, something else is there, or the kernel refuses.
    pub fn bind(path: &Path, mode: Mode) -> Result<Self, ListenError> {
        match activation::take(path) {
            Some(socket) => Self::adopt(socket, path),
            None => Self::bind_anew(path, mode),
        }
    }

    fn adopt(socket: OwnedFd, path: &Path) -> Result<Self, ListenError> {
        let failed = |doing| move |source| ListenError::Failed { doing, path: path.to_owned(), source };
        if socket_type(&socket).map_err(failed("ask for the type of"))? != SocketType::SEQPACKET {
            return Err(ListenError::WrongType { path: path.to_owned() });
        }
        ioctl_fionbio(&socket, true).map_err(failed("make non-blocking"))?;
        set_socket_passcred(&socket, true).map_err(failed("ask for credentials at"))?;
        Ok(Self { socket, _path: None })
    }

    fn bind_anew(path: &Path, mode: Mode) -> Result<Self, ListenError> {
        make_folder(path)?;
        let lock = lock(path)?;
        remove_left_over(path)?;
        let failed = |doing| move |source| ListenError::Failed { doing, path: path.to_owned(), source };
        let (socket, address) = new_socket(path, SocketFlags::NONBLOCK)?;
        bind(&socket, &address).map_err(failed("bind"))?;
        let listener = Self { socket, _path: Some(OwnPath { path: path.to_owned(), _lock: lock }) };
        chmod(path, mode).map_err(failed("set the permissions of"))?;
        set_socket_passcred(&listener.socket, true).map_err(failed("ask for credentials at"))?;
        listen(&listener.socket, BACKLOG).map_err(failed("listen at"))?;
        Ok(listener)
    }

    /// Accepts one connection: non-blocking, close-on-exec, with the sender's credentials in every message.
    ///
    /// # Errors
    /// `WouldBlock` if nobody waits; what the kernel says otherwise.
    pub fn accept(&self) -> io::Result<OwnedFd> {
        fault_points::hit(Point::Accept).map_err(|injected| injected.errno())?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let connection = retry_on_intr(|| accept_with(&self.socket, flags))?;
        set_socket_passcred(&connection, true)?;
        Ok(connection)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for OwnPath {
    /// The lock is still held, so the path is ours. If it is gone already, nothing is left to do.
    fn drop(&mut self) {
        unlink(&self.path).ok();
    }
}

/// The folder of the socket, if it is not there yet. Who may connect is said by the socket's own mode.
fn make_folder(path: &Path) -> Result<(), ListenError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.map_err(|error| ListenError::Failed {
        doing: "make the folder of",
        path: path.to_owned(),
        source: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })
}

fn lock(path: &Path) -> Result<OwnedFd, ListenError> {
    let mut name = OsString::from(path);
    name.push(".lock");
    let failed = |source| ListenError::Failed { doing: "lock", path: path.to_owned(), source };
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = open(&name, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(ListenError::InUse { path: path.to_owned() }),
        Err(source) => Err(failed(source)),
    }
}

fn new_socket(path: &Path, flags: SocketFlags) -> Result<(OwnedFd, SocketAddrUnix), ListenError> {
    let failed = |doing| move |source| ListenError::Failed { doing, path: path.to_owned(), source };
    let address = SocketAddrUnix::new(path).map_err(failed("use as a socket address"))?;
    let flags = flags | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    Ok((socket.map_err(failed("create a socket for"))?, address))
}

/// Removes a socket that nobody answers.
fn remove_left_over(path: &Path) -> Result<(), ListenError> {
    let failed = |doing| move |source| ListenError::Failed { doing, path: path.to_owned(), source };
    match lstat(path) {
        Err(Errno::NOENT) => return Ok(()),
        Err(source) => return Err(failed("look at")(source)),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => {}
        Ok(_) => return Err(ListenError::NotASocket { path: path.to_owned() }),
    }
    let (socket, address) = new_socket(path, SocketFlags::NONBLOCK)?;
    match connect(&socket, &address) {
        Err(Errno::CONNREFUSED) => unlink(path).map_err(failed("remove the left-over socket")),
        _ => Err(ListenError::InUse { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::stat;

    use super::*;
    use crate::sys::socket::{receive, send};

    const MODE: Mode = Mode::RUSR.union(Mode::WUSR).union(Mode::RGRP).union(Mode::WGRP);

    fn client(path: &Path) -> OwnedFd {
        let (socket, address) = new_socket(path, SocketFlags::empty()).unwrap();
        connect(&socket, &address).unwrap();
        socket
    }

    #[test]
    fn the_folder_of_the_socket_is_made_if_it_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/ioasd.sock");
        let listener = Listener::bind(&path, Mode::RUSR | Mode::WUSR).unwrap();
        assert!(path.exists());
        drop(listener);
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let refused = Listener::bind(&file.join("ioasd.sock"), Mode::RUSR).unwrap_err();
        assert!(refused.to_string().starts_with("cannot make the folder of "), "{refused}");
    }

    #[test]
    fn clients_connect_and_every_message_names_its_sender() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ioasd.sock");
        let listener = Listener::bind(&path, MODE).unwrap();
        assert_eq!(stat(&path).unwrap().st_mode & 0o777, 0o660);
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let client = client(&path);
        send(client.as_fd(), &[b"before accept"], &[]).unwrap();
        let accepted = listener.accept().unwrap();
        let received = receive(accepted.as_fd(), &mut [0; 64]).unwrap();
        assert_eq!(received.credentials.unwrap().pid, Some(rustix::process::getpid()));
        let nothing = rustix::io::read(&accepted, &mut [0_u8; 1]);
        assert_eq!(nothing, Err(Errno::AGAIN), "the accepted socket blocks");
    }

    #[test]
    fn an_inherited_socket_is_served_and_its_path_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ioasd.sock");
        let (socket, address) = new_socket(&path, SocketFlags::empty()).unwrap();
        bind(&socket, &address).unwrap();
        listen(&socket, BACKLOG).unwrap();
        let client = client(&path);
        send(client.as_fd(), &[b"before the agent"], &[]).unwrap();
        let listener = Listener::adopt(socket, &path).unwrap();
        let accepted = listener.accept().unwrap();
        let received = receive(accepted.as_fd(), &mut [0; 64]).unwrap();
        assert_eq!(received.credentials.unwrap().pid, Some(rustix::process::getpid()));
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn an_inherited_stream_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ioasd.sock");
        let stream = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(Listener::adopt(stream.into(), &path), Err(ListenError::WrongType { .. })));
    }

    #[test]
    fn the_path_of_a_dead_agent_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ioasd.sock");
        let (socket, address) = new_socket(&path, SocketFlags::empty()).unwrap();
        bind(&socket, &address).unwrap();
        drop(socket);
        let listener = Listener::bind(&path, MODE).unwrap();
        let _client = client(&path);
        drop(listener);
        assert_eq!(lstat(&path).unwrap_err(), Errno::NOENT);
    }

    #[test]
    fn a_living_agent_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ioasd.sock");
        let _listener = Listener::bind(&path, MODE).unwrap();
        assert!(matches!(Listener::bind(&path, MODE), Err(ListenError::InUse { .. })));
        let _client = client(&path);
    }

    #[test]
    fn a_living_socket_of_another_program_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ioasd.sock");
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&path, MODE), Err(ListenError::InUse { .. })));
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ioasd.sock");
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(Listener::bind(&path, MODE), Err(ListenError::NotASocket { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }
}
