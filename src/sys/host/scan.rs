//! Reading the host, a bounded piece at a time.
//!
//! A refresh lists the processes once and reads at most [`Budget::processes`] of them, going on after the last one of the
//! refresh before; what was read stays until its process is gone or read again. Control groups are walked from the root,
//! only below groups that hold something, until [`Budget::cgroups`] are read.
//!
//! Imports allowed: units, fault_points, host's types and parser, `rustix`.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use super::{Completeness, Coverage, HostCgroup, HostMemory, HostProcess, parse};
use crate::error::Coded;
use crate::fault_points::{self, Point};
use crate::sys::opener::control_group;

/// Reads that one refresh may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Processes; twice the reads for those that hold something.
    pub processes: usize,
    /// Control groups.
    pub cgroups: usize,
}

impl Default for Budget {
    /// About ten milliseconds of one CPU.
    fn default() -> Self {
        Self { processes: 512, cgroups: 256 }
    }
}

/// Where the kernel's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// proc(5).
    pub proc: PathBuf,
    /// The hierarchy of control groups with the memory controller.
    pub cgroup: PathBuf,
}

impl Default for Roots {
    /// The unified hierarchy, or where the memory controller is on its own.
    fn default() -> Self {
        let own = Path::new("/sys/fs/cgroup/memory");
        let cgroup = if own.join("memory.stat").exists() { own } else { Path::new("/sys/fs/cgroup") };
        Self { proc: PathBuf::from("/proc"), cgroup: cgroup.to_owned() }
    }
}

/// A reading that goes on.
#[derive(Debug, Default)]
pub struct HostScan {
    roots: Roots,
    budget: Budget,
    known: BTreeMap<i32, Known>,
    last_read: i32,
}

/// What is known about a process; `None` if it could not be read.
type Known = Option<HostProcess>;

impl HostScan {
    /// A reading of the host at `roots`, at most `budget` a refresh.
    #[must_use]
    pub fn new(roots: Roots, budget: Budget) -> Self {
        Self { roots, budget, known: BTreeMap::new(), last_read: 0 }
    }

    /// Reads the next piece and tells all that is known.
    ///
    /// # Errors
    /// If the processes cannot even be listed.
    pub fn refresh(&mut self) -> io::Result<HostMemory> {
        fault_points::hit(Point::ProcRead).map_err(|injected| injected.errno())?;
        let listed = self.list()?;
        self.known.retain(|pid, _| listed.contains_key(pid));
        for pid in self.next_pids(&listed) {
            self.known.insert(pid, self.process(pid));
            self.last_read = pid;
        }
        let (cgroups, complete) = self.cgroups();
        let meminfo = self.read("meminfo").unwrap_or_default();
        let mut processes: Vec<HostProcess> =
            self.known.values().flatten().filter(|process| !process.held.is_nothing()).cloned().collect();
        processes.sort_by_key(|process| (std::cmp::Reverse(process.held.sum()), process.pid.as_raw_pid()));
        Ok(HostMemory {
            unevictable: parse::kibibytes(&meminfo, "Unevictable:"),
            mlocked: parse::kibibytes(&meminfo, "Mlocked:"),
            pins: self.read("vmstat").as_deref().and_then(parse::pin_counters),
            processes,
            cgroups,
            coverage: Coverage {
                processes: listed.len(),
                unread: listed.len() - self.known.len(),
                unreadable: self.known.values().filter(|known| known.is_none()).count(),
                cgroups: complete,
            },
        })
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.roots.proc.join(name)).ok()
    }

    fn list(&self) -> io::Result<BTreeMap<i32, ()>> {
        let entries = fs::read_dir(&self.roots.proc)?;
        Ok(entries
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, ())))
            .collect())
    }

    /// The processes after the last one that was read, and from the beginning.
    fn next_pids(&self, listed: &BTreeMap<i32, ()>) -> Vec<i32> {
        let after = listed.range((Excluded(self.last_read), Unbounded));
        let pids = after.chain(listed.range(..=self.last_read)).map(|(pid, ())| *pid);
        pids.take(self.budget.processes).collect()
    }

    fn process(&self, pid: i32) -> Known {
        let seen = parse::status(&self.read(&format!("{pid}/status"))?)?;
        let cgroup = || control_group(&self.read(&format!("{pid}/cgroup"))?);
        let cgroup = if seen.held.is_nothing() { None } else { cgroup() };
        Some(HostProcess {
            pid: Pid::from_raw(pid)?,
            uid: seen.uid,
            comm: seen.comm,
            cgroup,
            held: seen.held,
        })
    }

    /// The control groups that hold something, most first. A group's figure includes those below, so nothing is below a
    /// group that holds nothing.
    fn cgroups(&self) -> (Vec<HostCgroup>, Completeness) {
        let mut waiting = VecDeque::from([PathBuf::new()]);
        let mut found = Vec::new();
        for _ in 0..self.budget.cgroups {
            let Some(place) = waiting.pop_front() else { break };
            let folder = self.roots.cgroup.join(&place);
            let Some(unevictable) = unevictable_of(&folder, &place) else { continue };
            if let Some(unevictable) = unevictable.filter(|bytes| bytes.get() > 0) {
                found.push(HostCgroup { path: format!("/{}", place.display()), unevictable });
            }
            waiting.extend(folders_in(&folder).map(|name| place.join(name)));
        }
        found.sort_by(|one, other| {
            other.unevictable.cmp(&one.unevictable).then_with(|| one.path.cmp(&other.path))
        });
        let complete = if waiting.is_empty() { Completeness::Complete } else { Completeness::Partial };
        (found, complete)
    }
}

