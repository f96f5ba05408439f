//! What can be told about a process that opened the agent: its program, its name, its control group.
//!
//! The name is for people only: a process chooses it itself. Program and control group decide about a process only where it
//! was seen by a handle on it.
//!
//! Imports allowed: error, fault_points, sys::pidfd.

use std::fs;
use std::path::PathBuf;

use rustix::io::Errno;

use super::pidfd::PidFd;
use crate::error::Coded;
use crate::fault_points::{self, Point};

/// A process as it was when it was looked at; what could not be seen is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The name it gives itself.
    pub comm: Option<String>,
    /// The file it runs.
    pub exe: Option<PathBuf>,
    /// Its control group, as a path below the root of the hierarchy.
    pub cgroup: Option<String>,
}

/// Looks at `process`. A number used again lends nobody its name.
///
/// # Errors
/// ESRCH if the process has ended.
pub fn program(process: &PidFd) -> Result<Program, Errno> {
    fault_points::hit(Point::ProcRead).map_err(|injected| injected.errno())?;
    let folder = PathBuf::from(format!("/proc/{}", process.pid().as_raw_pid()));
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let found = Program {
        comm: read("comm").map(|name| name.trim_end().to_owned()),
        exe: fs::read_link(folder.join("exe")).ok(),
        cgroup: read("cgroup").as_deref().and_then(control_group),
    };
    if process.has_exited()? { Err(Errno::SRCH) } else { Ok(found) }
}

/// The control group that a `/proc/PID/cgroup` names: the path in the unified hierarchy; where there is none, in the one of
/// memory.
pub(super) fn control_group(table: &str) -> Option<String> {
    let path_of = |is_meant: fn(&str, &str) -> bool| {
        table.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, controllers) = (fields.next()?, fields.next()?);
            fields.next().filter(|_| is_meant(number, controllers)).map(str::to_owned)
        })
    };
    path_of(|number, _| number == "0")
        .or_else(|| path_of(|_, controllers| controllers.split(',').any(|name| name == "memory")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen_as_it_is() {
        let own = PidFd::open(rustix::process::getpid()).unwrap();
        let found = program(&own).unwrap();
        assert_eq!(found.exe, std::env::current_exe().ok());
        assert!(found.comm.is_some_and(|name| !name.is_empty() && !name.ends_with('\n')));
    }

    #[test]
    fn a_process_that_has_ended_is_not_described() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = PidFd::open(rustix::process::Pid::from_child(&child)).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(program(&process), Err(Errno::SRCH));
    }

    #[test]
    fn the_unified_hierarchy_is_preferred() {
        assert_eq!(control_group("0::/user.slice\n").as_deref(), Some("/user.slice"));
        assert_eq!(control_group("5:memory,cpu:/a:b\n0::/\n").as_deref(), Some("/"));
        assert_eq!(control_group("5:cpu,memory:/a:b\n4:pids:/c\n").as_deref(), Some("/a:b"));
        assert_eq!(control_group("4:pids:/c\n"), None);
    }
}
