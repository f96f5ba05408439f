//! What this process may lock, what the kernel says it holds, and whether the host swaps.
//!
//! Imports allowed: units, failure, rustix.
#![expect(unsafe_code, reason = "mmap and mlock2")]

use std::fs;
use std::ptr;

use ioasd_client::units::{ByteLen, PAGE_SIZE};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MlockFlags, ProtFlags, mlock_with, mmap_anonymous, munmap};
use rustix::process::{Resource, getrlimit};

use super::failure::SysError;
use super::identity::MemlockLimit;

const KIB: u64 = 1024;

/// What the kernel counts as held by this process, from `/proc/self/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelView {
    /// `VmPin`: pinned, which includes registered buffers. Huge pages are counted whole.
    pub pinned: ByteLen,
    /// `VmLck`: locked. hugetlb pages are never counted, because they cannot be swapped anyway.
    pub locked: ByteLen,
}

/// What the kernel counts now.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn kernel_view() -> Result<KernelView, SysError> {
    let status = read("/proc/self/status")?;
    let field = |name| kib(&status, name).unwrap_or_default();
    Ok(KernelView { pinned: field("VmPin:"), locked: field("VmLck:") })
}

/// Memory of this process that is there, and its threads.
///
/// # Errors
/// If `/proc` cannot be read.
pub(super) fn size() -> Result<(ByteLen, u64), SysError> {
    let status = read("/proc/self/status")?;
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    let threads = threads.and_then(|count| count.trim().parse().ok()).unwrap_or_default();
    Ok((kib(&status, "VmRSS:").unwrap_or_default(), threads))
}

/// Swap space of the host.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn swap() -> Result<ByteLen, SysError> {
    Ok(kib(&read("/proc/meminfo")?, "SwapTotal:").unwrap_or_default())
}

/// What this process may lock, found by trying: one page more than the soft RLIMIT_MEMLOCK, none of which is brought
/// in. A capability of another user namespace than the first does not lift the limit.
#[must_use]
pub fn memlock() -> MemlockLimit {
    let Some(limit) = getrlimit(Resource::Memlock).current else { return MemlockLimit::Unlimited };
    match lock_nothing_of(limit.saturating_add(PAGE_SIZE)) {
        Ok(()) => MemlockLimit::Unlimited,
        Err(_) => MemlockLimit::Bytes(ByteLen::new(limit)),
    }
}

/// Locks `length` bytes that are never touched, and lets go.
fn lock_nothing_of(length: u64) -> Result<(), Errno> {
    let length = usize::try_from(length).map_err(|_| Errno::NOMEM)?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: the kernel chooses the place, so no existing mapping is touched.
    let base = unsafe { mmap_anonymous(ptr::null_mut(), length, ProtFlags::empty(), flags) }?;
    // SAFETY: the range is the mapping just made; with ONFAULT nothing of it is brought in.
    let locked = unsafe { mlock_with(base, length, MlockFlags::ONFAULT) };
    // SAFETY: the range is the mapping just made, which nothing refers to.
    let unmapped = unsafe { munmap(base, length) };
    locked.and(unmapped)
}

fn read(path: &'static str) -> Result<String, SysError> {
    let text = fs::read_to_string(path);
    text.map_err(|error| SysError::Refused {
        call: "read",
        object: path,
        errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })
}

/// The value of a line such as `VmPin:  8 kB`.
fn kib(table: &str, name: &str) -> Option<ByteLen> {
    let row = table.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = row.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(ByteLen::new(kib.saturating_mul(KIB)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_the_kernel_are_read_as_they_are_written() {
        let table = "VmLck:\t       8 kB\nVmPin:\t   12 kB\nSwapTotal:             0 kB\n";
        assert_eq!(kib(table, "VmPin:"), Some(ByteLen::new(12 * 1024)));
        assert_eq!(kib(table, "SwapTotal:"), Some(ByteLen::new(0)));
        assert_eq!(kib(table, "VmRSS:"), None);
        assert!(kernel_view().is_ok() && swap().is_ok());
    }

    #[test]
    fn a_thread_without_the_capability_is_limited() {
        use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
        let limited = std::thread::spawn(|| {
            let mut held = capabilities(None).unwrap();
            held.effective.remove(CapabilitySet::IPC_LOCK);
            set_capabilities(None, held).unwrap();
            memlock()
        });
        let limit = getrlimit(Resource::Memlock).current;
        let wanted = limit.map_or(MemlockLimit::Unlimited, |bytes| MemlockLimit::Bytes(ByteLen::new(bytes)));
        assert_eq!(limited.join().unwrap(), wanted);
    }
}
