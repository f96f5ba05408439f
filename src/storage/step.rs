//! Steps: what a movement asks of the tiers, and what they answer.
//!
//! A movement (see [`super::movement`]) does no I/O. It hands out steps, several of which may be under way at once, and
//! is given their replies in any order. A frame-reading step carries the batch that is being assembled to the tier and
//! back, so that one batch can collect frames from several tiers.
//!
//! Imports allowed: units, `bytes`, and the passive types of this folder.

use std::sync::Arc;

use bytes::Bytes;
use ioasd_client::units::{ByteLen, IndexRange, Permission};

use super::area::AreaShape;
use super::counts::Delta;
use super::io_pagetable::LargePages;
use super::pfn::PfnBatch;
use super::refusal::Refusal;

/// Where the table of a domain lives and which one it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainKey {
    /// The owner of the table.
    pub fan_out: u16,
    /// Unique in the agent, never reused.
    pub id: u64,
}

/// Names one step of a movement until its reply is supplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StepId(pub u32);

/// One thing a tier is asked to do.
#[derive(Debug)]
pub enum Step {
    /// Tier 1: append the cached frames of `range`, as many as fit.
    ReadCache {
        /// Pages wanted, from the end of `batch`.
        range: IndexRange,
        /// The batch under assembly.
        batch: PfnBatch,
    },
    /// Tier 2: append the frames that `domain` maps for `range` of an area, as many as fit.
    ReadDomain {
        /// The domain to read.
        domain: DomainKey,
        /// The area through which the domain shows these pages.
        shape: AreaShape,
        /// Pages wanted, from the end of `batch`.
        range: IndexRange,
        /// The batch under assembly.
        batch: PfnBatch,
    },
    /// Tier 3: append the frames of pages that hold a pin which no other tier can tell.
    Recall {
        /// Pages wanted, from the end of `batch`.
        range: IndexRange,
        /// The batch under assembly.
        batch: PfnBatch,
    },
    /// Tier 3: pin pages and append their frames, as many as fit.
    Pin {
        /// Pages wanted, from the end of `batch`.
        range: IndexRange,
        /// The batch under assembly.
        batch: PfnBatch,
    },
    /// Tier 3: let go of the pins of `range`.
    Unpin {
        /// Pages that hold a pin, all of them.
        range: IndexRange,
    },
    /// Tier 1: keep the frames of `batch`.
    StoreCache {
        /// What to keep.
        batch: Arc<PfnBatch>,
    },
    /// Tier 1: forget the frames of `range`.
    EraseCache {
        /// Pages to forget; some may not be cached.
        range: IndexRange,
    },
    /// Tier 2: write `batch` into every one of `domains`. Each of them takes all of it or nothing.
    Deliver {
        /// Frames to write.
        batch: Arc<PfnBatch>,
        /// The area the pages are shown through.
        shape: AreaShape,
        /// What devices may do.
        permission: Permission,
        /// Whether leaves may be larger than a page.
        large_pages: LargePages,
        /// Which tables to write.
        domains: Arc<[DomainKey]>,
    },
    /// Tier 2: clear `range` of the area in every one of `domains`. Begins and ends at cut points.
    Unmap {
        /// The area the pages are shown through.
        shape: AreaShape,
        /// Pages to clear, all of them mapped.
        range: IndexRange,
        /// Which tables to clear.
        domains: Arc<[DomainKey]>,
    },
    /// Move `delta` pages to or from the account of these pages. Limits bind what is added.
    Charge {
        /// How many pages, which way.
        delta: Delta,
    },
    /// Move bytes of pinned pages.
    Transfer(Transfer),
}

/// Bytes to move between a software user and pinned pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transfer {
    /// Fetch `length` bytes.
    Read {
        /// From the start of page 0.
        offset: ByteLen,
        /// How many.
        length: ByteLen,
    },
    /// Store these bytes.
    Write {
        /// From the start of page 0.
        offset: ByteLen,
        /// What to store; parts of it share the same memory.
        bytes: Bytes,
    },
}

/// What a tier answers. Each step has one kind of reply.
#[derive(Debug)]
pub enum Reply {
    /// To the frame-reading steps: the batch, with what could be appended, or unchanged with the reason.
    Frames(PfnBatch, Result<(), Refusal>),
    /// To `StoreCache`: all of it is stored, or nothing.
    Stored(Result<(), Refusal>),
    /// To `Deliver`: one outcome for each domain, in the order of the step.
    Delivered(Vec<Result<(), Refusal>>),
    /// To `Charge`.
    Charged(Result<(), Refusal>),
    /// To `Transfer`: the bytes read, none for a write.
    Transferred(Result<Vec<u8>, Refusal>),
    /// To `Unpin`, `EraseCache` and `Unmap`, which cannot fail.
    Done,
}

/// What a movement wants next.
#[derive(Debug)]
pub enum Next<O> {
    /// Carry out this step and supply its reply.
    Start(StepId, Step),
    /// Nothing to start until a reply comes.
    Wait,
    /// The movement is over; no step is under way.
    Done(O),
}
