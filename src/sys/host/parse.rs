//! Reading the kernel's tables. Pure: text in, figures out; what is missing is `None`, never 0.
//!
//! Shapes: proc(5), and Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of the kernel.
//!
//! Imports allowed: units, host's types.

use ioasd_client::units::ByteLen;
use rustix::process::Uid;

use super::{Held, PinCounters};

/// What `/proc/PID/status` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Name.
    pub comm: String,
    /// The effective user.
    pub uid: Uid,
    /// VmPin and VmLck; nothing for a kernel thread, which has no address space.
    pub held: Held,
}

/// Reads `/proc/PID/status`.
#[must_use]
pub fn status(text: &str) -> Option<Status> {
    let uid = field(text, "Uid:")?.split_whitespace().nth(1)?.parse().ok()?;
    let size = |name| kibibytes(text, name).unwrap_or(ByteLen::new(0));
    let held = Held { pinned: size("VmPin:"), locked: size("VmLck:") };
    Some(Status { comm: field(text, "Name:")?.trim().to_owned(), uid: Uid::from_raw(uid), held })
}

/// A size of `/proc/meminfo` or `/proc/PID/status`, which are in kibibytes: `Mlocked:   24152 kB`.
#[must_use]
pub fn kibibytes(text: &str, name: &str) -> Option<ByteLen> {
    let number: u64 = field(text, name)?.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    number.checked_mul(1024).map(ByteLen::new)
}

/// The pin counters of `/proc/vmstat`.
#[must_use]
pub fn pin_counters(text: &str) -> Option<PinCounters> {
    let acquired = counter(text, "nr_foll_pin_acquired")?;
    Some(PinCounters { acquired, released: counter(text, "nr_foll_pin_released")? })
}

/// The unevictable bytes of a `memory.stat`, groups below included: version 1 has a name of its own for that sum.
#[must_use]
pub fn unevictable(text: &str) -> Option<ByteLen> {
    counter(text, "total_unevictable").or_else(|| counter(text, "unevictable")).map(ByteLen::new)
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name))
}

fn counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tqemu system\nUmask:\t0022\nState:\tS (sleeping)\nUid:\t1000\t1001\t1000\t1000\n\
                          VmLck:\t      64 kB\nVmPin:\t 8388608 kB\nVmRSS:\t  2048 kB\n";

    #[test]
    fn a_status_tells_user_name_and_what_is_held() {
        let seen = status(STATUS).unwrap();
        assert_eq!((seen.comm.as_str(), seen.uid), ("qemu system", Uid::from_raw(1001)));
        assert_eq!(seen.held, Held { pinned: ByteLen::new(8 << 30), locked: ByteLen::new(64 << 10) });
        assert_eq!(seen.held.sum(), (8 << 30) + (64 << 10));
    }

    #[test]
    fn a_kernel_thread_holds_nothing_and_half_a_status_is_none() {
        assert!(status("Name:\tkthreadd\nUid:\t0\t0\t0\t0\n").unwrap().held.is_nothing());
        for bad in ["", "Name:\tx\n", "Uid:\t0\t0\t0\t0\n", "Name:\tx\nUid:\tme\tme\n", "Name:\tx\nUid:\t0\n"]
        {
            assert_eq!(status(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn sizes_are_kibibytes_and_nothing_else() {
        let text = "Unevictable:       25076 kB\nMlocked:           24152 kB\nHuge: 1 MB\nBig: 18446744073709551615 kB\n";
        assert_eq!(kibibytes(text, "Mlocked:"), Some(ByteLen::new(24_152 << 10)));
        for missing in ["Locked:", "Huge:", "Big:"] {
            assert_eq!(kibibytes(text, missing), None, "{missing}");
        }
    }

    #[test]
    fn pin_counters_come_in_pairs() {
        let text = "nr_foll_pin_acquired 42\nnr_foll_pin_released 40\nnr_foll_pin_acquired_x 7\n";
        assert_eq!(pin_counters(text), Some(PinCounters { acquired: 42, released: 40 }));
        assert_eq!(pin_counters("nr_foll_pin_acquired 42\n"), None);
    }

    #[test]
    fn both_versions_of_memory_stat_are_read_with_the_groups_below() {
        assert_eq!(unevictable("unevictable 4096\ntotal_unevictable 8192\n"), Some(ByteLen::new(8192)));
        assert_eq!(unevictable("anon 1\nunevictable 4096\n"), Some(ByteLen::new(4096)));
        assert_eq!(unevictable("anon 1\n"), None);
    }

    #[test]
    fn this_kernel_writes_what_is_read_here() {
        let read = |name: &str| std::fs::read_to_string(name).unwrap();
        assert!(status(&read("/proc/self/status")).is_some());
        assert!(kibibytes(&read("/proc/meminfo"), "Unevictable:").is_some());
    }
}
