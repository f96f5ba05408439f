//! What the kernel tells about memory of this host that is held in place, whoever holds it.
//!
//! | what | from | what it does not tell |
//! |---|---|---|
//! | VmPin of a process | `/proc/PID/status` | pins that are charged to nobody; pages pinned twice count twice |
//! | VmLck of a process | the same | whether the pages are there at all (`MLOCK_ONFAULT`) |
//! | unevictable of a control group | `memory.stat` | why; who of its processes; long-term pins, which the kernel does not put there |
//! | pins acquired and released | `/proc/vmstat` | by whom; short pins of ordinary I/O count, too |
//!
//! No counter of long-term pins by control group exists. What a process holds through descriptors (memfds, DMA buffers,
//! BPF maps, hugetlb) shows up in none of these.
//!
//! A refresh costs a bounded number of reads: [`scan`] goes on where the last one stopped.
//!
//! Imports allowed: units, fault_points, `rustix`.

pub mod parse;
pub mod scan;

use ioasd_client::units::ByteLen;
use rustix::process::{Pid, Uid};

/// Counters of `/proc/vmstat` since the host started: pages pinned and unpinned by anybody, however shortly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinCounters {
    /// nr_foll_pin_acquired.
    pub acquired: u64,
    /// nr_foll_pin_released.
    pub released: u64,
}

/// What is held in place in a process's address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// VmPin.
    pub pinned: ByteLen,
    /// VmLck.
    pub locked: ByteLen,
}

impl Held {
    /// Nothing at all.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    /// Both together: what processes are ordered by.
    #[must_use]
    pub const fn sum(self) -> u64 {
        self.pinned.get().saturating_add(self.locked.get())
    }

    /// This and `other`.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            pinned: ByteLen::new(self.pinned.get().saturating_add(other.pinned.get())),
            locked: ByteLen::new(self.locked.get().saturating_add(other.locked.get())),
        }
    }
}

/// A process that holds something in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostProcess {
    /// Its number.
    pub pid: Pid,
    /// Its effective user.
    pub uid: Uid,
    /// The name it gives itself.
    pub comm: String,
    /// Its control group, if it could be read.
    pub cgroup: Option<String>,
    /// What it holds.
    pub held: Held,
}

/// A control group with memory that cannot be reclaimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCgroup {
    /// Its path below the root of the hierarchy.
    pub path: String,
    /// Its unevictable bytes, those of the groups below included.
    pub unevictable: ByteLen,
}

/// How much of the host a reading covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Processes that were there.
    pub processes: usize,
    /// Of these, how many have not been read yet: the next refreshes go on with them.
    pub unread: usize,
    /// Of these, how many could not be read: they ended, or `/proc` hides them.
    pub unreadable: usize,
    /// Whether control groups were left out because the reads of one refresh were used up.
    pub cgroups: Completeness,
}

/// Whether all of something was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completeness {
    /// All of it.
    #[default]
    Complete,
    /// There is more.
    Partial,
}

/// What is held in place on this host, as far as the kernel tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostMemory {
    /// Unevictable of `/proc/meminfo`.
    pub unevictable: Option<ByteLen>,
    /// Mlocked of the same.
    pub mlocked: Option<ByteLen>,
    /// The pin counters; `None` where the kernel has none (before 5.8) or hides them.
    pub pins: Option<PinCounters>,
    /// Processes that hold something, most first.
    pub processes: Vec<HostProcess>,
    /// Control groups with unevictable memory, most first.
    pub cgroups: Vec<HostCgroup>,
    /// How much of the host that is.
    pub coverage: Coverage,
}
