//! Messages over `AF_UNIX` `SOCK_SEQPACKET` sockets: one message is one frame, with its descriptors and its sender.
//!
//! Every call returns at once (`WouldBlock` if there is nothing to do), whatever the mode of the socket. Received
//! descriptors are closed unless the caller keeps them; what is beyond [`FDS_TAKEN`] the kernel drops before it enters
//! our table.
//!
//! Control data are read here byte by byte: the sender's pid is 0 if it lives outside of our pid namespace, and rustix
//! has no value for that.
//!
//! Imports allowed: error, fault_points, rustix, nix's `libc`.

#![expect(
    unsafe_code,
    reason = "descriptors arrive as numbers in the control data and must be owned from there; one socket option has no wrapper"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::libc;
use rustix::io::retry_on_intr;
use rustix::net::sockopt::{set_socket_passcred, socket_cookie};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, recvmsg, sendmsg, socketpair,
};
use rustix::process::Pid;

use super::client_fd::ClientFd;
use crate::error::Coded;
use crate::fault_points::{self, Point};

/// Descriptors taken from one received message at most.
pub const FDS_TAKEN: usize = 4;

/// Descriptors that one message can carry; the kernel's limit.
pub const FDS_SENT_MAX: usize = 253;

/// Level and types of the control data that are understood, as in the headers of the kernel.
const SOL_SOCKET: u32 = 1;
const SCM_RIGHTS: u32 = 1;
const SCM_CREDENTIALS: u32 = 2;
const SCM_PIDFD: u32 = 4;

/// Socket option: a handle on the sender with each message; as in the headers of Linux 6.5.
const SO_PASSPIDFD: libc::c_int = 76;

/// Bytes of a control header: length (8), level (4), type (4). Headers start at multiples of 8.
const CONTROL_HEADER: usize = 16;
const CONTROL_ALIGN: usize = 8;

/// Room for the sender's credentials and [`FDS_TAKEN`] descriptors.
const PLAIN_SPACE: usize = CONTROL_HEADER + 16 + CONTROL_HEADER + 4 * FDS_TAKEN;

/// Room for a pidfd of the sender as well. It comes last, so surplus descriptors can take its place.
const CONTROL_SPACE: usize = PLAIN_SPACE + CONTROL_HEADER + 8;

/// Who sent a message, by the word of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The process; `None` if it lives outside of our pid namespace.
    pub pid: Option<Pid>,
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What was lost of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    None,
    /// Bytes: the message is longer than the buffer.
    Bytes,
    /// Descriptors: more than [`FDS_TAKEN`], or our table is full.
    Descriptors,
}

/// A received message.
#[derive(Debug)]
pub struct Received {
    /// Bytes in the buffer.
    pub len: usize,
    /// What did not fit.
    pub loss: Loss,
    /// Its descriptors, close-on-exec.
    pub fds: Vec<ClientFd>,
    /// Its sender; `None` only at the end of the stream, if the socket passes credentials.
    pub credentials: Option<Credentials>,
    /// A handle on its sender, if the socket passes such.
    pub pidfd: Option<OwnedFd>,
}

/// Whether a socket is asked for a handle on the sender of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassPidfd {
    /// It is: that costs a descriptor a message.
    On,
    /// It is not.
    Off,
}

impl Received {
    /// Whether this is no message: the peer has closed its end. An empty message has a sender.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        self.len == 0 && self.credentials.is_none()
    }
}

/// Two connected sockets. The first stays here and passes credentials; the second is given away.
///
/// # Errors
/// If descriptors are short.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    fault_points::hit(Point::SocketPair).map_err(|injected| injected.errno())?;
    let (own, given) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    set_socket_passcred(&own, true)?;
    Ok((own, given))
}

/// Gives a socket that is given away the abstract name `name`, so that whoever gets it can tell what it is.
///
/// # Errors
/// If another socket has the name.
pub fn give_name(socket: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    fault_points::hit(Point::SocketPair).map_err(|injected| injected.errno())?;
    let name = SocketAddrUnix::new_abstract_name(name)?;
    Ok(bind(socket, &name)?)
}

/// The kernel's number of a socket, which no other socket of this host ever gets.
///
/// # Errors
/// ENOTSOCK of anything else.
pub fn number(socket: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(socket_cookie(socket)?)
}

/// Receives one message into `buffer`.
///
/// # Errors
/// `WouldBlock` if there is none; what the kernel says otherwise.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    receive_with(socket, buffer, PassPidfd::Off)
}

