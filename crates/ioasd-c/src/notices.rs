//! Notices: what an access is asked to let go of.
//!
//! Imports allowed: boundary, constants, handles; notices, ids and units of the client crate.
#![expect(unsafe_code, reason = "exported names")]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use ioasd_client::ids::AccessId;
use ioasd_client::notices::{Notice, NoticeChannel};
use ioasd_client::units::{Iova, IovaRange};
use ioasd_client::wire::frame::Tag;

use crate::boundary::{boundary, wanted};
use crate::constants::{IOASD_NOTICES_WAIT, only_flag};
use crate::error::{Failure, Misuse};
use crate::handles::Handles;

/// What tells an access what to let go of. Any thread may use it; one that waits in it keeps others waiting.
///
/// A notice that is not acknowledged within a second counts as missed; after three of them whoever unmaps is refused with
/// EDEADLK. When it is closed, the access lets go of everything at once.
pub struct NoticesHandle;

/// Asks an access to unpin everything from `iova` to `last`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NoticeRecord {
    /// The first address.
    pub iova: u64,
    /// The last address: the range may end at 2^64 - 1.
    pub last: u64,
    /// Which notice it is.
    pub tag: u64,
    /// The access.
    pub access: u32,
}

/// Whether to wait for a notice.
#[derive(Clone, Copy)]
enum Wait {
    Yes,
    No,
}

static OPEN: Handles<NoticesHandle, NoticeChannel> = Handles::new("notice channel");

pub(crate) fn open(channel: NoticeChannel) -> *mut NoticesHandle {
    OPEN.open(channel)
}

/// The descriptor of a notice channel, to poll() it: readable when a notice waits. It stays the channel's: do not close
/// it, and do not use it when the channel is closed.
///
/// @return the descriptor; -EBADF if the channel is not open.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_notices_fd(notices: *mut NoticesHandle) -> c_int {
    boundary(|| OPEN.with(notices, |channel| Ok::<_, Failure>(channel.as_fd().as_raw_fd())))
}

/// Stores the next notice to `notice`. Unpin what lies in its range, on any connection, then acknowledge it.
///
/// @param flags 0, or IOASD_NOTICES_WAIT to wait until there is one.
/// @return 0; -EAGAIN if none waits; -ECONNRESET if the access or its context is gone.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_notices_receive(
    notices: *mut NoticesHandle,
    flags: u32,
    notice: Option<&mut MaybeUninit<NoticeRecord>>,
) -> c_int {
    boundary(|| {
        let notice = wanted(notice, "notice")?;
        let wait = only_flag(flags, IOASD_NOTICES_WAIT, Wait::Yes, Wait::No)?;
        let received = OPEN.with(notices, |channel| receive(channel, wait))?;
        let Notice { access, range, tag } = received.ok_or(Misuse::NoNotice)?;
        let (iova, last) = (range.start().get(), range.last().get());
        notice.write(NoticeRecord { iova, last, tag: tag.0, access: access.get() });
        Ok(())
    })
}

fn receive(channel: &mut NoticeChannel, wait: Wait) -> Result<Option<Notice>, Failure> {
    Ok(match wait {
        Wait::Yes => Some(channel.receive()?),
        Wait::No => channel.try_receive()?,
    })
}

/// Tells the agent that everything a notice asked for is unpinned, or cannot be.
///
/// @return 0; -EAGAIN if the agent does not read: later again.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_notices_acknowledge(
    notices: *mut NoticesHandle,
    notice: Option<&NoticeRecord>,
) -> c_int {
    boundary(|| {
        let NoticeRecord { iova, last, tag, access } = *notice.ok_or(Misuse::Null("notice"))?;
        let range = IovaRange::new(Iova::new(iova), Iova::new(last));
        let range = range.ok_or(Misuse::Argument("notice", "one that was received"))?;
        let notice = Notice { access: AccessId::new(access), range, tag: Tag(tag) };
        OPEN.with(notices, |channel| Ok::<_, Failure>(channel.acknowledge(&notice)?))
    })
}

/// Closes a notice channel: the access lets go of everything, soon. If it is to be destroyed, do that first.
///
/// @return 0; -EBADF if it is not open.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_notices_close(notices: *mut NoticesHandle) -> c_int {
    boundary(|| Ok(OPEN.close(notices)?))
}
