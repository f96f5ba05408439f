//! A connection to the agent: one frame out, one frame in, each with its descriptors.
//!
//! Blocking, one call at a time. Nothing the agent sends is trusted: lengths, tags and numbers of descriptors are
//! checked, and what was not asked for is closed.
//!
//! Imports allowed: error, wire, rustix.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
    socket_with,
};

use crate::error::{CallError, ProtocolError};
use crate::wire::command::{Argument, Command, encode};
use crate::wire::frame::{Echo, FrameError, Reply, Request, Tag};
use crate::wire::{FDS_MAX, FRAME_MAX};

/// A connection to the agent, or an export channel.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    next_tag: u64,
    /// The last message received, kept so that a call need not clear 64 KiB.
    buffer: Vec<u8>,
}

/// A message from the agent as it came: nothing but the kernel's word on it.
#[derive(Debug)]
pub struct RawReply {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The descriptors.
    pub fds: Vec<OwnedFd>,
}

/// What a command answered, and how it was understood.
#[derive(Debug)]
pub struct Answer<C> {
    /// The struct that came back.
    pub value: C,
    /// What came behind it.
    pub payload: Vec<u8>,
    /// The descriptors, as many as were expected.
    pub fds: Vec<OwnedFd>,
}

impl Connection {
    /// Connects to the agent's socket at `path`.
    ///
    /// # Errors
    /// If nobody answers there, or access is denied.
    pub fn connect(path: &Path) -> Result<Self, CallError> {
        let doing = |doing| move |source| CallError::Io { doing, source };
        let address = SocketAddrUnix::new(path).map_err(doing("use the path as a socket address"))?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(doing("create a socket"))?;
        retry_on_intr(|| connect(&socket, &address)).map_err(doing("connect to the agent"))?;
        Ok(Self::from_fd(socket))
    }

    /// Takes over a connected `SOCK_SEQPACKET` socket.
    #[must_use]
    pub fn from_fd(socket: OwnedFd) -> Self {
        Self { socket, next_tag: 1, buffer: vec![0; FRAME_MAX] }
    }

    /// Gives the socket away, for instance to another process.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.socket
    }

    /// Sends `message` as it is and waits for what comes back. For tests of malformed input.
    ///
    /// # Errors
    /// If the socket fails, or the agent closes the connection.
    pub fn call_bytes(&mut self, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<RawReply, CallError> {
        self.send(message, fds)?;
        let (bytes, fds) = self.receive()?;
        Ok(RawReply { bytes: bytes.to_vec(), fds })
    }

    /// Carries out command `C`: `fds` and `payload` go with it, `expected_fds` tells from the answer how many
    /// descriptors it must carry.
    pub(crate) fn call<C: Command>(
        &mut self,
        value: &C,
        fds: &[BorrowedFd<'_>],
        payload: &[u8],
        expected_fds: impl FnOnce(&C) -> u64,
    ) -> Result<Answer<C>, CallError> {
        let echo = self.send_request(value, fds, payload)?;
        let (message, fds) = self.receive()?;
        let reply = accepted::<C>(message, echo)?;
        let value = body::<C>(reply.body)?;
        let (wanted, found) = (expected_fds(&value), fds.len());
        if wanted != found as u64 {
            return Err(ProtocolError::Descriptors { command: C::NAME, wanted, found }.into());
        }
        Ok(Answer { value, payload: reply.payload.to_vec(), fds })
    }

    /// Carries out command `C`, which copies nothing back.
    pub(crate) fn call_without_reply<C: Command>(&mut self, value: &C) -> Result<(), CallError> {
        let echo = self.send_request(value, &[], &[])?;
        let (message, _) = self.receive()?;
        accepted::<C>(message, echo).map(|_| ())
    }

    fn send_request<C: Command>(
        &mut self,
        value: &C,
        fds: &[BorrowedFd<'_>],
        payload: &[u8],
    ) -> Result<Echo, CallError> {
        let echo = Echo { command: C::NUMBER, tag: self.take_tag() };
        let mut argument = encode(value);
        argument.extend_from_slice(payload);
        let message = Request { echo, argument: Argument::new(&argument) }.encode()?;
        self.send(&message, fds)?;
        Ok(echo)
    }

    fn take_tag(&mut self) -> Tag {
        let tag = Tag(self.next_tag);
        self.next_tag = self.next_tag.wrapping_add(1);
        tag
    }

    fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), CallError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(CallError::Io {
                doing: "pass that many descriptors in a message",
                source: Errno::TOOBIG,
            });
        }
        let bytes = [IoSlice::new(message)];
        match retry_on_intr(|| sendmsg(&self.socket, &bytes, &mut control, SendFlags::NOSIGNAL)) {
            Ok(_) => Ok(()),
            Err(Errno::PIPE | Errno::CONNRESET) => Err(ProtocolError::Closed.into()),
            Err(source) => Err(CallError::Io { doing: "send to the agent", source }),
        }
    }

    fn receive(&mut self) -> Result<(&[u8], Vec<OwnedFd>), CallError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let (socket, buffer) = (&self.socket, &mut self.buffer);
        let message = retry_on_intr(|| {
            recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
        });
        let message = match message {
            Ok(message) => message,
            Err(Errno::CONNRESET) => return Err(ProtocolError::Closed.into()),
            Err(source) => return Err(CallError::Io { doing: "receive from the agent", source }),
        };
        let fds = take_descriptors(&mut control);
        require_whole(message.flags)?;
        match self.buffer.get(..message.bytes) {
            Some([]) | None => Err(ProtocolError::Closed.into()),
            Some(bytes) => Ok((bytes, fds)),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
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

/// The reply in `message`, if it is the one to `echo` and no refusal.
fn accepted<C: Command>(message: &[u8], echo: Echo) -> Result<Reply<'_>, CallError> {
    let reply = Reply::decode(message)?;
    if reply.echo != echo {
        let Echo { command, tag: Tag(tag) } = reply.echo;
        return Err(ProtocolError::OtherRequest { command, tag }.into());
    }
    if reply.errno != 0 {
        return Err(CallError::Refused {
            command: C::NAME,
            errno: Errno::from_raw_os_error(reply.errno),
            code: reply.code.to_owned(),
            text: reply.text.to_owned(),
        });
    }
    Ok(reply)
}

/// The struct that came back. It must have the length it was sent with: a missing id is not id 0.
fn body<C: Command>(bytes: &[u8]) -> Result<C, ProtocolError> {
    if bytes.len() != C::SIZE {
        return Err(ProtocolError::Body { command: C::NAME, wanted: C::SIZE, found: bytes.len() });
    }
    Ok(C::load(bytes))
}
