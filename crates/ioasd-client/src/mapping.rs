//! Memory that other processes change while we look at it.
//!
//! A [`SharedMapping`] is a `MAP_SHARED` mapping of a file, unmapped when dropped. Its bytes are only ever reached as
//! atomics, so that what others do to them is never undefined behaviour here, and every access is checked against its
//! length. A file that is cut short under its mapping still kills the process that touches it (`SIGBUS`): map only
//! files that cannot shrink.
//!
//! Imports allowed: units, formats, the protocol of layout, `rustix`.
#![expect(unsafe_code, reason = "mmap, madvise and references into mapped memory")]

use std::ffi::c_void;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

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

/// A shared mapping of the beginning of a file.
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
        let length = usize::try_from(length.get()).map_err(|_| Errno::NOMEM)?;
        let protection = match access {
            MapAccess::ReadOnly => ProtFlags::READ,
            MapAccess::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: the kernel chooses the place, so no existing mapping is touched.
        let base = unsafe { mmap(ptr::null_mut(), length, protection, MapFlags::SHARED, fd, 0) }?;
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

    /// Copies the bytes at `offset` into `into`. Bytes that change meanwhile may arrive old or new.
    ///
    /// # Errors
    /// If they do not all lie within the mapping; nothing is copied then.
    pub fn copy_out(&self, offset: ByteLen, into: &mut [u8]) -> Result<(), OutOfMapping> {
        let (head, words, tail) = self.parts(offset, into.len())?;
        let (head_into, rest) = into.split_at_mut(head.len());
        let (words_into, tail_into) = rest.split_at_mut(words.len() * 8);
        load_bytes(head, head_into);
        for (word, bytes) in words.iter().zip(words_into.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        load_bytes(tail, tail_into);
        Ok(())
    }

    /// Copies `from` to the bytes at `offset`.
    ///
    /// # Errors
    /// If they do not all lie within the mapping, or it is read-only; nothing is copied then.
    pub fn copy_in(&self, offset: ByteLen, from: &[u8]) -> Result<(), OutOfMapping> {
        if self.access == MapAccess::ReadOnly {
            return Err(self.out_of_mapping(offset, from.len()));
        }
        let (head, words, tail) = self.parts(offset, from.len())?;
        let (head_from, rest) = from.split_at(head.len());
        let (words_from, tail_from) = rest.split_at(words.len() * 8);
        store_bytes(head, head_from);
        for (word, bytes) in words.iter().zip(words_from.chunks_exact(8)) {
            word.store(u64::from_ne_bytes(bytes.try_into().unwrap_or_default()), Ordering::Relaxed);
        }
        store_bytes(tail, tail_from);
        Ok(())
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

    /// The bytes at `offset` as words, with what does not fill a word before and after them.
    fn parts(&self, offset: ByteLen, length: usize) -> Result<Parts<'_>, OutOfMapping> {
        let at = self
            .checked(offset.get(), length as u64, 1)
            .ok_or_else(|| self.out_of_mapping(offset, length))?;
        // SAFETY: `length` bytes at `at` are mapped as long as `self` lives; any byte is a valid AtomicU8.
        let bytes = unsafe { slice::from_raw_parts(self.base.add(at).cast::<AtomicU8>().as_ptr(), length) };
        // SAFETY: eight AtomicU8 have the layout of one AtomicU64, and any bits are valid for both.
        Ok(unsafe { bytes.align_to::<AtomicU64>() })
    }

    fn out_of_mapping(&self, offset: ByteLen, length: usize) -> OutOfMapping {
        OutOfMapping { offset, length: ByteLen::new(length as u64), mapped: self.length() }
    }
}

type Parts<'a> = (&'a [AtomicU8], &'a [AtomicU64], &'a [AtomicU8]);

fn load_bytes(from: &[AtomicU8], into: &mut [u8]) {
    for (byte, into) in from.iter().zip(into) {
        *into = byte.load(Ordering::Relaxed);
    }
}

fn store_bytes(into: &[AtomicU8], from: &[u8]) {
    for (byte, from) in into.iter().zip(from) {
        byte.store(*from, Ordering::Relaxed);
    }
}

impl View for SharedMapping {
    #[inline]
    fn load(&self, offset: u64) -> Option<u64> {
        self.load(offset)
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
mod tests {
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;

    fn two_views(length: u64) -> (SharedMapping, SharedMapping) {
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
