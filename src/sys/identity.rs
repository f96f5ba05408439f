//! What a process may lock: its privilege and its limit, as the kernel tells about other processes.
//!
//! What is read about a number counts only if its process was alive afterwards, so that a reused number lends nobody
//! its rights.
//!
//! Imports allowed: units, error, fault_points, sys::pidfd.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

use ioasd_client::units::ByteLen;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities};

use super::pidfd::PidFd;
use crate::error::Coded;
use crate::fault_points::{self, Point};

/// A privilege that a client may use through the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// CAP_IPC_LOCK: locking memory beyond its limit.
    LockMemory,
    /// CAP_SYS_RESOURCE: choosing which limit binds.
    ChooseLimits,
}

impl Privilege {
    const fn capability(self) -> CapabilitySet {
        match self {
            Self::LockMemory => CapabilitySet::IPC_LOCK,
            Self::ChooseLimits => CapabilitySet::SYS_RESOURCE,
        }
    }
}

/// A RLIMIT_MEMLOCK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemlockLimit {
    /// So many bytes.
    Bytes(ByteLen),
    /// Any number.
    Unlimited,
}

/// Whether `process` holds a privilege now, in the agent's own user namespace: a capability held in another one is not
/// worth anything here, and where the namespace cannot be seen, it is taken for another one. Nothing is remembered,
/// because a process may lose a capability, or gain one in another namespace, at any time.
///
/// # Errors
/// ESRCH if the process has ended.
pub fn holds(process: &PidFd, privilege: Privilege) -> Result<bool, Errno> {
    fault_points::hit(Point::ProcRead).map_err(|injected| injected.errno())?;
    let effective = capabilities(Some(process.pid()))?.effective;
    let held = effective.contains(privilege.capability()) && shares_user_namespace(process);
    require_alive(process)?;
    Ok(held)
}

/// The soft RLIMIT_MEMLOCK of `process`, now.
///
/// # Errors
/// ESRCH if the process has ended; EPROTO if the kernel's table cannot be read.
pub fn memlock_limit(process: &PidFd) -> Result<MemlockLimit, Errno> {
    let limits = read(process, "limits")?;
    require_alive(process)?;
    soft_memlock(&limits).ok_or(Errno::PROTO)
}

fn read(process: &PidFd, name: &str) -> Result<String, Errno> {
    fault_points::hit(Point::ProcRead).map_err(|injected| injected.errno())?;
    let pid = process.pid().as_raw_pid();
    fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(|error| errno(&error))
}

/// A missing folder of `/proc` is a missing process.
fn errno(error: &io::Error) -> Errno {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) | None => Errno::SRCH,
        Some(errno) => errno,
    }
}

fn require_alive(process: &PidFd) -> Result<(), Errno> {
    if process.has_exited()? { Err(Errno::SRCH) } else { Ok(()) }
}

fn shares_user_namespace(process: &PidFd) -> bool {
    static OWN: OnceLock<Option<PathBuf>> = OnceLock::new();
    shares(process, "user", &OWN)
}

/// Whether `process` sees the files that the agent sees, as far as that can be told for certain.
#[must_use]
pub fn shares_mounts(process: &PidFd) -> bool {
    static OWN: OnceLock<Option<PathBuf>> = OnceLock::new();
    shares(process, "mnt", &OWN) && require_alive(process).is_ok()
}

fn shares(process: &PidFd, kind: &str, own: &OnceLock<Option<PathBuf>>) -> bool {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/{kind}")).ok();
    let own = own.get_or_init(|| namespace("self"));
    own.is_some() && *own == namespace(&process.pid().as_raw_pid().to_string())
}

fn soft_memlock(limits: &str) -> Option<MemlockLimit> {
    let row = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    match row.split_whitespace().next()? {
        "unlimited" => Some(MemlockLimit::Unlimited),
        bytes => bytes.parse().ok().map(|bytes| MemlockLimit::Bytes(ByteLen::new(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use rustix::process::{Pid, Resource, getpid, getrlimit};

    use super::*;

    fn own() -> PidFd {
        PidFd::open(getpid()).unwrap()
    }

    /// A `cat` that ends when its input is closed, under the limit that `sh` sets first.
    fn limited_child(limit_kib: u64) -> Child {
        let script = format!("ulimit -S -l {limit_kib} && echo ready && exec cat");
        let pipes = || Stdio::piped();
        let mut child =
            Command::new("sh").arg("-c").arg(script).stdin(pipes()).stdout(pipes()).spawn().unwrap();
        let mut ready = [0; 6];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        child
    }

    #[test]
    fn the_limit_of_this_process_is_what_getrlimit_says() {
        let limit = getrlimit(Resource::Memlock).current;
        let wanted = limit.map_or(MemlockLimit::Unlimited, |bytes| MemlockLimit::Bytes(ByteLen::new(bytes)));
        assert_eq!(memlock_limit(&own()), Ok(wanted));
    }

    #[test]
    fn the_limit_is_that_of_the_process_asked_for() {
        let mut child = limited_child(40);
        let process = PidFd::open(Pid::from_child(&child)).unwrap();
        assert_eq!(memlock_limit(&process), Ok(MemlockLimit::Bytes(ByteLen::new(40 * 1024))));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(memlock_limit(&process), Err(Errno::SRCH));
        assert_eq!(holds(&process, Privilege::LockMemory), Err(Errno::SRCH));
    }

    #[test]
    fn the_privileges_of_this_process_follow_its_effective_set() {
        let held = capabilities(None).unwrap().effective;
        for privilege in [Privilege::LockMemory, Privilege::ChooseLimits] {
            assert_eq!(holds(&own(), privilege), Ok(held.contains(privilege.capability())));
        }
    }

    #[test]
    fn the_tables_of_the_kernel_are_read_as_they_are_written() {
        let row = |soft| {
            format!(
                "Max cpu time   unlimited   unlimited   seconds\nMax locked memory   {soft}   9   bytes\n"
            )
        };
        assert_eq!(soft_memlock(&row("8388608")), Some(MemlockLimit::Bytes(ByteLen::new(8 << 20))));
        assert_eq!(soft_memlock(&row("unlimited")), Some(MemlockLimit::Unlimited));
        assert_eq!(soft_memlock("Max cpu time 1 1 seconds\n"), None);
    }
}
