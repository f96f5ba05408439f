//! Orders and outcomes: what a movement is asked, and how it ends.
//!
//! Imports allowed: units, and the passive types of this folder.

use std::sync::Arc;

use ioasd_client::units::{IndexRange, Permission};

use super::area::AreaShape;
use super::io_pagetable::LargePages;
use super::pages::{AreaKey, RetireKey};
use super::pfn::PfnBatch;
use super::refusal::Refusal;
use super::step::{DomainKey, Transfer};

/// What a movement shall do.
#[derive(Clone, Debug)]
pub enum Order {
    /// Fill `domains` with an area. `show` says whether these are the area's first domains.
    Fill {
        /// The area.
        area: AreaKey,
        /// Where it lies.
        shape: AreaShape,
        /// What devices may do.
        permission: Permission,
        /// Whether leaves may be larger than a page.
        large_pages: LargePages,
        /// The domains to write.
        domains: Arc<[DomainKey]>,
        /// Whether the area has domains already.
        showing: Showing,
    },
    /// Take an area out of `domains`, all it has.
    Unfill {
        /// The area.
        area: AreaKey,
        /// Where it lies.
        shape: AreaShape,
        /// All domains that show it.
        domains: Arc<[DomainKey]>,
    },
    /// Take an area out of `domain`; `storage` goes on showing it.
    UnmapFrom {
        /// The area.
        area: AreaKey,
        /// Where it lies.
        shape: AreaShape,
        /// The domain to leave.
        domain: DomainKey,
        /// A domain that stays.
        storage: DomainKey,
    },
    /// Show an area as its two parts from now on. Nothing is remapped.
    Split {
        /// The area that was, and where it lay.
        whole: (AreaKey, AreaShape),
        /// Its parts, and where they lie.
        parts: [(AreaKey, AreaShape); 2],
    },
    /// Let go of what retired.
    Release(RetireKey),
    /// Pin for a software user.
    PinAccess(IndexRange),
    /// Undo one `PinAccess` of the same range.
    UnpinAccess(IndexRange),
    /// Move bytes for a software user.
    Transfer(Transfer),
}

/// Whether an area is in domains before it is filled into more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Showing {
    /// No domain has it yet.
    First,
    /// Other domains have it.
    Further,
}

/// What a movement achieved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    /// What was ordered.
    Done,
    /// The pages are gone from the domains and retire under this key.
    Retiring(RetireKey),
    /// The frames pinned, in page order.
    Frames(Vec<Arc<PfnBatch>>),
    /// The bytes read; none for a write.
    Bytes(Vec<u8>),
}

/// Why a movement failed, and what is left to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveFailure {
    /// For the client.
    pub refusal: Refusal,
    /// Pages that a walker may have seen: to be released after the grace period.
    pub retiring: Option<RetireKey>,
}

impl From<Refusal> for MoveFailure {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, retiring: None }
    }
}

/// How a movement ended.
pub type MoveResult = Result<Moved, MoveFailure>;
