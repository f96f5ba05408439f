//! Export channels: WALKER_OPEN, WALKER_FILE.
//!
//! Imports allowed: units, connection, error, wire.

use std::os::fd::OwnedFd;

use super::require_payload;
use crate::connection::Connection;
use crate::error::{CallError, ProtocolError};
use crate::units::Iova;
use crate::wire::own::{FRAME_WINDOW_BYTES, WALKER_LOG, WALKER_OPEN_FDS, WalkerFile, WalkerOpen};

/// The right to open one domain as a walker, in this process or another.
#[derive(Debug)]
pub struct ExportChannel(Connection);

/// What a walker needs: all of it comes from the agent and is checked by whoever maps it.
#[derive(Debug)]
pub struct DomainParts {
    /// The table arena.
    pub arena: OwnedFd,
    /// This walker's slots.
    pub slots: OwnedFd,
    /// This walker's dirty log, if writes to the domain can be tracked.
    pub log: Option<OwnedFd>,
    /// Frame windows, 32 bytes each.
    pub windows: Vec<u8>,
    /// The backing files, by the index the windows use.
    pub files: Vec<OwnedFd>,
}

/// A backing file that is new to a walker.
#[derive(Debug)]
pub struct FileParts {
    /// Frame windows, 32 bytes each.
    pub windows: Vec<u8>,
    /// The file.
    pub file: OwnedFd,
}

impl ExportChannel {
    /// Takes over the descriptor that [`Connection::domain_export`] gave.
    #[must_use]
    pub fn from_fd(channel: OwnedFd) -> Self {
        Self(Connection::from_fd(channel))
    }

    /// Opens the domain. Each call makes another walker, with slots of its own.
    ///
    /// # Errors
    /// [`CallError::Refused`], EMFILE if too many walkers were opened through this channel; the socket's.
    pub fn open(&mut self) -> Result<DomainParts, CallError> {
        let own = |open: &WalkerOpen| WALKER_OPEN_FDS as u64 + u64::from(open.flags & WALKER_LOG != 0);
        let expected = |open: &WalkerOpen| u64::from(open.out_files) + own(open);
        let answer = self.0.call(&WalkerOpen::default(), &[], &[], expected)?;
        require_payload("WALKER_OPEN", windows_bytes(answer.value.out_windows), &answer.payload)?;
        let mut fds = answer.fds.into_iter();
        let (Some(arena), Some(slots)) = (fds.next(), fds.next()) else {
            let wanted = WALKER_OPEN_FDS as u64;
            return Err(ProtocolError::Descriptors { command: "WALKER_OPEN", wanted, found: 0 }.into());
        };
        let log = if answer.value.flags & WALKER_LOG == 0 { None } else { fds.next() };
        Ok(DomainParts { arena, slots, log, windows: answer.payload, files: fds.collect() })
    }

    /// The file that lies behind `iova` now.
    ///
    /// # Errors
    /// [`CallError::Refused`], ENOENT if nothing is mapped there, EPERM if it is not exported; the socket's.
    pub fn file_at(&mut self, iova: Iova) -> Result<FileParts, CallError> {
        let answer = self.0.call(&WalkerFile { iova, ..WalkerFile::default() }, &[], &[], |_| 1)?;
        require_payload("WALKER_FILE", windows_bytes(answer.value.out_windows), &answer.payload)?;
        let file = answer.fds.into_iter().next();
        let missing = ProtocolError::Descriptors { command: "WALKER_FILE", wanted: 1, found: 0 };
        Ok(FileParts { windows: answer.payload, file: file.ok_or(missing)? })
    }
}

fn windows_bytes(windows: u32) -> u64 {
    u64::from(windows) * FRAME_WINDOW_BYTES as u64
}
