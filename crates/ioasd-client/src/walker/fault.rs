//! Why an access did not reach memory.
//!
//! Imports allowed: units, formats, layout.

use std::fmt;

use crate::formats::Level;
pub use crate::layout::FaultKind;
use crate::units::Iova;

/// An access that did not reach memory: where the walk ended, on which entry, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("access to {iova} failed at level {level}, entry {entry:#x}: {kind}")]
pub struct WalkFault {
    /// The address.
    pub iova: Iova,
    /// The level of the last entry read.
    pub level: Level,
    /// The bits of that entry; 0 if none was read.
    pub entry: u64,
    /// Why.
    pub kind: FaultKind,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotPresent => "not present",
            Self::Permission => "permission",
            Self::Malformed => "malformed entry",
            Self::NotExported => "not exported",
            Self::OutsideAperture => "outside the aperture",
            Self::Dead => "the agent no longer serves this domain",
        })
    }
}
