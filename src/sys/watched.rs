//! A descriptor that the async runtime watches.
//!
//! It is watched for what comes in. That there is room to write is asked only while there is none: otherwise each message
//! that the other side reads would wake us for nothing.
//!
//! Imports allowed: error, fault_points, `tokio`'s descriptor watching.
#![expect(
    unsafe_code,
    reason = "the runtime asks for a promise about descriptors that only their owner can give"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::Coded;
use crate::fault_points::{self, Point};

/// A descriptor of ours that stays the same as long as it is owned.
///
/// # Safety
/// `as_raw_fd` returns one and the same open descriptor for the whole life of the value, which owns it.
pub unsafe trait SteadyFd: AsRawFd + AsFd {}

// SAFETY: an OwnedFd owns one descriptor, never changes it, and closes it when dropped.
unsafe impl SteadyFd for OwnedFd {}

// SAFETY: a Listener owns one OwnedFd that it never replaces, and tells its number.
unsafe impl SteadyFd for super::listener::Listener {}

/// A watched descriptor.
#[derive(Debug)]
pub struct Watched<T: SteadyFd>(AsyncFd<T>);

impl<T: SteadyFd> Watched<T> {
    /// Watches `fd`, which must be non-blocking. Runs inside a runtime.
    ///
    /// # Errors
    /// If the kernel refuses to watch it.
    pub fn new(fd: T) -> io::Result<Self> {
        fault_points::hit(Point::Watch).map_err(|injected| injected.errno())?;
        watch(fd, Interest::READABLE).map(Self)
    }

    /// Runs `operation` as soon as the descriptor is readable, again whenever that would block.
    ///
    /// # Errors
    /// What `operation` fails with.
    pub async fn read_with<R>(&self, mut operation: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(result) = ready.try_io(|fd| operation(fd.get_ref())) {
                return result;
            }
        }
    }

    /// Runs `operation` at once, and as soon as the descriptor is writable again whenever that would block.
    ///
    /// # Errors
    /// What `operation` fails with; if the kernel refuses to watch the descriptor for room.
    pub async fn write_with<R>(&self, mut operation: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        let fd = self.0.get_ref();
        match operation(fd) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
        fault_points::hit(Point::Watch).map_err(|injected| injected.errno())?;
        let room = watch(fd.as_fd().try_clone_to_owned()?, Interest::WRITABLE)?;
        loop {
            let mut ready = room.writable().await?;
            if let Ok(result) = ready.try_io(|_| operation(fd)) {
                return result;
            }
        }
    }
}

fn watch<T: SteadyFd>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: `SteadyFd` promises what is asked for; the AsyncFd owns the value, which is given out only by shared
    // reference.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(|error| error.into_parts().1)
}

impl<T: SteadyFd> AsFd for Watched<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}
