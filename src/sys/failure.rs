//! What a system call that failed says.
//!
//! Imports allowed: error, fault_points, `rustix`.

use rustix::io::Errno;

use crate::error::Coded;
use crate::fault_points::{self, Injected, Point};

/// A system call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SysError {
    /// The kernel refused.
    #[error("{call} of {object} failed: {errno}")]
    Refused {
        /// The system call.
        call: &'static str,
        /// What it was about.
        object: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// A test made it fail.
    #[error(transparent)]
    Injected(#[from] Injected),
}

impl Coded for SysError {
    fn errno(&self) -> Errno {
        match self {
            Self::Refused { errno, .. } => *errno,
            Self::Injected(injected) => injected.errno(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "system-call-failed",
            Self::Injected(injected) => injected.code(),
        }
    }
}

/// Makes a system call behind its fault point.
pub(super) fn call<T>(
    point: Point,
    name: &'static str,
    object: &'static str,
    make: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, SysError> {
    fault_points::hit(point)?;
    make().map_err(|errno| SysError::Refused { call: name, object, errno })
}
