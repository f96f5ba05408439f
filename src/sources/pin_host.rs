//! What all file sources of an agent share: how firmly they may hold, the rings they hold with, and the files they are over.
//!
//! A source claims its whole length of what the agent may lock when it is made; `auto` gives it the first strength whose
//! claim succeeds. If none does, it gets the strongest and its pins fail at the limit, which the error names: a pin is
//! never made at a strength that the source does not show.
//!
//! Imports allowed: storage, sys, the parts of this folder.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ioasd_client::units::ByteLen;

use super::frames::Frames;
use super::hold::{Claim, Hold, Locks, LongtermPins};
use super::kept_file::{KeptFile, KeptFiles};
use super::presence::FirstTouch;
use super::ring_pool::RingPool;
use super::strength::{Abilities, Ladder, NoStrength};
use crate::error::{Coded, Errno};
use crate::storage::frame_window::FileKey;
use crate::storage::quota::Quota;
use crate::storage::source::{Strength, StrengthSetting};
use crate::sys::failure::SysError;
use crate::sys::file_state::FileAccess;

/// Why nothing can be pinned on this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinHostError {
    /// The host cannot be probed.
    #[error("cannot find out what holds memory here")]
    Probe(#[from] SysError),
    /// No strength.
    #[error(transparent)]
    NoStrength(#[from] NoStrength),
}

impl Coded for PinHostError {
    fn errno(&self) -> Errno {
        match self {
            Self::Probe(cause) => cause.errno(),
            Self::NoStrength(cause) => cause.errno(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Probe(cause) => cause.code(),
            Self::NoStrength(cause) => cause.code(),
        }
    }
}

/// Shared by all file sources.
pub struct PinHost {
    ladder: Ladder,
    frames: Arc<dyn Frames>,
    rings: Arc<RingPool>,
    files: KeptFiles,
    pinnable: Arc<Quota>,
    lockable: Arc<Quota>,
    first_touched: Arc<AtomicU64>,
}

/// A file that is memory, as a source is made over it.
pub(super) struct MemoryFile {
    pub(super) key: FileKey,
    pub(super) access: FileAccess,
    /// Pages of the source.
    pub(super) pages: u64,
}

impl PinHost {
    /// Probes the host and settles what `setting` means on it.
    ///
    /// # Errors
    /// If nothing that the setting allows is possible, or the first ring cannot be made.
    pub fn start(setting: StrengthSetting, frames: Arc<dyn Frames>) -> Result<Self, PinHostError> {
        let host = Self::new(Ladder::new(setting, &Abilities::probe()?)?, frames);
        if host.ladder.rungs().contains(&Strength::Longterm) {
            host.rings.make_first()?;
        }
        Ok(host)
    }

    /// A host whose strengths are those of `ladder`.
    #[must_use]
    pub fn new(ladder: Ladder, frames: Arc<dyn Frames>) -> Self {
        let quota = || Quota::new(ladder.limit_pages());
        let (pinnable, lockable) = (quota(), quota());
        let (rings, files, first_touched) = Default::default();
        Self { ladder, frames, rings, files, pinnable, lockable, first_touched }
    }

    /// The strengths that sources may get.
    #[must_use]
    pub const fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// What one context may first-touch.
    #[must_use]
    pub fn first_touch(&self, limit: ByteLen) -> FirstTouch {
        FirstTouch { allowed: Quota::new(limit.get()), total: Arc::clone(&self.first_touched) }
    }

    /// Bytes that the agent has allocated for clients since it started.
    #[must_use]
    pub fn first_touched(&self) -> ByteLen {
        ByteLen::new(self.first_touched.load(Ordering::Relaxed))
    }

    pub(super) fn frames(&self) -> &Arc<dyn Frames> {
        &self.frames
    }

    pub(super) fn kept(&self, key: FileKey) -> Arc<KeptFile> {
        self.files.get(key)
    }

    /// The first strength that can hold all of a source, else the strongest that it can have at all. `None` if the file
    /// cannot be held as it must be.
    pub(super) fn hold(&self, file: &MemoryFile) -> Option<Hold> {
        let rungs = self.ladder.rungs().iter().copied();
        let possible =
            rungs.filter(|rung| *rung != Strength::Longterm || file.access == FileAccess::ReadWrite);
        let mut unclaimed = None;
        for strength in possible {
            match self.claim(strength, file.pages) {
                Ok(claim) => return Some(self.hold_at(strength, file, claim)),
                Err(NoRoom) => unclaimed = unclaimed.or(Some(strength)),
            }
        }
        unclaimed.map(|strength| self.hold_at(strength, file, None))
    }

    fn claim(&self, strength: Strength, pages: u64) -> Result<Option<Claim>, NoRoom> {
        let quota = match strength {
            Strength::Resident => return Ok(None),
            Strength::Longterm => &self.pinnable,
            Strength::Locked => &self.lockable,
        };
        if self.ladder.limit_pages() == u64::MAX {
            return Ok(None);
        }
        Claim::new(quota, pages).map(Some).ok_or(NoRoom)
    }

    fn hold_at(&self, strength: Strength, file: &MemoryFile, claim: Option<Claim>) -> Hold {
        match strength {
            Strength::Resident => Hold::Resident,
            Strength::Locked => Hold::Locked(Locks::new(file.access, claim)),
            Strength::Longterm => {
                Hold::Longterm(LongtermPins::new(Arc::clone(&self.rings), self.files.get(file.key), claim))
            }
        }
    }
}

/// The agent may not lock as much.
struct NoRoom;
