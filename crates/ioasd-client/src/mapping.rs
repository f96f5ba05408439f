//! Memory that other processes change while we look at it.
//!
//! A [`SharedMapping`] is a `MAP_SHARED` mapping of a file, unmapped when dropped. Its bytes are only ever reached as
//! atomics, so that what others do to them is never undefined behaviour here, and every access is checked against its
//! length. A file that is cut short under its mapping still kills the process that touches it (`SIGBUS`): map only
//! files that cannot shrink.
//!
//! Imports allowed: units, formats, the protocol of layout, `rustix`.
#![expect(unsafe_code, reason = "mmap, madvise and references into mapped memory")]

mod shared_slice;

use std::ffi::c_void;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

pub(crate) use self::shared_slice::Detached;
pub use self::shared_slice::{ReadOnly, SharedSlice, Word};
use crate::formats::{TABLE_BYTES, TABLE_ENTRIES, TableAddr};
use crate::layout::protocol::{View, look};
use crate::units::ByteLen;

/// A table, as its entries.
pub type TableWords = [AtomicU64; TABLE_ENTRIES];

/// What the holder of a mapping may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapAccess {
    /// Loads only.
    ReadOnly,
    /// Loads and stores.
    ReadWrite,
}

/// The bytes asked for do not lie within the mapping, or it is read-only and they were to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{length} bytes at {offset} are not within a mapping of {mapped} bytes open for this access")]
pub struct OutOfMapping {
    /// First byte asked for.
    pub offset: ByteLen,
    /// Bytes asked for.
    pub length: ByteLen,
    /// Bytes mapped.
    pub mapped: ByteLen,
}

/// A shared mapping of a file, or of a part of it.
#[derive(Debug)]
pub struct SharedMapping {
    base: NonNull<u8>,
    length: usize,
    access: MapAccess,
}

// SAFETY: the mapping belongs to the value, not to a thread, and its bytes are reached through atomics alone.
unsafe impl Send for SharedMapping {}
// SAFETY: as for `Send`; every method takes `&self` and every access is atomic.
unsafe impl Sync for SharedMapping {}

impl SharedMapping {
    /// Maps the first `length` bytes of `fd`, which should be that long and unable to shrink.
    ///
    /// # Errors
    /// What the kernel says; `EINVAL` for a length of 0.
    pub fn new<Fd: AsFd>(fd: Fd, length: ByteLen, access: MapAccess) -> Result<Self, Errno> {
        Self::part(fd, ByteLen::new(0), length, access)
    }

    /// Maps `length` bytes of `fd` from `from` on, a multiple of the size of a page; offsets count from there.
    ///
    /// # Errors
    /// As [`SharedMapping::new`]; `EINVAL` if `from` is no such multiple.
    pub fn part<Fd: AsFd>(fd: Fd, from: ByteLen, length: ByteLen, access: MapAccess) -> Result<Self, Errno> {
        let length = usize::try_from(length.get()).map_err(|_| Errno::NOMEM)?;
        let protection = match access {
            MapAccess::ReadOnly => ProtFlags::READ,
            MapAccess::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: the kernel chooses the place, so no existing mapping is touched.
        let base = unsafe { mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, fd, from.get()) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::NOMEM)?;
        Ok(Self { base, length, access })
    }

    /// Bytes mapped.
    #[must_use]
    pub const fn length(&self) -> ByteLen {
        ByteLen::new(self.length as u64)
    }

    /// The word at `offset`, seen as [`look`] sees it; `None` if it is misaligned or beyond the end.
    #[inline]
    #[must_use]
    pub fn load(&self, offset: u64) -> Option<u64> {
        Some(look(self.word_for_load(offset)?))
    }

    /// The word at `offset`, to be stored to; `None` if it is misaligned, beyond the end or read-only.
    #[inline]
    #[must_use]
    pub fn word(&self, offset: u64) -> Option<&AtomicU64> {
        if self.access == MapAccess::ReadOnly { None } else { self.word_for_load(offset) }
    }

