//! Domains come and go: attaching fills every area into the new one, detaching takes every area out.
//!
//! The list of domains is dense: the last one takes the place of one that leaves. The first is the storage domain.
//!
//! Imports allowed: units, and the passive types of storage.

use ioasd_client::units::IovaRange;

use super::{AreaView, Ioas, Port, Retired};
use crate::error::Errno;
use crate::storage::io_pagetable::Owner;
use crate::storage::order::{Order, Showing};
use crate::storage::refusal::Refusal;
use crate::storage::step::DomainKey;

/// What a domain asks of an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainNeeds {
    /// Its smallest page size: all areas must be aligned to it.
    pub alignment: u64,
    /// The addresses its table can hold.
    pub aperture: IovaRange,
}

impl<P: Port> Ioas<P> {
    /// Adds a domain and fills every ready area into it.
    ///
    /// # Errors
    /// If the areas do not suit the domain, or one cannot be filled. The domain is not added then.
    pub async fn attach(&self, domain: DomainKey, needs: DomainNeeds) -> Result<(), Refusal> {
        let gate = self.gate.write().await;
        self.admit(domain, needs)?;
        match self.fill_into(domain).await {
            Ok(()) => {
                self.core.borrow_mut().domains.push(domain);
                Ok(())
            }
            Err((refusal, retired)) => {
                self.core.borrow_mut().table.remove_owner(Owner::Domain(domain.id));
                drop(gate);
                self.release(&[domain], retired).await;
                Err(refusal)
            }
        }
    }

    fn admit(&self, domain: DomainKey, needs: DomainNeeds) -> Result<(), Refusal> {
        let mut core = self.core.borrow_mut();
        if core.domains.contains(&domain) {
            let text = format!("domain {} is attached to this address space already", domain.id);
            return Err(Refusal::new(Errno::EXIST, "domain-attached", text));
        }
        let added = core.table.add_domain(Owner::Domain(domain.id), needs.alignment, needs.aperture);
        added.map_err(|error| Refusal::of(&error))
    }

    async fn fill_into(&self, domain: DomainKey) -> Result<(), (Refusal, Retired<P::Pages>)> {
        let showing = if self.domains().is_empty() { Showing::First } else { Showing::Further };
        let mut filled = Vec::new();
        for area in self.ready_areas().into_iter().filter_map(|id| self.view(id)) {
            if let Err(failure) = self.fill(&area, [domain].into(), showing).await {
                let mut retired: Retired<_> =
                    failure.retiring.map(|key| (area.pages, key)).into_iter().collect();
                for area in &filled {
                    retired.extend(self.leave(area, domain).await);
                }
                return Err((failure.refusal, retired));
            }
            filled.push(area);
        }
        Ok(())
    }

    /// Takes every area out of `domain` and forgets it; waits until its walkers have left.
    pub async fn detach(&self, domain: DomainKey) {
        let gate = self.gate.write().await;
        if !self.forget(domain) {
            return;
        }
        let mut retired = Vec::new();
        for area in self.ready_areas().into_iter().filter_map(|id| self.view(id)) {
            retired.extend(self.leave(&area, domain).await);
        }
        self.core.borrow_mut().table.remove_owner(Owner::Domain(domain.id));
        drop(gate);
        self.port.grace(&[domain]).await;
        self.release(&[], retired).await;
    }

    fn forget(&self, domain: DomainKey) -> bool {
        let mut core = self.core.borrow_mut();
        let Some(place) = core.domains.iter().position(|other| *other == domain) else { return false };
        core.domains.swap_remove(place);
        true
    }

    /// Takes an area out of `domain`, which is not in the list of domains (any more).
    async fn leave(&self, area: &AreaView<P::Pages>, domain: DomainKey) -> Retired<P::Pages> {
        let Some(storage) = self.domains().first().copied() else {
            return self.unfill(area, [domain].into()).await;
        };
        let order = Order::UnmapFrom { area: self.area_key(area.id), shape: area.shape, domain, storage };
        self.retire(area, order).await
    }
}
