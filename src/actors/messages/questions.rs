//! What reports ask of the owners of objects: one bounded look at one moment.
//!
//! Imports allowed: units, storage, domains, inbox, figures, payer.

use ioasd_client::formats::Geometry;
use ioasd_client::units::{ByteLen, Iova, IovaRange, Permission, PhysAddr};

use crate::actors::figures::PagesStats;
use crate::actors::inbox::Ask;
use crate::actors::number::Number;
use crate::actors::payer::Payer;
pub use crate::domains::table::WalkStep;
use crate::storage::area::AreaShape;
pub use crate::storage::io_pagetable::{
    AREAS_NAMED, AreaState, GapLimits, Gaps, Outlook, Pinning, Placement, Prospect, Ruled,
};
use crate::storage::pages::AreaKey;
use crate::storage::refusal::Refusal;
use crate::storage::source::{SourceKind, Strength};

/// Areas in IOVA order, from the one on that shows `from` or is the first behind it.
#[derive(Clone, Copy, Debug)]
pub struct AreasFrom {
    /// Where to begin.
    pub from: Iova,
    /// Areas wanted at most.
    pub limit: usize,
}

/// An area at one moment.
#[derive(Clone, Copy, Debug)]
pub struct AreaReport {
    /// Where it lies and what it shows.
    pub shape: AreaShape,
    /// What devices may do.
    pub permission: Permission,
    /// Where it is in its life.
    pub state: AreaState,
    /// The pages object behind it.
    pub pages: Number<PagesStats>,
    /// Pins of accesses that hold it.
    pub accesses: u64,
}

impl Ask for AreasFrom {
    type Answer = Vec<AreaReport>;
}

/// Free ranges in IOVA order, from the one on that has `from` or is the first behind it.
#[derive(Clone, Copy, Debug)]
pub struct GapsFrom {
    /// Where to begin.
    pub from: Iova,
    /// How far to go.
    pub limits: GapLimits,
}

impl Ask for GapsFrom {
    type Answer = Gaps;
}

/// Around each of these addresses, what is free.
#[derive(Clone, Debug)]
pub struct GapsAt(pub Vec<Iova>);

impl Ask for GapsAt {
    type Answer = Vec<Option<IovaRange>>;
}

/// Reserved and allowed ranges in IOVA order, from the one on that has `from` or is the first behind it.
#[derive(Clone, Copy, Debug)]
pub struct RulesFrom {
    /// Where to begin.
    pub from: Iova,
    /// Ranges wanted at most.
    pub limit: usize,
}

impl Ask for RulesFrom {
    type Answer = Vec<Ruled>;
}

/// What a MAP would meet in an address space.
#[derive(Clone, Copy, Debug)]
pub struct OutlookFor(pub Prospect);

impl Ask for OutlookFor {
    type Answer = Outlook;
}

/// Who would pay for such memory if a context mapped it next, and whether it may.
#[derive(Clone, Copy, Debug, Default)]
pub struct PayerOf {
    /// What the memory is; `None` asks for no right to it.
    pub source: Option<SourceKind>,
    /// What shall hold it; `None` is the strongest that is possible and allowed.
    pub strength: Option<Strength>,
}

/// Who would pay, as far as can be told before.
#[derive(Clone, Debug)]
pub struct PayerReport {
    /// The process that mapped last, else the opener.
    pub payer: Payer,
    /// What would hold its pins first of all.
    pub strength: Strength,
    /// Whether the tenant may map such memory.
    pub allowed: Result<(), Refusal>,
}

impl Ask for PayerOf {
    type Answer = PayerReport;
}

/// What holds the pages of an object.
#[derive(Clone, Copy, Debug)]
pub struct HoldersOf {
    /// Areas wanted at most.
    pub limit: usize,
}

/// What holds the pages of an object at one moment.
#[derive(Clone, Debug)]
pub struct HoldersReport {
    /// Ranges of pages that accesses hold.
    pub access_ranges: u64,
    /// Areas that domains show.
    pub shown_areas: u64,
    /// The first of them, in order of pages.
    pub shown: Vec<(AreaKey, AreaShape)>,
}

impl Ask for HoldersOf {
    type Answer = HoldersReport;
}

/// The table of a domain, and the way to an address in it.
#[derive(Clone, Copy, Debug)]
pub struct TableOf {
    /// The domain, by its key.
    pub domain: u64,
    /// The address to walk to, if one is wanted.
    pub walk_to: Option<Iova>,
}

/// A table at one moment.
#[derive(Clone, Debug)]
pub struct TableReport {
    /// Its format and shape.
    pub geometry: Geometry,
    /// The entries on the way, from the root.
    pub steps: Vec<WalkStep>,
    /// Where the address leads, how many bytes of the same leaf follow, and what is allowed.
    pub translation: Option<(PhysAddr, ByteLen, Permission)>,
}

impl Ask for TableOf {
    type Answer = Option<TableReport>;
}