    #[inline]
    fn word_for_load(&self, offset: u64) -> Option<&AtomicU64> {
        let at = self.checked(offset, 8, 8)?;
        // SAFETY: 8 bytes at `at` are mapped as long as `self` lives, aligned because the base is page-aligned, and a
        // word of any bits is a valid AtomicU64. Callers only load unless the mapping is writable.
        Some(unsafe { self.base.add(at).cast::<AtomicU64>().as_ref() })
    }

    /// All words, to be walked; `None` if there are none.
    #[inline]
    #[must_use]
    pub const fn tables(&self) -> Option<Tables<'_>> {
        match (self.length as u64).checked_sub(8) {
            Some(last) => Some(Tables { base: self.base, last, mapping: PhantomData }),
            None => None,
        }
    }

    /// The table at `address`, to be stored to; `None` if it is misaligned, beyond the end or read-only.
    #[inline]
    #[must_use]
    pub fn table(&self, address: TableAddr) -> Option<&TableWords> {
        let table = self.table_pointer(address)?;
        // SAFETY: a whole table is mapped writable there as long as `self` lives, aligned to its size.
        Some(unsafe { table.cast::<TableWords>().as_ref() })
    }

    /// Where the table at `address` is, for the one who knows that nobody else can look at it; `None` if it is misaligned,
    /// beyond the end or read-only.
    #[inline]
    #[must_use]
    pub fn table_pointer(&self, address: TableAddr) -> Option<NonNull<[u64; TABLE_ENTRIES]>> {
        let at = self.checked(address.get(), TABLE_BYTES, TABLE_BYTES)?;
        if self.access == MapAccess::ReadOnly {
            return None;
        }
        // SAFETY: `at` lies within the mapping.
        Some(unsafe { self.base.add(at) }.cast())
    }

    /// The `length` bytes at `offset`.
    ///
    /// # Errors
    /// If they do not all lie within the mapping.
    #[inline]
    pub fn slice(&self, offset: ByteLen, length: usize) -> Result<SharedSlice<'_>, OutOfMapping> {
        let at = self.checked(offset.get(), length as u64, 1);
        let at = at.ok_or_else(|| self.out_of_mapping(offset, length))?;
        // SAFETY: `length` bytes at `at` are mapped as long as `self` lives.
        Ok(unsafe { SharedSlice::new(self.base.add(at), length, self.access) })
    }

    /// Copies the bytes at `offset` into `into`. Bytes that change meanwhile may arrive old or new.
    ///
    /// # Errors
    /// If they do not all lie within the mapping; nothing is copied then.
    pub fn copy_out(&self, offset: ByteLen, into: &mut [u8]) -> Result<(), OutOfMapping> {
        self.slice(offset, into.len())?.copy_out(into);
        Ok(())
    }

    /// Copies `from` to the bytes at `offset`.
    ///
    /// # Errors
    /// If they do not all lie within the mapping, or it is read-only; nothing is copied then.
    pub fn copy_in(&self, offset: ByteLen, from: &[u8]) -> Result<(), OutOfMapping> {
        let copied = self.slice(offset, from.len())?.copy_in(from);
        copied.map(drop).map_err(|ReadOnly| self.out_of_mapping(offset, from.len()))
    }

    /// Makes the kernel allocate and map `length` bytes at `offset` now, so that a lack of memory is an error here and
    /// not a signal at the first store.
    ///
    /// # Errors
    /// What the kernel says; `EINVAL` beyond the end.
    pub fn populate(&self, offset: ByteLen, length: ByteLen) -> Result<(), Errno> {
        self.advise(offset, length, Advice::LinuxPopulateWrite)
    }

    /// Leaves the mapping out of the children that this process forks.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn keep_from_children(&self) -> Result<(), Errno> {
        self.advise(ByteLen::new(0), self.length(), Advice::LinuxDontFork)
    }

    fn advise(&self, offset: ByteLen, length: ByteLen, advice: Advice) -> Result<(), Errno> {
        let at = self.checked(offset.get(), length.get(), 1).ok_or(Errno::INVAL)?;
        let length = usize::try_from(length.get()).map_err(|_| Errno::INVAL)?;
        // SAFETY: the range lies within this mapping, and neither advice in use discards bytes.
        unsafe { madvise(self.base.add(at).as_ptr().cast::<c_void>(), length, advice) }
    }

    /// `offset` as a distance from the base, if `length` bytes there are mapped and it is a multiple of `alignment`.
    #[inline]
    fn checked(&self, offset: u64, length: u64, alignment: u64) -> Option<usize> {
        let end = offset.checked_add(length)?;
        if end > self.length as u64 || offset & (alignment - 1) != 0 {
            return None;
        }
        usize::try_from(offset).ok()
    }

    #[cold]
    fn out_of_mapping(&self, offset: ByteLen, length: usize) -> OutOfMapping {
        OutOfMapping { offset, length: ByteLen::new(length as u64), mapped: self.length() }
    }
}

