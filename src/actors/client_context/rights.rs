//! What the tenant of a context may do and map, asked anew for each request.
//!
//! Imports allowed: state, rights, sources, storage.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::state::ClientState;
use crate::actors::messages::questions::{PayerOf, PayerReport};
use crate::actors::rights::{Deed, Denied, Granted};
use crate::storage::among::Among;
use crate::storage::ledger::holder::Holder;
use crate::storage::refusal::Refusal;
use crate::storage::source::{FrameSetting, SourceKind, Strength};

/// What binds whoever pays for memory that is to be mapped; nothing if its tenant has no rule.
#[derive(Debug)]
pub(super) struct MemoryRights(Option<Bound>);

#[derive(Debug)]
struct Bound {
    granted: Granted,
    who: Arc<Holder>,
    frames: FrameSetting,
}

impl MemoryRights {
    /// Whether such memory may be mapped at all.
    ///
    /// # Errors
    /// EPERM if not.
    pub(super) fn may_map(&self, source: SourceKind) -> Result<(), Refusal> {
        self.ask(|Bound { granted, who, frames }| {
            granted.may_map(source, who)?;
            granted.may_have(*frames, who)
        })
        .map(drop)
    }

    /// Which of the strengths that are possible memory may be held at.
    ///
    /// # Errors
    /// EPERM if none.
    pub(super) fn may_hold(&self, possible: Among<Strength>) -> Result<Among<Strength>, Refusal> {
        let left = self.ask(|Bound { granted, who, .. }| granted.may_hold(possible, who))?;
        Ok(left.unwrap_or(possible))
    }

    fn ask<R>(&self, ask: impl FnOnce(&Bound) -> Result<R, Denied>) -> Result<Option<R>, Refusal> {
        self.0.as_ref().map(ask).transpose().map_err(|denied| Refusal::of(&denied))
    }
}

impl ClientState {
    /// Whether the tenant of this context may do that.
    ///
    /// # Errors
    /// EACCES or EPERM if its rule says no.
    pub(super) fn may(&self, deed: Deed) -> Result<(), Refusal> {
        let Some(granted) = self.agent.policy.granted(&self.stats.tenant) else { return Ok(()) };
        granted.may(deed, self.account.node().holder()).map_err(|denied| Refusal::of(&denied))
    }

    /// Whether it may use mock hardware.
    ///
    /// # Errors
    /// EPERM if its rule says no.
    pub fn may_mock(&self) -> Result<(), Refusal> {
        self.may(Deed::Mock)
    }

    /// What binds memory that `who` maps.
    pub(super) fn memory_rights(&self, who: &Arc<Holder>) -> MemoryRights {
        let granted = self.agent.policy.granted(&self.stats.tenant);
        let frames = self.agent.pins.frame_setting();
        MemoryRights(granted.map(|granted| Bound { granted, who: Arc::clone(who), frames }))
    }

    /// Who would pay for memory that is mapped next, what would hold it, and whether it may be mapped.
    pub(super) fn outlook_of_payer(&self, PayerOf { source, strength }: PayerOf) -> PayerReport {
        let payer = self.likely_payer();
        let rights = self.rights_of(&payer);
        let pins = &self.agent.pins;
        let possible: Among<Strength> = match strength {
            Some(strength) => [strength].into_iter().collect(),
            None if source == Some(SourceKind::Process) => pins.process_memory().strengths(),
            None => pins.ladder().rungs().iter().copied().collect(),
        };
        let held = source.map_or(Ok(()), |source| rights.may_map(source));
        let held = held.and_then(|()| rights.may_hold(possible));
        let among = held.as_ref().map_or(possible, |allowed| *allowed);
        let strength = among.each().next().unwrap_or(Strength::Resident);
        PayerReport { payer, strength, allowed: held.map(drop) }
    }

    /// Which strengths a file may be held at. What is no memory is never pinned, so nobody is refused it; what cannot be
    /// told is told when it is opened.
    ///
    /// # Errors
    /// EPERM if its kind may not be mapped, or be held at nothing that is possible.
    pub(super) fn may_map_file(
        &self,
        file: BorrowedFd<'_>,
        rights: &MemoryRights,
    ) -> Result<Among<Strength>, Refusal> {
        if rights.0.is_none() {
            return Ok(Among::all());
        }
        let Ok(Some(offer)) = self.agent.pins.offer(file) else { return Ok(Among::all()) };
        rights.may_map(offer.source)?;
        rights.may_hold(offer.strengths)
    }
}
