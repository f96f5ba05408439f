//! A lease: what keeps a context alive, and opens channels of it.
//!
//! Imports allowed: connection, error, transport, wire.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::calls::only_descriptor;
use crate::connection::{Connection, not_refused, request};
use crate::error::{CallError, ProtocolError};
use crate::transport::{self, Wait};
use crate::wire::channels::ChannelOpen;
use crate::wire::command::Command;
use crate::wire::frame::{Echo, Reply, Tag};

/// Bytes of the longest answer: headers, struct, code and text.
const ANSWER_MAX: usize = 8192;

/// Keeps a context alive, and opens channels of it.
///
/// The context lives as long as any copy of this descriptor is open in any process, whatever channels there are. A
/// lease may be shared by threads and, after `fork` or by `SCM_RIGHTS`, by processes: opening channels is all that is
/// ever asked through it, every such request has tag 0, and one new channel is as good as another. So it does not
/// matter who receives which answer.
///
/// ```
/// # use std::os::fd::OwnedFd;
/// # use ioasd_client::wire::{channels::ChannelOpen, frame::{Echo, Reply}};
/// # use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
/// use ioasd_client::lease::Lease;
///
/// # let (client, agent) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None)?;
/// # let refusing = std::thread::spawn(move || {
/// #     let mut bytes = [0; 64];
/// #     recv(&agent, &mut bytes, RecvFlags::empty()).unwrap();
/// #     let reply = Reply::refused(Echo::of(&bytes), rustix::io::Errno::MFILE, "too-many-channels", "close some");
/// #     rustix::io::write(&agent, &reply.encode().unwrap()).unwrap();
/// # });
/// # let inherited: OwnedFd = client;
/// let lease = Lease::from_fd(inherited);
/// match lease.open_channel() {
///     Ok(mut channel) => println!("{}", channel.ioas_alloc()?),
///     Err(error) => assert_eq!(error.code(), Some("too-many-channels")),
/// }
/// # refusing.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Lease(OwnedFd);

impl Lease {
    /// Connects to the agent's socket at `path`: a new context.
    ///
    /// # Errors
    /// If nobody answers there, or access is denied.
    pub fn connect(path: &Path) -> Result<Self, CallError> {
        transport::connect(path).map(Self)
    }

    /// Takes over a lease, for instance one that was inherited.
    #[must_use]
    pub const fn from_fd(lease: OwnedFd) -> Self {
        Self(lease)
    }

    /// Gives the descriptor away.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Opens a channel of the context. Waits for the answer.
    ///
    /// # Errors
    /// [`CallError::Refused`]: EMFILE if the context has too many; the socket's.
    pub fn open_channel(&self) -> Result<Connection, CallError> {
        let echo = Echo { command: ChannelOpen::NUMBER, tag: Tag(0) };
        let message = request(echo, &ChannelOpen::default(), &[])?;
        transport::send(self.0.as_fd(), &message, &[], Wait::Yes)?;
        let mut buffer = vec![0; ANSWER_MAX];
        let received = transport::receive(self.0.as_fd(), &mut buffer, Wait::Yes)?;
        let (length, fds) = received.ok_or(ProtocolError::Closed)?;
        let reply = Reply::decode(buffer.get(..length).unwrap_or_default())?;
        let Echo { command, tag: Tag(tag) } = reply.echo;
        if reply.echo != echo {
            return Err(ProtocolError::OtherRequest { command, tag }.into());
        }
        not_refused::<ChannelOpen>(reply)?;
        Ok(Connection::from_fd(only_descriptor(ChannelOpen::NAME, fds)?))
    }
}

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
