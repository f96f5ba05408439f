//! Writing a batch into one table, a budget at a time.
//!
//! A batch goes into a table run by run. It is all or nothing: when one run is refused, the runs before it are taken out
//! again.
//!
//! With large pages off, every map call is one page, so that no leaf is larger.
//!
//! Imports allowed: storage's area, io_pagetable and pfn, table, error.

use std::sync::Arc;

use ioasd_client::units::{ByteLen, IndexRange, Iova, IovaRange, PAGE_SIZE, Permission, PhysAddr};

use super::error::MapError;
use super::table::{Budget, DomainTable};
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
    done: u64,
    next: Option<Iova>,
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
        let next = Some(shape.start_of(batch.first()));
        Self { batch, shape, permission, large_pages, run: 0, done: 0, next }
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
        while let Some((iova, phys)) = self.current_run() {
            if budget.is_spent() {
                return Ok(Progress::Paused);
            }
            let done = ByteLen::new(self.done);
            let (start, rest) = (Iova::new(iova.start().get() + self.done), iova.length().get() - self.done);
            let phys = PhysAddr::new(phys.get() + done.get());
            match table.map(start, phys, self.one_call(phys, rest), self.permission, budget) {
                Ok(mapped) => self.note(iova, mapped),
                Err(error) => {
                    self.take_out(table, start);
                    return Err(error);
                }
            }
        }
        Ok(Progress::Finished)
    }

    /// How much of what is left of a run one map call takes.
    const fn one_call(&self, phys: PhysAddr, rest: u64) -> ByteLen {
        let to_page_end = PAGE_SIZE - phys.get() % PAGE_SIZE;
        match self.large_pages {
            LargePages::Off if to_page_end < rest => ByteLen::new(to_page_end),
            LargePages::Off | LargePages::On => ByteLen::new(rest),
        }
    }

    /// The IOVAs and the first address of the run that is being written.
    fn current_run(&self) -> Option<(IovaRange, PhysAddr)> {
        let run = self.batch.runs().get(self.run)?;
        let start = self.next?;
        let first = self.shape.index_of(start);
        let iova = self.shape.iova_of(IndexRange::from_length(first, u64::from(run.pages))?)?;
        let into_page = self.shape.offset_of(start).get() % PAGE_SIZE;
        Some((iova, PhysAddr::new(run.pfn.phys().get() + into_page)))
    }

    fn note(&mut self, iova: IovaRange, mapped: ByteLen) {
        self.done += mapped.get();
        if self.done >= iova.length().get() {
            self.run += 1;
            self.done = 0;
            self.next = iova.last().checked_add(1);
        }
    }

    /// Clears what this batch has written before `end`.
    fn take_out(&self, table: &mut dyn DomainTable, end: Iova) {
        let start = self.shape.start_of(self.batch.first());
        let written = end.get().checked_sub(1).and_then(|last| IovaRange::new(start, Iova::new(last)));
        if let Some(range) = written {
            let taken_out = table.unmap(range, &mut Budget::unlimited());
            debug_assert!(taken_out.is_ok(), "taking a batch out again: {taken_out:?}");
        }
    }
}
