//! Fault channels: what the walkers of a domain could not reach, for a process that does something about it.
//!
//! Imports allowed: error, layout, transport, wire.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{CallError, ProtocolError};
use crate::layout::{Access, FaultKind};
use crate::transport::{self, Wait};
use crate::wire::channels::Faults as Told;
use crate::wire::command::Command;
use crate::wire::frame::{Echo, FrameError, Request};
use crate::wire::own::ACCESS_WRITE;
use crate::wire::record::{ToldFault, load_all};

/// Bytes of the longest message, with room for structs that grow.
const MESSAGE_MAX: usize = 16 * 1024;

/// The reader's end of a fault channel. The descriptor is readable when there are faults; put it into any event loop.
///
/// Nothing is kept for a reader but the last faults of its domain: one that is slow misses some, and is told how many.
#[derive(Debug)]
pub struct FaultChannel(OwnedFd);

/// Faults, in the order in which the agent learned of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Faults before these that were not told.
    pub missed: u64,
    /// The faults.
    pub faults: Vec<ToldFault>,
}

impl ToldFault {
    /// What was to be done with the memory.
    #[must_use]
    pub const fn access(&self) -> Access {
        if self.access & ACCESS_WRITE == 0 { Access::Read } else { Access::Write }
    }

    /// What was wrong; `None` if this library does not know it.
    #[must_use]
    pub fn kind(&self) -> Option<FaultKind> {
        FaultKind::ALL.get(usize::try_from(self.cause).ok()?).copied()
    }
}

impl FaultChannel {
    /// Takes over the descriptor that [`Connection::domain_faults`](crate::connection::Connection::domain_faults) gave.
    #[must_use]
    pub const fn from_fd(channel: OwnedFd) -> Self {
        Self(channel)
    }

    /// The next faults; waits for them.
    ///
    /// # Errors
    /// [`ProtocolError::Closed`] when the domain is gone; the socket's.
    pub fn receive(&mut self) -> Result<Faults, CallError> {
        self.receive_with(Wait::Yes)?.ok_or_else(|| ProtocolError::Closed.into())
    }

    /// The next faults, if some wait.
    ///
    /// # Errors
    /// As [`FaultChannel::receive`].
    pub fn try_receive(&mut self) -> Result<Option<Faults>, CallError> {
        self.receive_with(Wait::No)
    }

    fn receive_with(&mut self, wait: Wait) -> Result<Option<Faults>, CallError> {
        let mut buffer = [0; MESSAGE_MAX];
        let Some((length, fds)) = transport::receive(self.0.as_fd(), &mut buffer, wait)? else {
            return Ok(None);
        };
        let found = fds.len();
        if found != 0 {
            return Err(ProtocolError::Descriptors { command: Told::NAME, wanted: 0, found }.into());
        }
        understand(buffer.get(..length).unwrap_or_default()).map(Some)
    }
}

impl AsFd for FaultChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn understand(message: &[u8]) -> Result<Faults, CallError> {
    let request = Request::decode(message)?;
    let Echo { command, tag } = request.echo;
    if command != Told::NUMBER {
        return Err(ProtocolError::OtherRequest { command, tag: tag.0 }.into());
    }
    let short = FrameError::Length { declared: Told::SIZE as u64, found: message.len() };
    let decoded = request.argument.decode::<Told>().map_err(|_| short)?;
    let faults: Vec<ToldFault> = load_all(decoded.payload);
    if faults.len() as u64 != u64::from(decoded.value.count) {
        return Err(short.into());
    }
    Ok(Faults { missed: decoded.value.missed, faults })
}
