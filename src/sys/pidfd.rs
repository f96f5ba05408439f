//! Pidfds: a process by handle, so that a number used again is not taken for it.
//!
//! A pid is only a number; whoever reads something about a pid asks [`PidFd::has_exited`] afterwards. If the process was
//! alive then, what was read was its own.
//!
//! Imports allowed: error, fault_points, rustix.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::Coded;
use crate::fault_points::{self, Point};

/// A process, held by handle.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: Pid,
}

impl PidFd {
    /// Opens the process that `pid` names now.
    ///
    /// # Errors
    /// ESRCH if there is none; EMFILE.
    pub fn open(pid: Pid) -> Result<Self, Errno> {
        fault_points::hit(Point::PidfdOpen).map_err(|injected| injected.errno())?;
        Ok(Self { fd: pidfd_open(pid, PidfdFlags::empty())?, pid })
    }

    /// Takes a handle that the kernel made for process `pid`.
    ///
    /// # Errors
    /// Only if a test makes it fail.
    pub fn passed(fd: OwnedFd, pid: Pid) -> Result<Self, Errno> {
        fault_points::hit(Point::PidfdOpen).map_err(|injected| injected.errno())?;
        Ok(Self { fd, pid })
    }

    /// The number of the process.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether the process has ended, also if its parent has not waited for it yet.
    ///
    /// # Errors
    /// If the kernel cannot tell.
    pub fn has_exited(&self) -> Result<bool, Errno> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| poll(&mut fds, Some(&Timespec::default())))?;
        Ok(ready != 0)
    }

    /// Kills the process.
    ///
    /// # Errors
    /// EPERM if it belongs to another user and the agent has not the right; ESRCH if it is gone.
    pub fn kill(&self) -> Result<(), Errno> {
        pidfd_send_signal(&self.fd, Signal::KILL)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_has_exited_once_it_ended_even_if_nobody_waited() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pidfd = PidFd::open(Pid::from_child(&child)).unwrap();
        assert_eq!(pidfd.has_exited(), Ok(false));
        drop(child.stdin.take());
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        assert_eq!(pidfd.has_exited(), Ok(true));
        assert!(child.wait().unwrap().success());
        assert_eq!(pidfd.has_exited(), Ok(true));
        assert_eq!(PidFd::open(pidfd.pid()).unwrap_err(), Errno::SRCH);
    }
}
