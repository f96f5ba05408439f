//! Bitmaps of what devices have written: they travel in parts, straight between the program's memory and the socket.
//!
//! The program's bitmap goes to the agent, which sets bits besides those that are set, and comes back.
//!
//! Imports allowed: channels, lease, memory, message, sys, the client crate's wire.

use std::ffi::c_int;

use ioasd_client::units::ByteLen;
use ioasd_client::wire::own::DIRTY_PART_MAX;
use ioasd_client::wire::uapi::HwptGetDirtyBitmap;

use crate::channels;
use crate::lease::Lease;
use crate::memory::{Address, Range};
use crate::message::{Outbound, Packed, exchange};
use crate::sys::Errno;

/// The parts of a bitmap in the program's memory: at least one, which may be empty. Each with its first byte in the bitmap.
pub(crate) fn parts(start: Address, length: u64, page_size: u64) -> impl Iterator<Item = (usize, Range)> {
    let bytes = length.checked_div(page_size).unwrap_or(0).div_ceil(8);
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    (0..bytes.max(1)).step_by(DIRTY_PART_MAX).map(move |first| {
        let len = bytes.saturating_sub(first).min(DIRTY_PART_MAX);
        (first, Range { start: start.behind(first), len })
    })
}

/// HWPT_GET_DIRTY_BITMAP. As in the kernel it is no error if the bitmap cannot be written, and no more is asked then.
///
/// # Errors
/// The errno of the ioctl.
pub(crate) fn get_bitmap(lease: Lease, ask: &HwptGetDirtyBitmap) -> Result<c_int, Errno> {
    for (first, part) in parts(Address(ask.data.get()), ask.length.get(), ask.page_size.get()) {
        let packed = Packed::of(&HwptGetDirtyBitmap { data: ByteLen::new(first as u64), ..*ask });
        let outbound = Outbound { payload: Some(part), ..Outbound::plain(&packed) };
        let errno = match channels::call(lease, |channel| exchange(channel, outbound, Some(part))) {
            Ok(reply) if reply.errno == 0 => continue,
            Ok(reply) => Errno::from_raw_os_error(reply.errno),
            Err(errno) => errno,
        };
        return if errno == Errno::FAULT { Ok(0) } else { Err(errno) };
    }
    Ok(0)
}
