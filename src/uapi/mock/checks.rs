//! MD_CHECK_MAP, MD_CHECK_REFS.
//!
//! Imports allowed: actors, the client crate's wire.

use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, Iova, PAGE_SIZE};
use ioasd_client::wire::mock::TestCmd;
use ioasd_client::wire::record::load_all;

use crate::actors::client_context::mock::checks::Memory;
use crate::error::Errno;
use crate::storage::refusal::Refusal;
use crate::uapi::{Call, Done};

/// The memory of the sender at `address`, of which the payload tells the pages.
pub(super) fn memory(call: &Call<'_>, address: u64) -> Memory {
    let process = call.sender.as_ref().and_then(|sender| sender.process.clone());
    Memory::new(load_all(call.payload), address, process)
}

pub(super) async fn check_map(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let (iova, length, address) = (command.at_16, command.at_24, command.at_32);
    let range = (Iova::new(iova), ByteLen::new(length));
    let memory = (address, memory(&call, address));
    call.client.mock_check_map(ObjectId::new(command.id), range, memory).await?;
    Ok(Done::nothing())
}

pub(super) async fn check_refs(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let (length, address, wanted) = (command.at_16, command.at_24, command.field(32));
    let hardware = call.client.mock_hardware().filter(|_| (length | address) % PAGE_SIZE == 0);
    let Some(hardware) = hardware else {
        let text = format!("{length} bytes at {address:#x} are not whole pages");
        return Err(Refusal::new(Errno::INVAL, "not-whole-pages", text));
    };
    let memory = memory(&call, address);
    call.client.mock_check_refs(hardware, (length / PAGE_SIZE, wanted), &memory).await?;
    Ok(Done::nothing())
}
