//! Queues of events that the program reads and writes: a socket to the agent, on which the agent keeps a token while there
//! is something to read, so that it can be polled. Reading and writing are requests, each answered on a socket of its own.
//!
//! Looking what a descriptor is costs each `read` and `write` of a program a system call. So it is not done before the
//! process, or the one that it was forked from, has made such a queue.
//!
//! Imports allowed: channels, memory, message, sys, the client crate's wire, `libc`.

use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, Ordering};

use ioasd_client::wire::command::Command;
use ioasd_client::wire::events::{EVENT_BYTES_MAX, EVENT_NAME, EVENT_TOKEN, EventRead, EventWrite};

use crate::channels::settled;
use crate::memory::{self, Range};
use crate::message::{Inbound, Outbound, Packed, receive, send_what_can_be_sent, take_byte};
use crate::sys::{self, Errno, Fd};

/// Whether there can be such a descriptor.
static MADE: AtomicBool = AtomicBool::new(false);

/// A new descriptor is the program's from now on.
pub(crate) fn keep(fd: Option<Fd>) {
    if let Some(fd) = fd {
        MADE.store(true, Ordering::Relaxed);
        let number = fd.into_number();
        debug_assert!(number >= 0, "a descriptor has a number");
    }
}

/// Whether there can be such descriptors in this process.
pub(crate) fn expected() -> bool {
    MADE.load(Ordering::Relaxed)
}

/// Whether a descriptor is one.
pub(crate) fn is_queue(fd: c_int) -> bool {
    sys::abstract_name(fd).is_some_and(|name| name.behind::<4>(EVENT_NAME).is_some())
}

/// `read`.
///
/// # Errors
/// The errno of the call.
pub(crate) fn read(fd: c_int, into: Range) -> Result<usize, Errno> {
    let flags = if take_byte(fd) { EVENT_TOKEN } else { 0 };
    let first = Range { len: into.len.min(EVENT_BYTES_MAX), ..into };
    let (count, writable) = (into.len as u64, memory::writable(first) as u64);
    let reply = ask(fd, &EventRead { flags, count, writable }, None, Some(first))?;
    Ok(usize::try_from(EventRead::load(reply.body()).count).unwrap_or_default())
}

/// `write`.
///
/// # Errors
/// The errno of the call.
pub(crate) fn write(fd: c_int, from: Range) -> Result<usize, Errno> {
    let first = Range { len: from.len.min(EVENT_BYTES_MAX), ..from };
    let reply = ask(fd, &EventWrite { flags: 0, count: from.len as u64 }, Some(first), None)?;
    Ok(usize::try_from(EventWrite::load(reply.body()).count).unwrap_or_default())
}

fn ask<C: Command>(
    fd: c_int,
    command: &C,
    payload: Option<Range>,
    into: Option<Range>,
) -> Result<Inbound, Errno> {
    let (own, given) = sys::socket_pair()?;
    let packed = Packed::of(command);
    let outbound = Outbound { payload, fd: Some(given.number()), ..Outbound::plain(&packed) };
    settled(send_what_can_be_sent(fd, outbound))?;
    drop(given);
    let reply = settled(receive(own.number(), C::NUMBER, into))?;
    reply.outcome()?;
    Ok(reply)
}
