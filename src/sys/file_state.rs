//! The state of a client's file: whether it is memory, which file it is, how large, and how much of it is there.
//!
//! A received descriptor may be anything, also a file of a FUSE server that never answers. So it is asked for its seals
//! first: that never leaves the kernel, and only memory (memfd, shmem, hugetlbfs) has any. Nothing else is ever asked
//! for more.
//!
//! Imports allowed: units, error, fault_points, page_cache, rustix.

use std::os::fd::BorrowedFd;
use std::sync::OnceLock;

use ioasd_client::units::{ByteLen, PAGE_SIZE, PageIndex};
use rustix::fs::{
    FallocateFlags, MemfdFlags, OFlags, SealFlags, SeekFrom, fallocate, fcntl_get_seals, fcntl_getfl, fstat,
    fstatfs, memfd_create, seek,
};
use rustix::io::Errno;

use super::page_cache::allocated_pages;
use crate::error::Coded;
use crate::fault_points::{self, Point};

/// Bytes of the unit in which the kernel counts blocks.
const BLOCK: u64 = 512;

/// `f_type` of hugetlbfs.
const HUGETLBFS_MAGIC: u64 = 0x9584_58f6;

/// What is behind a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Memory with these seals.
    Memory(SealFlags),
    /// Something else; it must not be asked for anything.
    Other,
}

/// Which memory a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// A memfd, or another shared mapping that has no path.
    NoPath,
    /// In a tmpfs.
    File,
    /// Huge pages.
    HugePages,
}

/// Size and identity of a file that is memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileState {
    /// The device it lies on.
    pub device: u64,
    /// Its inode there.
    pub inode: u64,
    /// Its size.
    pub size: ByteLen,
    /// Bytes allocated to it.
    pub allocated: ByteLen,
}

/// What the holder of a descriptor may do with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileAccess {
    /// Read: it was opened for reading, or is sealed against writing.
    Read,
    /// Read and write.
    ReadWrite,
}

/// Where a part of a file has its first hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Population {
    /// Nowhere.
    Whole,
    /// At this page of the file.
    HoleAt(PageIndex),
    /// Somewhere in the file: its file system cannot tell where.
    Unknown,
}

/// Tells memory from everything else, without touching what is behind the descriptor.
///
/// # Errors
/// EBADF if the descriptor was opened with `O_PATH`.
pub fn kind(file: BorrowedFd<'_>) -> Result<FileKind, Errno> {
    match fcntl_get_seals(file) {
        Ok(seals) => Ok(FileKind::Memory(seals)),
        Err(Errno::INVAL) => Ok(FileKind::Other),
        Err(errno) => Err(errno),
    }
}

/// Size and identity of a file that [`kind`] has called memory.
///
/// # Errors
/// If the kernel refuses.
pub fn state(file: BorrowedFd<'_>) -> Result<FileState, Errno> {
    fault_points::hit(Point::Fstat).map_err(|injected| injected.errno())?;
    let stat = fstat(file)?;
    let size = u64::try_from(stat.st_size).map_err(|_| Errno::OVERFLOW)?;
    let blocks = u64::try_from(stat.st_blocks).map_err(|_| Errno::OVERFLOW)?;
    Ok(FileState {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: ByteLen::new(size),
        allocated: ByteLen::new(blocks.saturating_mul(BLOCK)),
    })
}

impl FileState {
    /// Whether exactly as much is allocated as the size needs. That is no proof that nothing is missing: as much may be
    /// allocated beyond the end (`FALLOC_FL_KEEP_SIZE`).
    #[must_use]
    pub const fn is_fully_allocated(&self) -> bool {
        let pages_end = self.size.get().next_multiple_of(PAGE_SIZE);
        self.allocated.get() == pages_end
    }
}

/// What may be done through this descriptor of memory.
///
/// # Errors
/// If the kernel refuses.
pub fn access(file: BorrowedFd<'_>) -> Result<FileAccess, Errno> {
    let sealed = fcntl_get_seals(file)?.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE);
    let writable = fcntl_getfl(file)?.contains(OFlags::RDWR);
    Ok(if writable && !sealed { FileAccess::ReadWrite } else { FileAccess::Read })
}

/// Whether nothing can be allocated beyond the end of the file any more (`F_SEAL_GROW`).
///
/// # Errors
/// If the kernel refuses.
pub fn cannot_grow(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    fcntl_get_seals(file).map(|seals| seals.contains(SealFlags::GROW))
}

