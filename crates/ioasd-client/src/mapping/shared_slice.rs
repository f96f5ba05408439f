//! A part of shared memory: bytes that others change while we look.
//!
//! Every access is atomic, relaxed for copies, Acquire and Release for single words, so that what others do meanwhile
//! is never undefined behaviour here. Bytes that change during a copy arrive old or new.
//!
//! Imports allowed: mapping.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::MapAccess;

/// Some bytes of a mapping that lives for `'a`. Belongs to the thread that has it.
#[derive(Clone, Copy, Debug)]
pub struct SharedSlice<'a> {
    start: NonNull<u8>,
    length: usize,
    access: MapAccess,
    mapping: PhantomData<&'a AtomicU8>,
}

/// Bytes were to be stored where only loads are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these bytes may only be read")]
pub struct ReadOnly;

/// A whole number that memory can hold as one atomic.
pub trait Word: Copy {
    /// The same, as an atomic.
    type Atomic;

    /// Loads with Acquire.
    fn load(atomic: &Self::Atomic) -> Self;

    /// Stores with Release.
    fn store(atomic: &Self::Atomic, value: Self);
}

macro_rules! words {
    ($($word:ty = $atomic:ty),*) => {$(
        impl Word for $word {
            type Atomic = $atomic;

            #[inline]
            fn load(atomic: &$atomic) -> Self {
                atomic.load(Ordering::Acquire)
            }

            #[inline]
            fn store(atomic: &$atomic, value: Self) {
                atomic.store(value, Ordering::Release);
            }
        }
    )*};
}

words!(u8 = AtomicU8, u16 = AtomicU16, u32 = AtomicU32, u64 = AtomicU64);

impl<'a> SharedSlice<'a> {
    /// `length` bytes at `start`.
    ///
    /// # Safety
    /// They are mapped shared for all of `'a`, writable if `access` says so, and reached through atomics alone.
    #[inline]
    pub(super) const unsafe fn new(start: NonNull<u8>, length: usize, access: MapAccess) -> Self {
        Self { start, length, access, mapping: PhantomData }
    }

    /// How many bytes.
    #[inline]
    #[must_use]
    pub const fn len(self) -> usize {
        self.length
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.length == 0
    }

    /// What may be done with them.
    #[inline]
    #[must_use]
    pub const fn access(self) -> MapAccess {
        self.access
    }

    /// Where they are, for system calls and other languages. Not to be used longer than the slice, nor for stores if it is
    /// read-only.
    #[inline]
    #[must_use]
    pub const fn as_ptr(self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// What lies behind the first `at` bytes; `None` if there are fewer.
    #[inline]
    #[must_use]
    pub fn behind(self, at: usize) -> Option<Self> {
        let length = self.length.checked_sub(at)?;
        // SAFETY: `at` is not beyond the end.
        Some(Self { start: unsafe { self.start.add(at) }, length, ..self })
    }

    /// The first `length` bytes, or all if there are fewer.
    #[inline]
    #[must_use]
    pub fn first(self, length: usize) -> Self {
        Self { length: self.length.min(length), ..self }
    }

    /// The same bytes, for loads alone.
    #[inline]
    #[must_use]
    pub const fn read_only(self) -> Self {
        Self { access: MapAccess::ReadOnly, ..self }
    }

    /// Copies bytes from the beginning on into `into`, as many as both have; tells how many.
    #[inline]
    pub fn copy_out(self, into: &mut [u8]) -> usize {
        let count = self.length.min(into.len());
        let (head, words, tail) = self.first(count).parts();
        let (head_into, rest) = into.split_at_mut(head.len());
        let (words_into, tail_into) = rest.split_at_mut(words.len() * 8);
        load_bytes(head, head_into);
        for (word, bytes) in words.iter().zip(words_into.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        load_bytes(tail, tail_into);
        count
    }

    /// Copies bytes of `from` to the beginning, as many as both have; tells how many.
    ///
    /// # Errors
    /// If these bytes may only be read.
    #[inline]
    pub fn copy_in(self, from: &[u8]) -> Result<usize, ReadOnly> {
        if self.access == MapAccess::ReadOnly {
            return Err(ReadOnly);
        }
        let count = self.length.min(from.len());
        let (head, words, tail) = self.first(count).parts();
        let (head_from, rest) = from.split_at(head.len());
        let (words_from, tail_from) = rest.split_at(words.len() * 8);
        store_bytes(head, head_from);
        for (word, bytes) in words.iter().zip(words_from.as_chunks::<8>().0) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        store_bytes(tail, tail_from);
        Ok(count)
    }

    /// The word `at` bytes from the beginning, loaded with Acquire; `None` if it is misaligned or beyond the end.
    #[inline]
    #[must_use]
    pub fn load<W: Word>(self, at: usize) -> Option<W> {
        self.atomic::<W>(at).map(W::load)
    }

    /// Stores a word with Release; `None` if it is misaligned, beyond the end, or may only be read.
    #[inline]
    #[must_use = "the word may not have been stored"]
    pub fn store<W: Word>(self, at: usize, value: W) -> Option<()> {
        self.word::<W>(at).map(|word| W::store(word, value))
    }

    /// A word to be exchanged; `None` if it is misaligned, beyond the end, or may only be read.
    #[inline]
    #[must_use]
    pub fn word<W: Word>(self, at: usize) -> Option<&'a W::Atomic> {
        if self.access == MapAccess::ReadOnly { None } else { self.atomic::<W>(at) }
    }

    /// The word at `at`. Callers only load from it unless the slice is writable.
    #[inline]
    fn atomic<W: Word>(self, at: usize) -> Option<&'a W::Atomic> {
        let end = at.checked_add(size_of::<W::Atomic>())?;
        if end > self.length || !(self.start.addr().get() + at).is_multiple_of(align_of::<W::Atomic>()) {
            return None;
        }
        // SAFETY: the bytes are mapped for `'a` and aligned, any bits are a valid atomic, and only the words above
        // implement the trait with their own atomics.
        Some(unsafe { self.start.add(at).cast::<W::Atomic>().as_ref() })
    }

