//! Arrays on their way to the agent: as payload if they fit, else in a memfd.
//!
//! Imports allowed: error, wire, rustix.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};

use crate::error::CallError;
use crate::wire::FRAME_MAX;
use crate::wire::record::{Record, load_all, store_all};

/// Bytes of the longest array that travels as payload: headers and structs need some room.
const PAYLOAD_MAX: usize = FRAME_MAX - 1024;

/// An array of records, and where it lies.
pub(super) struct Array {
    bytes: Vec<u8>,
    memfd: Option<OwnedFd>,
}

impl Array {
    /// Puts records where they fit.
    pub(super) fn of<R: Record>(records: &[R]) -> Result<Self, CallError> {
        let bytes = store_all(records);
        let memfd = if bytes.len() > PAYLOAD_MAX { Some(filled(&bytes)?) } else { None };
        Ok(Self { bytes, memfd })
    }

    /// What travels behind the struct.
    pub(super) fn payload(&self) -> &[u8] {
        if self.memfd.is_some() { &[] } else { &self.bytes }
    }

    /// The memfd, which must be the last descriptor of the message.
    pub(super) fn memfd(&self) -> Option<BorrowedFd<'_>> {
        self.memfd.as_ref().map(AsFd::as_fd)
    }

    /// The records as the agent gave them back.
    pub(super) fn given_back<R: Record>(self, payload: &[u8]) -> Result<Vec<R>, CallError> {
        let Some(memfd) = self.memfd else { return Ok(load_all(payload)) };
        let mut bytes = self.bytes;
        read_all(&memfd, &mut bytes).map_err(doing("read an array back"))?;
        Ok(load_all(&bytes))
    }
}

fn filled(bytes: &[u8]) -> Result<OwnedFd, CallError> {
    let memfd = memfd_create("ioasd-array", MemfdFlags::CLOEXEC).map_err(doing("make a memfd"))?;
    ftruncate(&memfd, bytes.len() as u64).map_err(doing("size a memfd"))?;
    write_all(&memfd, bytes).map_err(doing("fill a memfd"))?;
    Ok(memfd)
}

fn write_all(memfd: &OwnedFd, bytes: &[u8]) -> Result<(), Errno> {
    let (mut rest, mut at) = (bytes, 0);
    while !rest.is_empty() {
        let count = retry_on_intr(|| pwrite(memfd, rest, at))?;
        rest = rest.get(count..).unwrap_or_default();
        at += count as u64;
    }
    Ok(())
}

fn read_all(memfd: &OwnedFd, bytes: &mut [u8]) -> Result<(), Errno> {
    let (mut rest, mut at) = (bytes, 0);
    while !rest.is_empty() {
        let count = retry_on_intr(|| pread(memfd, &mut *rest, at))?;
        if count == 0 {
            return Err(Errno::FAULT);
        }
        rest = rest.get_mut(count..).unwrap_or_default();
        at += count as u64;
    }
    Ok(())
}

fn doing(doing: &'static str) -> impl Fn(Errno) -> CallError {
    move |source| CallError::Io { doing, source }
}
