//! Arrays beside a command: in the payload, or in one memfd that comes with the message.
//!
//! A client's memfd is read with pread and written with pwrite, never mapped: a client that shrinks it meanwhile gets
//! EFAULT. Anything but memory is not touched at all.
//!
//! Imports allowed: sys, the client crate's wire.

use std::os::fd::AsFd;

use ioasd_client::units::ByteLen;
use ioasd_client::wire::FRAME_MAX;
use ioasd_client::wire::record::{Record, load_all, store_all};

use crate::error::Errno;
use crate::storage::refusal::Refusal;
use crate::sys::client_fd::ClientFd;
use crate::sys::file_io::{read_exact_at, write_all_at};
use crate::sys::file_state::{FileKind, kind};

/// Bytes an array in a memfd can have at most: it is copied while others of the arbiter wait.
const MEMFD_MAX: u64 = 4 << 20;

/// Bytes an array in the payload can have at most: it must fit into a reply as well, beside the struct.
const PAYLOAD_MAX: u64 = FRAME_MAX as u64 - 1024;

/// Where a command's array lies.
pub(super) struct Array<'m> {
    command: &'static str,
    payload: &'m [u8],
    memfd: Option<ClientFd>,
    offset: ByteLen,
}

impl<'m> Array<'m> {
    /// The array of a command whose message has these descriptors: none, or the memfd in which the array lies.
    ///
    /// # Errors
    /// EINVAL if there are more descriptors, or the one is no memory.
    pub(super) fn of(
        command: &'static str,
        payload: &'m [u8],
        fds: Vec<ClientFd>,
        offset: ByteLen,
    ) -> Result<Self, Refusal> {
        let given = fds.len();
        let mut fds = fds.into_iter();
        let memfd = fds.next();
        if fds.next().is_some() {
            let text =
                format!("{command} takes one descriptor at most, the memfd of its array; there are {given}");
            return Err(Refusal::new(Errno::INVAL, "surplus-descriptors", text));
        }
        if let Some(memfd) = &memfd {
            require_memory(command, memfd)?;
        }
        Ok(Self { command, payload, memfd, offset })
    }

    /// Reads `count` elements.
    ///
    /// # Errors
    /// EFAULT if the array ends before, ENOMEM if it is longer than any may be.
    pub(super) fn read<R: Record>(&self, count: u32) -> Result<Vec<R>, Refusal> {
        self.read_at(self.offset, count)
    }

    fn read_at<R: Record>(&self, offset: ByteLen, count: u32) -> Result<Vec<R>, Refusal> {
        let bytes = self.bytes_of::<R>(count)?;
        let Some(memfd) = &self.memfd else {
            let start = usize::try_from(offset.get()).ok();
            let array = start.and_then(|start| self.payload.get(start..start.checked_add(bytes)?));
            return array.map(load_all).ok_or_else(|| self.unreadable(bytes, "the message"));
        };
        let mut array = vec![0; bytes];
        let read = read_exact_at(memfd.as_fd(), offset, &mut array);
        read.map_err(|errno| self.unreadable(bytes, "the memfd").within(&errno.to_string()))?;
        Ok(load_all(&array))
    }

    /// Reads one element of which the client has `size` bytes, by the rules of structs: what is missing is zero, what we do
    /// not know must be zero.
    ///
    /// # Errors
    /// EFAULT if the element ends before, E2BIG if something unknown is not zero, ENOMEM if it is longer than any may be.
    pub(super) fn read_sized<R: Record>(&self, size: u32) -> Result<R, Refusal> {
        self.read_nth_sized(0, size)
    }

