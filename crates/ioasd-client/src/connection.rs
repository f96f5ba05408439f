//! A connection to the agent: one frame out, one frame in, each with its descriptors.
//!
//! Blocking, one call at a time; [`Pipeline`](crate::pipeline::Pipeline) is the form that does not wait. Nothing the
//! agent sends is trusted: lengths, tags and numbers of descriptors are checked, and what was not asked for is closed.
//!
//! A socket that was connected is the *lease* of its context: when the last copy of it is closed, in whatever process,
//! the context ends. It is a channel as well; more of them come from [`Connection::open_channel`].
//!
//! Imports allowed: error, transport, wire, rustix.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use crate::error::{CallError, ProtocolError};
use crate::transport::{self, Wait};
use crate::wire::FRAME_MAX;
use crate::wire::command::{Argument, Command, encode};
use crate::wire::frame::{Echo, Reply, Request, Tag};

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
        transport::connect(path).map(Self::from_fd)
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
    pub(crate) fn call_without_reply<C: Command>(
        &mut self,
        value: &C,
        fds: &[BorrowedFd<'_>],
        payload: &[u8],
    ) -> Result<(), CallError> {
        let echo = self.send_request(value, fds, payload)?;
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
        self.send(&request(echo, value, payload)?, fds)?;
        Ok(echo)
    }

    fn take_tag(&mut self) -> Tag {
        let tag = Tag(self.next_tag);
        self.next_tag = self.next_tag.wrapping_add(1);
        tag
    }

    fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), CallError> {
        transport::send(self.socket.as_fd(), message, fds, Wait::Yes)
    }

    fn receive(&mut self) -> Result<(&[u8], Vec<OwnedFd>), CallError> {
        let received = transport::receive(self.socket.as_fd(), &mut self.buffer, Wait::Yes)?;
        let (length, fds) = received.ok_or(ProtocolError::Closed)?;
        Ok((self.buffer.get(..length).unwrap_or_default(), fds))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The message that asks for command `C`.
pub(crate) fn request<C: Command>(echo: Echo, value: &C, payload: &[u8]) -> Result<Vec<u8>, CallError> {
    let mut argument = encode(value);
    argument.extend_from_slice(payload);
    Ok(Request { echo, argument: Argument::new(&argument) }.encode()?)
}

/// The reply in `message`, if it is the one to `echo` and no refusal.
fn accepted<C: Command>(message: &[u8], echo: Echo) -> Result<Reply<'_>, CallError> {
    let reply = Reply::decode(message)?;
    if reply.echo != echo {
        let Echo { command, tag: Tag(tag) } = reply.echo;
        return Err(ProtocolError::OtherRequest { command, tag }.into());
    }
    not_refused::<C>(reply)
}

/// The reply, unless it is a refusal of command `C`.
pub(crate) fn not_refused<C: Command>(reply: Reply<'_>) -> Result<Reply<'_>, CallError> {
    if reply.errno == 0 {
        return Ok(reply);
    }
    Err(CallError::Refused {
        command: C::NAME,
        errno: Errno::from_raw_os_error(reply.errno),
        code: reply.code.to_owned(),
        text: reply.text.to_owned(),
    })
}

/// The struct that came back. It must have the length it was sent with: a missing id is not id 0.
pub(crate) fn body<C: Command>(bytes: &[u8]) -> Result<C, ProtocolError> {
    if bytes.len() != C::SIZE {
        return Err(ProtocolError::Body { command: C::NAME, wanted: C::SIZE, found: bytes.len() });
    }
    Ok(C::load(bytes))
}
