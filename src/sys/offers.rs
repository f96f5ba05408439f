//! What the host offers, each thing found by using it.
//!
//! Imports allowed: units, failure, the rooms of this folder, rustix.

use std::fs::{self, OpenOptions};
use std::os::fd::AsFd;
use std::path::Path;

use ioasd_client::units::{ByteLen, PAGE_SIZE, Pfn};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use rustix::system::uname;

use super::client_mapping::{ClientMapping, Part};
use super::failure::SysError;
use super::file_state::{self, FileAccess};
use super::memfd;
use super::pagemap::Pagemap;

/// One page.
const PAGE: Part = Part { offset: ByteLen::new(0), length: ByteLen::new(PAGE_SIZE) };

/// Brings a page of the process's own in and reads its physical frame.
///
/// # Errors
/// EPERM if frames are not shown.
pub fn physical_frame() -> Result<Pfn, SysError> {
    let file = memfd::create("ioasd-probe", PAGE.length)?;
    let mapping = ClientMapping::new(file.as_fd(), PAGE, FileAccess::ReadWrite)?;
    mapping.populate(PAGE)?;
    let runs = Pagemap::open()?.frames(&mapping, PAGE)?;
    let first = runs.first().map(|run| run.first);
    first.ok_or(SysError::Refused { call: "read", object: "/proc/self/pagemap", errno: Errno::FAULT })
}

/// Allocates one huge page of the default size, tells the size, and lets go.
///
/// # Errors
/// If there are no huge pages, or none is free.
pub fn huge_page() -> Result<ByteLen, Errno> {
    let file = memfd_create("ioasd-probe", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB)?;
    let size = file_state::huge_page(file.as_fd())?.ok_or(Errno::OPNOTSUPP)?;
    ftruncate(&file, size.get())?;
    file_state::allocate(file.as_fd(), ByteLen::new(0), size).map(|()| size)
}

/// Opens a device for reading and writing, as it would be used, and closes it.
///
/// # Errors
/// ENOENT if there is no such device; what else the kernel says.
pub fn open_device(path: &Path) -> Result<(), Errno> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    opened.map(drop).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// How many descriptors this process may have at most; `None` is no limit.
#[must_use]
pub fn descriptors() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// A number that a file of `/proc` or `/sys` holds; `None` if there is no such file or no number in it.
#[must_use]
pub fn number_in(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The release of the kernel, whole and as major and minor number.
#[must_use]
pub fn kernel() -> (String, Option<(u32, u32)>) {
    let release = uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(str::parse);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    };
    (release, version)
}

/// The memory limit that the unified control-group hierarchy sets this process; `None` if it is not in one with a limit.
#[must_use]
pub fn cgroup_memory() -> Option<Cgroup> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/').to_owned();
    let limit = fs::read_to_string(Path::new("/sys/fs/cgroup").join(&path).join("memory.max")).ok()?;
    Some(Cgroup { path, limit: limit.trim().parse().ok().map(ByteLen::new) })
}

/// A control group of the unified hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Its path below the root.
    pub path: String,
    /// The memory it may use; `None` is no limit.
    pub limit: Option<ByteLen>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_opened_and_numbers_read() {
        assert_eq!(open_device(Path::new("/dev/null")), Ok(()));
        assert_eq!(open_device(Path::new("/dev/no-such-device")), Err(Errno::NOENT));
        assert!(number_in("/proc/sys/vm/max_map_count") > Some(0));
        assert_eq!(number_in("/proc/self/status"), None);
        assert!(kernel().1 >= Some((5, 0)));
    }
}
