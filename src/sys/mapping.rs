//! Mapping shared memory, behind fault points.
//!
//! The mapping type itself is the client crate's, because both sides use it.
//!
//! Imports allowed: fault_points, the client crate's mapping.

use std::os::fd::AsFd;

pub use ioasd_client::mapping::{MapAccess, OutOfMapping, SharedMapping, TableWords};
use ioasd_client::units::ByteLen;

use super::failure::{SysError, call};
use crate::fault_points::Point;

/// Maps the first `length` bytes of `fd`. `name` says in an error what it is.
///
/// # Errors
/// If the kernel refuses.
pub fn map_shared(
    fd: impl AsFd,
    name: &'static str,
    length: ByteLen,
    access: MapAccess,
) -> Result<SharedMapping, SysError> {
    call(Point::Mmap, "mmap", name, || SharedMapping::new(fd, length, access))
}

/// Maps `length` bytes of `fd` from `from` on, both multiples of the size of a page.
///
/// # Errors
/// If the kernel refuses.
pub fn map_part(
    fd: impl AsFd,
    name: &'static str,
    from: ByteLen,
    length: ByteLen,
    access: MapAccess,
) -> Result<SharedMapping, SysError> {
    call(Point::Mmap, "mmap", name, || SharedMapping::part(fd, from, length, access))
}

/// Allocates and maps `length` bytes at `offset`, so that a lack of memory is an error and not a signal.
///
/// # Errors
/// If the kernel refuses.
pub fn populate(
    mapping: &SharedMapping,
    name: &'static str,
    offset: ByteLen,
    length: ByteLen,
) -> Result<(), SysError> {
    call(Point::ArenaGrow, "madvise(MADV_POPULATE_WRITE)", name, || mapping.populate(offset, length))
}