/// Looks for the first hole in `start..end` of a file that is memory. Pages that were allocated but never written are no
/// holes, except on kernels that cannot tell (before 6.5).
///
/// # Errors
/// If the kernel refuses.
pub fn population(file: BorrowedFd<'_>, start: ByteLen, end: ByteLen) -> Result<Population, Errno> {
    fault_points::hit(Point::Fstat).map_err(|injected| injected.errno())?;
    if huge_page(file)?.is_some() {
        return Ok(Population::Unknown);
    }
    match seek(file, SeekFrom::Hole(start.get())) {
        Ok(hole) if hole >= end.get() => Ok(Population::Whole),
        Ok(hole) => Ok(first_missing(file, PageIndex::containing(ByteLen::new(hole)), end)),
        Err(Errno::NXIO) => Ok(Population::HoleAt(PageIndex::containing(start))),
        Err(errno) => Err(errno),
    }
}

/// The first page from `unwritten` on that is not allocated: halves the range until it is found.
fn first_missing(file: BorrowedFd<'_>, unwritten: PageIndex, end: ByteLen) -> Population {
    let (mut first, mut behind) = (unwritten.get(), end.get().div_ceil(PAGE_SIZE));
    let is_whole = |from: u64, to: u64| allocated_pages(file, from, to) == Ok(to.saturating_sub(from));
    if is_whole(first, behind) {
        return Population::Whole;
    }
    while behind.saturating_sub(first) > 1 {
        let middle = first.midpoint(behind);
        if is_whole(first, middle) { first = middle } else { behind = middle }
    }
    Population::HoleAt(PageIndex::new(first))
}

/// How much of `start..end` is not allocated, at most.
#[must_use]
pub fn missing(file: BorrowedFd<'_>, start: ByteLen, end: ByteLen) -> ByteLen {
    let (first, behind) = (start.get() / PAGE_SIZE, end.get().div_ceil(PAGE_SIZE));
    let there = allocated_pages(file, first, behind).unwrap_or(0);
    ByteLen::new(behind.saturating_sub(first).saturating_sub(there).saturating_mul(PAGE_SIZE))
}

/// Allocates whatever is missing in `start..end`.
///
/// # Errors
/// EBADF if the file was not opened for writing; EPERM if it is sealed; ENOMEM and ENOSPC without memory.
pub fn allocate(file: BorrowedFd<'_>, start: ByteLen, end: ByteLen) -> Result<(), Errno> {
    fault_points::hit(Point::FirstTouch).map_err(|injected| injected.errno())?;
    fallocate(file, FallocateFlags::KEEP_SIZE, start.get(), end.get().saturating_sub(start.get()))
}

/// The size of a hugetlbfs file's pages; `None` for any other memory.
///
/// # Errors
/// If the kernel refuses.
pub fn huge_page(file: BorrowedFd<'_>) -> Result<Option<ByteLen>, Errno> {
    let system = fstatfs(file)?;
    let is_hugetlbfs = u64::try_from(system.f_type) == Ok(HUGETLBFS_MAGIC);
    Ok(u64::try_from(system.f_bsize).ok().filter(|_| is_hugetlbfs).map(ByteLen::new))
}

/// Which memory a file is that [`kind`] has called memory. What has no path lies on a device of the kernel's own.
///
/// # Errors
/// If the kernel refuses.
pub fn memory_kind(file: BorrowedFd<'_>) -> Result<MemoryKind, Errno> {
    if huge_page(file)?.is_some() {
        return Ok(MemoryKind::HugePages);
    }
    let has_path = fstat(file)?.st_dev != device_without_paths()?;
    Ok(if has_path { MemoryKind::File } else { MemoryKind::NoPath })
}

