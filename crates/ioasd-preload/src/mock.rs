//! The test command: what its operations name by address or by descriptor is sent as what it is.
//!
//! Imports allowed: backing, call, channels, dirty, lease, memory, message, sys, the client crate's wire.

use std::ffi::c_int;

use ioasd_client::wire::command::Command;
use ioasd_client::wire::field::Field;
use ioasd_client::wire::mock::{
    ACCESS_MAX, ACCESS_NAME, ACCESS_SLOW, ACCESS_WRITE, BY_AREA, MemoryPlace, OP_ACCESS_PAGES,
    OP_ACCESS_PLACES, OP_ACCESS_REPLACE_IOAS, OP_ACCESS_RW, OP_CREATE_ACCESS, OP_DESTROY_ACCESS_PAGES,
    OP_DIRTY, OP_DMABUF_GET, OP_DMABUF_REVOKE, OP_LAST, OP_MD_CHECK_MAP, OP_MD_CHECK_REFS, PLACES_MAX,
    TestCmd,
};
use ioasd_client::wire::own::ACCESS_RW_MAX;
use ioasd_client::wire::record::Record;

use crate::backing::Extents;
use crate::call::Given;
use crate::channels;
use crate::dirty;
use crate::lease::Lease;
use crate::memory::{self, Address, Range};
use crate::message::{Inbound, Outbound, Packed, exchange};
use crate::sys::{self, Errno, Fd, abstract_name};

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Where the offset begins in an address that is told by its area.
const OFFSET: u32 = u32::BITS;

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
            let into_page =
                if by_area(command.field(16)) { command.at_24 >> OFFSET } else { command.at_24 } % PAGE;
            let start = command.at_40.wrapping_sub(into_page);
            let length = command.at_32.saturating_add(into_page);
            with_memory(lease, given, &for_access(&command), (start, length))
        }
        OP_DESTROY_ACCESS_PAGES | OP_ACCESS_REPLACE_IOAS => plain(lease, given, &for_access(&command)),
        OP_ACCESS_RW => move_bytes(lease, &for_access(&command)),
        OP_DIRTY => mark_dirty(lease, given, &command),
        OP_CREATE_ACCESS => create(lease, given, &command),
        OP_DMABUF_GET => buffer(lease, &command),
        OP_DMABUF_REVOKE => give(lease, &command),
        unknown if unknown > OP_LAST => Err(Errno::OPNOTSUPP),
        _ => plain(lease, given, &command),
    }
}

/// Whether there is mock hardware: without, the agent does not know the command, however it is sent.
pub(crate) fn is_there(lease: Lease) -> bool {
    let nothing = Outbound { command: TestCmd::NUMBER, argument: &[], payload: None, fd: None };
    let reply = channels::call(lease, |channel| exchange(channel, nothing, None));
    !reply.is_ok_and(|reply| reply.errno == Errno::NOTTY.raw_os_error())
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

/// Memory of the program itself is reached by its address, as in the kernel, all else by messages. What was moved before
/// an error stays moved.
fn move_bytes(lease: Lease, command: &TestCmd) -> Result<c_int, Errno> {
    if command.at_24 == 0 || command.at_24 > ACCESS_MAX {
        return send(lease, command, None, None)?.outcome().map(|()| 0);
    }
    let (mut rest, mut moves): (TestCmd, Moving) = match command.field::<u32>(40) & ACCESS_SLOW {
        0 => (*command, move_own),
        _ => (*command, move_by_message),
    };
    while rest.at_24 > 0 {
        let moved = moves(lease, &rest)?;
        if moved == 0 {
            moves = move_by_message;
        }
        rest = behind(&rest, moved);
    }
    Ok(0)
}

/// Moves bytes from the start of what a command asks for; tells how many.
type Moving = fn(Lease, &TestCmd) -> Result<usize, Errno>;

/// What a command asks for without its first bytes.
fn behind(command: &TestCmd, moved: usize) -> TestCmd {
    let bytes = moved as u64;
    let further = if by_area(command.field(40)) { bytes << OFFSET } else { bytes };
    TestCmd {
        at_16: command.at_16.wrapping_add(further),
        at_24: command.at_24.saturating_sub(bytes),
        at_32: Address(command.at_32).behind(moved).0,
        ..*command
    }
}

fn writes(command: &TestCmd) -> bool {
    command.field::<u32>(40) & ACCESS_WRITE != 0
}

/// Moves what lies in memory of this process, which the agent tells.
fn move_own(lease: Lease, command: &TestCmd) -> Result<usize, Errno> {
    let mut places = [0; PLACES_MAX * MemoryPlace::BYTES];
    let asked = TestCmd { op: OP_ACCESS_PLACES, ..*command };
    let reply = send(lease, &asked, None, Some(Range::of_mut(&mut places)))?;
    reply.outcome()?;
    let mut moved = 0;
    for place in places.chunks(MemoryPlace::BYTES).take(reply.head.payload / MemoryPlace::BYTES) {
        let place = MemoryPlace::load(place);
        let len = usize::try_from(place.length).unwrap_or(usize::MAX);
        let mapped = Range { start: Address(place.address), len };
        let given = Range { start: Address(command.at_32).behind(moved), len };
        let (from, to) = if writes(command) { (given, mapped) } else { (mapped, given) };
        memory::copy(from, to.start)?;
        moved += len;
    }
    Ok(moved)
}

/// Moves as much as a message may carry.
fn move_by_message(lease: Lease, command: &TestCmd) -> Result<usize, Errno> {
    let len = usize::try_from(command.at_24).unwrap_or(usize::MAX).min(ACCESS_RW_MAX);
    let piece = Range { start: Address(command.at_32), len };
    let part = TestCmd { at_24: len as u64, ..*command };
    let (payload, into) = if writes(command) { (Some(piece), None) } else { (None, Some(piece)) };
    send(lease, &part, payload, into)?.outcome()?;
    Ok(len)
}

/// Whether addresses are the number of an area and, from bit [`OFFSET`] on, an offset in it.
const fn by_area(flags: u32) -> bool {
    flags & BY_AREA != 0
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

/// Unlike any other operation this one returns the number of the new descriptor.
fn buffer(lease: Lease, command: &TestCmd) -> Result<c_int, Errno> {
    let reply = send(lease, command, None, None)?;
    reply.outcome()?;
    let number = reply.fd.ok_or(Errno::MFILE)?.into_number();
    if command.field::<c_int>(20) & libc::O_CLOEXEC == 0 {
        sys::keep_on_exec(number)?;
    }
    Ok(number)
}

fn give(lease: Lease, command: &TestCmd) -> Result<c_int, Errno> {
    let packed = Packed::of(command);
    let outbound = Outbound { fd: Some(command.field(16)), ..Outbound::plain(&packed) };
    channels::call(lease, |channel| exchange(channel, outbound, None))?.outcome().map(|()| 0)
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