impl View for SharedMapping {
    #[inline]
    fn load(&self, offset: u64) -> Option<u64> {
        self.load(offset)
    }
}

/// A mapping to be walked: what it takes to load words, and nothing that another word could change.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    base: NonNull<u8>,
    /// Where the last word is.
    last: u64,
    mapping: PhantomData<&'a SharedMapping>,
}

impl View for Tables<'_> {
    #[inline]
    fn load(&self, offset: u64) -> Option<u64> {
        if offset > self.last || !offset.is_multiple_of(8) {
            return None;
        }
        let at = usize::try_from(offset).ok()?;
        // SAFETY: 8 bytes at `at` are mapped as long as `self` lives, aligned because the base is page-aligned, and a
        // word of any bits is a valid AtomicU64.
        Some(look(unsafe { self.base.add(at).cast::<AtomicU64>().as_ref() }))
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this length, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.length) };
        debug_assert!(unmapped.is_ok(), "munmap of an own mapping: {unmapped:?}");
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    pub(crate) fn two_views(length: u64) -> (SharedMapping, SharedMapping) {
        let fd = memfd_create("mapping-test", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, length).unwrap();
        let length = ByteLen::new(length);
        let writer = SharedMapping::new(&fd, length, MapAccess::ReadWrite).unwrap();
        (writer, SharedMapping::new(&fd, length, MapAccess::ReadOnly).unwrap())
    }

    #[test]
    fn bytes_written_at_any_offset_and_length_are_read_back_through_another_mapping() {
        let (writer, reader) = two_views(4096);
        for (offset, length) in [(0, 1), (1, 7), (7, 9), (3, 64), (8, 8), (4089, 7), (100, 0), (0, 4096)] {
            let bytes: Vec<u8> = (0..length).map(|k| u8::try_from((k * 7 + offset) % 251).unwrap()).collect();
            writer.copy_in(ByteLen::new(offset as u64), &bytes).unwrap();
            let mut back = vec![0; length];
            reader.copy_out(ByteLen::new(offset as u64), &mut back).unwrap();
            assert_eq!(back, bytes, "offset {offset}, length {length}");
        }
    }

    #[test]
    fn nothing_outside_the_mapping_is_reached() {
        let (writer, _) = two_views(8192);
        assert!(writer.word(8184).is_some());
        for offset in [8185, 8188, 8192, u64::MAX - 7, u64::MAX] {
            assert!(writer.word(offset).is_none() && writer.load(offset).is_none(), "{offset:#x}");
        }
        assert!(writer.table(TableAddr::new(4096)).is_some());
        assert!(writer.table(TableAddr::new(8192)).is_none() && writer.table(TableAddr::new(2048)).is_none());
        assert!(writer.copy_out(ByteLen::new(8190), &mut [0; 3]).is_err());
        assert!(writer.copy_in(ByteLen::new(u64::MAX), &[0; 2]).is_err());
        assert_eq!(writer.populate(ByteLen::new(4096), ByteLen::new(4097)), Err(Errno::INVAL));
    }

    #[test]
    fn a_read_only_mapping_gives_no_way_to_store() {
        let (_, reader) = two_views(4096);
        assert!(reader.word(0).is_none() && reader.table(TableAddr::new(0)).is_none());
        assert!(reader.copy_in(ByteLen::new(0), &[1]).is_err());
        assert_eq!(reader.load(0), Some(0));
    }
}
