//! Which thread is calling, as a word that can be compared without a call.
//!
//! Two threads that live at the same time have different marks, and so have a process and its child after `fork`.
//!
//! Imports allowed: libc.
#![expect(unsafe_code, reason = "the thread pointer, and what is done at fork")]

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many forks lie between the first process and this one. Added to the thread pointer, which is a multiple of more
/// than anybody forks in a row, it makes the marks of a child others than its parent's.
static FORKS: AtomicUsize = AtomicUsize::new(0);

/// The mark of nobody.
pub(crate) const NOBODY: usize = 0;

/// The calling thread.
#[inline(always)]
pub(crate) fn this_thread() -> usize {
    thread_pointer().wrapping_add(FORKS.load(Ordering::Relaxed))
}

/// Counts forks from here on. To be called before a mark is kept.
pub(crate) fn count_forks() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: the function it registers touches one atomic, which may be done between fork and exec.
        let registered = unsafe { libc::pthread_atfork(None, None, Some(in_the_child)) };
        debug_assert_eq!(registered, 0, "only a lack of memory can be in the way");
    });
}

extern "C" fn in_the_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The address of the thread's own block, which its first word holds.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn thread_pointer() -> usize {
    let pointer;
    // SAFETY: the ABI of ELF thread-local storage puts it there for every thread; it is only read.
    unsafe {
        core::arch::asm!(
            "mov {}, fs:[0]",
            out(reg) pointer,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    pointer
}

/// The address of something that each thread has one of.
#[cfg(not(target_arch = "x86_64"))]
fn thread_pointer() -> usize {
    std::thread_local! { static HERE: u64 = const { 0 } }
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn threads_that_live_together_have_different_marks() {
        let here = this_thread();
        assert_ne!(here, NOBODY);
        assert_eq!(here, this_thread());
        thread::scope(|scope| assert_ne!(scope.spawn(this_thread).join().unwrap(), here));
    }
}
