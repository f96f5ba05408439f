//! Messages on a socket: bytes and descriptors in one piece, blocking or not.
//!
//! Nothing the agent sends is trusted: what was cut is an error, and descriptors are owned from here on.
//!
//! Imports allowed: error, wire, rustix.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect as connect_to, recvmsg,
    sendmsg, socket_with,
};

use crate::error::{CallError, ProtocolError};
use crate::wire::frame::FrameError;
use crate::wire::{FDS_MAX, FRAME_MAX};

/// Whether a call may block, whatever the mode of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until it is done.
    Yes,
    /// Not at all.
    No,
}

/// Connects to the socket at `path`.
pub(crate) fn connect(path: &Path) -> Result<OwnedFd, CallError> {
    let doing = |doing| move |source| CallError::Io { doing, source };
    let address = SocketAddrUnix::new(path).map_err(doing("use the path as a socket address"))?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(doing("create a socket"))?;
    retry_on_intr(|| connect_to(&socket, &address)).map_err(doing("connect to the agent"))?;
    Ok(socket)
}

/// Sends one message.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    message: &[u8],
    fds: &[BorrowedFd<'_>],
    wait: Wait,
) -> Result<(), CallError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(CallError::Io {
            doing: "pass that many descriptors in a message",
            source: Errno::TOOBIG,
        });
    }
    let (bytes, mut flags) = ([IoSlice::new(message)], SendFlags::NOSIGNAL);
    flags.set(SendFlags::DONTWAIT, wait == Wait::No);
    match retry_on_intr(|| sendmsg(socket, &bytes, &mut control, flags)) {
        Ok(_) => Ok(()),
        Err(Errno::PIPE | Errno::CONNRESET) => Err(ProtocolError::Closed.into()),
        Err(Errno::AGAIN) if wait == Wait::No => Err(CallError::NotNow { why: "the agent's queue is full" }),
        Err(source) => Err(CallError::Io { doing: "send to the agent", source }),
    }
}

/// Receives one message into `buffer`: its length and its descriptors; `None` if there is none and nobody waits.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    wait: Wait,
) -> Result<Option<(usize, Vec<OwnedFd>)>, CallError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut flags = RecvFlags::CMSG_CLOEXEC;
    flags.set(RecvFlags::DONTWAIT, wait == Wait::No);
    let message = retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags));
    let message = match message {
        Ok(message) => message,
        Err(Errno::AGAIN) if wait == Wait::No => return Ok(None),
        Err(Errno::CONNRESET) => return Err(ProtocolError::Closed.into()),
        Err(source) => return Err(CallError::Io { doing: "receive from the agent", source }),
    };
    let fds = take_descriptors(&mut control);
    require_whole(message.flags)?;
    if message.bytes == 0 { Err(ProtocolError::Closed.into()) } else { Ok(Some((message.bytes, fds))) }
}

fn take_descriptors(control: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    rights.flatten().collect()
}

fn require_whole(flags: ReturnFlags) -> Result<(), ProtocolError> {
    if flags.contains(ReturnFlags::TRUNC) {
        return Err(FrameError::Long { found: FRAME_MAX + 1 }.into());
    }
    if flags.contains(ReturnFlags::CTRUNC) {
        return Err(ProtocolError::DescriptorsLost);
    }
    Ok(())
}
