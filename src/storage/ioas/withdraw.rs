//! Withdrawals: what a device has given is taken back, so it leaves every domain at once. Its IOVA stays taken, until it is
//! unmapped.
//!
//! Imports allowed: units, and the passive types of storage.

use super::{Ioas, Port};
use crate::storage::io_pagetable::{AreaId, Reservation};

impl<P: Port> Ioas<P> {
    /// Takes every area whose pages were withdrawn out of all domains, while nothing is mapped or unmapped; waits until
    /// walkers have left.
    pub async fn withdraw(&self) {
        let gate = self.gate.write().await;
        let (domains, mut retired) = (self.domains(), Vec::new());
        for area in self.ready_areas().into_iter().filter_map(|id| self.view(id)) {
            if self.port.is_withdrawn(&area.pages) {
                self.core.borrow_mut().table.withdraw(area.id);
                retired.extend(self.unfill(&area, domains.clone()).await);
            }
        }
        drop(gate);
        self.release(&domains, retired).await;
    }

    /// Whether the pages of an area were withdrawn before it was filled.
    pub(super) fn is_withdrawn(&self, area: AreaId) -> bool {
        self.view(area).is_some_and(|area| self.port.is_withdrawn(&area.pages))
    }

    /// Makes the areas of a reservation ready; those in `withdrawn`, which are in no domain, so that they stay there.
    pub(super) fn publish(&self, reservation: &Reservation, withdrawn: &[AreaId]) {
        let table = &mut self.core.borrow_mut().table;
        table.publish(reservation);
        withdrawn.iter().for_each(|area| table.withdraw(*area));
    }
}
