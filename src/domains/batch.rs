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
use super::written::Written;
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
    /// What was written to where nothing was mapped; `None` before anything is.
    forgotten: Option<Written>,
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
        Self { batch, shape, permission, large_pages, run: 0, done: 0, start, forgotten: None }
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
        self.begin_clean(table)?;
        loop {
            self.write_short_runs(table, budget);
            let Some((run, length)) = self.current_run() else { return Ok(Progress::Finished) };
            if budget.is_spent() {
                return Ok(Progress::Paused);
            }
            match table.map_run(&run, budget) {
                Ok(mapped) => self.note(length, mapped),
                Err(error) => {
                    self.take_out(table, run.iova);
                    self.forgotten.iter().for_each(|forgotten| table.put_back(forgotten));
                    return Err(error);
                }
            }
        }
    }

    /// Has the leaves of the batch begin clean, before the first of them is written.
    #[inline]
    fn begin_clean<F: Format>(&mut self, table: &mut Table<F>) -> Result<(), MapError> {
        if self.forgotten.is_none() {
            let into_page = self.shape.offset_of(self.start).get() % PAGE_SIZE;
            let length = ByteLen::new(self.batch.pages() * PAGE_SIZE - into_page);
            let range = IovaRange::from_length(self.start, length);
            let range = range.unwrap_or(IovaRange::ALL).intersection(self.shape.iova());
            self.forgotten = range.map(|range| table.forget_written(range)).transpose()?;
        }
        Ok(())
    }

    /// Writes the next runs as long as they are short and lie in the table written to last.
    #[inline]
    fn write_short_runs<F: Format>(&mut self, table: &mut Table<F>, budget: &mut Budget) {
        let begins_page = self.done == 0 && self.shape.offset_of(self.start).get().is_multiple_of(PAGE_SIZE);
        let rest = IovaRange::new(self.start, self.shape.iova().last()).filter(|_| begins_page);
        let runs = self.batch.runs().get(self.run..).unwrap_or_default();
        if let Some(rest) = rest {
            let written = table.map_short_runs(runs, rest, self.permission, budget);
            self.run += written.runs;
            self.start = Iova::new(self.start.get().wrapping_add(written.pages * PAGE_SIZE));
        }
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

#[cfg(test)]
mod tests {
    use ioasd_client::formats::{AmdV1, ArmS2, RiscV, VtdSs};
    use ioasd_client::layout::BootId;
    use ioasd_client::units::{PageIndex, Pfn};

    use super::*;
    use crate::domains::arena::ArenaSize;
    use crate::storage::pfn::RunLimit;

    const IOVA: u64 = 0x1f_0000;

    fn table<F: Format>() -> Table<F> {
        Table::new(ArenaSize::new(ByteLen::new(1 << 22)), BootId([0; 16])).unwrap()
    }

    /// Runs of 1 to 20 pages, some congruent to their addresses and some not; several leaf tables full.
    fn batch(seed: u64) -> (Arc<PfnBatch>, AreaShape) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut batch = PfnBatch::new(PageIndex::new(0), RunLimit::DEFAULT).unwrap();
        while batch.pages() < 1500 {
            let pages = if rng.bool() { 1 } else { rng.u64(1..20) };
            let congruent = (rng.u64(1..1 << 20) << 5) + (IOVA / PAGE_SIZE + batch.pages()) % 32;
            assert_eq!(batch.push(Pfn::new(congruent + rng.u64(..2)), pages), pages);
        }
        let length = ByteLen::new(batch.pages() * PAGE_SIZE);
        let range = IovaRange::from_length(Iova::new(IOVA), length).unwrap();
        (Arc::new(batch), AreaShape::new(range, ByteLen::new(0)))
    }

    /// What each page leads to, and how much of its leaf follows.
    fn leaves<F: Format>(table: &Table<F>, shape: AreaShape) -> Vec<Option<(PhysAddr, ByteLen, Permission)>> {
        let pages = (0..shape.iova().length().get()).step_by(4096);
        pages.map(|offset| table.translate(Iova::new(IOVA + offset))).collect()
    }

    fn check_ways<F: Format>() {
        for seed in 0..20 {
            let ((batch, shape), mut budgets) = (batch(seed), fastrand::Rng::with_seed(seed));
            let (permission, large_pages) = (Permission::ReadWrite, LargePages::On);
            let mut one_by_one = table::<F>();
            for (at, run) in batch.spans() {
                let (iova, phys) = (shape.start_of(at), run.pfn.phys());
                let length = ByteLen::new(u64::from(run.pages) * PAGE_SIZE);
                let run = MapRun { iova, phys, length, permission, large_pages };
                one_by_one.map(&run, &mut Budget::unlimited()).unwrap();
            }
            let mut written = table::<F>();
            let mut writer = BatchWriter::new(Arc::clone(&batch), shape, permission, large_pages);
            while writer.advance(&mut written, &mut Budget::new(budgets.u64(1..90))).unwrap()
                == Progress::Paused
            {
                written.check();
            }
            written.check();
            assert_eq!(leaves(&written, shape), leaves(&one_by_one, shape), "seed {seed}");
        }
    }

    #[test]
    fn a_batch_becomes_the_leaves_that_its_runs_become_one_by_one() {
        check_ways::<AmdV1<4>>();
        check_ways::<VtdSs<4>>();
        check_ways::<ArmS2>();
        check_ways::<RiscV<4>>();
    }

    #[test]
    fn a_batch_that_meets_something_mapped_leaves_no_trace() {
        for page in [1, 700, 1499] {
            let ((batch, shape), mut table) = (batch(page), table::<AmdV1<4>>());
            let taken = MapRun {
                iova: Iova::new(IOVA + page * PAGE_SIZE),
                phys: PhysAddr::new(0),
                length: ByteLen::new(PAGE_SIZE),
                permission: Permission::Read,
                large_pages: LargePages::On,
            };
            table.map(&taken, &mut Budget::unlimited()).unwrap();
            let before = (table.mapped(), table.table_bytes());
            let mut writer = BatchWriter::new(batch, shape, Permission::Write, LargePages::On);
            let error = writer.advance(&mut table, &mut Budget::unlimited()).unwrap_err();
            table.check();
            assert!(matches!(error, MapError::Overlap { at, .. } if at == taken.iova), "{error}");
            assert_eq!((table.mapped(), table.table_bytes()), before);
        }
    }
}
