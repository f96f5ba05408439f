//! Notices: what an access is asked to let go of, before an unmap takes it away.
//!
//! Imports allowed: connection, error, ids, transport, units, wire.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{CallError, ProtocolError};
use crate::ids::AccessId;
use crate::transport::{self, Wait};
use crate::units::IovaRange;
use crate::wire::channels::Notice as Asked;
use crate::wire::command::Command;
use crate::wire::frame::{Echo, FrameError, Reply, Request, Tag};

/// Bytes of the longest notice, with room for structs that grow.
const NOTICE_MAX: usize = 4096;

/// The user's end of an access's notice channel.
///
/// The descriptor is readable when a notice waits; put it into any event loop. A notice that is not answered within a
/// second counts as missed, and after three of them whoever unmaps is refused with EDEADLK, naming the access. When the
/// last copy of this descriptor is closed the access lets go of everything at once.
///
/// ```
/// # use ioasd_client::ids::AccessId;
/// # use ioasd_client::units::Iova;
/// # use ioasd_client::wire::{channels, command::{Argument, Command, encode}, frame::{Echo, Reply, Request, Tag}};
/// # use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
/// use ioasd_client::notices::NoticeChannel;
///
/// # let (user, agent) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::empty(), None)?;
/// # let asked = channels::Notice { access_id: AccessId::new(4), last: Iova::new(0xfff), ..Default::default() };
/// # let (echo, argument) = (Echo { command: channels::Notice::NUMBER, tag: Tag(1) }, encode(&asked));
/// # rustix::io::write(&agent, &Request { echo, argument: Argument::new(&argument) }.encode()?)?;
/// # let mut notices = NoticeChannel::from_fd(user);
/// while let Some(notice) = notices.try_receive()? {
///     // Unpin what lies in `notice.range`, on any channel, and when that is answered:
///     println!("access {} has let go of {}", notice.access, notice.range);
///     notices.acknowledge(&notice)?;
/// }
/// # let mut answer = [0; 64];
/// # let length = rustix::io::read(&agent, &mut answer)?;
/// # assert_eq!(Reply::decode(&answer[..length])?.echo, echo);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct NoticeChannel(OwnedFd);

/// Asks an access to let go of everything it has pinned in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "acknowledge it once what lies in its range is unpinned"]
pub struct Notice {
    /// The access.
    pub access: AccessId,
    /// The range.
    pub range: IovaRange,
    /// Which notice of the channel it is: what an acknowledgement repeats.
    pub tag: Tag,
}

impl NoticeChannel {
    /// Takes over a notice channel, for instance one that was inherited.
    #[must_use]
    pub const fn from_fd(channel: OwnedFd) -> Self {
        Self(channel)
    }

    /// Gives the descriptor away.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// The next notice; waits for it.
    ///
    /// # Errors
    /// [`ProtocolError::Closed`] when the access or its context is gone; the socket's.
    pub fn receive(&mut self) -> Result<Notice, CallError> {
        self.receive_with(Wait::Yes)?.ok_or_else(|| ProtocolError::Closed.into())
    }

    /// The next notice, if one waits.
    ///
    /// # Errors
    /// As [`NoticeChannel::receive`].
    pub fn try_receive(&mut self) -> Result<Option<Notice>, CallError> {
        self.receive_with(Wait::No)
    }

    /// Tells that everything that can be let go of is.
    ///
    /// # Errors
    /// [`CallError::NotNow`] if the agent does not read; the socket's.
    pub fn acknowledge(&mut self, notice: &Notice) -> Result<(), CallError> {
        let echo = Echo { command: Asked::NUMBER, tag: notice.tag };
        let message = Reply::done(echo, &[], &[]).encode()?;
        transport::send(self.0.as_fd(), &message, &[], Wait::No)
    }

    fn receive_with(&mut self, wait: Wait) -> Result<Option<Notice>, CallError> {
        let mut buffer = [0; NOTICE_MAX];
        let Some((length, fds)) = transport::receive(self.0.as_fd(), &mut buffer, wait)? else {
            return Ok(None);
        };
        let found = fds.len();
        if found != 0 {
            return Err(ProtocolError::Descriptors { command: Asked::NAME, wanted: 0, found }.into());
        }
        understand(buffer.get(..length).unwrap_or_default()).map(Some)
    }
}

impl AsFd for NoticeChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn understand(message: &[u8]) -> Result<Notice, CallError> {
    let request = Request::decode(message)?;
    let Echo { command, tag } = request.echo;
    if command != Asked::NUMBER {
        return Err(ProtocolError::OtherRequest { command, tag: tag.0 }.into());
    }
    let short = FrameError::Length { declared: Asked::SIZE as u64, found: message.len() };
    let asked = request.argument.decode::<Asked>().map_err(|_| short)?.value;
    let range = IovaRange::new(asked.iova, asked.last).ok_or(short)?;
    Ok(Notice { access: asked.access_id, range, tag })
}
