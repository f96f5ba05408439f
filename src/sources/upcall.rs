//! How pins of process memory come about: only a process can pin its own memory, so it is asked to.
//!
//! Imports allowed: units, error, sys.

use std::time::Duration;

use ioasd_client::units::{ByteLen, UserAddr};
use rustix::io::Errno;

use crate::error::Coded;
use crate::sys::failure::SysError;
use crate::sys::ring_channel::RingChannel;

/// Whoever asks one process to pin.
pub trait PinUpcall: Send + Sync {
    /// Has the process pin whole pages of its memory, and takes over the ring that holds them.
    ///
    /// # Errors
    /// If it does not, cannot, or is not there any more.
    fn pin(&self, start: UserAddr, length: ByteLen) -> Result<RingChannel, UpcallError>;
}

/// Why a process has not pinned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpcallError {
    /// Nobody answers for it.
    #[error("the process has ended, has run another program, or has closed what it is asked through")]
    Gone,
    /// No answer came.
    #[error("the process did not answer within {} s: is it stopped?", .0.as_secs())]
    Silent(Duration),
    /// The answer makes no sense.
    #[error("the process gave an answer that is none")]
    Nonsense,
    /// The kernel did not let it pin.
    #[error("the kernel does not let the process pin: {0}")]
    Refused(Errno),
    /// What it made is not taken.
    #[error("what the process pinned with cannot be taken over: {0}")]
    NotTaken(SysError),
}

impl Coded for UpcallError {
    fn errno(&self) -> Errno {
        match self {
            Self::Refused(Errno::NOMEM) => Errno::NOMEM,
            _ => Errno::FAULT,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Gone => "source-process-gone",
            Self::Silent(_) => "source-process-silent",
            Self::Refused(Errno::NOMEM) => "source-over-memlock",
            Self::Refused(Errno::FAULT) => "source-hole",
            Self::Nonsense | Self::Refused(_) | Self::NotTaken(_) => "source-process-refused",
        }
    }
}
