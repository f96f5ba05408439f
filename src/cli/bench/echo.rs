//! An echo in another process: what a message there and back costs at least.
//!
//! Imports allowed: peer, floor, sample, rustix.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{SendFlags, send};

use super::BenchError;
use super::floor::Floor;
use super::peer::{ECHOED, Peer, Role, receive};
use super::sample::timed_by_the_wall;

/// The echo; it ends when this is dropped.
pub(super) struct Echo {
    socket: OwnedFd,
    _peer: Peer,
}

impl Echo {
    /// Starts it.
    pub(super) fn start() -> Result<Self, BenchError> {
        let mut peer = Peer::start(Role::Echo)?;
        Ok(Self { socket: peer.take_socket()?, _peer: peer })
    }

    /// Sends a message and waits for it, some times.
    pub(super) fn measure(&self, floor: &mut Floor, times: u32) -> Result<(), BenchError> {
        for _ in 0..times {
            let (time, echoed) = timed_by_the_wall(|| self.once());
            echoed.map_err(BenchError::io("send to the echo"))?;
            floor.samples().add(time, 1);
        }
        Ok(())
    }

    fn once(&self) -> io::Result<()> {
        let mut message = [7; ECHOED];
        send(&self.socket, &message, SendFlags::NOSIGNAL)?;
        receive(self.socket.as_fd(), &mut message).map(drop)
    }
}
