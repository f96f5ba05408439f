//! What all file sources of an agent share: how firmly they may hold, the rings they hold with, and the files they are over.
//!
//! A source claims its whole length of what the agent may lock when it is made; `auto` gives it the first strength whose
//! claim succeeds. If none does, it gets the strongest and its pins fail at the limit, which the error names: a pin is
//! never made at a strength that the source does not show.
//!
//! Imports allowed: storage, sys, the parts of this folder.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ioasd_client::units::IndexRange;

use super::frames::Frames;
use super::hold::{Claim, Hold, Locks, LongtermPins};
use super::kept_file::{KeptFile, KeptFiles};
use super::physical::PhysicalFrames;
use super::presence::FirstTouch;
use super::ring_pool::RingPool;
use super::strength::{Abilities, Ladder, NoStrength};
use crate::error::{Coded, Errno};
use crate::storage::among::Among;
use crate::storage::frame_window::FileKey;
use crate::storage::ledger::counter::Counter;
use crate::storage::ledger::limits::Limit;
use crate::storage::ledger::node::Allowance;
use crate::storage::source::{FrameSetting, PinSettings, ProcessSetting, SourceKind, Strength};
use crate::sys::failure::SysError;
use crate::sys::file_state::{self, FileAccess, FileKind, MemoryKind};
use crate::sys::offers;
use crate::sys::pagemap::Pagemap;

/// Why nothing can be pinned on this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinHostError {
    /// The host cannot be probed.
    #[error("cannot find out what holds memory here")]
    Probe(#[from] SysError),
    /// No strength.
    #[error(transparent)]
    NoStrength(#[from] NoStrength),
    /// Physical frames of memory that may move.
    #[error(
        "physical frames need long-term pins: set strength = \"longterm\" or \"auto\", or frames = \"logical\""
    )]
    FramesMove,
    /// Physical frames are not shown.
    #[error("physical frames cannot be read: {0}; give the agent CAP_SYS_ADMIN, or set frames = \"logical\"")]
    NoFrames(SysError),
}