/// What a group holds: `None` if there is no need to look below it, `Some(None)` for a root that does not say.
fn unevictable_of(folder: &Path, place: &Path) -> Option<Option<ioasd_client::units::ByteLen>> {
    let is_root = place.as_os_str().is_empty();
    let held = fs::read_to_string(folder.join("memory.stat")).ok().as_deref().and_then(parse::unevictable);
    match held {
        Some(bytes) if bytes.get() > 0 => Some(Some(bytes)),
        _ if is_root => Some(None),
        _ => None,
    }
}

fn folders_in(folder: &Path) -> impl Iterator<Item = std::ffi::OsString> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.file_name())
}

#[cfg(test)]
mod tests {
    use ioasd_client::units::ByteLen;

    use super::*;

    /// A host made of files.
    struct Fake(tempfile::TempDir);

    impl Fake {
        fn new() -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            host.write("proc/meminfo", "Unevictable: 8 kB\nMlocked: 4 kB\n");
            host.write("proc/vmstat", "nr_foll_pin_acquired 9\nnr_foll_pin_released 2\n");
            host
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn process(&self, pid: i32, locked_kib: u64) {
            let status = format!("Name:\tp{pid}\nUid:\t7\t7\t7\t7\nVmLck:\t{locked_kib} kB\nVmPin:\t0 kB\n");
            self.write(&format!("proc/{pid}/status"), &status);
            self.write(&format!("proc/{pid}/cgroup"), "0::/tenants/a\n");
        }

        fn group(&self, path: &str, unevictable: u64) {
            self.write(
                &format!("cgroup/{path}/memory.stat"),
                &format!("anon 1\nunevictable {unevictable}\n"),
            );
        }

        fn scan(&self, processes: usize, cgroups: usize) -> HostScan {
            let roots = Roots { proc: self.0.path().join("proc"), cgroup: self.0.path().join("cgroup") };
            HostScan::new(roots, Budget { processes, cgroups })
        }
    }

    #[test]
    fn processes_that_hold_something_come_with_their_group_most_first() {
        let host = Fake::new();
        for (pid, locked) in [(10, 4), (11, 0), (12, 64)] {
            host.process(pid, locked);
        }
        let seen = host.scan(100, 100).refresh().unwrap();
        let held: Vec<_> = seen.processes.iter().map(|p| (p.pid.as_raw_pid(), p.held.locked.get())).collect();
        assert_eq!(held, [(12, 64 << 10), (10, 4 << 10)]);
        assert_eq!(seen.processes[0].cgroup.as_deref(), Some("/tenants/a"));
        assert_eq!((seen.unevictable, seen.mlocked), (Some(ByteLen::new(8192)), Some(ByteLen::new(4096))));
        assert_eq!(seen.pins.map(|pins| pins.acquired - pins.released), Some(7));
        assert_eq!(seen.coverage, Coverage { processes: 3, ..Coverage::default() });
    }

    #[test]
    fn a_refresh_reads_no_more_than_its_budget_and_the_next_one_goes_on() {
        let host = Fake::new();
        (1..=5).for_each(|pid| host.process(pid, 4));
        let mut scan = host.scan(2, 1);
        let unread: Vec<_> = (0..4).map(|_| scan.refresh().unwrap().coverage.unread).collect();
        assert_eq!(unread, [3, 1, 0, 0]);
        host.process(2, 8);
        let changes = (0..3).map(|_| scan.refresh().unwrap().processes[0].held.locked.get());
        assert_eq!(changes.max(), Some(8 << 10), "a change is not seen within one round");
    }

    #[test]
    fn what_has_ended_is_forgotten_and_what_cannot_be_read_is_counted() {
        let host = Fake::new();
        host.process(1, 4);
        host.write("proc/2/status", "nonsense");
        let mut scan = host.scan(10, 1);
        assert_eq!(scan.refresh().unwrap().coverage.unreadable, 1);
        fs::remove_dir_all(host.0.path().join("proc/1")).unwrap();
        let seen = scan.refresh().unwrap();
        assert_eq!((seen.processes.len(), seen.coverage.processes), (0, 1));
    }

    #[test]
    fn only_groups_that_hold_something_are_walked() {
        let host = Fake::new();
        host.group("", 0);
        host.group("tenants", 12_288);
        host.group("tenants/a", 8192);
        host.group("idle", 0);
        host.group("idle/never", 4096);
        let seen = host.scan(1, 10).refresh().unwrap();
        let held: Vec<_> =
            seen.cgroups.iter().map(|group| (group.path.as_str(), group.unevictable.get())).collect();
        assert_eq!(held, [("/tenants", 12_288), ("/tenants/a", 8192)]);
        assert_eq!(seen.coverage.cgroups, Completeness::Complete);
        assert_eq!(host.scan(1, 2).refresh().unwrap().coverage.cgroups, Completeness::Partial);
    }

    #[test]
    fn this_host_can_be_read() {
        let seen = HostScan::default().refresh().unwrap();
        assert!(seen.coverage.processes > 0 && seen.unevictable.is_some(), "{seen:?}");
    }

    #[test]
    fn a_host_without_proc_is_an_error() {
        let roots = Roots { proc: "/nonexistent".into(), cgroup: "/nonexistent".into() };
        let error = HostScan::new(roots, Budget::default()).refresh().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
