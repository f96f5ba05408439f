//! IOAS_CHANGE_PROCESS.
//!
//! Imports allowed: actors, the client crate's wire.

use ioasd_client::wire::command::Command;
use ioasd_client::wire::uapi::IoasChangeProcess;

use super::{Call, Done, Serve, check_no_fds, check_reserved};
use crate::storage::refusal::Refusal;

impl Serve for IoasChangeProcess {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_reserved(Self::NAME, self.reserved)?;
        call.client.change_process(call.sender.as_ref()).await?;
        Ok(Done::value(self))
    }
}
