//! CHANNEL_OPEN, MEMORY_SERVE.
//!
//! Imports allowed: actors, the client crate's wire.

use std::rc::Rc;

use ioasd_client::wire::channels::{ChannelOpen, MemoryServe};
use ioasd_client::wire::command::Command;

use super::{Call, Done, Serve, check_flags, check_no_fds, check_reserved};
use crate::storage::refusal::Refusal;

impl Serve for ChannelOpen {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        check_reserved(Self::NAME, self.reserved)?;
        let channel = Rc::clone(call.client).open_channel()?;
        let out_credits = u32::try_from(call.client.credits()).unwrap_or(u32::MAX);
        Ok(Done::value(Self { out_credits, ..self }).with_fd(channel))
    }
}

impl Serve for MemoryServe {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        let channel = call.client.memory_serve(call.sender.as_ref())?;
        Ok(Done::value(self).with_fd(channel))
    }
}
