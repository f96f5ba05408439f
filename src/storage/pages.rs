//! `iopt_pages`: a linear array of pages with one source, shared by every area, domain and access that shows it.
//!
//! Whether a page is pinned is not stored. It is derived from three interval trees:
//!
//! ```text
//!   accesses   an access holds these pages pinned                      tier 1 has their frames
//!   shown      a filled area shows these pages through its domains     tier 2 has their frames
//!   retiring   gone from the domains, walkers may still be inside      only tier 3 can tell their frames
//!
//!   pinned(i)  <=>  accesses, shown or retiring covers i   (and, within a running movement, its claim)
//!   cached(i)  <=>  accesses covers i
//! ```
//!
//! The three quantities of pages have three types: [`ArrayLen`] is how long the array is and never changes,
//! [`Pinned`] is how many pages the trees cover now, [`Charged`] is how many the account has been billed for.
//! `Charged::settle` is the only bridge between the last two; at rest they are equal. A running movement pays ahead for the
//! pages that it has reserved: whatever else happens meanwhile, what a tree or the reservation covers is paid for, once.
//!
//! This type is the book-keeping of one pages object. [`super::movement`] moves frames and updates it.
//!
//! Imports allowed: units, and the passive types of this folder.

use ioasd_client::units::{ByteLen, IndexRange, PageIndex};

use super::area::AreaShape;
use super::counts::{ArrayLen, Charged, Delta, Pinned};
use super::interval_tree::IntervalTree;
use super::io_pagetable::AreaId;
use super::span::{self, Cover, Coverage, SpanClass};
use super::step::DomainKey;

/// Names an area among all areas that show one pages object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AreaKey {
    /// The IOAS the area belongs to.
    pub ioas: u64,
    /// The area within it.
    pub area: AreaId,
}

/// Names a retiring range until it is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RetireKey(u64);

/// A filled area, and the domain to read its frames back from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Which area.
    pub area: AreaKey,
    /// Where it lies.
    pub shape: AreaShape,
    /// A domain that maps every byte of it.
    pub storage: DomainKey,
}

/// The pages a running movement answers for, whatever the trees say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The pages, a prefix of those the movement will visit.
    pub range: IndexRange,
    /// Whether tier 1 must keep them too.
    pub cache: CacheClaim,
}

/// Whether a claim extends to tier 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheClaim {
    /// The movement keeps these pages cached.
    Kept,
    /// The movement does not care.
    Ignored,
}

/// Which tier can tell the frames of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Tier 1.
    Cache,
    /// Tier 2, read back through an area.
    Domain(Shown),
    /// Tier 3, which holds a pin already.
    Held,
    /// Tier 3; the page must be pinned.
    Origin,
}

/// One pages object.
#[derive(Debug)]
pub struct IoptPages {
    len: ArrayLen,
    accesses: IntervalTree<u32>,
    shown: IntervalTree<Shown>,
    retiring: IntervalTree<RetireKey>,
    claim: Option<Claim>,
    reserved: Option<IndexRange>,
    pinned: Pinned,
    /// How many of the reserved pages the trees do not cover.
    ahead: Pinned,
    charged: Charged,
    next_retire: u64,
}

impl IoptPages {
    /// An array of `len` pages, none of them pinned.
    #[must_use]
    pub fn new(len: ArrayLen) -> Self {
        Self {
            len,
            accesses: IntervalTree::new(),
            shown: IntervalTree::new(),
            retiring: IntervalTree::new(),
            claim: None,
            reserved: None,
            pinned: Pinned::default(),
            ahead: Pinned::default(),
            charged: Charged::default(),
            next_retire: 0,
        }
    }

    /// The constant length.
    #[must_use]
    pub const fn array_len(&self) -> ArrayLen {
        self.len
    }

    /// How many pages hold a pin.
    #[must_use]
    pub const fn pinned(&self) -> Pinned {
        self.pinned
    }

    /// How many pages the account has been billed for.
    #[must_use]
    pub const fn charged(&self) -> Charged {
        self.charged
    }

    /// Bytes that nothing but retiring ranges keeps pinned.
    #[must_use]
    pub fn retiring(&self) -> ByteLen {
        let whole =
            IndexRange::from_length(PageIndex::new(0), self.len.get()).filter(|_| !self.retiring.is_empty());
        let trees: [&dyn Cover; 3] = [&self.accesses, &self.shown, &self.retiring];
        let spans = whole.into_iter().flat_map(|whole| span::spans(&trees, whole));
        let pages =
            spans.filter(|span| span.class == SpanClass::Tree(2)).map(|span| span.range.pages()).sum();
        PageIndex::new(pages).byte_offset()
    }

