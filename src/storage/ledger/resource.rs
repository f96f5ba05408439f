//! What an account counts.
//!
//! Imports allowed: units, error, `storage::source`.

use std::fmt;

use crate::error::Errno;
use crate::storage::source::Strength;

/// What is counted, and may be limited, at every account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Bytes pinned, at any strength: always the sum of the four that follow.
    Pinned,
    /// Bytes pinned long-term.
    Longterm,
    /// Bytes pinned by locks.
    Locked,
    /// Bytes pinned by being resident.
    Resident,
    /// Bytes of process memory that is reached by copying, which nothing holds.
    Copy,
    /// Bytes of IO page tables.
    Tables,
    /// Bytes of holes that the agent allocated for contexts that are open.
    FirstTouch,
    /// Areas.
    Areas,
    /// Objects.
    Objects,
    /// Requests that wait or run.
    Requests,
}

/// In what a resource is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// In bytes.
    Bytes,
    /// In pieces.
    Pieces,
}

impl Resource {
    /// How many there are.
    pub const COUNT: usize = 10;

    /// Every resource, in the order of reports.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Pinned,
        Self::Longterm,
        Self::Locked,
        Self::Resident,
        Self::Copy,
        Self::Tables,
        Self::FirstTouch,
        Self::Areas,
        Self::Objects,
        Self::Requests,
    ];

    /// What pins of a strength count towards, besides [`Resource::Pinned`].
    #[must_use]
    pub const fn of(strength: Strength) -> Self {
        match strength {
            Strength::Longterm => Self::Longterm,
            Strength::Locked => Self::Locked,
            Strength::Resident => Self::Resident,
            Strength::Copy => Self::Copy,
        }
    }

    /// The word used in configuration, reports and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Longterm => "longterm",
            Self::Locked => "locked",
            Self::Resident => "resident",
            Self::Copy => "copy",
            Self::Tables => "tables",
            Self::FirstTouch => "first_touch",
            Self::Areas => "areas",
            Self::Objects => "objects",
            Self::Requests => "requests",
        }
    }

    /// The resource of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.name() == word)
    }

    /// In what it is counted.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::Areas | Self::Objects | Self::Requests => Unit::Pieces,
            _ => Unit::Bytes,
        }
    }

    /// What a client sees at its limit.
    #[must_use]
    pub const fn errno(self) -> Errno {
        match self {
            Self::Requests => Errno::AGAIN,
            _ => Errno::NOMEM,
        }
    }

    /// The stable code of a refusal at its limit.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Pinned | Self::Longterm | Self::Locked | Self::Resident | Self::Copy => {
                "over-account-limit"
            }
            Self::Tables => "table-memory-over-budget",
            Self::FirstTouch => "first-touch-over-limit",
            Self::Areas => "too-many-areas",
            Self::Objects => "too-many-objects",
            Self::Requests => "too-many-requests",
        }
    }

    /// What those at the limit can do.
    pub(super) const fn remedy(self) -> &'static str {
        match self {
            Self::Pinned | Self::Longterm | Self::Locked | Self::Resident | Self::Copy | Self::Areas => {
                "unmap something"
            }
            Self::Tables => "map fewer scattered ranges or attach fewer devices",
            Self::FirstTouch => "populate memory before mapping it",
            Self::Objects => "destroy some",
            Self::Requests => "read the answers to others first",
        }
    }

    /// Its place among all.
    pub(super) const fn place(self) -> usize {
        self as usize
    }
}

/// As in "12 bytes of pins at strength longterm".
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pinned => "bytes of pins",
            Self::Longterm => "bytes of pins at strength longterm",
            Self::Locked => "bytes of pins at strength locked",
            Self::Resident => "bytes of pins at strength resident",
            Self::Copy => "bytes of pins at strength copy",
            Self::Tables => "bytes of page tables",
            Self::FirstTouch => "bytes allocated by the agent",
            Self::Areas => "areas",
            Self::Objects => "objects",
            Self::Requests => "requests in flight",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_resource_has_its_place_and_its_word() {
        for (place, resource) in Resource::ALL.into_iter().enumerate() {
            assert_eq!((resource.place(), Resource::parse(resource.name())), (place, Some(resource)));
        }
        assert_eq!(Resource::parse("pins"), None);
    }
}
