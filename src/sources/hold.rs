//! What holds the pins of one file source, by strength.
//!
//! | strength | what is done | what it costs again |
//! |---|---|---|
//! | longterm | slots of rings, over the mapping that all sources of the file share | a slot until its last page is unpinned |
//! | locked | mlock2 over a mapping of the source's own, because locks of one mapping are not counted | nothing |
//! | resident | nothing | nothing |
//!
//! Letting go cannot fail. Where the kernel cannot unlock (`vm.max_map_count`), pages stay locked until the source ends,
//! and count as held.
//!
//! Imports allowed: units, sys, the parts above.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ioasd_client::units::{IndexRange, PageIndex};
use parking_lot::Mutex;

use super::kept_file::KeptFile;
use super::kept_mapping::{KeptMapping, MappedPart, bring_in, joined};
use super::physical::PhysicalFrames;
use super::ring_pool::{Place, RingPool};
use super::slots::{SLOT_PAGES, Slots};
use crate::storage::ledger::counter::Counter;
use crate::storage::source::Strength;
use crate::sys::failure::SysError;
use crate::sys::file_state::FileAccess;

/// Slots that one call fills: 128 MiB, so that pinning and writing tables overlap and pin threads are shared fairly.
const SLOTS_AT_ONCE: u64 = 64;

/// What holds the pins of a source. Ranges are pages of the file.
#[derive(Debug)]
pub(super) enum Hold {
    /// Nothing.
    Resident,
    /// Locks.
    Locked(Locks),
    /// Slots of rings.
    Longterm(LongtermPins),
}

/// Pages promised to a source out of what the agent may lock; given back with it.
#[derive(Debug)]
pub(super) struct Claim {
    quota: Arc<Counter>,
    pages: u64,
}

impl Claim {
    /// Takes `pages` of `quota`, if there are as many.
    pub(super) fn new(quota: &Arc<Counter>, pages: u64) -> Option<Self> {
        quota.take(pages).ok().map(|_| Self { quota: Arc::clone(quota), pages })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.quota.give_back(self.pages);
    }
}

impl Hold {
    pub(super) const fn strength(&self) -> Strength {
        match self {
            Self::Resident => Strength::Resident,
            Self::Locked(_) => Strength::Locked,
            Self::Longterm(_) => Strength::Longterm,
        }
    }

    /// Whether nothing is held, and letting go is nothing, too.
    pub(super) const fn is_nothing(&self) -> bool {
        matches!(self, Self::Resident)
    }

    /// The physical frames of what is held, if frames are physical.
    pub(super) const fn frames(&self) -> Option<&PhysicalFrames> {
        match self {
            Self::Longterm(LongtermPins { frames: Some(frames), .. }) => Some(frames),
            _ => None,
        }
    }

    /// How much of `range`, from its start, one call holds.
    pub(super) fn reach(&self, range: IndexRange) -> IndexRange {
        let last = match self {
            Self::Resident => range.last().get(),
            Self::Locked(_) | Self::Longterm(_) => {
                let slot = range.first().get() / SLOT_PAGES;
                slot.saturating_add(SLOTS_AT_ONCE).saturating_mul(SLOT_PAGES) - 1
            }
        };
        IndexRange::new(range.first(), PageIndex::new(last.min(range.last().get()))).unwrap_or(range)
    }

    /// Holds pages from the start of `range`, which lies within its [`Hold::reach`], and tells how many.
    ///
    /// # Errors
    /// If the first cannot be held.
    pub(super) fn hold(&self, file: BorrowedFd<'_>, range: IndexRange) -> Result<u64, SysError> {
        match self {
            Self::Resident => Ok(range.pages()),
            Self::Locked(locks) => locks.hold(file, range),
            Self::Longterm(pins) => pins.hold(file, range),
        }
    }

    /// Lets go of `range`, all of which is held.
    pub(super) fn release(&self, range: IndexRange) {
        match self {
            Self::Resident => {}
            Self::Locked(locks) => locks.release(range),
            Self::Longterm(pins) => pins.release(range),
        }
    }

    /// Pages that the kernel holds.
    pub(super) fn held(&self) -> u64 {
        match self {
            Self::Resident => 0,
            Self::Locked(locks) => locks.held.load(Ordering::Relaxed),
            Self::Longterm(pins) => pins.held.load(Ordering::Relaxed),
        }
    }

