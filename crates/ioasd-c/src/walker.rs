//! Walkers: exported domains, opened here.
//!
//! Imports allowed: boundary, handles, shell; walker and calls of the client crate.
#![expect(unsafe_code, reason = "exported names")]

use std::ffi::c_int;
use std::mem::MaybeUninit;

use ioasd_client::calls::ExportChannel;
use ioasd_client::walker::{Stream, Walker};

use crate::boundary::{boundary, duplicated, wanted};
use crate::error::Failure;
use crate::handles::Handles;
use crate::shell;

/// An exported domain that was opened here. Any thread may open streams of it.
pub struct WalkerHandle;

static OPEN: Handles<WalkerHandle, Walker> = Handles::new("walker");

/// A stream of a walker.
pub(crate) fn stream(walker: *mut WalkerHandle) -> Result<Stream, Failure> {
    OPEN.with(walker, |walker| Ok(walker.stream()?))
}

/// Opens the domain behind a descriptor that ioasd_domain_export() gave, and stores the walker to `walker`; close it with
/// ioasd_walker_close(). The tables and the memory behind them are mapped. The walker uses a duplicate: `channel` stays
/// yours to close.
///
/// @return 0; -EMFILE if too many walkers were opened through this channel, -EPROTO if it is not one.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_walker_open(
    channel: c_int,
    walker: Option<&mut MaybeUninit<*mut WalkerHandle>>,
) -> c_int {
    boundary(|| {
        shell::this_thread_is_outside()?;
        let walker = wanted(walker, "walker")?;
        let opened = Walker::attach(ExportChannel::from_fd(duplicated(channel)?))?;
        walker.write(OPEN.open(opened));
        Ok(())
    })
}

/// Closes a walker. Its streams go on until they are closed, too.
///
/// @return 0; -EBADF if it is not open.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_walker_close(walker: *mut WalkerHandle) -> c_int {
    boundary(|| Ok(OPEN.close(walker)?))
}