    /// The tier that can tell the frames from `index` on, and how far it can, at most to `last`.
    #[must_use]
    pub fn tier_at(&self, index: PageIndex, last: PageIndex) -> (Tier, IndexRange) {
        let window = IndexRange::new(index, last).unwrap_or(IndexRange::single(index));
        let span = span::first_span(&[&self.accesses, &self.shown, &self.retiring], window);
        match span.class {
            SpanClass::Tree(0) => (Tier::Cache, span.range),
            SpanClass::Tree(1) => self.shown_at(span.range),
            SpanClass::Tree(_) => (Tier::Held, span.range),
            SpanClass::Hole => (Tier::Origin, span.range),
        }
    }

    fn shown_at(&self, span: IndexRange) -> (Tier, IndexRange) {
        let longest = self.shown.covering(span.first()).max_by_key(|(range, _)| range.last());
        match longest.and_then(|(range, shown)| Some((*shown, range.intersection(span)?))) {
            Some((shown, part)) => (Tier::Domain(shown), part),
            None => (Tier::Held, span),
        }
    }

    /// The next pages from `index` to `last` that neither a tree nor the claim keeps pinned.
    #[must_use]
    pub fn next_unheld(&self, index: PageIndex, last: PageIndex) -> Option<IndexRange> {
        let claim = Claimed(self.claim.map(|claim| claim.range));
        next_hole(&[&self.accesses, &self.shown, &self.retiring, &claim], index, last)
    }

    /// The next pages from `index` to `last` that tier 1 need not keep.
    #[must_use]
    pub fn next_uncached(&self, index: PageIndex, last: PageIndex) -> Option<IndexRange> {
        let claim = self.claim.filter(|claim| claim.cache == CacheClaim::Kept);
        next_hole(&[&self.accesses, &Claimed(claim.map(|claim| claim.range))], index, last)
    }

    /// Sets or drops the claim of the running movement.
    pub(super) fn set_claim(&mut self, claim: Option<Claim>) {
        self.claim = claim;
    }

    /// Sets or drops the pages that the running movement pays for although nothing may pin them yet.
    pub(super) fn reserve(&mut self, range: Option<IndexRange>) {
        if self.reserved != range {
            self.reserved = range;
            self.ahead = Pinned::new(range.map_or(0, |range| self.ahead_in(range)));
        }
    }

    /// Notes that an access pins `range`, once more if it did already.
    pub(super) fn add_access(&mut self, range: IndexRange) {
        if let Some(users) = self.accesses.get_mut(range, |_| true) {
            *users += 1;
            return;
        }
        self.recount(range, |pages| pages.accesses.insert(range, 1));
    }

    /// Notes that one user of `range` is gone; tells whether it was the last, or `None` if there was none.
    pub(super) fn drop_access(&mut self, range: IndexRange) -> Option<LastUser> {
        let users = self.accesses.get_mut(range, |_| true)?;
        *users -= 1;
        if *users > 0 {
            return Some(LastUser::No);
        }
        self.recount(range, |pages| pages.accesses.remove(range, |_| true).is_some());
        Some(LastUser::Yes)
    }

    /// Notes that an area is filled.
    pub(super) fn show(&mut self, shown: Shown) {
        let range = shown.shape.indexes();
        self.recount(range, |pages| pages.shown.insert(range, shown));
    }

    /// Forgets that an area is filled, as if [`IoptPages::show`] had not been called.
    pub(super) fn unshow(&mut self, shown: Shown) {
        let range = shown.shape.indexes();
        self.recount(range, |pages| pages.shown.remove(range, |other| other.area == shown.area).is_some());
    }

    /// Keeps `range` pinned until the key is given to [`IoptPages::release`].
    pub(super) fn retire(&mut self, range: IndexRange) -> RetireKey {
        let key = RetireKey(self.next_retire);
        self.next_retire += 1;
        self.recount(range, |pages| pages.retiring.insert(range, key));
        key
    }

    /// Ends a retirement; tells which pages it kept.
    pub(super) fn release(&mut self, key: RetireKey) -> Option<IndexRange> {
        let range = self.retiring.iter().find(|(_, other)| **other == key).map(|(range, _)| range)?;
        self.recount(range, |pages| pages.retiring.remove(range, |other| *other == key).is_some());
        Some(range)
    }

    /// The filled area `area`, if it is.
    #[must_use]
    pub fn shown(&self, area: AreaKey, range: IndexRange) -> Option<Shown> {
        self.shown.overlapping(range).map(|(_, shown)| *shown).find(|shown| shown.area == area)
    }

