//! One request and its reply over a socket.
//!
//! What a command has beside its struct goes between the program's memory and the socket directly: the kernel reads and
//! writes it, and says EFAULT where it cannot.
//!
//! Imports allowed: memory, sys, the client crate's wire, `libc`.

#![expect(unsafe_code, reason = "messages are put together from memory of the program")]

use std::mem::zeroed;

use ioasd_client::wire::command::Command;
use ioasd_client::wire::field::Field;
use ioasd_client::wire::frame::{Echo, REPLY_HEADER, ReplyHead, Request, Tag};
use libc::{c_int, cmsghdr, iovec, msghdr};

use crate::memory::{Address, Range};
use crate::sys::{self, Errno, Fd};

/// Bytes of the largest struct of a command.
pub(crate) const STRUCT_MAX: usize = 128;

/// A request.
#[derive(Clone, Copy)]
pub(crate) struct Outbound<'a> {
    /// Number of the command.
    pub(crate) command: u32,
    /// Its struct.
    pub(crate) argument: &'a [u8],
    /// What the program has beside it.
    pub(crate) payload: Option<Range>,
    /// A descriptor of the program, open or not.
    pub(crate) fd: Option<c_int>,
}

/// A whole struct of a command, `size` first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packed {
    command: u32,
    bytes: [u8; STRUCT_MAX],
    len: usize,
}

impl Packed {
    /// The struct of `value`.
    pub(crate) fn of<C: Command>(value: &C) -> Self {
        const { assert!(C::SIZE <= STRUCT_MAX, "the struct does not fit") };
        let mut bytes = [0; STRUCT_MAX];
        u32::try_from(C::SIZE).unwrap_or(u32::MAX).store(&mut bytes, 0);
        value.store(&mut bytes);
        Self { command: C::NUMBER, bytes, len: C::SIZE }
    }

    /// The struct.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl<'a> Outbound<'a> {
    /// A request with nothing beside its struct.
    pub(crate) fn plain(packed: &'a Packed) -> Self {
        Self { command: packed.command, argument: packed.bytes(), payload: None, fd: None }
    }
}

/// A reply.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// 0 or an errno.
    pub(crate) errno: i32,
    /// What it carries besides an errno.
    pub(crate) head: ReplyHead,
    /// The struct that came back.
    body: [u8; STRUCT_MAX],
    /// A descriptor that came with it.
    pub(crate) fd: Option<Fd>,
}

impl Inbound {
    /// The struct that came back; empty if none did.
    pub(crate) fn body(&self) -> &[u8] {
        self.body.get(..self.head.body).unwrap_or_default()
    }

    /// Writes the number of the descriptor that came to `place` in the struct.
    ///
    /// # Errors
    /// EMFILE if none came, although the struct did.
    pub(crate) fn number_fd(&mut self, place: usize) -> Result<(), Errno> {
        if self.errno != 0 {
            return Ok(());
        }
        self.fd.as_ref().ok_or(Errno::MFILE)?.number().store(&mut self.body, place);
        Ok(())
    }

    /// What the agent says.
    ///
    /// # Errors
    /// The errno of the reply.
    pub(crate) fn outcome(&self) -> Result<(), Errno> {
        if self.errno == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(self.errno)) }
    }
}

/// Why there is no reply.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection has ended before the request was taken.
    NotSent,
    /// The connection has ended, or what came is no reply to the request.
    Lost,
    /// The kernel refuses.
    Refused(Errno),
}

/// Control data with one descriptor.
#[repr(C)]
struct OneFd {
    head: cmsghdr,
    fd: c_int,
    padding: c_int,
}

/// Bytes of [`OneFd`] that count: without padding.
const ONE_FD: usize = size_of::<cmsghdr>() + size_of::<c_int>();

