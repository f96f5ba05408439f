//! CREATE_ACCESS, ACCESS_PAGES, DESTROY_ACCESS_PAGES, ACCESS_RW, ACCESS_PLACES, ACCESS_REPLACE_IOAS.
//!
//! Imports allowed: actors, storage's request checks, the client crate's wire.

use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, Flag, Iova, IovaRange, PAGE_SIZE};
use ioasd_client::wire::mock::{ACCESS_MAX, ACCESS_NEEDS_PIN, ACCESS_SLOW, ACCESS_WRITE, BY_AREA, TestCmd};
use ioasd_client::wire::record::store_all;

use super::checks::memory;
use crate::error::Errno;
use crate::storage::io_pagetable::{Transfer, check_range};
use crate::storage::ioas::AccessNeeds;
use crate::storage::refusal::Refusal;
use crate::uapi::{Call, Done, check_flags};

/// The name of the command in messages about flags.
const NAME: &str = "TEST_CMD";

pub(super) async fn create(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let flags = command.field(20);
    check_flags(NAME, flags, ACCESS_NEEDS_PIN)?;
    let needs = match Flag::of(flags, ACCESS_NEEDS_PIN) {
        Flag::Set => AccessNeeds::Pins,
        Flag::Clear => AccessNeeds::Copies,
    };
    let (_, given) = call.client.mock_access_create(ObjectId::new(command.id), needs).await?;
    Ok(Done::value(command).with_fd(given))
}

pub(super) async fn pin(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let (access, flags) = (ObjectId::new(command.id), command.field(16));
    let (length, address) = (command.at_32, command.at_40);
    require_short(length)?;
    check_flags(NAME, flags, ACCESS_WRITE | BY_AREA)?;
    call.client.require_mock_pins(access)?;
    let iova = meant(&call, access, (command.at_24, flags)).await?;
    let range = check_range(iova, ByteLen::new(length)).map_err(|error| Refusal::of(&error))?;
    let direction = direction(flags);
    let item = call.client.mock_pin(access, (range, direction), |pinned| match address {
        0 => Ok(()),
        _ => {
            let start = address.wrapping_sub(iova.get() % PAGE_SIZE);
            call.client.mock_check_pinned(pinned, &memory(&call, start))
        }
    });
    Ok(Done::value(command.with(20, item.await?)))
}

pub(super) async fn unpin(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    call.client.mock_unpin(ObjectId::new(command.id), command.field(16)).await?;
    Ok(Done::nothing())
}

/// Where the front end finds the bytes itself: memory of the sender.
pub(super) async fn places(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let (access, range, direction) = transfer(&command, &call).await?;
    let process = call.sender.as_ref().and_then(|sender| sender.process.as_deref());
    let places = call.client.mock_places(access, (range, direction), process)?;
    Ok(Done::value(command).with_payload(store_all(&places)))
}

/// The access, range and direction of ACCESS_RW.
async fn transfer(command: &TestCmd, call: &Call<'_>) -> Result<(ObjectId, IovaRange, Transfer), Refusal> {
    let (access, flags) = (ObjectId::new(command.id), command.field(40));
    let length = ByteLen::new(command.at_24);
    require_short(length.get())?;
    check_flags(NAME, flags, ACCESS_WRITE | ACCESS_SLOW | BY_AREA)?;
    call.client.require_mock_access(access)?;
    let iova = meant(call, access, (command.at_16, flags)).await?;
    let range = check_range(iova, length).map_err(|error| Refusal::of(&error))?;
    Ok((access, range, direction(flags)))
}

/// The bytes are the payload. A front end sends a long transfer in pieces; one that is too long it sends without any.
pub(super) async fn move_bytes(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let (access, range, direction) = transfer(&command, &call).await?;
    let length = range.length();
    match direction {
        Transfer::Read => {
            let (bytes, refusal) = call.client.mock_read(access, range).await?;
            Ok(Done { refusal, ..Done::value(command).with_payload(bytes) })
        }
        Transfer::Write if call.payload.len() as u64 == length.get() => {
            call.client.access_write(access, range.start(), call.payload.to_vec()).await?;
            Ok(Done::value(command))
        }
        Transfer::Write => {
            let text = format!("{length} bytes are to be written, {} can be read", call.payload.len());
            Err(Refusal::new(Errno::FAULT, "payload-length", text))
        }
    }
}

pub(super) async fn replace_ioas(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let access = ObjectId::new(command.id);
    call.client.require_mock_access(access)?;
    call.client.access_replace(access, command.field(16)).await?;
    Ok(Done::nothing())
}

/// The address that an operation of an access means.
async fn meant(call: &Call<'_>, access: ObjectId, (address, flags): (u64, u32)) -> Result<Iova, Refusal> {
    match Flag::of(flags, BY_AREA) {
        Flag::Set => call.client.mock_address_of_access(access, address).await,
        Flag::Clear => Ok(Iova::new(address)),
    }
}

const fn direction(flags: u32) -> Transfer {
    match Flag::of(flags, ACCESS_WRITE) {
        Flag::Set => Transfer::Write,
        Flag::Clear => Transfer::Read,
    }
}

fn require_short(length: u64) -> Result<(), Refusal> {
    if length <= ACCESS_MAX {
        return Ok(());
    }
    let text = format!("{length} bytes are more than {ACCESS_MAX} at once");
    Err(Refusal::new(Errno::NOMEM, "transfer-too-long", text))
}