impl Coded for PinHostError {
    fn errno(&self) -> Errno {
        match self {
            Self::Probe(cause) | Self::NoFrames(cause) => cause.errno(),
            Self::FramesMove => Errno::INVAL,
            Self::NoStrength(cause) => cause.errno(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Probe(cause) => cause.code(),
            Self::FramesMove | Self::NoFrames(_) => "no-physical-frames",
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
    pinnable: Arc<Counter>,
    lockable: Arc<Counter>,
    first_touched: Arc<AtomicU64>,
    /// If frames are physical.
    pagemap: Option<Arc<Pagemap>>,
    process_memory: ProcessSetting,
}

/// A file that is memory, as a source is made over it.
pub(super) struct MemoryFile {
    pub(super) key: FileKey,
    pub(super) access: FileAccess,
    /// Pages of the source.
    pub(super) pages: IndexRange,
    /// What may hold them.
    pub(super) allowed: Among<Strength>,
}

/// What a file is, and what could hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Which memory.
    pub source: SourceKind,
    /// The strengths that the agent and the file allow.
    pub strengths: Among<Strength>,
}

impl PinHost {
    /// Probes the host and settles what `settings` mean on it.
    ///
    /// # Errors
    /// If nothing that the settings allow is possible, or the first ring cannot be made.
    pub fn start(settings: PinSettings, frames: Arc<dyn Frames>) -> Result<Self, PinHostError> {
        let abilities = Abilities::probe()?;
        let ladder = Ladder::new(settings.effective_strength(), &abilities)?;
        let host = Self { process_memory: settings.process_memory, ..Self::new(ladder, frames) };
        let host = match settings.frames {
            FrameSetting::Logical => host,
            FrameSetting::Physical => host.with_physical_frames()?,
        };
        if host.ladder.rungs().contains(&Strength::Longterm) {
            host.rings.make_first()?;
        }
        Ok(host)
    }

    /// A host whose strengths are those of `ladder`.
    #[must_use]
    pub fn new(ladder: Ladder, frames: Arc<dyn Frames>) -> Self {
        let quota = || Arc::new(Counter::new(Limit::hard(ladder.limit_pages())));
        let (pinnable, lockable) = (quota(), quota());
        let (rings, files, first_touched) = Default::default();
        let process_memory = ProcessSetting::default();
        Self {
            ladder,
            frames,
            rings,
            files,
            pinnable,
            lockable,
            first_touched,
            pagemap: None,
            process_memory,
        }
    }

    /// The same host with physical frames.
    ///
    /// # Errors
    /// If it does not only pin long-term, or this process is not shown frames.
    pub fn with_physical_frames(self) -> Result<Self, PinHostError> {
        if self.ladder.rungs() != [Strength::Longterm] {
            return Err(PinHostError::FramesMove);
        }
        offers::physical_frame().map_err(PinHostError::NoFrames)?;
        Ok(Self { pagemap: Some(Arc::new(Pagemap::open()?)), ..self })
    }

    /// The strengths that sources may get.
    #[must_use]
    pub const fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// The same host, with what clients have first-touched counted in `total`.
    #[must_use]
    pub fn counting_into(self, total: &Arc<AtomicU64>) -> Self {
        Self { first_touched: Arc::clone(total), ..self }
    }

    /// What whoever has this allowance may first-touch.
    #[must_use]
    pub fn first_touch(&self, allowed: Allowance) -> FirstTouch {
        FirstTouch { allowed, total: Arc::clone(&self.first_touched) }
    }

    /// How memory of processes is reached; not at all where frames are physical, because a process can lie about those.
    #[must_use]
    pub const fn process_memory(&self) -> ProcessSetting {
        if self.pagemap.is_some() { ProcessSetting::Refuse } else { self.process_memory }
    }

    /// The frame space.
    #[must_use]
    pub fn frames(&self) -> &Arc<dyn Frames> {
        &self.frames
    }

    pub(super) fn kept(&self, key: FileKey) -> Arc<KeptFile> {
        self.files.get(key)
    }

    /// What frames are.
    #[must_use]
    pub const fn frame_setting(&self) -> FrameSetting {
        if self.pagemap.is_some() { FrameSetting::Physical } else { FrameSetting::Logical }
    }

    /// What `file` is and could be held at; `None` if it is no memory.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn offer(&self, file: BorrowedFd<'_>) -> Result<Option<Offer>, Errno> {
        let FileKind::Memory(_) = file_state::kind(file)? else { return Ok(None) };
        let source = match file_state::memory_kind(file)? {
            MemoryKind::NoPath => SourceKind::Memfd,
            MemoryKind::File => SourceKind::File,
            MemoryKind::HugePages => SourceKind::Hugetlb,
        };
        let strengths = self.possible(file_state::access(file)?).collect();
        Ok(Some(Offer { source, strengths }))
    }

    /// The strengths that a file can have, in the order in which they are tried.
    fn possible(&self, access: FileAccess) -> impl Iterator<Item = Strength> {
        let rungs = self.ladder.rungs().iter().copied();
        rungs.filter(move |rung| *rung != Strength::Longterm || access == FileAccess::ReadWrite)
    }

    /// The first strength that can hold all of a source, else the strongest that it can have at all. `None` if the file
    /// cannot be held as it must be.
    pub(super) fn hold(&self, file: &MemoryFile) -> Option<Hold> {
        let mut unclaimed = None;
        for strength in self.possible(file.access).filter(|rung| file.allowed.has(*rung)) {
            match self.claim(strength, file.pages.pages()) {
                Ok(claim) => return Some(self.hold_at(strength, file, claim)),
                Err(NoRoom) => unclaimed = unclaimed.or(Some(strength)),
            }
        }
        unclaimed.map(|strength| self.hold_at(strength, file, None))
    }

    fn claim(&self, strength: Strength, pages: u64) -> Result<Option<Claim>, NoRoom> {
        let quota = match strength {
            Strength::Resident | Strength::Copy => return Ok(None),
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
            Strength::Resident | Strength::Copy => Hold::Resident,
            Strength::Locked => Hold::Locked(Locks::new(file.access, claim)),
            Strength::Longterm => {
                let physical = |pagemap| PhysicalFrames::new(Arc::clone(pagemap), file.pages.first());
                let (rings, kept) = (Arc::clone(&self.rings), self.files.get(file.key));
                Hold::Longterm(LongtermPins::new(rings, kept, self.pagemap.as_ref().map(physical), claim))
            }
        }
    }
}

/// The agent may not lock as much.
struct NoRoom;
