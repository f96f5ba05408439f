//! The rest of the host: huge pages, limits, devices, control group, kernel.
//!
//! Imports allowed: units, sys.

use std::path::Path;

use ioasd_client::units::ByteLen;

use super::Finding;
use crate::sys::offers;

/// Descriptors that a busy agent may well need: one for each client, file, table and export channel.
const DESCRIPTORS: u64 = 65_536;

/// Mappings that it may well need: one for each table, and one for each GiB of a file that is held.
const MAPPINGS: u64 = 65_530;

/// The first kernel with all that is used: sparse tables of registered buffers.
const KERNEL: (u32, u32) = (5, 19);

/// The kernel from which nothing is missing: pages that were allocated but never written are told from holes, and huge
/// extents are found at once.
const WHOLE_KERNEL: (u32, u32) = (6, 7);

/// Everything.
pub(super) fn findings() -> Vec<Finding> {
    vec![huge_pages(), descriptors(), mappings(), iommufd(), vfio(), cgroup(), kernel()]
}

fn huge_pages() -> Finding {
    let total = offers::number_in("/proc/sys/vm/nr_hugepages").unwrap_or(0);
    let allocated = offers::huge_page();
    let found = allocated
        .map(|size| format!("a huge page of {} bytes was allocated; the pool has {total}", size.get()));
    let found = found.map_err(|errno| format!("none could be allocated, the pool has {total} ({errno})"));
    Finding::tried("huge pages", found, "only for speed: sysctl vm.nr_hugepages=N, or hugepages=N at boot")
}

fn descriptors() -> Finding {
    match offers::descriptors() {
        None => Finding::yes("RLIMIT_NOFILE", "no limit"),
        Some(limit) if limit >= DESCRIPTORS => {
            Finding::yes("RLIMIT_NOFILE", format!("{limit}; the agent raises itself to it"))
        }
        Some(limit) => Finding::no(
            "RLIMIT_NOFILE",
            format!("{limit}: so many clients, files, tables and export channels together"),
            "for more: LimitNOFILE= of the service, ulimit -Hn",
        ),
    }
}

fn mappings() -> Finding {
    let found = |limit| {
        format!("{limit}: one for each table and each GiB of a file that is held; locked memory needs more")
    };
    match offers::number_in("/proc/sys/vm/max_map_count") {
        Some(limit) if limit >= MAPPINGS => Finding::yes("vm.max_map_count", found(limit)),
        Some(limit) => Finding::no("vm.max_map_count", found(limit), "for more: sysctl vm.max_map_count=N"),
        None => Finding::no("vm.max_map_count", "cannot be read", "make /proc/sys available"),
    }
}

fn iommufd() -> Finding {
    let opened = offers::open_device(Path::new("/dev/iommu"));
    Finding::tried(
        "/dev/iommu",
        opened.map(|()| "was opened"),
        "only for hardware tables: a kernel with CONFIG_IOMMUFD, modprobe iommufd, and access to the device",
    )
}

fn vfio() -> Finding {
    let opened = offers::open_device(Path::new("/dev/vfio/vfio"));
    Finding::tried(
        "VFIO",
        opened.map(|()| "/dev/vfio/vfio was opened"),
        "only for hardware devices: modprobe vfio-pci, an IOMMU that is enabled, and access to /dev/vfio",
    )
}

fn cgroup() -> Finding {
    match offers::cgroup_memory() {
        Some(offers::Cgroup { path, limit: None }) => {
            Finding::yes("cgroup memory", format!("no limit in /{path}"))
        }
        Some(offers::Cgroup { path, limit: Some(limit) }) => {
            Finding::yes("cgroup memory", limited(&path, limit))
        }
        None => Finding::no(
            "cgroup memory",
            "no unified control group with a memory controller",
            "only to bound the agent's own memory: boot with the unified hierarchy (cgroup v2)",
        ),
    }
}

fn limited(path: &str, limit: ByteLen) -> String {
    format!("{} bytes in /{path}: tables, and holes that are first-touched, count against it", limit.get())
}

fn kernel() -> Finding {
    let (release, version) = offers::kernel();
    match version {
        Some(version) if version >= WHOLE_KERNEL => Finding::yes("kernel", release),
        Some(version) if version >= KERNEL => Finding::yes(
            "kernel",
            format!(
                "{release}: files must be written, not only allocated, before they are mapped (Linux 6.5 lifts that)"
            ),
        ),
        _ => Finding::no("kernel", release, "long-term pins need Linux 5.19 or later"),
    }
}