/// The device of memory that has no path: that of a memfd of our own, made once.
fn device_without_paths() -> Result<u64, Errno> {
    static DEVICE: OnceLock<u64> = OnceLock::new();
    if let Some(device) = DEVICE.get() {
        return Ok(*device);
    }
    let device = fstat(&memfd_create("ioasd-device", MemfdFlags::CLOEXEC)?)?.st_dev;
    Ok(*DEVICE.get_or_init(|| device))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::{Mode, OFlags, fcntl_add_seals, ftruncate, open};
    use rustix::io::pwrite;

    use super::*;

    fn memfd(pages: u64) -> OwnedFd {
        let file = memfd_create("file_state", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, pages * PAGE_SIZE).unwrap();
        file
    }

    fn populate(file: &OwnedFd, page: u64) {
        assert_eq!(pwrite(file, &[1], page * PAGE_SIZE), Ok(1));
    }

    fn first_hole(file: &OwnedFd, pages: std::ops::Range<u64>) -> Population {
        let offset = |page| ByteLen::new(page * PAGE_SIZE);
        population(file.as_fd(), offset(pages.start), offset(pages.end)).unwrap()
    }

    #[test]
    fn memory_is_told_by_its_seals() {
        let file = memfd(1);
        assert_eq!(kind(file.as_fd()), Ok(FileKind::Memory(SealFlags::empty())));
        fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        assert_eq!(kind(file.as_fd()), Ok(FileKind::Memory(SealFlags::SHRINK)));
    }

    #[test]
    fn pipes_devices_and_ordinary_files_are_not_memory() {
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert_eq!(kind(reader.as_fd()), Ok(FileKind::Other));
        for path in ["/dev/null", "/proc/self/status"] {
            assert_eq!(kind(File::open(path).unwrap().as_fd()), Ok(FileKind::Other), "{path}");
        }
        let path_only = open("/dev/null", OFlags::PATH, Mode::empty()).unwrap();
        assert_eq!(kind(path_only.as_fd()), Err(Errno::BADF));
    }

    #[test]
    fn two_descriptors_of_a_file_have_one_identity() {
        let (file, other) = (memfd(2), memfd(2));
        let copy = file.try_clone().unwrap();
        let identity = |file: &OwnedFd| state(file.as_fd()).map(|state| (state.device, state.inode)).unwrap();
        assert_eq!(identity(&file), identity(&copy));
        assert_ne!(identity(&file), identity(&other));
        assert_eq!(state(file.as_fd()).unwrap().size, ByteLen::new(2 * PAGE_SIZE));
    }

    #[test]
    fn the_first_hole_of_a_range_is_found() {
        let file = memfd(6);
        [0, 1, 3, 5].into_iter().for_each(|page| populate(&file, page));
        assert_eq!(first_hole(&file, 0..2), Population::Whole);
        assert_eq!(first_hole(&file, 0..6), Population::HoleAt(PageIndex::new(2)));
        assert_eq!(first_hole(&file, 2..6), Population::HoleAt(PageIndex::new(2)));
        assert_eq!(first_hole(&file, 3..6), Population::HoleAt(PageIndex::new(4)));
        assert_eq!(first_hole(&file, 5..6), Population::Whole);
        assert_eq!(first_hole(&file, 5..7), Population::HoleAt(PageIndex::new(6)));
        assert_eq!(first_hole(&file, 9..10), Population::HoleAt(PageIndex::new(9)));
    }

    #[test]
    fn pages_that_were_allocated_but_never_written_are_no_holes() {
        let file = memfd(64);
        allocate(file.as_fd(), ByteLen::new(8 * PAGE_SIZE), ByteLen::new(64 * PAGE_SIZE)).unwrap();
        if allocated_pages(file.as_fd(), 0, 64) == Err(Errno::NOSYS) {
            crate::skip!(
                "pages_that_were_allocated_but_never_written_are_no_holes: no cachestat before Linux 6.5"
            );
            return;
        }
        assert_eq!(first_hole(&file, 8..64), Population::Whole);
        fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 51 * PAGE_SIZE, PAGE_SIZE)
            .unwrap();
        assert_eq!(first_hole(&file, 8..64), Population::HoleAt(PageIndex::new(51)));
        assert_eq!(first_hole(&file, 52..64), Population::Whole);
    }

    #[test]
    fn pages_beyond_the_end_do_not_stand_in_for_holes() {
        let file = memfd(3);
        [0, 2].into_iter().for_each(|page| populate(&file, page));
        allocate(file.as_fd(), ByteLen::new(3 * PAGE_SIZE), ByteLen::new(4 * PAGE_SIZE)).unwrap();
        assert!(state(file.as_fd()).unwrap().is_fully_allocated(), "the count alone is fooled");
        assert_eq!(first_hole(&file, 0..3), Population::HoleAt(PageIndex::new(1)));
    }

    #[test]
    fn access_is_that_of_the_descriptor_and_the_seals() {
        let file = memfd(1);
        let read_only =
            File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).unwrap();
        assert_eq!(access(file.as_fd()), Ok(FileAccess::ReadWrite));
        assert_eq!(access(read_only.as_fd()), Ok(FileAccess::Read));
        assert_eq!(cannot_grow(file.as_fd()), Ok(false));
        fcntl_add_seals(&file, SealFlags::FUTURE_WRITE | SealFlags::GROW).unwrap();
        assert_eq!(access(file.as_fd()), Ok(FileAccess::Read));
        assert_eq!(cannot_grow(file.as_fd()), Ok(true));
    }

    #[test]
    fn a_file_is_fully_allocated_once_every_page_was_written() {
        let file = memfd(3);
        ftruncate(&file, 2 * PAGE_SIZE + 1).unwrap();
        let full = || state(file.as_fd()).unwrap().is_fully_allocated();
        populate(&file, 0);
        populate(&file, 2);
        assert!(!full());
        populate(&file, 1);
        assert!(full());
    }
}
