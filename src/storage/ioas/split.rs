//! Cuts: UNMAP_DMA of VFIO type 1 unmaps parts of what was mapped, so areas are split at both ends of its range first.
//!
//! Imports allowed: units, and the passive types of storage.

use ioasd_client::units::IovaRange;

use super::{Ioas, Port};
use crate::storage::io_pagetable::{LargePages, Split};
use crate::storage::order::Order;
use crate::storage::refusal::Refusal;

impl<P: Port> Ioas<P> {
    /// Splits the areas that reach over an end of `range`, while nothing is mapped or unmapped. Where leaves may be large
    /// nothing is cut: a domain does not split a leaf.
    ///
    /// # Errors
    /// EBUSY if such an area is being unmapped; EINVAL if an end is not aligned or accesses hold the area; if there may be
    /// no more areas. Nothing is cut then.
    pub async fn cut_out(&self, range: IovaRange) -> Result<(), Refusal> {
        let _gate = self.gate.write().await;
        for split in self.split_table(range)? {
            let key = |(area, shape)| (self.area_key(area), shape);
            let order = Order::Split { whole: key(split.whole), parts: split.parts.map(key) };
            self.port.run(&split.pages, order).await?;
        }
        Ok(())
    }

    fn split_table(&self, range: IovaRange) -> Result<Vec<Split<P::Pages>>, Refusal> {
        let table = &mut self.core.borrow_mut().table;
        match table.large_pages() {
            LargePages::On => Ok(Vec::new()),
            LargePages::Off => table.cut_out(range).map_err(|error| Refusal::of(&error)),
        }
    }
}
