//! Memory that is handed out to be mapped, and is known to be in use as long as anybody has a mapping of it.
//!
//! Each time it is handed out the file is opened anew, and that opening locked (`flock`). Such a lock belongs to the opening,
//! which lives as long as there is a descriptor or a mapping of it, in whatever process. So our own opening can be locked
//! alone exactly if nobody has another; that is asked, never waited for.
//!
//! Imports allowed: units, fault_points, memfd, failure, `rustix`.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use ioasd_client::units::ByteLen;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::{Errno, pwrite};

use super::failure::{SysError, call};
use super::memfd::{self, Seals};
use crate::fault_points::Point;

/// The memory, which keeps its size.
#[derive(Debug)]
pub struct SharedPages {
    own: OwnedFd,
    name: &'static str,
}

impl SharedPages {
    /// `length` bytes that begin with `first`, and are zero behind it. `name` is seen in `/proc`.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(name: &'static str, length: ByteLen, first: &[u8]) -> Result<Self, SysError> {
        let own = memfd::create(name, length)?;
        memfd::seal(&own, name, Seals::FixedSize)?;
        call(Point::FileIo, "pwrite", name, || pwrite(&own, first, 0))?;
        Ok(Self { own, name })
    }

    /// A descriptor to map it with.
    ///
    /// # Errors
    /// If the kernel refuses, or somebody who has one locks all others out.
    pub fn hand_out(&self) -> Result<OwnedFd, SysError> {
        let path = format!("/proc/self/fd/{}", self.own.as_raw_fd());
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let opened = call(Point::Dup, "open", self.name, || open(&*path, flags, Mode::empty()))?;
        let lock = || flock(&opened, FlockOperation::NonBlockingLockShared);
        call(Point::Dup, "flock", self.name, lock)?;
        Ok(opened)
    }

    /// Whether anybody has what was handed out, or a mapping of it.
    #[must_use]
    pub fn is_out(&self) -> bool {
        let own = self.own.as_fd();
        let alone = flock(own, FlockOperation::NonBlockingLockExclusive);
        if alone.is_ok() {
            let unlocked = flock(own, FlockOperation::NonBlockingUnlock);
            debug_assert!(unlocked.is_ok(), "an own lock could not be let go of");
        }
        alone == Err(Errno::WOULDBLOCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mapping::{MapAccess, map_shared};

    const LENGTH: ByteLen = ByteLen::new(8192);

    #[test]
    fn it_is_out_while_there_is_a_descriptor_or_a_mapping() {
        let pages = SharedPages::new("shared-test", LENGTH, &[7]).unwrap();
        assert!(!pages.is_out());
        let (first, second) = (pages.hand_out().unwrap(), pages.hand_out().unwrap());
        drop(second);
        assert!(pages.is_out(), "a descriptor");
        for access in [MapAccess::ReadOnly, MapAccess::ReadWrite] {
            let mapping = map_shared(pages.hand_out().unwrap(), "shared-test", LENGTH, access).unwrap();
            assert_eq!([mapping.load(0), mapping.load(8)], [Some(7), Some(0)]);
            assert!(pages.is_out(), "{access:?}");
        }
        drop(first);
        assert!(!pages.is_out() && !pages.is_out(), "asking changes nothing");
    }

    #[test]
    fn who_locks_others_out_is_not_waited_for() {
        let pages = SharedPages::new("shared-test", LENGTH, &[]).unwrap();
        let greedy = pages.hand_out().unwrap();
        flock(&greedy, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(crate::error::Coded::errno(&pages.hand_out().unwrap_err()), Errno::WOULDBLOCK);
        assert!(pages.is_out());
    }
}
