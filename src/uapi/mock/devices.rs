//! ADD_RESERVED, MOCK_DOMAIN, MOCK_DOMAIN_FLAGS, MOCK_DOMAIN_REPLACE, SET_TEMP_MEMORY_LIMIT.
//!
//! Imports allowed: actors, storage's request checks, the client crate's wire.

use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::wire::mock::{DEVICE_NO_DIRTY, DEVICE_PASIDS, OP_MOCK_DOMAIN_FLAGS, PASIDS, TestCmd};

use crate::domains::spec::Recording;
use crate::error::Errno;
use crate::storage::io_pagetable::check_range;
use crate::storage::refusal::Refusal;
use crate::uapi::{Call, Done};

/// Bytes that a run takes in the kernel's batch.
const RUN_BYTES: u32 = 12;

pub(super) async fn add_reserved(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let range = check_range(Iova::new(command.at_16), ByteLen::new(command.at_24));
    let range = range.map_err(|error| Refusal::of(&error))?;
    call.client.mock_reserve(ObjectId::new(command.id), range).await?;
    Ok(Done::nothing())
}

pub(super) async fn mock_domain(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    const KNOWN: u32 = DEVICE_NO_DIRTY | DEVICE_PASIDS;
    let flags: u32 = if command.op == OP_MOCK_DOMAIN_FLAGS { command.field(28) } else { 0 };
    if flags & !KNOWN != 0 {
        let text = format!("a mock device has no flags {:#x}", flags & !KNOWN);
        return Err(Refusal::new(Errno::INVAL, "flags-unknown", text));
    }
    let pasids = if flags & DEVICE_PASIDS == 0 { 0 } else { PASIDS };
    let recording = if flags & DEVICE_NO_DIRTY == 0 { Recording::Writes } else { Recording::Nothing };
    let made = call.client.mock_domain(ObjectId::new(command.id), pasids, recording).await?;
    Ok(Done::value(command.with(16, made.stdev).with(20, made.hwpt).with(24, made.idev)))
}

pub(super) async fn mock_domain_replace(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let (stdev, target) = (ObjectId::new(command.id), command.field(16));
    let hwpt = call.client.mock_domain_replace(stdev, target).await?;
    Ok(Done::value(command.with(16, hwpt)))
}

pub(super) fn set_temp_memory_limit(command: TestCmd, call: &Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let limit: u32 = command.field(16);
    let runs = limit / RUN_BYTES;
    match call.client.mock_hardware().filter(|_| runs > 0) {
        Some(mock) => {
            mock.limit_runs(runs);
            Ok(Done::nothing())
        }
        None => {
            let text = format!("{limit} bytes are less than a run of {RUN_BYTES}");
            Err(Refusal::new(Errno::INVAL, "temp-memory-limit", text))
        }
    }
}
