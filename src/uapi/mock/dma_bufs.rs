//! DMABUF_GET, DMABUF_REVOKE.
//!
//! Imports allowed: actors, sources, the client crate's wire.

use std::os::fd::AsFd;

use ioasd_client::units::ByteLen;
use ioasd_client::wire::mock::TestCmd;

use crate::error::Errno;
use crate::sources::dma_buf::Given;
use crate::storage::refusal::Refusal;
use crate::uapi::{Call, Done};

pub(super) fn get(command: TestCmd, call: &Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let length: u32 = command.field(16);
    Ok(Done::value(command).with_fd(call.client.mock_dma_buf(ByteLen::new(length.into()))?))
}

/// The buffer is the one descriptor of the message.
pub(super) async fn revoke(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let [buffer] = &*call.fds else {
        let text = "DMABUF_REVOKE takes the buffer as the one descriptor of the message";
        return Err(Refusal::new(Errno::BADF, "file-missing", text));
    };
    let given = if command.field::<u32>(20) == 0 { Given::Yes } else { Given::TakenBack };
    call.client.mock_give(buffer.as_fd(), given).await?;
    Ok(Done::nothing())
}
