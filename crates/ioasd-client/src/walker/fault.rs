//! Why an access did not reach memory.
//!
//! Imports allowed: units, formats.

use std::fmt;

use crate::formats::Level;
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

/// What was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing is mapped.
    NotPresent,
    /// Mapped, but not for this kind of access.
    Permission,
    /// An entry that the format does not allow, or that leads out of the arena.
    Malformed,
    /// Mapped to frames whose file this walker was not given, or not for this access, or beyond the end of the file.
    NotExported,
    /// The table does not translate such addresses.
    OutsideAperture,
    /// Nobody serves the domain any more.
    Dead,
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
