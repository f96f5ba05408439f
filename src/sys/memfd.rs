//! Anonymous files that are handed to other processes.
//!
//! Whoever has a descriptor of a memfd can reopen it for writing or change its size, whatever the access mode of the
//! descriptor. Only seals bind: seal before anybody else can see the file.
//!
//! Imports allowed: fault_points, `rustix`.

use std::os::fd::{AsFd, OwnedFd};

use ioasd_client::units::ByteLen;
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::io::{fcntl_dupfd_cloexec, pwrite};

use super::failure::{SysError, call};
use crate::fault_points::Point;

/// What nobody can do with a file any more, the maker's existing mappings excepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seals {
    /// Change the size or the seals.
    FixedSize,
    /// Change the size or the seals, or write; what is mapped writable already stays so.
    FixedSizeOneWriter,
}

impl Seals {
    const fn flags(self) -> SealFlags {
        let fixed_size = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);
        match self {
            Self::FixedSize => fixed_size,
            Self::FixedSizeOneWriter => fixed_size.union(SealFlags::FUTURE_WRITE),
        }
    }
}

/// A new sparse file of `length` bytes that can be sealed. `name` is seen in `/proc`.
///
/// # Errors
/// If the kernel refuses.
pub fn create(name: &'static str, length: ByteLen) -> Result<OwnedFd, SysError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = call(Point::MemfdCreate, "memfd_create", name, || memfd_create(name, flags))?;
    call(Point::MemfdCreate, "ftruncate", name, || ftruncate(&fd, length.get()))?;
    Ok(fd)
}

/// Writes a word at `offset`, in the order of bytes of this host.
///
/// # Errors
/// If the kernel refuses.
pub fn write_word(fd: impl AsFd, name: &'static str, offset: ByteLen, word: u64) -> Result<(), SysError> {
    let write = || pwrite(&fd, &word.to_ne_bytes(), offset.get());
    call(Point::ArenaGrow, "pwrite", name, write).map(drop)
}

/// Seals `fd` for good.
///
/// # Errors
/// If the kernel refuses.
pub fn seal(fd: impl AsFd, name: &'static str, seals: Seals) -> Result<(), SysError> {
    call(Point::Seal, "fcntl(F_ADD_SEALS)", name, || fcntl_add_seals(fd, seals.flags()))
}

/// Allocates the bytes of a sparse file, or says that there is no memory for them.
///
/// # Errors
/// If the kernel refuses.
pub fn allocate(fd: impl AsFd, name: &'static str, offset: ByteLen, length: ByteLen) -> Result<(), SysError> {
    let make = || fallocate(fd, FallocateFlags::empty(), offset.get(), length.get());
    call(Point::ArenaGrow, "fallocate", name, make)
}

/// Another descriptor of the same open file.
///
/// # Errors
/// If the kernel refuses.
pub fn duplicate(fd: impl AsFd, name: &'static str) -> Result<OwnedFd, SysError> {
    call(Point::Dup, "fcntl(F_DUPFD_CLOEXEC)", name, || fcntl_dupfd_cloexec(fd, 0))
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;
    use crate::sys::mapping::{MapAccess, map_shared};

    fn sealed(seals: Seals) -> (OwnedFd, ioasd_client::mapping::SharedMapping) {
        let fd = create("memfd-test", ByteLen::new(8192)).unwrap();
        let mapping = map_shared(&fd, "memfd-test", ByteLen::new(8192), MapAccess::ReadWrite).unwrap();
        seal(&fd, "memfd-test", seals).unwrap();
        (fd, mapping)
    }

    #[test]
    fn after_one_writer_is_sealed_only_the_mapping_made_before_can_write() {
        let (fd, mapping) = sealed(Seals::FixedSizeOneWriter);
        let refused = map_shared(&fd, "memfd-test", ByteLen::new(8192), MapAccess::ReadWrite);
        assert_eq!(refused.map(|_| ()).map_err(|error| crate::error::Coded::errno(&error)), Err(Errno::PERM));
        assert_eq!(pwrite(&fd, &[1], 0), Err(Errno::PERM));
        mapping.copy_in(ByteLen::new(0), &[7]).unwrap();
        let reader = map_shared(&fd, "memfd-test", ByteLen::new(8192), MapAccess::ReadOnly).unwrap();
        assert_eq!(reader.load(0), Some(7));
    }

    #[test]
    fn a_sealed_file_keeps_its_size_and_its_seals_and_can_still_be_filled() {
        let (fd, _mapping) = sealed(Seals::FixedSizeOneWriter);
        assert_eq!(ftruncate(&fd, 4096), Err(Errno::PERM));
        assert_eq!(ftruncate(&fd, 12_288), Err(Errno::PERM));
        assert_eq!(fcntl_add_seals(&fd, SealFlags::WRITE), Err(Errno::PERM));
        assert_eq!(allocate(&fd, "memfd-test", ByteLen::new(4096), ByteLen::new(4096)), Ok(()));
    }

    #[test]
    fn a_file_of_fixed_size_can_still_be_mapped_writable_by_others() {
        let (fd, _mapping) = sealed(Seals::FixedSize);
        assert!(map_shared(&fd, "memfd-test", ByteLen::new(8192), MapAccess::ReadWrite).is_ok());
        assert_eq!(ftruncate(&fd, 4096), Err(Errno::PERM));
    }
}
