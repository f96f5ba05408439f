//! HWPT_INVALIDATE: its entries can be more than a message holds, and are sent in pieces.
//!
//! Imports allowed: call, channels, lease, memory, message, sys, the client crate's wire.

use std::ffi::c_int;

use ioasd_client::wire::FRAME_MAX;
use ioasd_client::wire::command::Command;
use ioasd_client::wire::uapi::{HwptInvalidate, INVALIDATE_ENTRIES_MAX, INVALIDATE_ENTRY_MAX, NOWHERE};

use crate::call::Given;
use crate::channels;
use crate::lease::Lease;
use crate::memory::{Address, Range};
use crate::message::{Inbound, Outbound, Packed, exchange};
use crate::sys::Errno;

/// Bytes of entries in one message.
const PIECE: usize = FRAME_MAX - 1024;

/// Carries out HWPT_INVALIDATE; how many entries were carried out is written also if it failed.
///
/// # Errors
/// The errno of the ioctl.
pub(crate) fn ioctl(lease: Lease, given: &Given) -> Result<c_int, Errno> {
    let command = HwptInvalidate::load(given.known());
    let mut done = 0;
    let outcome = pieces(lease, &command, &mut done);
    let answer = Packed::of(&HwptInvalidate { entry_num: done, ..command });
    given.write_back(answer.bytes())?;
    outcome.map(|()| 0)
}

fn pieces(lease: Lease, command: &HwptInvalidate, done: &mut u32) -> Result<(), Errno> {
    let HwptInvalidate { data_uptr, entry_len, entry_num, .. } = *command;
    let start = Address(data_uptr.get());
    let sane = start.0 != 0 && (1..=INVALIDATE_ENTRY_MAX).contains(&entry_len);
    if !sane || entry_num == 0 || entry_num > INVALIDATE_ENTRIES_MAX {
        let data_uptr = if start.0 == 0 { NOWHERE } else { data_uptr };
        return send(lease, &HwptInvalidate { data_uptr, ..*command }, None)?.outcome();
    }
    let most = u32::try_from(PIECE / entry_len as usize).unwrap_or(1);
    while *done < entry_num {
        let entries = most.min(entry_num - *done);
        let (before, len) = (*done as usize * entry_len as usize, entries as usize * entry_len as usize);
        let piece = HwptInvalidate { data_uptr: Default::default(), entry_num: entries, ..*command };
        let reply = send(lease, &piece, Some(Range { start: start.behind(before), len }))?;
        *done += HwptInvalidate::load(reply.body()).entry_num.min(entries);
        reply.outcome()?;
    }
    Ok(())
}

fn send(lease: Lease, command: &HwptInvalidate, payload: Option<Range>) -> Result<Inbound, Errno> {
    let packed = Packed::of(command);
    let outbound = Outbound { payload, ..Outbound::plain(&packed) };
    channels::call(lease, |channel| exchange(channel, outbound, None))
}
