//! PfnCache: tier 1. Keeps the frames that accesses hold, for one pages object.
//!
//! Started when an access first pins. Lives on the arbiter of its Pages.
//!
//! Imports allowed: storage, messages.

use actix::prelude::*;

use super::messages::tiers::{EraseCache, Failable, FramesRead, ReadCache, StoreCache};
use crate::storage::pinned_pfns::PinnedPfns;
use crate::storage::refusal::Refusal;

/// The cache of one pages object.
#[derive(Debug, Default)]
pub struct PfnCache {
    frames: PinnedPfns,
}

impl Actor for PfnCache {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(super::MAILBOX);
    }
}

impl Handler<ReadCache> for PfnCache {
    type Result = MessageResult<ReadCache>;

    fn handle(&mut self, ReadCache { range, mut batch }: ReadCache, _: &mut Self::Context) -> Self::Result {
        let result = self.frames.read(range, &mut batch).map_err(|error| Refusal::of(&error));
        MessageResult(FramesRead { batch, result })
    }
}

impl Handler<StoreCache> for PfnCache {
    type Result = Failable;

    fn handle(&mut self, StoreCache(batch): StoreCache, _: &mut Self::Context) -> Self::Result {
        self.frames.store(&batch).map_err(|error| Refusal::of(&error))
    }
}

impl Handler<EraseCache> for PfnCache {
    type Result = ();

    fn handle(&mut self, EraseCache(range): EraseCache, _: &mut Self::Context) {
        self.frames.erase(range);
    }
}

/// Looks at the frames between two steps. For tests and reports.
#[derive(Message)]
#[rtype(result = "R")]
pub struct LookAtFrames<R: Send + 'static>(pub Box<dyn FnOnce(&PinnedPfns) -> R + Send>);

impl<R: Send + 'static> Handler<LookAtFrames<R>> for PfnCache {
    type Result = MessageResult<LookAtFrames<R>>;

    fn handle(&mut self, LookAtFrames(look): LookAtFrames<R>, _: &mut Self::Context) -> Self::Result {
        MessageResult(look(&self.frames))
    }
}
