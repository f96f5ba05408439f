//! Movements: how frames move between the tiers of one pages object.
//!
//! A movement is a machine without I/O. [`Movement::next`] hands out steps, several of which may be under way at once;
//! [`Movement::supply`] takes their replies in any order; in the end comes [`Next::Done`]. One movement of a pages
//! object runs at a time. It holds every rule: the order of the tiers, cut points, what is pinned and unpinned, the
//! charge, and the way back from a failure. Who carries the steps out, synchronously or by messages, is not its concern.
//!
//! ```text
//!   Fill         frames of an area into domains           MAP, COPY, attaching a domain
//!   Unfill       an area out of its last domains          UNMAP, detaching the last domain; the pages retire
//!   UnmapFrom    an area out of one domain of several     detaching a domain; the pages retire
//!   Split        an area is shown as two                 UNMAP_DMA of VFIO type 1 cuts
//!   Release      what retired is let go of                after the grace period
//!   PinAccess    frames into tier 1 and to the caller     a software user pins
//!   UnpinAccess  the opposite                             it may run between the batches of another movement
//!   Transfer     bytes of pages, pinned meanwhile         a software user reads or writes
//! ```
//!
//! A failed movement leaves the pages as they were, but for one thing: what a walker may have seen retires, and the
//! failure names the key to release after the grace period.
//!
//! Imports allowed: units, and the passive types of this folder.

use super::fill::Fill;
use super::order::{MoveResult, Order};
use super::pages::IoptPages;
use super::pin_access::PinAccess;
use super::reader::Tuning;
use super::refusal::Refusal;
use super::release::Release;
use super::split_shown::SplitShown;
use super::step::{Next, Reply, StepId};
use super::transfer::TransferBytes;
use super::unfill::{Remaining, Unfill};
use super::unpin_access::UnpinAccess;

/// One movement.
#[derive(Debug)]
pub struct Movement(Kind);

#[derive(Debug)]
enum Kind {
    Fill(Fill),
    Unfill(Unfill),
    Split(SplitShown),
    Release(Release),
    PinAccess(PinAccess),
    UnpinAccess(UnpinAccess),
    Transfer(TransferBytes),
}

impl Movement {
    /// The movement that does as ordered.
    #[must_use]
    pub fn new(order: Order, tuning: Tuning) -> Self {
        Self(match order {
            Order::Fill { area, shape, permission, large_pages, domains, showing } => {
                let large_pages = large_pages.and(tuning.large_pages);
                Kind::Fill(Fill::new(area, (shape, permission, large_pages), domains, showing, tuning))
            }
            Order::Unfill { area, shape, domains } => {
                Kind::Unfill(Unfill::new(area, shape, domains, Remaining::None, tuning))
            }
            Order::UnmapFrom { area, shape, domain, storage } => {
                let remaining = Remaining::Storage(storage);
                Kind::Unfill(Unfill::new(area, shape, [domain].into(), remaining, tuning))
            }
            Order::Split { whole, parts } => Kind::Split(SplitShown::new(whole, parts)),
            Order::Release(key) => Kind::Release(Release::new(key)),
            Order::PinAccess(range) => Kind::PinAccess(PinAccess::new(range, tuning)),
            Order::UnpinAccess(range) => Kind::UnpinAccess(UnpinAccess::new(range)),
            Order::Transfer(transfer) => Kind::Transfer(TransferBytes::new(transfer, tuning)),
        })
    }

    /// What to do next.
    pub fn next(&mut self, pages: &mut IoptPages) -> Next<MoveResult> {
        match &mut self.0 {
            Kind::Fill(fill) => fill.next(pages),
            Kind::Unfill(unfill) => unfill.next(pages),
            Kind::Split(split) => split.next(pages),
            Kind::Release(release) => release.next(pages),
            Kind::PinAccess(pin) => pin.next(pages),
            Kind::UnpinAccess(unpin) => unpin.next(pages),
            Kind::Transfer(transfer) => transfer.next(pages),
        }
    }

    /// Takes the reply to step `id`.
    pub fn supply(&mut self, pages: &mut IoptPages, id: StepId, reply: Reply) {
        match &mut self.0 {
            Kind::Fill(fill) => fill.supply(pages, id, reply),
            Kind::Unfill(unfill) => unfill.supply(reply),
            Kind::Split(_) => {}
            Kind::Release(release) => release.supply(pages, reply),
            Kind::PinAccess(pin) => pin.supply(pages, id, reply),
            Kind::UnpinAccess(unpin) => unpin.supply(pages, reply),
            Kind::Transfer(transfer) => transfer.supply(pages, reply),
        }
    }

    /// Has the movement end as if a tier had failed with `refusal`, if it takes pages in and has not all of them yet. Else
    /// nothing happens: what lets go of pages always comes to its end.
    pub fn cancel(&mut self, refusal: Refusal) {
        match &mut self.0 {
            Kind::Fill(fill) => fill.cancel(refusal),
            Kind::PinAccess(pin) => pin.cancel(refusal),
            Kind::Unfill(_)
            | Kind::Split(_)
            | Kind::Release(_)
            | Kind::UnpinAccess(_)
            | Kind::Transfer(_) => {}
        }
    }

    /// Whether an [`Order::UnpinAccess`] may run to its end before the next step of this movement is asked for. Steps
    /// under way may stay under way.
    #[must_use]
    pub fn is_interruptible(&self) -> bool {
        match &self.0 {
            Kind::Fill(fill) => fill.is_interruptible(),
            Kind::PinAccess(pin) => pin.is_interruptible(),
            Kind::Unfill(_) => true,
            Kind::Split(_) | Kind::Release(_) | Kind::UnpinAccess(_) | Kind::Transfer(_) => false,
        }
    }
}
