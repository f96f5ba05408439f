//! Connections to the agent.
//!
//! Imports allowed: boundary, error, handles, shell; connection of the client crate.
#![expect(unsafe_code, reason = "exported names, and a path")]

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use ioasd_client::connection::Connection;

use crate::boundary::{boundary, duplicated, path, wanted};
use crate::error::Failure;
use crate::handles::Handles;
use crate::shell;

/// A connection to the agent: a context, whose objects have numbers of their own, or a further channel of one.
///
/// Any thread may use it; calls of several threads wait for each other. Every call waits for the agent's answer.
/// Whatever a context has mapped is gone when the last descriptor of its connection is closed, in whatever process.
pub struct ConnectionHandle;

static OPEN: Handles<ConnectionHandle, Connection> = Handles::new("connection");

/// Calls the agent, unless it might have to wait for this very thread.
pub(crate) fn call(
    connection: *mut ConnectionHandle,
    ask: impl FnOnce(&mut Connection) -> Result<(), Failure>,
) -> c_int {
    boundary(|| {
        shell::this_thread_is_outside()?;
        OPEN.with(connection, ask)
    })
}

/// Connects to the agent's socket at `path`, such as "/run/ioasd/ioasd.sock": a new context. The connection is stored to
/// `connection`; close it with ioasd_close().
///
/// @return 0; -ECONNREFUSED or -ENOENT if no agent listens there, -EACCES if it is not for this user.
#[unsafe(no_mangle)]
#[expect(clippy::missing_safety_doc, reason = "the head of the header says what strings are")]
pub unsafe extern "C" fn ioasd_connect(
    path: *const c_char,
    connection: Option<&mut MaybeUninit<*mut ConnectionHandle>>,
) -> c_int {
    boundary(|| {
        let connection = wanted(connection, "connection")?;
        // SAFETY: a string of the caller, who leaves it as it is during the call.
        let path = unsafe { self::path(path, "path") }?;
        connection.write(OPEN.open(Connection::connect(path)?));
        Ok(())
    })
}

/// Takes over a socket that is connected to an agent already, for instance one that was inherited. The connection uses a
/// duplicate: `socket` stays yours to close.
///
/// @return 0; -EBADF if `socket` is not open.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_connect_fd(
    socket: c_int,
    connection: Option<&mut MaybeUninit<*mut ConnectionHandle>>,
) -> c_int {
    boundary(|| {
        let connection = wanted(connection, "connection")?;
        connection.write(OPEN.open(Connection::from_fd(duplicated(socket)?)));
        Ok(())
    })
}

/// Opens a further channel to the same context, for another thread: calls of different connections do not wait for each
/// other. It ends with the context, or with ioasd_close().
///
/// @return 0; -EMFILE if the context has too many.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_channel_open(
    connection: *mut ConnectionHandle,
    channel: Option<&mut MaybeUninit<*mut ConnectionHandle>>,
) -> c_int {
    call(connection, |agent| {
        let channel = wanted(channel, "channel")?;
        channel.write(OPEN.open(agent.open_channel()?.channel));
        Ok(())
    })
}

/// The socket of a connection, to poll() it: it is readable outside of a call only when the agent has hung up. It stays
/// the connection's: do not close it, and do not use it when the connection is closed.
///
/// @return the descriptor; -EBADF if the connection is not open.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_connection_fd(connection: *mut ConnectionHandle) -> c_int {
    boundary(|| OPEN.with(connection, |agent| Ok::<_, Failure>(agent.as_fd().as_raw_fd())))
}

/// Closes a connection, as soon as calls of other threads are answered. If it was the last one of its context, all objects
/// of the context are destroyed.
///
/// @return 0; -EBADF if it is not open.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_close(connection: *mut ConnectionHandle) -> c_int {
    boundary(|| Ok(OPEN.close(connection)?))
}
