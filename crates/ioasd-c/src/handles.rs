//! What a pointer to an opaque struct stands for: a number, under which a thing is found as long as it is open.
//!
//! Numbers are not used twice and are nobody's address, so a handle that was closed, or never was one, is found to be.
//!
//! Imports allowed: error.
#![expect(clippy::disallowed_types, reason = "a library that others link takes no dependency for a lock")]

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Misuse;

/// The numbers are multiples of this, so that they look aligned. The first pages of an address space are never mapped.
const STEP: usize = 16;

/// The next number, of whatever kind.
static NEXT: AtomicUsize = AtomicUsize::new(STEP);

/// Things of kind `T` that are open, which C knows as pointers to `H`.
pub(crate) struct Handles<H, T> {
    kind: &'static str,
    open: Mutex<BTreeMap<usize, Arc<Mutex<T>>>>,
    known_as: PhantomData<fn() -> H>,
}

impl<H, T> Handles<H, T> {
    /// None yet. `kind` is what errors call them.
    pub(crate) const fn new(kind: &'static str) -> Self {
        Self { kind, open: Mutex::new(BTreeMap::new()), known_as: PhantomData }
    }

    /// A handle for `thing`.
    pub(crate) fn open(&self, thing: T) -> *mut H {
        let number = NEXT.fetch_add(STEP, Ordering::Relaxed);
        lock(&self.open).insert(number, Arc::new(Mutex::new(thing)));
        ptr::without_provenance_mut(number)
    }

    /// Uses what `handle` stands for. Other threads wait meanwhile.
    pub(crate) fn with<R, E: From<Misuse>>(
        &self,
        handle: *mut H,
        use_it: impl FnOnce(&mut T) -> Result<R, E>,
    ) -> Result<R, E> {
        let found = lock(&self.open).get(&handle.addr()).cloned();
        let thing = found.ok_or(Misuse::NotOpen(self.kind))?;
        use_it(&mut lock(&thing))
    }

    /// Closes what `handle` stands for, as soon as nobody uses it any more.
    pub(crate) fn close(&self, handle: *mut H) -> Result<(), Misuse> {
        let found = lock(&self.open).remove(&handle.addr());
        found.map(drop).ok_or(Misuse::NotOpen(self.kind))
    }
}

/// A panic while it was locked was an error of the call, and what it protects is used as it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Known;

    #[test]
    fn a_handle_that_was_closed_or_never_was_one_is_not_open() {
        let handles: Handles<Known, u8> = Handles::new("thing");
        let (first, second) = (handles.open(1), handles.open(2));
        let value = |handle| handles.with(handle, |value| Ok::<u8, Misuse>(*value));
        assert_eq!((value(first), value(second)), (Ok(1), Ok(2)));
        assert_eq!(handles.close(first), Ok(()));
        let third = handles.open(3);
        assert!(third != first && third != second, "a number was used twice");
        for gone in [first, ptr::null_mut(), ptr::without_provenance_mut(usize::MAX)] {
            assert_eq!(value(gone), Err(Misuse::NotOpen("thing")));
            assert_eq!(handles.close(gone), Err(Misuse::NotOpen("thing")));
        }
    }

    #[test]
    fn closing_what_is_in_use_does_not_take_it_away() {
        let handles: Handles<Known, Vec<u8>> = Handles::new("thing");
        let handle = handles.open(vec![7]);
        let seen = handles.with(handle, |value| {
            handles.close(handle)?;
            Ok::<_, Misuse>(value.clone())
        });
        assert_eq!(seen, Ok(vec![7]));
    }
}
