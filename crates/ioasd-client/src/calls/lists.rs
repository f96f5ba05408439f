//! Many ranges in one call: IOAS_MAP_FILES, IOAS_UNMAP_RANGES.
//!
//! Ranges are carried out in the order in which they are given, each with an outcome of its own: one that fails leaves the
//! others as they are.
//!
//! Imports allowed: connection, error, ids, units, wire.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::array::Array;
use super::ioas::Placement;
use super::{no_descriptors, require_payload};
use crate::connection::Connection;
use crate::error::CallError;
use crate::ids::IoasId;
use crate::units::{ByteLen, Iova, IovaRange, Permission};
use crate::wire::command::Command;
use crate::wire::own::{ARRAY_IN_MEMFD, IoasMapFiles, IoasUnmapRanges};
use crate::wire::record::{MapRange, Record, UnmapRange};

/// A range of a file to map, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// Which of the files.
    pub file: u32,
    /// Offset of the first byte.
    pub offset: ByteLen,
    /// Number of bytes.
    pub length: ByteLen,
    /// What devices may do.
    pub permission: Permission,
    /// Where.
    pub placement: Placement,
}

impl FileRange {
    fn record(self) -> MapRange {
        MapRange {
            flags: self.placement.flags(self.permission),
            fd: self.file,
            start: self.offset,
            length: self.length,
            iova: self.placement.iova(),
            ..MapRange::default()
        }
    }
}

/// Many ranges.
impl Connection {
    /// Maps ranges of `files` and gives the IOVA of each, or why it is not mapped.
    ///
    /// # Errors
    /// [`CallError::Refused`] if nothing was tried; the socket's.
    pub fn map_files(
        &mut self,
        ioas: IoasId,
        files: &[BorrowedFd<'_>],
        ranges: &[FileRange],
    ) -> Result<Vec<Result<Iova, Errno>>, CallError> {
        let records: Vec<MapRange> = ranges.iter().map(|range| range.record()).collect();
        let array = Array::of(&records)?;
        let (flags, num_ranges) = (flags(&array), count(ranges.len()));
        let call = IoasMapFiles { flags, ioas_id: ioas, num_ranges, ..IoasMapFiles::default() };
        let fds: Vec<BorrowedFd<'_>> = files.iter().copied().chain(array.memfd()).collect();
        let payload = self.call(&call, &fds, array.payload(), no_descriptors)?.payload;
        let told: Vec<MapRange> = given_back(IoasMapFiles::NAME, array, &payload, ranges.len())?;
        Ok(told.iter().map(|record| outcome(record.iova, record.errno)).collect())
    }

    /// Removes the areas within each of `ranges` and gives the bytes that were unmapped, or why not.
    ///
    /// # Errors
    /// [`CallError::Refused`] if nothing was tried; the socket's.
    pub fn unmap_ranges(
        &mut self,
        ioas: IoasId,
        ranges: &[IovaRange],
    ) -> Result<Vec<Result<ByteLen, Errno>>, CallError> {
        let record = |range: &IovaRange| UnmapRange {
            iova: range.start(),
            length: range.length(),
            ..UnmapRange::default()
        };
        let records: Vec<UnmapRange> = ranges.iter().map(record).collect();
        let array = Array::of(&records)?;
        let (flags, num_ranges) = (flags(&array), count(ranges.len()));
        let call = IoasUnmapRanges { flags, ioas_id: ioas, num_ranges, ..IoasUnmapRanges::default() };
        let fds: Vec<BorrowedFd<'_>> = array.memfd().into_iter().collect();
        let payload = self.call(&call, &fds, array.payload(), no_descriptors)?.payload;
        let told: Vec<UnmapRange> = given_back(IoasUnmapRanges::NAME, array, &payload, ranges.len())?;
        Ok(told.iter().map(|record| outcome(record.length, record.errno)).collect())
    }
}

fn flags(array: &Array) -> u32 {
    if array.memfd().is_some() { ARRAY_IN_MEMFD } else { 0 }
}

/// The agent refuses so many long before.
fn count(ranges: usize) -> u32 {
    u32::try_from(ranges).unwrap_or(u32::MAX)
}

fn given_back<R: Record>(
    command: &'static str,
    array: Array,
    payload: &[u8],
    ranges: usize,
) -> Result<Vec<R>, CallError> {
    let wanted = if array.memfd().is_some() { 0 } else { (ranges * R::BYTES) as u64 };
    require_payload(command, wanted, payload)?;
    array.given_back(payload)
}

fn outcome<T>(value: T, errno: u32) -> Result<T, Errno> {
    match i32::try_from(errno) {
        Ok(0) => Ok(value),
        Ok(errno) => Err(Errno::from_raw_os_error(errno)),
        Err(_) => Err(Errno::PROTO),
    }
}
