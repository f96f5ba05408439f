//! A handle on a pages object: what areas hold. The Pages actor lives as long as a handle does, and on the same arbiter.
//!
//! Imports allowed: storage, pages, figures.

use std::fmt;
use std::rc::Rc;

use actix::{Actor, Addr};

use super::figures::PagesStats;
use super::number::Number;
use super::pages::{Pages, PagesCell};
use crate::sources::backing::Backing;
use crate::storage::iova_allocator::OriginAddr;

/// Keeps a Pages actor alive and reaches it.
#[derive(Clone)]
pub struct PagesHandle(Rc<Link>);

struct Link {
    pages: Addr<Pages>,
    cell: Rc<PagesCell>,
    number: Number<PagesStats>,
    origin: OriginAddr,
    backing: Backing,
}

impl PagesHandle {
    /// Starts the actor of a pages object that is listed under `number`. `origin` is the address of the first byte of
    /// page 0 in the memory it comes from; `backing` what is behind it.
    #[must_use]
    pub fn start((pages, number): (Pages, Number<PagesStats>), origin: OriginAddr, backing: Backing) -> Self {
        let cell = pages.cell();
        Self(Rc::new(Link { pages: pages.start(), cell, number, origin, backing }))
    }

    /// The object itself.
    pub(super) fn cell(&self) -> Rc<PagesCell> {
        Rc::clone(&self.0.cell)
    }

    /// The actor.
    #[must_use]
    pub fn pages(&self) -> &Addr<Pages> {
        &self.0.pages
    }

    /// The number under which the object is listed.
    #[must_use]
    pub fn number(&self) -> Number<PagesStats> {
        self.0.number
    }

    /// Where page 0 comes from.
    #[must_use]
    pub fn origin(&self) -> OriginAddr {
        self.0.origin
    }

    /// What is behind it.
    #[must_use]
    pub fn backing(&self) -> &Backing {
        &self.0.backing
    }
}

impl fmt::Debug for PagesHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagesHandle").field("origin", &self.0.origin).finish_non_exhaustive()
    }
}
