//! Address spaces: IOAS_ALLOC, IOAS_MAP_FILE, IOAS_UNMAP, IOAS_COPY, DESTROY.
//!
//! Imports allowed: connection, error, ids, units, wire.

use std::os::fd::BorrowedFd;

use super::no_descriptors;
use crate::connection::Connection;
use crate::error::CallError;
use crate::ids::{IoasId, ObjectId};
use crate::units::{ByteLen, Iova, IovaRange, Permission};
use crate::wire::uapi::{
    Destroy, IoasAlloc, IoasCopy, IoasMapFile, IoasUnmap, MAP_FIXED_IOVA, MAP_READABLE, MAP_WRITEABLE,
};

/// Who chooses the IOVA of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The caller.
    Fixed(Iova),
    /// The agent.
    Any,
}

impl Placement {
    pub(super) const fn iova(self) -> Iova {
        match self {
            Self::Fixed(iova) => iova,
            Self::Any => Iova::new(0),
        }
    }

    pub(super) const fn flags(self, permission: Permission) -> u32 {
        let fixed = match self {
            Self::Fixed(_) => MAP_FIXED_IOVA,
            Self::Any => 0,
        };
        let readable = if permission.can_read() { MAP_READABLE } else { 0 };
        let writable = if permission.can_write() { MAP_WRITEABLE } else { 0 };
        fixed | readable | writable
    }
}

/// A slice of a file.
#[derive(Clone, Copy, Debug)]
pub struct FileSlice<'fd> {
    /// The file.
    pub file: BorrowedFd<'fd>,
    /// Offset of the first byte.
    pub offset: ByteLen,
    /// Number of bytes.
    pub length: ByteLen,
}

impl FileSlice<'_> {
    /// The request that maps it; the file goes with it as the one descriptor of the message.
    #[must_use]
    pub const fn request(self, ioas: IoasId, permission: Permission, placement: Placement) -> IoasMapFile {
        IoasMapFile {
            flags: placement.flags(permission),
            ioas_id: ioas,
            fd: 0,
            start: self.offset,
            length: self.length,
            iova: placement.iova(),
        }
    }
}

/// Address spaces.
impl Connection {
    /// Makes an IO address space.
    ///
    /// # Errors
    /// [`CallError::Refused`] as IOAS_ALLOC; the socket's.
    pub fn ioas_alloc(&mut self) -> Result<IoasId, CallError> {
        let answer = self.call(&IoasAlloc::default(), &[], &[], no_descriptors)?;
        Ok(answer.value.out_ioas_id)
    }

    /// Maps a slice of a file and gives its IOVA.
    ///
    /// # Errors
    /// [`CallError::Refused`] as IOAS_MAP_FILE; the socket's.
    pub fn map_file(
        &mut self,
        ioas: IoasId,
        slice: FileSlice<'_>,
        permission: Permission,
        placement: Placement,
    ) -> Result<Iova, CallError> {
        let map = slice.request(ioas, permission, placement);
        let answer = self.call(&map, &[slice.file], &[], no_descriptors)?;
        Ok(answer.value.iova)
    }

    /// Removes the areas within `range`, which must not cut any, and gives the bytes that were unmapped.
    ///
    /// # Errors
    /// [`CallError::Refused`] as IOAS_UNMAP; the socket's.
    pub fn unmap(&mut self, ioas: IoasId, range: IovaRange) -> Result<ByteLen, CallError> {
        let unmap = IoasUnmap { ioas_id: ioas, iova: range.start(), length: range.length() };
        Ok(self.call(&unmap, &[], &[], no_descriptors)?.value.length)
    }

    /// Removes every area and gives the bytes that were unmapped.
    ///
    /// # Errors
    /// [`CallError::Refused`] as IOAS_UNMAP; the socket's.
    pub fn unmap_all(&mut self, ioas: IoasId) -> Result<ByteLen, CallError> {
        self.unmap(ioas, IovaRange::ALL)
    }

    /// Shows a range of one address space in another (or the same) as well, and gives its IOVA there.
    ///
    /// # Errors
    /// [`CallError::Refused`] as IOAS_COPY; the socket's.
    pub fn copy(
        &mut self,
        (source, range): (IoasId, IovaRange),
        (target, placement): (IoasId, Placement),
        permission: Permission,
    ) -> Result<Iova, CallError> {
        let copy = IoasCopy {
            flags: placement.flags(permission),
            dst_ioas_id: target,
            src_ioas_id: source,
            length: range.length(),
            dst_iova: placement.iova(),
            src_iova: range.start(),
        };
        Ok(self.call(&copy, &[], &[], no_descriptors)?.value.dst_iova)
    }

    /// Destroys an object.
    ///
    /// # Errors
    /// [`CallError::Refused`] as DESTROY; the socket's.
    pub fn destroy(&mut self, id: impl Into<ObjectId>) -> Result<(), CallError> {
        self.call_without_reply(&Destroy { id: id.into() }, &[], &[])
    }
}
