//! Requests below the typed client: any bytes, any descriptors, and answers that need not be waited for.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use ioasd_client::connection::Connection;
use ioasd_client::wire::FRAME_MAX;
use ioasd_client::wire::command::{Argument, Command, encode};
use ioasd_client::wire::frame::{Echo, Reply, Request, Tag};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) echo: Echo,
    pub(crate) errno: i32,
    pub(crate) body: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Answer {
    fn of(message: &[u8]) -> Self {
        let reply = Reply::decode(message).unwrap();
        Self {
            echo: reply.echo,
            errno: reply.errno,
            body: reply.body.to_vec(),
            payload: reply.payload.to_vec(),
        }
    }

    /// The errno, or none if the request was carried out.
    pub(crate) fn refusal(&self) -> Option<Errno> {
        (self.errno != 0).then(|| Errno::from_raw_os_error(self.errno))
    }
}

/// A request with these bytes as argument.
pub(crate) fn request(number: u32, tag: u64, argument: &[u8]) -> Vec<u8> {
    let echo = Echo { command: number, tag: Tag(tag) };
    Request { echo, argument: Argument::new(argument) }.encode().unwrap()
}

/// Sends any message and waits for what the agent says to it.
pub(crate) fn call_message(client: &mut Connection, message: &[u8], fds: &[BorrowedFd<'_>]) -> Answer {
    let reply = client.call_bytes(message, fds).unwrap();
    assert!(reply.fds.is_empty(), "an answer carries descriptors that nobody asked for");
    Answer::of(&reply.bytes)
}

/// Calls a command with any argument.
pub(crate) fn call_argument(client: &mut Connection, number: u32, argument: &[u8]) -> Answer {
    call_message(client, &request(number, 7, argument), &[])
}

/// Calls a command with a well-formed struct that the typed client would not send; tells how it was refused.
pub(crate) fn refusal<C: Command>(
    client: &mut Connection,
    value: &C,
    fds: &[BorrowedFd<'_>],
) -> Option<Errno> {
    call_message(client, &request_of(9, value), fds).refusal()
}

/// Sends without waiting for an answer.
///
/// # Errors
/// EAGAIN if the queue is full, EPIPE or ECONNRESET if the agent has hung up.
pub(crate) fn post(client: &Connection, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(client.as_fd(), &[IoSlice::new(message)], &mut control, flags).map(drop)
}

/// A request with a well-formed struct.
pub(crate) fn request_of<C: Command>(tag: u64, value: &C) -> Vec<u8> {
    request(C::NUMBER, tag, &encode(value))
}

/// The next answer.
pub(crate) fn next_answer(client: &Connection) -> Answer {
    let mut buffer = vec![0; FRAME_MAX];
    let (length, _) = recv(client.as_fd(), &mut buffer, RecvFlags::empty()).unwrap();
    Answer::of(&buffer[..length])
}

/// Calls a command with a payload and descriptors, and tells all of the answer.
pub(crate) fn call_with<C: Command>(
    client: &mut Connection,
    value: &C,
    payload: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Answer {
    let mut argument = encode(value);
    argument.extend_from_slice(payload);
    call_message(client, &request(C::NUMBER, 11, &argument), fds)
}
