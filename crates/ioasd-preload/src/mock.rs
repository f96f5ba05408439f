//! The test command: what its operations name by address or by descriptor is sent as what it is.
//!
//! Imports allowed: backing, call, channels, dirty, lease, memory, message, sys, the client crate's wire.

use std::ffi::c_int;

use ioasd_client::wire::command::Command;
use ioasd_client::wire::field::Field;
use ioasd_client::wire::mock::{
    ACCESS_MAX, ACCESS_NAME, ACCESS_WRITE, OP_ACCESS_PAGES, OP_ACCESS_REPLACE_IOAS, OP_ACCESS_RW,
    OP_CREATE_ACCESS, OP_DESTROY_ACCESS_PAGES, OP_DIRTY, OP_MD_CHECK_MAP, OP_MD_CHECK_REFS, TestCmd,
};
use ioasd_client::wire::own::ACCESS_RW_MAX;

use crate::backing::Extents;
use crate::call::Given;
use crate::channels;
use crate::dirty;
use crate::lease::Lease;
use crate::memory::{Address, Range};
use crate::message::{Inbound, Outbound, Packed, exchange};
use crate::sys::{Errno, Fd, abstract_name};

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Carries out the test command.
///
/// # Errors
/// The errno of the ioctl.
pub(crate) fn test(lease: Lease, given: &Given) -> Result<c_int, Errno> {
    let command = TestCmd::load(given.known());
    match command.op {
        OP_MD_CHECK_MAP => with_memory(lease, given, &command, (command.at_32, command.at_24)),
        OP_MD_CHECK_REFS => with_memory(lease, given, &command, (command.at_24, command.at_16)),
        OP_ACCESS_PAGES => {
            let start = command.at_40.wrapping_sub(command.at_24 % PAGE);
            let length = command.at_32.saturating_add(command.at_24 % PAGE);
            with_memory(lease, given, &for_access(&command), (start, length))
        }
        OP_DESTROY_ACCESS_PAGES | OP_ACCESS_REPLACE_IOAS => plain(lease, given, &for_access(&command)),
        OP_ACCESS_RW => move_bytes(lease, &for_access(&command)),
        OP_DIRTY => mark_dirty(lease, given, &command),
        OP_CREATE_ACCESS => create(lease, given, &command),
        _ => plain(lease, given, &command),
    }
}

/// The command with the access's object id in place of its descriptor.
fn for_access(command: &TestCmd) -> TestCmd {
    TestCmd { id: access_of(command.id.cast_signed()).unwrap_or(0), ..*command }
}

fn access_of(fd: c_int) -> Option<u32> {
    abstract_name(fd)?.behind(ACCESS_NAME).map(u32::from_be_bytes)
}

fn plain(lease: Lease, given: &Given, command: &TestCmd) -> Result<c_int, Errno> {
    finish(given, command, &send(lease, command, None, None)?)
}

fn with_memory(
    lease: Lease,
    given: &Given,
    command: &TestCmd,
    (start, length): (u64, u64),
) -> Result<c_int, Errno> {
    let memory = Range { start: Address(start), len: usize::try_from(length).unwrap_or(usize::MAX) };
    let extents = Extents::of(memory);
    finish(given, command, &send(lease, command, Some(extents.range()), None)?)
}

/// Bytes move in pieces as long as a message may be; what was moved before an error stays moved, as in the kernel.
fn move_bytes(lease: Lease, command: &TestCmd) -> Result<c_int, Errno> {
    let (iova, length, memory) = (command.at_16, command.at_24, Address(command.at_32));
    if length == 0 || length > ACCESS_MAX {
        return send(lease, command, None, None)?.outcome().map(|()| 0);
    }
    let (length, mut done) = (usize::try_from(length).unwrap_or(usize::MAX), 0);
    while done < length {
        let piece = Range { start: memory.behind(done), len: (length - done).min(ACCESS_RW_MAX) };
        let at = iova.wrapping_add(done as u64);
        let part = TestCmd { at_16: at, at_24: piece.len as u64, ..*command };
        let writes = command.field::<u32>(40) & ACCESS_WRITE != 0;
        let (payload, into) = if writes { (Some(piece), None) } else { (None, Some(piece)) };
        send(lease, &part, payload, into)?.outcome()?;
        done += piece.len;
    }
    Ok(0)
}

/// The bitmap travels in parts; the struct comes back with the bits of all of them.
fn mark_dirty(lease: Lease, given: &Given, command: &TestCmd) -> Result<c_int, Errno> {
    if command.at_48 == 0 {
        return Err(Errno::INVAL);
    }
    let mut count = 0_u64;
    for (first, part) in dirty::parts(Address(command.at_48), command.at_32, command.at_40) {
        let reply = send(lease, &TestCmd { at_48: first as u64, ..*command }, Some(part), None)?;
        reply.outcome()?;
        count = count.saturating_add(TestCmd::load(reply.body()).at_56);
    }
    given.write_back(&struct_of(&TestCmd { at_56: count, ..*command }))?;
    Ok(0)
}

/// The new access is the descriptor of the reply; its number goes where the program looks for it.
fn create(lease: Lease, given: &Given, command: &TestCmd) -> Result<c_int, Errno> {
    let reply = send(lease, command, None, None)?;
    reply.outcome()?;
    let access = reply.fd.ok_or(Errno::MFILE)?;
    given.write_back(&struct_of(&command.with(16, access.number())))?;
    kept(access)
}

/// The program's from now on.
fn kept(access: Fd) -> Result<c_int, Errno> {
    let number = access.into_number();
    debug_assert!(number >= 0, "a descriptor has a number");
    Ok(0)
}

fn send(
    lease: Lease,
    command: &TestCmd,
    payload: Option<Range>,
    into: Option<Range>,
) -> Result<Inbound, Errno> {
    let packed = Packed::of(command);
    let outbound = Outbound { payload, ..Outbound::plain(&packed) };
    channels::call(lease, |channel| exchange(channel, outbound, into))
}

/// Writes the struct of a reply back, with the id that the program gave.
fn finish(given: &Given, command: &TestCmd, reply: &Inbound) -> Result<c_int, Errno> {
    reply.outcome()?;
    if !reply.body().is_empty() {
        let id = TestCmd::load(given.known()).id;
        let answer = TestCmd { id, reserved: command.reserved, ..TestCmd::load(reply.body()) };
        given.write_back(&struct_of(&answer))?;
    }
    Ok(0)
}

fn struct_of(command: &TestCmd) -> [u8; TestCmd::SIZE] {
    let mut bytes = [0; TestCmd::SIZE];
    u32::try_from(TestCmd::SIZE).unwrap_or(u32::MAX).store(&mut bytes, 0);
    command.store(&mut bytes);
    bytes
}
