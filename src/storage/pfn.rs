//! Runs and batches: how frame numbers travel between the tiers.
//!
//! A [`PfnBatch`] is a bounded list of runs of contiguous frames for consecutive pages of one pages object. It is the
//! only thing that carries frames from one tier to another. The bound is on runs, not on pages: a contiguous 64 GiB is
//! one run. No result depends on the bound; a smaller one only means more batches.
//!
//! Imports allowed: units, fault_points.

use ioasd_client::units::{IndexRange, PageIndex, Pfn};

use crate::fault_points::{self, Injected, Point};

/// Pages a run can have at most.
const RUN_PAGES_MAX: u64 = u32::MAX as u64;

/// Contiguous frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First frame.
    pub pfn: Pfn,
    /// Number of frames, at least 1.
    pub pages: u32,
}

/// How many runs a batch may hold: at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunLimit(u32);

impl RunLimit {
    /// What fits in 64 KiB at 12 bytes a run.
    pub const DEFAULT: Self = Self(5461);

    /// A limit of `runs`, raised to 1.
    #[must_use]
    pub const fn new(runs: u32) -> Self {
        Self(if runs == 0 { 1 } else { runs })
    }

    /// The limit in runs.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// Frames for consecutive pages, as a bounded list of runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PfnBatch {
    first: PageIndex,
    runs: Vec<Run>,
    pages: u64,
    limit: RunLimit,
}

impl PfnBatch {
    /// An empty batch whose first page will be `first`.
    ///
    /// # Errors
    /// If the fault point of batch allocations fires.
    pub fn new(first: PageIndex, limit: RunLimit) -> Result<Self, Injected> {
        fault_points::hit(Point::BatchAlloc)?;
        Ok(Self { first, runs: Vec::new(), pages: 0, limit })
    }

    /// Appends `pages` frames from `pfn` and tells how many of them fitted: extending the last run always fits, a new
    /// run only below the limit.
    #[must_use]
    pub fn push(&mut self, pfn: Pfn, pages: u64) -> u64 {
        let mut taken = self.extend_last_run(pfn, pages);
        while taken < pages && self.runs.len() < self.limit.get() {
            let part = (pages - taken).min(RUN_PAGES_MAX);
            let pages = u32::try_from(part).unwrap_or(u32::MAX);
            self.runs.push(Run { pfn: Pfn::new(pfn.get() + taken), pages });
            taken += part;
        }
        self.pages += taken;
        taken
    }

    fn extend_last_run(&mut self, pfn: Pfn, pages: u64) -> u64 {
        let Some(run) = self.runs.last_mut() else { return 0 };
        if run.pfn.get() + u64::from(run.pages) != pfn.get() {
            return 0;
        }
        let part = pages.min(RUN_PAGES_MAX - u64::from(run.pages));
        run.pages += u32::try_from(part).unwrap_or(0);
        part
    }

    /// The runs, in page order.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The runs with the pages they are the frames of.
    pub fn spans(&self) -> impl Iterator<Item = (PageIndex, Run)> + '_ {
        self.runs.iter().scan(self.first, |next, run| {
            let at = *next;
            *next = PageIndex::new(at.get() + u64::from(run.pages));
            Some((at, *run))
        })
    }

    /// The first page, also of an empty batch.
    #[must_use]
    pub const fn first(&self) -> PageIndex {
        self.first
    }

    /// The page behind the last one held.
    #[must_use]
    pub const fn end(&self) -> PageIndex {
        PageIndex::new(self.first.get() + self.pages)
    }

    /// Number of pages held.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// Whether no page is held.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pages == 0
    }

    /// Whether another run would not fit.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.runs.len() >= self.limit.get()
    }

    /// The pages held; `None` if empty.
    #[must_use]
    pub const fn range(&self) -> Option<IndexRange> {
        IndexRange::from_length(self.first, self.pages)
    }

    /// The bound of this batch.
    #[must_use]
    pub const fn limit(&self) -> RunLimit {
        self.limit
    }

    /// The frame of `index`, if held. Linear in runs; for tests and single pages.
    #[must_use]
    pub fn get(&self, index: PageIndex) -> Option<Pfn> {
        self.spans().find_map(|(at, run)| {
            let offset = index.get().checked_sub(at.get())?;
            (offset < u64::from(run.pages)).then(|| Pfn::new(run.pfn.get() + offset))
        })
    }

    /// Panics unless the batch keeps its rules. For tests.
    pub fn check(&self) {
        assert!(self.runs.len() <= self.limit.get(), "a batch holds more runs than its limit");
        assert!(self.runs.iter().all(|run| run.pages > 0), "a run without pages");
        let pages: u64 = self.runs.iter().map(|run| u64::from(run.pages)).sum();
        assert_eq!(pages, self.pages, "the page count of a batch drifted from its runs");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(limit: u32) -> PfnBatch {
        PfnBatch::new(PageIndex::new(10), RunLimit::new(limit)).unwrap()
    }

    #[test]
    fn contiguous_frames_extend_the_last_run_even_when_the_batch_is_full() {
        let mut batch = batch(1);
        assert_eq!(batch.push(Pfn::new(100), 2), 2);
        assert_eq!(batch.push(Pfn::new(102), 3), 3);
        assert_eq!(batch.push(Pfn::new(200), 1), 0);
        assert_eq!(batch.runs(), [Run { pfn: Pfn::new(100), pages: 5 }]);
        assert_eq!(batch.get(PageIndex::new(14)), Some(Pfn::new(104)));
        assert_eq!(batch.get(PageIndex::new(15)), None);
        batch.check();
    }

    #[test]
    fn a_run_never_passes_its_32_bit_length() {
        let mut batch = batch(2);
        let pages = u64::from(u32::MAX) + 7;
        assert_eq!(batch.push(Pfn::new(0), pages), pages);
        assert_eq!(batch.runs().len(), 2);
        assert_eq!(batch.end(), PageIndex::new(10 + pages));
        batch.check();
    }

    #[test]
    fn spans_name_the_page_of_each_run() {
        let mut batch = batch(3);
        assert_eq!(batch.push(Pfn::new(7), 2) + batch.push(Pfn::new(3), 1), 3);
        let at: Vec<_> = batch.spans().map(|(at, run)| (at.get(), run.pfn.get())).collect();
        assert_eq!(at, [(10, 7), (12, 3)]);
    }
}
