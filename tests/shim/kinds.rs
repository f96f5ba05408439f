//! Kinds of memory that a program may have mapped, and what tests ask of all of them.

use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, FromRawFd};

use crate::mock::PAGE;

/// Bytes of a huge page.
pub(crate) const HUGE_PAGE: u64 = 2 << 20;

/// A kind of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of no file, its own.
    Private,
    /// Of no file, shared with children.
    Shared,
    /// A memfd, shared.
    Memfd,
    /// A file of a file system, of which it has pages of its own.
    PrivateFile,
    /// Huge pages, its own.
    PrivateHuge,
    /// Huge pages, shared with children.
    SharedHuge,
    /// A memfd of huge pages, shared.
    HugeMemfd,
}

pub(crate) const ORDINARY: [Kind; 4] = [Kind::Private, Kind::Shared, Kind::Memfd, Kind::PrivateFile];
pub(crate) const HUGE: [Kind; 3] = [Kind::PrivateHuge, Kind::SharedHuge, Kind::HugeMemfd];

/// Memory of a kind, every page of it different, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    start: *mut u8,
    length: usize,
    /// Open as long, so that it can be passed.
    file: Option<File>,
}

impl Kind {
    /// Whether a leaf can be larger than a page, and pins are not counted.
    pub(crate) fn is_huge(self) -> bool {
        HUGE.contains(&self)
    }

    /// At least so many pages; none if huge pages cannot be had, which is said.
    pub(crate) fn memory(self, pages: u64) -> Option<Memory> {
        if self.is_huge() && !rustix::process::geteuid().is_root() {
            ioasd::skip!(
                "{self:?}: a huge page counts whole against locked memory, which tests of one user share"
            );
            return None;
        }
        let length = pages * PAGE;
        let length = if self.is_huge() { length.next_multiple_of(HUGE_PAGE) } else { length };
        let length = usize::try_from(length).unwrap();
        let file = self.file(length)?;
        let flags = self.flags();
        let (access, fd) = (libc::PROT_READ | libc::PROT_WRITE, file.as_ref().map_or(-1, AsRawFd::as_raw_fd));
        // SAFETY: a new mapping where the kernel likes it.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, fd, 0) };
        if self.is_huge() && start == libc::MAP_FAILED {
            return none_to_spare(self);
        }
        assert_ne!(start, libc::MAP_FAILED, "{self:?}: {}", std::io::Error::last_os_error());
        let mut memory = Memory { start: start.cast(), length, file };
        for (number, page) in memory.chunks_mut(4096).enumerate() {
            page.fill(u8::try_from(number % 251).unwrap());
        }
        Some(memory)
    }

    const fn flags(self) -> i32 {
        match self {
            Self::Private => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            Self::Shared => libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            Self::Memfd => libc::MAP_SHARED,
            Self::PrivateFile => libc::MAP_PRIVATE,
            Self::PrivateHuge => {
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_POPULATE
            }
            Self::SharedHuge => {
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_POPULATE
            }
            Self::HugeMemfd => libc::MAP_SHARED | libc::MAP_POPULATE,
        }
    }

    /// The file to map, or that there is to be none; nothing if it cannot be had.
    #[expect(clippy::option_option, reason = "no file is wanted, or none can be had")]
    fn file(self, length: usize) -> Option<Option<File>> {
        let flags = match self {
            Self::Memfd => libc::MFD_CLOEXEC,
            Self::HugeMemfd => libc::MFD_CLOEXEC | libc::MFD_HUGETLB,
            Self::PrivateFile => return Some(Some(on_disk(length))),
            Self::Private | Self::Shared | Self::PrivateHuge | Self::SharedHuge => return Some(None),
        };
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"kind".as_ptr(), flags) };
        assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is new and ours.
        let file = unsafe { File::from_raw_fd(fd) };
        if file.set_len(length as u64).is_err() {
            return none_to_spare(self);
        }
        Some(Some(file))
    }
}

fn none_to_spare<T>(kind: Kind) -> Option<T> {
    ioasd::skip!("{kind:?}: the host has no huge pages to spare; see /proc/sys/vm/nr_hugepages");
    None
}

/// A file of a file system.
pub(crate) fn on_disk(length: usize) -> File {
    let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::io::Write::write_all(&mut &file, &vec![0xf1; length]).unwrap();
    file
}

impl Memory {
    /// The file that it is.
    pub(crate) fn file(&self) -> &File {
        self.file.as_ref().expect("a kind that is a file")
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is ours, and lives as long as this.
        unsafe { std::slice::from_raw_parts(self.start, self.length) }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping is ours, and lives as long as this.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.length) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: nobody can have borrowed it any more.
        let gone = unsafe { libc::munmap(self.start.cast(), self.length) };
        assert_eq!(gone, 0, "munmap: {}", std::io::Error::last_os_error());
    }
}