/// Asks the kernel for a handle on the sender of each message to come, or no longer.
///
/// # Errors
/// ENOPROTOOPT if the kernel is too old for it.
pub fn set_pass_pidfd(socket: BorrowedFd<'_>, pass: PassPidfd) -> io::Result<()> {
    fault_points::hit(Point::PassPidfd).map_err(|injected| injected.errno())?;
    let value = libc::c_int::from(pass == PassPidfd::On);
    let length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or(0);
    // SAFETY: the pointer is that of a living integer and `length` is its size; the kernel only reads it.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSPIDFD,
            std::ptr::from_ref(&value).cast(),
            length,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives one message into `buffer`, with room for a handle on its sender if `pass` says so.
///
/// # Errors
/// `WouldBlock` if there is none; what the kernel says otherwise.
pub fn receive_with(socket: BorrowedFd<'_>, buffer: &mut [u8], pass: PassPidfd) -> io::Result<Received> {
    fault_points::hit(Point::SocketReceive).map_err(|injected| injected.errno())?;
    let mut space = ControlSpace::default();
    let room = match pass {
        PassPidfd::On => CONTROL_SPACE,
        PassPidfd::Off => PLAIN_SPACE,
    };
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = retry_on_intr(|| {
        // Never dropped: dropping it reads the credentials.
        let room = space.0.get_mut(..room).unwrap_or_default();
        let mut control = ManuallyDrop::new(RecvAncillaryBuffer::new(room));
        recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)
    })?;
    let control = Control::own(&space.bytes());
    Ok(Received {
        len: message.bytes,
        loss: if control.surplus { Loss::Descriptors } else { loss(message.flags) },
        fds: control.fds,
        credentials: control.credentials,
        pidfd: control.pidfd,
    })
}

/// Sends `parts` as one message, with `fds`, all or nothing.
///
/// # Errors
/// `WouldBlock` if the peer's queue is full; `BrokenPipe` if it is gone; E2BIG beyond [`FDS_SENT_MAX`] descriptors.
pub fn send(socket: BorrowedFd<'_>, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    fault_points::hit(Point::SocketSend).map_err(|injected| injected.errno())?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_SENT_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(rustix::io::Errno::TOOBIG.into());
    }
    let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    retry_on_intr(|| sendmsg(socket.as_fd(), &parts, &mut control, flags))?;
    Ok(())
}

/// Bytes win: without them the descriptors are of no use.
const fn loss(flags: ReturnFlags) -> Loss {
    if flags.contains(ReturnFlags::TRUNC) {
        Loss::Bytes
    } else if flags.contains(ReturnFlags::CTRUNC) {
        Loss::Descriptors
    } else {
        Loss::None
    }
}

/// Zeroed room for control data, aligned as the kernel writes them. The first header of length 0 ends them.
#[repr(align(8))]
struct ControlSpace([MaybeUninit<u8>; CONTROL_SPACE]);

impl Default for ControlSpace {
    fn default() -> Self {
        Self([MaybeUninit::new(0); CONTROL_SPACE])
    }
}

impl ControlSpace {
    fn bytes(&self) -> [u8; CONTROL_SPACE] {
        // SAFETY: every byte was initialised with zero, and the kernel only writes bytes over it.
        self.0.map(|byte| unsafe { byte.assume_init() })
    }
}

/// Control data, understood.
#[derive(Default)]
struct Control {
    fds: Vec<ClientFd>,
    credentials: Option<Credentials>,
    pidfd: Option<OwnedFd>,
    /// There were more than [`FDS_TAKEN`] descriptors.
    surplus: bool,
}

impl Control {
    /// Takes over what the kernel wrote for one message.
    fn own(bytes: &[u8]) -> Self {
        let mut control = Self::default();
        let mut rest = bytes;
        while let Some((kind, data, behind)) = next_control(rest) {
            match kind {
                (SOL_SOCKET, SCM_RIGHTS) => control.fds.extend(own_fds(data).map(ClientFd::from)),
                (SOL_SOCKET, SCM_CREDENTIALS) => control.credentials = credentials(data),
                (SOL_SOCKET, SCM_PIDFD) => control.pidfd = own_fds(data).next(),
                _ => {}
            }
            rest = behind;
        }
        control.surplus = control.fds.len() > FDS_TAKEN;
        control.fds.truncate(FDS_TAKEN);
        control
    }
}

/// Level and type, the data, and what follows.
type ControlMessage<'a> = ((u32, u32), &'a [u8], &'a [u8]);

/// The first control message of `bytes`.
fn next_control(bytes: &[u8]) -> Option<ControlMessage<'_>> {
    let length = usize::try_from(u64::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let message = bytes.get(..length)?;
    let (header, data) = message.split_at_checked(CONTROL_HEADER)?;
    let behind = bytes.get(length.next_multiple_of(CONTROL_ALIGN)..).unwrap_or_default();
    Some(((word(header, 2)?, word(header, 3)?), data, behind))
}

fn credentials(data: &[u8]) -> Option<Credentials> {
    let pid = i32::try_from(word(data, 0)?).ok().and_then(Pid::from_raw);
    Some(Credentials { pid, uid: word(data, 1)?, gid: word(data, 2)? })
}