    /// Reads element `index` of those of which the client has `size` bytes each, by the same rules.
    ///
    /// # Errors
    /// As [`Array::read_sized`].
    pub(super) fn read_nth_sized<R: Record>(&self, index: u32, size: u32) -> Result<R, Refusal> {
        let before = u64::from(index).saturating_mul(u64::from(size));
        let offset = ByteLen::new(self.offset.get().saturating_add(before));
        let bytes: Vec<Byte> = self.read_at(offset, size)?;
        let bytes: Vec<u8> = bytes.into_iter().map(|Byte(byte)| byte).collect();
        if let Some(behind) = bytes.iter().skip(R::BYTES).position(|byte| *byte != 0) {
            let text = format!(
                "{} knows {} bytes of its data, byte {} is not zero: a newer client?",
                self.command,
                R::BYTES,
                R::BYTES + behind
            );
            return Err(Refusal::new(Errno::TOOBIG, "data-unknown-tail", text));
        }
        Ok(R::load(&bytes))
    }

    /// Gives elements back: into the memfd if the array lies there, else as the payload of the reply.
    ///
    /// # Errors
    /// EFAULT if the memfd ends before, or cannot be written.
    pub(super) fn give_back<R: Record>(&self, records: &[R]) -> Result<Vec<u8>, Refusal> {
        let bytes = store_all(records);
        let Some(memfd) = &self.memfd else { return Ok(bytes) };
        write_all_at(memfd.as_fd(), self.offset, &bytes).map_err(|errno| {
            let text = format!(
                "{} cannot write {} bytes at {} of the memfd: {errno}",
                self.command,
                bytes.len(),
                self.offset
            );
            Refusal::new(Errno::FAULT, "array-unwritable", text)
        })?;
        Ok(Vec::new())
    }

    /// Gives bytes back, and zeros up to `room`: into the memfd if the array lies there, else as the payload of the reply.
    ///
    /// # Errors
    /// EFAULT if the memfd ends before, or cannot be written; ENOMEM if there is more room than any array has.
    pub(super) fn give_back_filled(&self, bytes: &[u8], room: u32) -> Result<Vec<u8>, Refusal> {
        let filled = self.bytes_of::<Byte>(room)?;
        let mut all: Vec<Byte> = bytes.iter().copied().map(Byte).collect();
        all.resize(filled, Byte(0));
        self.give_back(&all)
    }

    fn bytes_of<R: Record>(&self, count: u32) -> Result<usize, Refusal> {
        let bytes = u64::from(count).saturating_mul(R::BYTES as u64);
        let most = if self.memfd.is_some() { MEMFD_MAX } else { PAYLOAD_MAX };
        let fitting = usize::try_from(bytes).ok().filter(|_| bytes <= most);
        fitting.ok_or_else(|| {
            let text = format!(
                "{} has an array of {count} elements, {bytes} bytes; {PAYLOAD_MAX} are possible in a message, {MEMFD_MAX} in a memfd",
                self.command
            );
            Refusal::new(Errno::NOMEM, "array-too-long", text)
        })
    }

    fn unreadable(&self, bytes: usize, place: &str) -> Refusal {
        let text =
            format!("{} has an array of {bytes} bytes at {}, {place} ends before", self.command, self.offset);
        Refusal::new(Errno::FAULT, "array-unreadable", text)
    }
}

/// An element of one byte.
#[derive(Clone, Copy)]
struct Byte(u8);

impl Record for Byte {
    const BYTES: usize = 1;

    fn load(bytes: &[u8]) -> Self {
        Self(bytes.first().copied().unwrap_or(0))
    }

    fn store(self, bytes: &mut [u8]) {
        bytes.iter_mut().take(1).for_each(|byte| *byte = self.0);
    }
}

fn require_memory(command: &'static str, file: &ClientFd) -> Result<(), Refusal> {
    match kind(file.as_fd()) {
        Ok(FileKind::Memory(_)) => Ok(()),
        Ok(FileKind::Other) | Err(_) => {
            let text = format!("{command} takes its array from a memfd, the descriptor is something else");
            Err(Refusal::new(Errno::INVAL, "array-not-in-memory", text))
        }
    }
}
