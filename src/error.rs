//! What every error of the agent can say of itself: an errno for the uAPI and a stable code for people and programs.
//!
//! Error types live beside the code that returns them; this is only what they have in common.
//!
//! Imports allowed: `rustix::io::Errno`, the client crate's wire errors, fault_points. Everybody may import this module.

pub use rustix::io::Errno;

use ioasd_client::wire::command::ArgumentError;
use ioasd_client::wire::frame::FrameError;

use crate::fault_points::Injected;

/// An error that a client can be told.
pub trait Coded: std::error::Error {
    /// The errno a uAPI caller sees.
    fn errno(&self) -> Errno;

    /// A stable, kebab-case name of the kind of error.
    fn code(&self) -> &'static str;
}

impl Coded for Injected {
    fn errno(&self) -> Errno {
        Errno::NOMEM
    }

    fn code(&self) -> &'static str {
        "fault-injected"
    }
}

impl Coded for FrameError {
    fn errno(&self) -> Errno {
        self.errno()
    }

    fn code(&self) -> &'static str {
        self.code()
    }
}

impl Coded for ArgumentError {
    fn errno(&self) -> Errno {
        self.errno()
    }

    fn code(&self) -> &'static str {
        self.code()
    }
}
