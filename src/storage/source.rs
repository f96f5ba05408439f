//! Tier 3: what a source of pages must offer.
//!
//! A source is the origin of one pages object: page 0 of the object is the first page of the source. It keeps its pins
//! by page index; frames are told when a page is pinned and can be told again ([`PageSource::recall`]) as long as the
//! pin is held. Calls may block; the caller runs them on a thread that may.
//!
//! Imports allowed: units, error, among, pfn.

use ioasd_client::units::{ByteLen, IndexRange, PageIndex};
use rustix::io::Errno;

use super::among::{Among, Worded};
use super::pfn::PfnBatch;
use crate::error::Coded;

/// How firmly a source holds what it pins; the stronger is the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strength {
    /// The kernel holds the page: it can neither move nor be swapped.
    Longterm,
    /// The page is not swapped, but may migrate.
    Locked,
    /// The page was there when it was pinned; nothing holds it.
    Resident,
    /// Bytes of a process's memory are copied while it has them; nothing is pinned. Not for files.
    Copy,
}

impl Strength {
    /// Every strength, the strongest first.
    pub const ALL: [Self; 4] = [Self::Longterm, Self::Locked, Self::Resident, Self::Copy];

    /// Those that a file can have.
    pub const OF_FILES: [Self; 3] = [Self::Longterm, Self::Locked, Self::Resident];

    /// The word used in configuration, reports and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Longterm => "longterm",
            Self::Locked => "locked",
            Self::Resident => "resident",
            Self::Copy => "copy",
        }
    }
}

impl Worded for Strength {
    const EVERY: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        self.name()
    }
}

/// What memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// A memfd, or other shared memory without a path.
    Memfd,
    /// A file of a tmpfs, by its path.
    File,
    /// Huge pages, with or without a path.
    Hugetlb,
    /// Memory of a process that is no file.
    Process,
}

impl SourceKind {
    /// What it is, for people.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Memfd => "shared memory without a path",
            Self::File => "a file of a tmpfs",
            Self::Hugetlb => "huge pages",
            Self::Process => "private memory of a process",
        }
    }
}

impl Worded for SourceKind {
    const EVERY: &'static [Self] = &[Self::Memfd, Self::File, Self::Hugetlb, Self::Process];

    fn word(self) -> &'static str {
        match self {
            Self::Memfd => "memfd",
            Self::File => "file",
            Self::Hugetlb => "hugetlb",
            Self::Process => "process",
        }
    }
}

/// What the operator wants to hold pinned pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StrengthSetting {
    /// The strongest that the host can do.
    #[default]
    Auto,
    /// This one and no other.
    Exactly(Strength),
}

impl StrengthSetting {
    /// Reads the word used in configuration.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let known = Strength::OF_FILES.into_iter().find(|strength| strength.name() == word);
        known.map(Self::Exactly).or_else(|| (word == "auto").then_some(Self::Auto))
    }

    /// The word used in configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Exactly(strength) => strength.name(),
        }
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FrameSetting {
    /// A place in a file.
    #[default]
    Logical,
    /// A page frame of the host.
    Physical,
}

impl Worded for FrameSetting {
    const EVERY: &'static [Self] = &[Self::Logical, Self::Physical];

    fn word(self) -> &'static str {
        match self {
            Self::Logical => "logical",
            Self::Physical => "physical",
        }
    }
}

/// How an agent pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PinSettings {
    /// What holds pinned pages.
    pub strength: StrengthSetting,
    /// What their frames are.
    pub frames: FrameSetting,
    /// How memory of processes is reached that is no file.
    pub process_memory: ProcessSetting,
}

/// How memory of processes is reached that is no file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProcessSetting {
    /// Pinned by its process if that can, else copied.
    #[default]
    Auto,
    /// Pinned, or refused.
    Pin,
    /// Copied.
    Copy,
    /// Not at all.
    Refuse,
}

impl ProcessSetting {
    /// What may hold it, as far as the setting tells.
    #[must_use]
    pub fn strengths(self) -> Among<Strength> {
        let some: &[Strength] = match self {
            Self::Auto => &[Strength::Longterm, Strength::Copy],
            Self::Pin => &[Strength::Longterm],
            Self::Copy => &[Strength::Copy],
            Self::Refuse => &[],
        };
        some.iter().copied().collect()
    }
}

impl PinSettings {
    /// Physical frames leave `auto` no choice: only long-term pins keep a page in its frame.
    #[must_use]
    pub const fn effective_strength(self) -> StrengthSetting {
        match (self.strength, self.frames) {
            (StrengthSetting::Auto, FrameSetting::Physical) => StrengthSetting::Exactly(Strength::Longterm),
            (strength, _) => strength,
        }
    }
}

/// Why a page could not be pinned, or its bytes not be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source_name}, page {index}: {reason}")]
pub struct SourceError {
    /// The source, in words an operator recognises.
    pub source_name: String,
    /// The first page of the source that failed.
    pub index: PageIndex,
    /// What was found and what to do.
    pub reason: String,
    /// Errno for the client.
    pub errno: Errno,
    /// Stable code.
    pub code: &'static str,
}

impl Coded for SourceError {
    fn errno(&self) -> Errno {
        self.errno
    }

    fn code(&self) -> &'static str {
        self.code
    }
}

/// The origin of the pages of one pages object.
pub trait PageSource: Send + Sync {
    /// What the source is, for messages and reports.
    fn name(&self) -> String;

    /// How firmly pins hold.
    fn strength(&self) -> Strength;

    /// Whether its calls wait for a client's process, which may take its time.
    fn waits_for_its_client(&self) -> bool {
        false
    }

    /// Pins pages from the start of `range` and appends their frames to `batch`, whose end is the start of `range`. At
    /// least one page is pinned on success, unless the batch is full; pinning fewer than asked is normal. What does not
    /// fit into the batch is not pinned.
    ///
    /// # Errors
    /// If the first page of `range` cannot be pinned; nothing is pinned then.
    fn pin(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError>;

    /// Pins as [`PageSource::pin`] does, if that can neither wait for anybody nor take long; `None`, with nothing done, if
    /// it might: pin where it may block then.
    ///
    /// # Errors
    /// As [`PageSource::pin`].
    fn pin_now(&self, _range: IndexRange, _batch: &mut PfnBatch) -> Option<Result<(), SourceError>> {
        None
    }

    /// Lets go of pins as [`PageSource::unpin`] does, if that can neither wait for anybody nor take long; `None`, with
    /// nothing done, if it might.
    fn unpin_now(&self, _range: IndexRange) -> Option<()> {
        None
    }

    /// Appends the frames of pages that hold a pin already, as [`PageSource::pin`] does, without pinning.
    ///
    /// # Errors
    /// If the frames cannot be told.
    fn recall(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError>;

    /// Pages that the kernel holds for these pins now, at least as many as are pinned; 0 if nothing holds them.
    fn held(&self) -> u64 {
        0
    }

    /// Lets go of the pins of `range`, every page of which is pinned. Cannot fail.
    fn unpin(&self, range: IndexRange);

    /// Reads bytes of pinned pages, `offset` counted from the start of page 0.
    ///
    /// # Errors
    /// If not all bytes could be read.
    fn read(&self, offset: ByteLen, into: &mut [u8]) -> Result<(), SourceError>;

    /// Writes bytes of pinned pages, `offset` counted from the start of page 0.
    ///
    /// # Errors
    /// If not all bytes could be written.
    fn write(&self, offset: ByteLen, from: &[u8]) -> Result<(), SourceError>;
}
