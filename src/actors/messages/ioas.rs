//! What an Ioas actor is asked.
//!
//! Imports allowed: units, storage.

use std::sync::Arc;

use actix::{Addr, Message};
use bytes::Bytes;
use ioasd_client::units::{Iova, IovaRange};

use crate::actors::access::Access;
use crate::actors::figures::AccessStats;
use crate::actors::pages_handle::PagesHandle;
use crate::storage::io_pagetable::{IoPageTable, LargePages};
use crate::storage::ioas::{AccessKey, AccessNeeds};
use crate::storage::refusal::Refusal;

/// Replaces the allowed ranges.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct AllowIovas(pub Vec<IovaRange>);

/// Switches large leaves on or off.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct SetLargePages(pub LargePages);

/// Takes areas whose pages were withdrawn out of every domain.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Withdraw;

/// Lets an access use the address space.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct AttachAccess {
    /// The access.
    pub key: AccessKey,
    /// What it will do.
    pub needs: AccessNeeds,
    /// Where notices go.
    pub access: Addr<Access>,
    /// Where its figures are shown.
    pub stats: Arc<AccessStats>,
}

/// Lets go of what an access holds and forgets it.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct DetachAccess(pub AccessKey);

/// Undoes one pin.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct UnpinRange {
    /// The access.
    pub access: AccessKey,
    /// Exactly what was pinned.
    pub range: IovaRange,
}

/// Lets go of every pin of an access that touches a range.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct LetGoWithin {
    /// The access.
    pub access: AccessKey,
    /// What a notice named.
    pub range: IovaRange,
}

/// Reads bytes for an access.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<u8>, Refusal>")]
pub struct ReadBytes {
    /// The access.
    pub access: AccessKey,
    /// What to read.
    pub range: IovaRange,
}

/// Writes bytes for an access.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), Refusal>")]
pub struct WriteBytes {
    /// The access.
    pub access: AccessKey,
    /// Where to.
    pub iova: Iova,
    /// What.
    pub bytes: Bytes,
}

/// Looks at the IOVA map between two steps.
#[derive(Message)]
#[rtype(result = "R")]
pub struct LookAtTable<R: Send + 'static>(pub Look<R>);

/// What [`LookAtTable`] runs.
pub type Look<R> = Box<dyn FnOnce(&IoPageTable<PagesHandle>) -> R + Send>;

/// Changes what the IOVA map allows between two steps: allowed and reserved ranges.
#[derive(Message)]
#[rtype(result = "R")]
pub struct ChangeTable<R: Send + 'static>(pub Change<R>);

/// What [`ChangeTable`] runs.
pub type Change<R> = Box<dyn FnOnce(&mut IoPageTable<PagesHandle>) -> R + Send>;

/// Panics unless the address space keeps its rules. For tests.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Check;
