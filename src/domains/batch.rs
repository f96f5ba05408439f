//! Writing a batch into one table, a budget at a time.
//!
//! A batch goes into a table run by run. It is all or nothing: when one run is refused, the runs before it are taken out
//! again.
//!
//! Imports allowed: storage's area, pfn and LargePages, map, table, error, the client crate's formats.

use std::sync::Arc;

use ioasd_client::formats::Format;
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, Permission, PhysAddr};

use super::error::MapError;
use super::map::MapRun;
use super::table::{Budget, DomainTable, Table};
use crate::storage::area::AreaShape;
use crate::storage::io_pagetable::LargePages;
use crate::storage::pfn::PfnBatch;

/// Whether the work is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All of it is done.
    Finished,
    /// The budget is spent.
    Paused,
}

/// A batch on its way into one table.
#[derive(Debug)]
pub struct BatchWriter {
    batch: Arc<PfnBatch>,
    shape: AreaShape,
    permission: Permission,
    large_pages: LargePages,
    run: usize,
    /// Bytes of the current run that are written.
    done: u64,
    /// Where the current run begins.
    start: Iova,
}

impl BatchWriter {
    /// Nothing is written yet.
    #[must_use]
    pub fn new(
        batch: Arc<PfnBatch>,
        shape: AreaShape,
        permission: Permission,
        large_pages: LargePages,
    ) -> Self {
        let start = shape.start_of(batch.first());
        Self { batch, shape, permission, large_pages, run: 0, done: 0, start }
    }

    /// Writes on as far as the budget goes.
    ///
    /// # Errors
    /// If the table refuses a run; nothing of the batch is left in it then.
    pub fn advance(
        &mut self,
        table: &mut dyn DomainTable,
        budget: &mut Budget,
    ) -> Result<Progress, MapError> {
        table.write_batch(self, budget)
    }

    /// See [`DomainTable::write_batch`].
    pub(super) fn write_into<F: Format>(
        &mut self,
        table: &mut Table<F>,
        budget: &mut Budget,
    ) -> Result<Progress, MapError> {
        while let Some((run, length)) = self.current_run() {
            if budget.is_spent() {
                return Ok(Progress::Paused);
            }
            match table.map_run(&run, budget) {
                Ok(mapped) => self.note(length, mapped),
                Err(error) => {
                    self.take_out(table, run.iova);
                    return Err(error);
                }
            }
        }
        Ok(Progress::Finished)
    }

    /// What is left of the run that is being written, and how long the whole run is as far as the area shows it.
    #[inline]
    fn current_run(&self) -> Option<(MapRun, u64)> {
        let run = self.batch.runs().get(self.run)?;
        let into_page = self.shape.offset_of(self.start).get() % PAGE_SIZE;
        let shown_after = self.shape.iova().last().offset_from(self.start).get();
        let length = (u64::from(run.pages) * PAGE_SIZE - into_page).min(shown_after.saturating_add(1));
        let left = MapRun {
            iova: Iova::new(self.start.get() + self.done),
            phys: PhysAddr::new(run.pfn.phys().get() + into_page + self.done),
            length: ByteLen::new(length - self.done),
            permission: self.permission,
            large_pages: self.large_pages,
        };
        Some((left, length))
    }

    #[inline]
    fn note(&mut self, length: u64, mapped: ByteLen) {
        self.done += mapped.get();
        if self.done >= length {
            self.run += 1;
            self.done = 0;
            // A run that ends with the address space ends its area: nothing of the batch is left then.
            self.start = Iova::new(self.start.get().wrapping_add(length));
        }
    }

    /// Clears what this batch has written before `end`.
    #[cold]
    fn take_out<F: Format>(&self, table: &mut Table<F>, end: Iova) {
        let start = self.shape.start_of(self.batch.first());
        let written = end.get().checked_sub(1).and_then(|last| IovaRange::new(start, Iova::new(last)));
        if let Some(range) = written {
            let taken_out = table.unmap_range(range, &mut Budget::unlimited());
            debug_assert!(taken_out.is_ok(), "taking a batch out again: {taken_out:?}");
        }
    }
}
