//! A pipeline: a channel with many requests under way, that never waits unless asked to.
//!
//! Imports allowed: connection, error, transport, wire.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::connection::{Answer, Connection, body, not_refused, request};
use crate::error::{CallError, ProtocolError};
use crate::transport::{self, Wait};
use crate::wire::FRAME_MAX;
use crate::wire::command::Command;
use crate::wire::frame::{Echo, Reply, Tag};

/// A channel with many requests under way.
///
/// Requests of one channel are carried out in the order in which they were sent, and answered in it; but a request
/// that takes something back (ACCESS_UNPIN) overtakes, and so does a refusal for want of credit. So answers are told
/// apart by tag. The descriptor is readable when an answer waits.
///
/// ```
/// # use ioasd_client::ids::IoasId;
/// # use ioasd_client::wire::{command::Command, frame::{Reply, Request}};
/// # use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
/// use std::os::fd::AsFd;
///
/// use ioasd_client::connection::Connection;
/// use ioasd_client::pipeline::Pipeline;
/// use ioasd_client::wire::uapi::IoasAlloc;
/// use rustix::event::{PollFd, PollFlags, poll};
///
/// # let (client, agent) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None)?;
/// # let connection = Connection::from_fd(client);
/// # let answering = std::thread::spawn(move || { for id in 1..=2 {
/// #     let mut bytes = [0; 64];
/// #     let length = rustix::io::read(&agent, &mut bytes).unwrap();
/// #     let request = Request::decode(&bytes[..length]).unwrap();
/// #     let decoded = request.argument.decode::<IoasAlloc>().unwrap();
/// #     let body = decoded.reply_body(&IoasAlloc { flags: 0, out_ioas_id: IoasId::new(id) });
/// #     rustix::io::write(&agent, &Reply::done(request.echo, &body, &[]).encode().unwrap()).unwrap();
/// # } agent });
/// let mut pipeline = Pipeline::new(connection, 64);
/// let first = pipeline.send(&IoasAlloc::default(), &[], &[])?;
/// let second = pipeline.send(&IoasAlloc::default(), &[], &[])?;
/// let mut tags = Vec::new();
/// while pipeline.in_flight() > 0 {
///     poll(&mut [PollFd::new(&pipeline, PollFlags::IN)], None)?;
///     while let Some(arrived) = pipeline.try_receive()? {
///         tags.push(arrived.tag);
///         println!("made {}", arrived.answer::<IoasAlloc>()?.value.out_ioas_id);
///     }
/// }
/// assert_eq!(tags, [first, second]);
/// # answering.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pipeline {
    socket: OwnedFd,
    last_tag: u64,
    credits: usize,
    /// The command of each request under way.
    under_way: BTreeMap<Tag, u32>,
    buffer: Vec<u8>,
}

/// An answer to a request of a pipeline.
#[derive(Debug)]
#[must_use = "it may be a refusal"]
pub struct Arrived {
    /// What the request was sent with.
    pub tag: Tag,
    /// The number of its command.
    pub command: u32,
    message: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Pipeline {
    /// Takes over a channel on which nothing is under way. At most `credits` requests are sent ahead of their answers:
    /// [`OpenedChannel`](crate::calls::OpenedChannel) tells how many the agent accepts, 64 unless configured otherwise.
    #[must_use]
    pub fn new(connection: Connection, credits: usize) -> Self {
        let (socket, under_way) = (connection.into_fd(), BTreeMap::new());
        Self { socket, last_tag: 0, credits, under_way, buffer: vec![0; FRAME_MAX] }
    }

    /// Gives the channel back, if nothing is under way.
    ///
    /// # Errors
    /// The pipeline, if something is.
    pub fn into_connection(self) -> Result<Connection, Self> {
        if self.under_way.is_empty() { Ok(Connection::from_fd(self.socket)) } else { Err(self) }
    }

    /// Requests that are not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.under_way.len()
    }

    /// Sends a request and does not wait: for its answer or for anything else.
    ///
    /// # Errors
    /// [`CallError::NotNow`] without a credit, or if the agent's queue is full; the socket's.
    pub fn send<C: Command>(
        &mut self,
        value: &C,
        fds: &[BorrowedFd<'_>],
        payload: &[u8],
    ) -> Result<Tag, CallError> {
        if self.in_flight() >= self.credits {
            return Err(CallError::NotNow { why: "every credit is in use" });
        }
        let tag = Tag(self.last_tag.wrapping_add(1));
        let message = request(Echo { command: C::NUMBER, tag }, value, payload)?;
        transport::send(self.socket.as_fd(), &message, fds, Wait::No)?;
        self.last_tag = tag.0;
        self.under_way.insert(tag, C::NUMBER);
        Ok(tag)
    }

    /// The next answer, if one waits.
    ///
    /// # Errors
    /// The socket's; [`ProtocolError`] if the agent has hung up, or answers what was not asked.
    pub fn try_receive(&mut self) -> Result<Option<Arrived>, CallError> {
        self.receive_with(Wait::No)
    }

    /// The next answer; waits for it.
    ///
    /// # Errors
    /// As [`Pipeline::try_receive`].
    pub fn receive(&mut self) -> Result<Arrived, CallError> {
        self.receive_with(Wait::Yes)?.ok_or_else(|| ProtocolError::Closed.into())
    }

    fn receive_with(&mut self, wait: Wait) -> Result<Option<Arrived>, CallError> {
        let Some((length, fds)) = transport::receive(self.socket.as_fd(), &mut self.buffer, wait)? else {
            return Ok(None);
        };
        let message = self.buffer.get(..length).unwrap_or_default();
        let Echo { command, tag } = Reply::decode(message)?.echo;
        if self.under_way.get(&tag) != Some(&command) {
            return Err(ProtocolError::OtherRequest { command, tag: tag.0 }.into());
        }
        self.under_way.remove(&tag);
        Ok(Some(Arrived { tag, command, message: message.to_vec(), fds }))
    }
}

impl AsFd for Pipeline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Arrived {
    /// What command `C`, which was sent with this tag, answered. How many descriptors came is the caller's to check.
    ///
    /// # Errors
    /// [`CallError::Refused`]; [`ProtocolError`] if this is no answer to `C`.
    pub fn answer<C: Command>(self) -> Result<Answer<C>, CallError> {
        let reply = self.accepted::<C>()?;
        let (value, payload) = (body::<C>(reply.body)?, reply.payload.to_vec());
        Ok(Answer { value, payload, fds: self.fds })
    }

    /// Whether command `C`, which copies nothing back, was carried out.
    ///
    /// # Errors
    /// As [`Arrived::answer`].
    pub fn done<C: Command>(self) -> Result<(), CallError> {
        self.accepted::<C>().map(drop)
    }

    fn accepted<C: Command>(&self) -> Result<Reply<'_>, CallError> {
        if self.command != C::NUMBER {
            let Self { command, tag: Tag(tag), .. } = *self;
            return Err(ProtocolError::OtherRequest { command, tag }.into());
        }
        not_refused::<C>(Reply::decode(&self.message)?)
    }
}
