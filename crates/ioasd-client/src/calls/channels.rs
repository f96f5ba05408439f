//! Channels: CHANNEL_OPEN.
//!
//! Imports allowed: connection, error, wire.

use super::only_descriptor;
use crate::connection::Connection;
use crate::error::CallError;
use crate::lease::Lease;
use crate::wire::channels::ChannelOpen;
use crate::wire::command::Command;

/// A channel, and what the agent says about it.
#[derive(Debug)]
pub struct OpenedChannel {
    /// The channel.
    pub channel: Connection,
    /// Requests that may wait on it; one more is refused with EAGAIN.
    pub credits: u32,
}

impl Connection {
    /// Opens a further channel of the same context, for another thread or process. Requests of different channels do
    /// not wait for each other. It ends with the context, or when the last copy of it is closed.
    ///
    /// # Errors
    /// [`CallError::Refused`]: EMFILE if the context has too many; the socket's.
    pub fn open_channel(&mut self) -> Result<OpenedChannel, CallError> {
        let answer = self.call(&ChannelOpen::default(), &[], &[], |_| 1)?;
        let channel = Self::from_fd(only_descriptor(ChannelOpen::NAME, answer.fds)?);
        Ok(OpenedChannel { channel, credits: answer.value.out_credits })
    }

    /// Keeps the context alive with this socket, and nothing else: for one that was connected, not one that was opened.
    #[must_use]
    pub fn into_lease(self) -> Lease {
        Lease::from_fd(self.into_fd())
    }
}