/// The `index`-th 32-bit word of `bytes`.
fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.get(index).map(|word| u32::from_ne_bytes(*word))
}

/// What stands where a pidfd should is a negative number if the kernel could not make one.
fn own_fds(data: &[u8]) -> impl Iterator<Item = OwnedFd> {
    let (words, _) = data.as_chunks::<4>();
    words.iter().map(|word| RawFd::from_ne_bytes(*word)).filter(|fd| *fd >= 0).map(|fd| {
        // SAFETY: the kernel has just installed this descriptor for us, and this is the one place that takes it over.
        unsafe { OwnedFd::from_raw_fd(fd) }
    })
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, fstat, memfd_create};
    use rustix::io::{FdFlags, fcntl_getfd};

    use super::*;

    fn memfd() -> OwnedFd {
        memfd_create("socket", MemfdFlags::CLOEXEC).unwrap()
    }

    fn take(socket: &OwnedFd, room: usize) -> (Received, Vec<u8>) {
        let mut buffer = vec![0; room];
        let received = receive(socket.as_fd(), &mut buffer).unwrap();
        buffer.truncate(received.len);
        (received, buffer)
    }

    #[test]
    fn a_message_arrives_whole_with_its_sender_and_its_file() {
        let (own, given) = pair().unwrap();
        let file = memfd();
        send(given.as_fd(), &[b"ab", b"", b"cd"], &[file.as_fd()]).unwrap();
        let (received, bytes) = take(&own, 64);
        assert_eq!((bytes.as_slice(), received.loss, received.is_end()), (&b"abcd"[..], Loss::None, false));
        let sender = received.credentials.unwrap();
        assert_eq!(sender.pid, Some(rustix::process::getpid()));
        assert_eq!(sender.uid, rustix::process::getuid().as_raw());
        assert_eq!(sender.gid, rustix::process::getgid().as_raw());
        let [taken] = received.fds.as_slice() else { panic!("not one descriptor") };
        assert_eq!(fstat(taken).unwrap().st_ino, fstat(&file).unwrap().st_ino);
        assert!(fcntl_getfd(taken).unwrap().contains(FdFlags::CLOEXEC));
    }

    #[test]
    fn an_empty_message_is_not_the_end() {
        let (own, given) = pair().unwrap();
        send(given.as_fd(), &[], &[]).unwrap();
        assert!(!take(&own, 8).0.is_end());
        assert_eq!(receive(own.as_fd(), &mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(given);
        assert!(take(&own, 8).0.is_end());
        assert_eq!(send(own.as_fd(), &[b"x"], &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_message_longer_than_the_buffer_is_known_as_cut() {
        let (own, given) = pair().unwrap();
        send(given.as_fd(), &[&[1; 9]], &[memfd().as_fd()]).unwrap();
        let (received, bytes) = take(&own, 8);
        assert_eq!((bytes.len(), received.loss), (8, Loss::Bytes));
    }

    #[test]
    fn surplus_descriptors_are_dropped_and_known_as_lost() {
        let (own, given) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        for (count, loss) in
            [(FDS_TAKEN, Loss::None), (FDS_TAKEN + 1, Loss::Descriptors), (253, Loss::Descriptors)]
        {
            send(given.as_fd(), &[b"x"], &vec![writer.as_fd(); count]).unwrap();
            let (received, _) = take(&own, 8);
            assert_eq!((received.fds.len(), received.loss), (FDS_TAKEN, loss), "{count} descriptors");
            assert!(received.credentials.is_some());
        }
        drop(writer);
        assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0), "a copy of the writer is still open");
    }

    #[test]
    fn no_more_descriptors_are_sent_than_the_kernel_carries() {
        let (_own, given) = pair().unwrap();
        let file = memfd();
        let error = send(given.as_fd(), &[b"x"], &vec![file.as_fd(); FDS_SENT_MAX + 3]).unwrap_err();
        assert!(error.raw_os_error().is_some());
    }

    #[test]
    fn a_full_queue_would_block() {
        let (_own, given) = pair().unwrap();
        let error = (0..10_000).find_map(|_| send(given.as_fd(), &[&[0; 60_000]], &[]).err()).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_sender_from_another_pid_namespace_has_no_pid() {
        let data = [0_u32, 1000, 100].map(u32::to_ne_bytes).concat();
        assert_eq!(credentials(&data), Some(Credentials { pid: None, uid: 1000, gid: 100 }));
    }

    #[test]
    fn broken_control_data_end_the_list() {
        let header = |length: u64| [length.to_ne_bytes(), [1, 0, 0, 0, 2, 0, 0, 0]].concat();
        for length in [0, 1, 15, 17, u64::MAX] {
            assert!(next_control(&header(length)).is_none(), "length {length}");
        }
        assert_eq!(next_control(&header(16)), Some(((1, 2), &[][..], &[][..])));
        assert!(next_control(&[]).is_none());
    }
}