    /// As words, with what does not fill a word before and after them.
    #[inline]
    fn parts(self) -> Parts<'a> {
        // SAFETY: the bytes are mapped for `'a`; any byte is a valid AtomicU8.
        let bytes = unsafe { slice::from_raw_parts(self.start.cast::<AtomicU8>().as_ptr(), self.length) };
        // SAFETY: eight AtomicU8 have the layout of one AtomicU64, and any bits are valid for both.
        unsafe { bytes.align_to::<AtomicU64>() }
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

/// Where a [`SharedSlice`] began, for who keeps its mapping in another way than by a borrow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Detached(NonNull<u8>);

// SAFETY: it is an address; nothing is reached through it but by `attach`, whose caller promises that it may be.
unsafe impl Send for Detached {}
// SAFETY: as for `Send`.
unsafe impl Sync for Detached {}

impl Detached {
    /// Of no mapping.
    pub(crate) const NOWHERE: Self = Self(NonNull::dangling());

    /// The beginning of `slice`.
    pub(crate) const fn from(slice: SharedSlice<'_>) -> Self {
        Self(slice.start)
    }

    /// The slice again, or the beginning of it.
    ///
    /// # Safety
    /// The slice had at least `length` bytes, and at least this access; its mapping lives for all of `'a`.
    #[inline]
    pub(crate) const unsafe fn attach<'a>(self, length: usize, access: MapAccess) -> SharedSlice<'a> {
        // SAFETY: what is asked for here was true of the slice that this was taken from.
        unsafe { SharedSlice::new(self.0, length, access) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::two_views;
    use super::*;
    use crate::units::ByteLen;

    #[test]
    fn words_are_reached_only_whole_and_aligned() {
        let (writer, reader) = two_views(4096);
        let slice = writer.slice(ByteLen::new(2), 14).unwrap();
        assert_eq!(slice.store::<u32>(2, 0xdead_beef), Some(()));
        assert_eq!(reader.slice(ByteLen::new(4), 4).unwrap().load::<u32>(0), Some(0xdead_beef));
        assert_eq!(slice.load::<u8>(13), Some(0));
        assert_eq!((slice.load::<u32>(0), slice.load::<u64>(8), slice.load::<u8>(14)), (None, None, None));
        assert_eq!(slice.load::<u64>(usize::MAX), None);
        slice.word::<u16>(0).unwrap().fetch_add(3, Ordering::Relaxed);
        assert_eq!(reader.load(0), Some(0xdead_beef_0003_0000));
    }

    #[test]
    fn a_read_only_part_cannot_be_stored_to() {
        let (writer, _) = two_views(4096);
        let slice = writer.slice(ByteLen::new(0), 64).unwrap().read_only();
        assert_eq!((slice.copy_in(&[1]), slice.store::<u8>(0, 1)), (Err(ReadOnly), None));
        assert!(slice.word::<u64>(0).is_none() && slice.load::<u64>(0) == Some(0));
    }

    #[test]
    fn parts_are_cut_to_what_there_is() {
        let (writer, _) = two_views(4096);
        let slice = writer.slice(ByteLen::new(0), 10).unwrap();
        assert_eq!(slice.behind(10).map(SharedSlice::len), Some(0));
        assert!(slice.behind(11).is_none());
        assert_eq!((slice.first(3).len(), slice.first(11).len()), (3, 10));
        assert_eq!(slice.copy_in(&[5; 20]), Ok(10));
        assert_eq!(slice.behind(8).unwrap().copy_out(&mut [0; 20]), 2);
    }
}
