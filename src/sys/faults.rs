//! Page faults of the calling thread, also those that the kernel takes for it while it pins.
//!
//! Imports allowed: libc.
#![expect(unsafe_code, reason = "a system call that rustix does not have")]

use std::mem::MaybeUninit;

/// How many there were since the thread started.
#[must_use]
pub fn page_faults() -> i64 {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the kernel fills the structure, which is valid when zeroed, and keeps no reference to it.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_minflt.saturating_add(usage.ru_majflt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touching_fresh_memory_counts() {
        let before = page_faults();
        let fresh = vec![1_u8; 8 << 20];
        assert!(page_faults() > before, "{}", fresh.len());
    }
}
