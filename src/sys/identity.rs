//! What a process may lock: its privilege and its limit, as the kernel tells about other processes.
//!
//! Everything is read from `/proc/<pid>` and counts only if the process was alive afterwards, so that a reused number
//! lends nobody its rights.
//!
//! Imports allowed: units, error, fault_points, sys::pidfd.

use std::fs;
use std::io;

use ioasd_client::units::ByteLen;
use rustix::io::Errno;

use super::pidfd::PidFd;
use crate::error::Coded;
use crate::fault_points::{self, Point};

/// CAP_IPC_LOCK, as a bit of the effective set.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// Whether a process may lock memory beyond its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockPrivilege {
    /// It holds CAP_IPC_LOCK in the agent's own user namespace.
    Unlimited,
    /// Its RLIMIT_MEMLOCK binds.
    Limited,
}

/// A RLIMIT_MEMLOCK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemlockLimit {
    /// So many bytes.
    Bytes(ByteLen),
    /// Any number.
    Unlimited,
}

/// Whether `process` may lock without limit. A capability held in another user namespace is not worth anything here;
/// where the namespace cannot be seen, it is taken for another one.
///
/// # Errors
/// ESRCH if the process has ended.
pub fn lock_privilege(process: &PidFd) -> Result<LockPrivilege, Errno> {
    let status = read(process, "status")?;
    let held = effective_capabilities(&status).is_some_and(|set| set & CAP_IPC_LOCK != 0);
    let privilege = if held && shares_user_namespace(process) {
        LockPrivilege::Unlimited
    } else {
        LockPrivilege::Limited
    };
    require_alive(process)?;
    Ok(privilege)
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
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/user")).ok();
    let own = namespace("self");
    own.is_some() && own == namespace(&process.pid().as_raw_pid().to_string())
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
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
        assert_eq!(lock_privilege(&process), Err(Errno::SRCH));
    }

    #[test]
    fn the_privilege_of_this_process_follows_its_effective_set() {
        let held = rustix::thread::capabilities(None).unwrap().effective;
        let wanted = if held.contains(rustix::thread::CapabilitySet::IPC_LOCK) {
            LockPrivilege::Unlimited
        } else {
            LockPrivilege::Limited
        };
        assert_eq!(lock_privilege(&own()), Ok(wanted));
    }

    #[test]
    fn the_tables_of_the_kernel_are_read_as_they_are_written() {
        assert_eq!(effective_capabilities("Name:\tx\nCapEff:\t0000000000004000\n"), Some(CAP_IPC_LOCK));
        assert_eq!(effective_capabilities("CapPrm:\t0000000000004000\n"), None);
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
