//! Sockets whose other end may go, and a way to ask which have gone: one system call, however many there are.
//!
//! Imports allowed: error, fault_points, rustix.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::error::Coded;
use crate::fault_points::{self, Point};

/// Sockets that are told of at once.
const AT_ONCE: usize = 64;

/// Sockets by number.
#[derive(Debug)]
pub struct HangUps {
    epoll: OwnedFd,
}

impl HangUps {
    /// None yet.
    ///
    /// # Errors
    /// If descriptors are short.
    pub fn new() -> Result<Self, Errno> {
        fault_points::hit(Point::Watch).map_err(|injected| injected.errno())?;
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    /// Looks at `socket`, too, until it is closed or forgotten.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn add(&self, socket: BorrowedFd<'_>, number: u64) -> Result<(), Errno> {
        fault_points::hit(Point::Watch).map_err(|injected| injected.errno())?;
        epoll::add(&self.epoll, socket, EventData::new_u64(number), EventFlags::RDHUP)
    }

    /// Looks at `socket` no more.
    pub fn forget(&self, socket: BorrowedFd<'_>) {
        let forgotten = epoll::delete(&self.epoll, socket);
        debug_assert!(forgotten.is_ok(), "a socket was forgotten twice");
    }

    /// The numbers of sockets whose other end has gone, some of them at least.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn gone(&self) -> Result<Vec<u64>, Errno> {
        let mut events = Vec::with_capacity(AT_ONCE);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        retry_on_intr(|| epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&now)))?;
        Ok(events.iter().map(|event| event.data.u64()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::sys::socket::pair;

    #[test]
    fn whoever_has_gone_is_told_of_until_it_is_forgotten() {
        let hang_ups = HangUps::new().unwrap();
        let pairs: Vec<_> = (0..3).map(|_| pair().unwrap()).collect();
        for (number, (own, _)) in (0..).zip(&pairs) {
            hang_ups.add(own.as_fd(), number).unwrap();
        }
        assert_eq!(hang_ups.gone(), Ok(vec![]));
        let mut owns: Vec<_> = pairs.into_iter().map(|(own, given)| (own, Some(given))).collect();
        owns[1].1 = None;
        assert_eq!(hang_ups.gone(), Ok(vec![1]));
        hang_ups.forget(owns[1].0.as_fd());
        owns[2].1 = None;
        assert_eq!(hang_ups.gone(), Ok(vec![2]));
    }
}