    /// Reads `area` back from `storage` from now on.
    /// Areas that are shown.
    #[must_use]
    pub fn shown_count(&self) -> u64 {
        self.shown.len() as u64
    }

    /// Areas that are shown, in order of their first pages.
    pub fn shown_areas(&self) -> impl Iterator<Item = (AreaKey, AreaShape)> {
        self.shown.iter().map(|(_, shown)| (shown.area, shown.shape))
    }

    /// Ranges of pages that accesses hold.
    #[must_use]
    pub fn access_ranges(&self) -> u64 {
        self.accesses.len() as u64
    }

    pub(super) fn move_storage(&mut self, shown: Shown, storage: DomainKey) {
        let found = self.shown.get_mut(shown.shape.indexes(), |other| other.area == shown.area);
        if let Some(shown) = found {
            shown.storage = storage;
        }
    }

    /// What has to be charged or credited for the charge to match the pins, those to come included.
    #[must_use]
    pub fn settle(&self) -> Delta {
        self.charged.settle(Pinned::new(self.pinned.get() + self.ahead.get()))
    }

    /// Notes that the account took `delta`.
    pub(super) fn charge(&mut self, delta: Delta) {
        self.charged = self.charged.apply(delta);
    }

    /// Runs `change`, which may only concern pages of `range`, and brings the count of pinned pages up to date.
    fn recount<R>(&mut self, range: IndexRange, change: impl FnOnce(&mut Self) -> R) -> R {
        let (before, ahead) = (self.covered(range), self.ahead_in(range));
        let changed = change(self);
        self.pinned = Pinned::new(self.pinned.get() - before + self.covered(range));
        self.ahead = Pinned::new(self.ahead.get() - ahead + self.ahead_in(range));
        changed
    }

    /// How many pages of `range` are reserved, and not kept pinned by the trees.
    fn ahead_in(&self, range: IndexRange) -> u64 {
        let part = self.reserved.and_then(|reserved| reserved.intersection(range));
        part.map_or(0, |part| part.pages() - self.covered(part))
    }

    /// How many pages of `range` the trees keep pinned.
    fn covered(&self, range: IndexRange) -> u64 {
        let trees: [&dyn Cover; 3] = [&self.accesses, &self.shown, &self.retiring];
        let covered = span::spans(&trees, range).filter(|span| span.class != SpanClass::Hole);
        covered.map(|span| span.range.pages()).sum()
    }

    /// Panics unless the counts match the trees. For tests; between movements the charge must match as well.
    pub fn check(&self) {
        self.accesses.check();
        self.shown.check();
        self.retiring.check();
        assert!(self.accesses.iter().all(|(_, users)| *users > 0), "an access interval without users");
        assert!(
            self.shown.iter().all(|(range, shown)| range == shown.shape.indexes()),
            "a filled area lies elsewhere than its interval"
        );
        if let Some(whole) = IndexRange::from_length(PageIndex::new(0), self.len.get()) {
            assert_eq!(self.pinned.get(), self.covered(whole), "pinned drifted from the three trees");
            let ranges =
                self.shown.iter().map(|(range, _)| range).chain(self.accesses.iter().map(|(range, _)| range));
            assert!(
                ranges.chain(self.retiring.iter().map(|(range, _)| range)).all(|range| whole.covers(range))
            );
        }
        assert_eq!(
            self.ahead.get(),
            self.reserved.map_or(0, |range| self.ahead_in(range)),
            "reserved drifted"
        );
        if self.claim.is_none() && self.reserved.is_none() {
            assert_eq!(self.settle(), Delta::None, "charged differs from pinned at rest");
        }
    }
}

/// A claim as something that covers pages.
struct Claimed(Option<IndexRange>);

impl Cover for Claimed {
    fn first_span(&self, window: IndexRange) -> (Coverage, IndexRange) {
        let Some(part) = self.0.and_then(|claim| claim.intersection(window)) else {
            return (Coverage::Hole, window);
        };
        let before = part.first().get().checked_sub(1).map(PageIndex::new);
        match before.and_then(|last| IndexRange::new(window.first(), last)) {
            Some(hole) => (Coverage::Hole, hole),
            None => (Coverage::Covered, part),
        }
    }
}

/// The next pages from `index` to `last` that none of `trees` covers.
fn next_hole(trees: &[&dyn Cover], index: PageIndex, last: PageIndex) -> Option<IndexRange> {
    let mut spans = span::spans(trees, IndexRange::new(index, last)?);
    spans.find(|span| span.class == SpanClass::Hole).map(|span| span.range)
}

/// Whether the user that left was the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastUser {
    /// Nobody holds this very range any more.
    Yes,
    /// Somebody does.
    No,
}
