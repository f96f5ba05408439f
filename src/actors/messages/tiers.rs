//! What a Pages actor asks of the tiers.
//!
//! Imports allowed: units, storage, domains.

use std::sync::Arc;

use actix::Message;
use ioasd_client::units::{IndexRange, Permission};

use crate::actors::latch::Seat;
use crate::storage::area::AreaShape;
use crate::storage::io_pagetable::LargePages;
use crate::storage::pfn::PfnBatch;
use crate::storage::refusal::Refusal;

/// Done, or refused.
pub type Failable = Result<(), Refusal>;

/// A batch on its way back.
#[derive(Debug)]
pub struct FramesRead {
    /// With what could be appended.
    pub batch: PfnBatch,
    /// Why not, or not all.
    pub result: Failable,
}

/// Tier 1: append cached frames.
#[derive(Debug, Message)]
#[rtype(result = "FramesRead")]
pub struct ReadCache {
    /// Pages wanted.
    pub range: IndexRange,
    /// The batch under assembly.
    pub batch: PfnBatch,
}

/// Tier 1: keep these frames, all or none.
#[derive(Debug, Message)]
#[rtype(result = "Failable")]
pub struct StoreCache(pub Arc<PfnBatch>);

/// Tier 1: forget these pages.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct EraseCache(pub IndexRange);

/// Tier 2: append the frames a domain maps.
#[derive(Debug, Message)]
#[rtype(result = "FramesRead")]
pub struct ReadDomain {
    /// The domain.
    pub domain: u64,
    /// The area it shows the pages through.
    pub shape: AreaShape,
    /// Pages wanted.
    pub range: IndexRange,
    /// The batch under assembly.
    pub batch: PfnBatch,
}

/// Tier 2: what shall happen to tables.
#[derive(Debug, Clone)]
pub enum TableChange {
    /// Write a batch.
    Deliver {
        /// The frames.
        batch: Arc<PfnBatch>,
        /// The area.
        shape: AreaShape,
        /// What devices may do.
        permission: Permission,
        /// Whether leaves may be larger than a page.
        large_pages: LargePages,
    },
    /// Clear pages of an area.
    Unmap {
        /// The area.
        shape: AreaShape,
        /// The pages, all of them mapped.
        range: IndexRange,
    },
}

/// Tier 2: change the tables of `domains`, all with one owner, and leave an outcome for each in the seat.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ChangeTables {
    /// What to do.
    pub change: TableChange,
    /// To which tables.
    pub domains: Vec<u64>,
    /// Where the outcomes go.
    pub seat: Seat<Vec<Failable>>,
}
