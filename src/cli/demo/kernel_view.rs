//! What the kernel says a process holds in memory, to stand beside what the agent says.
//!
//! `VmPin` counts pages that cannot move, `VmLck` pages that are not swapped (proc_pid_status(5)). Pins of registered
//! io_uring buffers are counted in `VmPin` of the process that registered them.
//!
//! Imports allowed: units, `std`.

use std::fmt;
use std::fs;
use std::io;

use ioasd_client::units::ByteLen;

use super::plan::human;

/// The kernel's figures of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KernelView {
    pinned: ByteLen,
    locked: ByteLen,
}

impl KernelView {
    /// Asks the kernel about process `pid`.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Self::parse(&status)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no VmPin and VmLck in the status"))
    }

    fn parse(status: &str) -> Option<Self> {
        Some(Self { pinned: field(status, "VmPin:")?, locked: field(status, "VmLck:")? })
    }
}

/// The value of a field that is stated in units of 1024 bytes.
fn field(status: &str, name: &str) -> Option<ByteLen> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024).map(ByteLen::new)
}

impl fmt::Display for KernelView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VmPin {}, VmLck {}", human(self.pinned), human(self.locked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_figures_are_found_among_the_others() {
        let view = KernelView::parse("Name:\tx\nVmLck:\t       8 kB\nVmPin:\t    2048 kB\nVmHWM:\t 5 kB\n");
        assert_eq!(view, Some(KernelView { pinned: ByteLen::new(2 << 20), locked: ByteLen::new(8192) }));
        assert_eq!(KernelView::parse("VmLck:\t 8 kB\n"), None);
        assert_eq!(KernelView::parse("VmLck:\t 8 B\nVmPin:\t 8 kB\n"), None);
    }

    #[test]
    fn this_process_has_a_view() {
        assert!(KernelView::of(std::process::id()).is_ok());
    }
}