impl OneFd {
    const fn new(fd: c_int) -> Self {
        let head = cmsghdr { cmsg_len: ONE_FD, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
        Self { head, fd, padding: 0 }
    }

    /// The descriptor that the kernel has put here, if it has.
    fn take(self, controllen: usize) -> Option<Fd> {
        let rights = (self.head.cmsg_level, self.head.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS);
        let there = controllen >= ONE_FD && self.head.cmsg_len == ONE_FD && rights && self.fd >= 0;
        // The kernel has just installed this descriptor for us, and `self` is used up.
        there.then(|| Fd::owning(self.fd))
    }
}

/// Sends a request and waits for its reply; a payload of the reply goes to `into`.
///
/// # Errors
/// If there is no reply, or `into` cannot be written.
pub(crate) fn exchange(
    socket: c_int,
    outbound: Outbound<'_>,
    into: Option<Range>,
) -> Result<Inbound, Failure> {
    send_what_can_be_sent(socket, outbound)?;
    receive(socket, outbound.command, into)
}

/// What cannot be read, or is not open, is left out: the agent looks at other things first and misses it then.
pub(crate) fn send_what_can_be_sent(socket: c_int, outbound: Outbound<'_>) -> Result<(), Failure> {
    let sent = match send(socket, outbound) {
        Err(Errno::FAULT) if outbound.payload.is_some() => {
            send(socket, Outbound { payload: None, ..outbound })
        }
        Err(Errno::BADF) if outbound.fd.is_some() => send(socket, Outbound { fd: None, ..outbound }),
        other => other,
    };
    sent.map_err(|errno| match errno {
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN | Errno::BADF | Errno::NOTSOCK => Failure::NotSent,
        other => Failure::Refused(other),
    })
}

fn send(socket: c_int, outbound: Outbound<'_>) -> Result<(), Errno> {
    let payload = outbound.payload.unwrap_or(Range { start: Address(0), len: 0 });
    let echo = Echo { command: outbound.command, tag: Tag::default() };
    let header = Request::header(echo, outbound.argument.len().saturating_add(payload.len));
    let header = header.map_err(|_| Errno::NOMEM)?;
    let mut parts = [constant(&header), constant(outbound.argument), payload.iovec()];
    let mut control = OneFd::new(outbound.fd.unwrap_or(-1));
    let mut message = message(&mut parts);
    if outbound.fd.is_some() {
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<OneFd>();
    }
    let flags = libc::MSG_NOSIGNAL.cast_unsigned() as usize;
    let place = (&raw const message).expose_provenance();
    sys::call(libc::SYS_sendmsg, [socket.cast_unsigned() as usize, place, flags, 0]).map(|_| ())
}

/// Waits for the reply to `command`; its payload goes to `into`.
///
/// # Errors
/// If there is none, or `into` cannot be written.
pub(crate) fn receive(socket: c_int, command: u32, into: Option<Range>) -> Result<Inbound, Failure> {
    let mut header = [0; REPLY_HEADER];
    let mut body = [0; STRUCT_MAX];
    let mut payload = Range { start: Address(0), len: 0 };
    let mut room = STRUCT_MAX;
    if let Some(into) = into {
        receive_parts(socket, &mut [writable(&mut header)], libc::MSG_PEEK)?;
        let head = ReplyHead::decode(&header).map_err(|_| Failure::Lost)?;
        room = head.body.min(STRUCT_MAX);
        payload = Range { len: head.payload.min(into.len), ..into };
    }
    let body_part = writable(body.get_mut(..room).unwrap_or_default());
    let mut parts = [writable(&mut header), body_part, payload.iovec()];
    let (bytes, fd) = receive_parts(socket, &mut parts, 0)?;
    if bytes < REPLY_HEADER {
        return Err(Failure::Lost);
    }
    let head = ReplyHead::decode(&header).map_err(|_| Failure::Lost)?;
    if head.echo.command != command || head.body > STRUCT_MAX {
        return Err(Failure::Lost);
    }
    Ok(Inbound { errno: head.errno, head, body, fd })
}

/// Takes a message of one byte from a socket, if one waits.
pub(crate) fn take_byte(socket: c_int) -> bool {
    let mut byte = [0];
    receive_parts(socket, &mut [writable(&mut byte)], libc::MSG_DONTWAIT).is_ok()
}

/// Receives into `parts`, in order; what does not fit is dropped by the kernel.
fn receive_parts(socket: c_int, parts: &mut [iovec], flags: c_int) -> Result<(usize, Option<Fd>), Failure> {
    let mut control = OneFd::new(-1);
    let mut message = message(parts);
    if flags & libc::MSG_PEEK == 0 {
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = size_of::<OneFd>();
    }
    let flags = (flags | libc::MSG_CMSG_CLOEXEC).cast_unsigned() as usize;
    let place = (&raw mut message).expose_provenance();
    match sys::call(libc::SYS_recvmsg, [socket.cast_unsigned() as usize, place, flags, 0]) {
        Err(Errno::CONNRESET) | Ok(0) => Err(Failure::Lost),
        Err(errno) => Err(Failure::Refused(errno)),
        Ok(bytes) => Ok((bytes, control.take(message.msg_controllen))),
    }
}

const fn constant(bytes: &[u8]) -> iovec {
    iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

const fn writable(bytes: &mut [u8]) -> iovec {
    iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn message(parts: &mut [iovec]) -> msghdr {
    // SAFETY: a message header of zeros is one without name, parts and control data.
    let mut message: msghdr = unsafe { zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len();
    message
}