    /// Panics unless the book-keeping keeps its rules with `pinned` pages pinned. For tests.
    pub(super) fn check(&self, pinned: u64) {
        match self {
            Self::Resident => {}
            Self::Locked(locks) => {
                assert!(locks.held.load(Ordering::Relaxed) >= pinned, "pages are pinned but not locked");
            }
            Self::Longterm(pins) => {
                let slots = pins.slots.lock();
                slots.check();
                assert!(slots.held() >= pinned, "{} pages are held, {pinned} pinned", slots.held());
                assert_eq!(slots.held(), pins.held.load(Ordering::Relaxed));
                assert!(
                    pins.frames.as_ref().is_none_or(|frames| frames.pages() == pinned),
                    "frames without pins"
                );
            }
        }
    }
}

/// Long-term pins of one source.
#[derive(Debug)]
pub(super) struct LongtermPins {
    rings: Arc<RingPool>,
    file: Arc<KeptFile>,
    /// If frames are physical.
    frames: Option<PhysicalFrames>,
    slots: Mutex<Slots>,
    held: AtomicU64,
    _claim: Option<Claim>,
}

impl LongtermPins {
    pub(super) fn new(
        rings: Arc<RingPool>,
        file: Arc<KeptFile>,
        frames: Option<PhysicalFrames>,
        claim: Option<Claim>,
    ) -> Self {
        Self { rings, file, frames, slots: Mutex::default(), held: AtomicU64::new(0), _claim: claim }
    }

    fn hold(&self, file: BorrowedFd<'_>, range: IndexRange) -> Result<u64, SysError> {
        let parts = self.file.mapping().slots(file, range)?;
        let places = self.pin(&parts)?;
        let mut slots = self.slots.lock();
        let mut pages = 0;
        for (part, place) in parts.iter().zip(places) {
            slots.add(part.pages(), place);
            pages += part.pages().pages();
        }
        self.held.store(slots.held(), Ordering::Relaxed);
        Ok(pages)
    }

    fn pin(&self, parts: &[MappedPart]) -> Result<Vec<Place>, SysError> {
        if let Some(frames) = &self.frames {
            let _alone = self.file.alone();
            return frames.pin(&self.rings, parts);
        }
        bring_in(parts)?;
        let wanted: Vec<_> = parts.iter().map(MappedPart::place).collect();
        self.rings.pin(&wanted)
    }

    fn release(&self, range: IndexRange) {
        if let Some(frames) = &self.frames {
            frames.forget(range);
        }
        let mut slots = self.slots.lock();
        let empty = slots.remove(range);
        self.held.store(slots.held(), Ordering::Relaxed);
        drop(slots);
        if !empty.is_empty() {
            self.rings.unpin(empty);
        }
    }
}

impl Drop for LongtermPins {
    fn drop(&mut self) {
        let left = self.slots.lock().clear();
        if !left.is_empty() {
            self.rings.unpin(left);
        }
    }
}

/// Locks of one source.
#[derive(Debug)]
pub(super) struct Locks {
    mapping: KeptMapping,
    held: AtomicU64,
    _claim: Option<Claim>,
}

impl Locks {
    pub(super) fn new(access: FileAccess, claim: Option<Claim>) -> Self {
        Self { mapping: KeptMapping::new(access), held: AtomicU64::new(0), _claim: claim }
    }

    /// All of the range, or nothing.
    fn hold(&self, file: BorrowedFd<'_>, range: IndexRange) -> Result<u64, SysError> {
        let runs = joined(self.mapping.slots(file, range)?.iter());
        for (done, run) in runs.iter().enumerate() {
            let (mapping, part) = run.place();
            if let Err(error) = mapping.lock(part) {
                runs.iter().take(done).for_each(|run| self.unlock(run));
                return Err(error);
            }
            self.held.fetch_add(run.pages().pages(), Ordering::Relaxed);
        }
        Ok(range.pages())
    }

    fn release(&self, range: IndexRange) {
        match self.mapping.mapped(range) {
            Some(parts) => joined(parts.iter()).iter().for_each(|run| self.unlock(run)),
            None => debug_assert!(false, "{range} is unlocked but was never mapped"),
        }
    }

    fn unlock(&self, run: &MappedPart) {
        let (mapping, part) = run.place();
        match mapping.unlock(part) {
            Ok(()) => {
                self.held.fetch_sub(run.pages().pages(), Ordering::Relaxed);
            }
            Err(errno) => {
                tracing::error!(%errno, pages = %run.pages(), "pages stay locked until their source ends");
            }
        }
    }
}
