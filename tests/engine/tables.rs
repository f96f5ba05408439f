//! Tier 2 in memory: an IO page table that is as stubborn as real ones are allowed to be.
//!
//! Every run that one map call hands over becomes one entry, however long (with large pages off: a page); an entry is
//! never split. What was unmapped
//! lingers, as if a walker were still inside, until a grace period that began later has passed.

use std::collections::BTreeMap;

use ioasd::error::Errno;
use ioasd::fault_points::{self, Point};
use ioasd::storage::area::AreaShape;
use ioasd::storage::io_pagetable::LargePages;
use ioasd::storage::pfn::{PfnBatch, Run};
use ioasd::storage::refusal::Refusal;
use ioasd_client::units::{IndexRange, Iova, IovaRange, PAGE_SIZE, PageIndex, Permission, Pfn, PhysAddr};

/// One mapping.
#[derive(Clone, Debug)]
struct Entry {
    iova: IovaRange,
    phys: PhysAddr,
    permission: Permission,
    pages: u64,
    indexes: IndexRange,
}

/// Something unmapped that a walker may still use.
#[derive(Debug)]
struct Lingering {
    pages: u64,
    indexes: IndexRange,
    since: u64,
}

/// One table.
#[derive(Debug)]
pub struct Table {
    granule: u64,
    capacity: u64,
    mapped: u64,
    entries: BTreeMap<u64, Entry>,
    lingering: Vec<Lingering>,
}

impl Table {
    /// An empty table of entries of `granule` bytes and multiples, that takes `capacity` bytes.
    pub fn new(granule: u64, capacity: u64) -> Self {
        Self { granule, capacity, mapped: 0, entries: BTreeMap::new(), lingering: Vec::new() }
    }

    /// Writes all of a batch or nothing of it.
    pub fn map(
        &mut self,
        pages: u64,
        (shape, permission, large_pages): (AreaShape, Permission, LargePages),
        batch: &PfnBatch,
    ) -> Result<(), Refusal> {
        fault_points::hit(Point::TableAlloc).map_err(|error| Refusal::of(&error))?;
        batch.check();
        let entries: Vec<Entry> = runs(batch, large_pages)
            .into_iter()
            .map(|(at, run)| entry(pages, shape, permission, at, run))
            .collect();
        entries.iter().try_for_each(|entry| self.admit(entry))?;
        let bytes: u64 = entries.iter().map(|entry| entry.iova.length().get()).sum();
        if self.mapped + bytes > self.capacity {
            return Err(Refusal::new(Errno::NOMEM, "table-full", "the table takes no more"));
        }
        self.mapped += bytes;
        self.entries.extend(entries.into_iter().map(|entry| (entry.iova.start().get(), entry)));
        Ok(())
    }

    fn admit(&self, entry: &Entry) -> Result<(), Refusal> {
        let granule = self.granule;
        let aligned = entry.iova.start().is_aligned(granule) && entry.iova.length().is_aligned(granule);
        if !aligned || !entry.phys.get().is_multiple_of(granule) {
            return Err(Refusal::new(Errno::NXIO, "misaligned", format!("no page size fits {entry:?}")));
        }
        match self.entries.range(..=entry.iova.last().get()).next_back() {
            Some((_, other)) if other.iova.last() >= entry.iova.start() => {
                Err(Refusal::new(Errno::ADDRINUSE, "mapped", format!("{entry:?} lies on {other:?}")))
            }
            _ => Ok(()),
        }
    }

    /// Clears `iova`, which must be made of whole entries.
    pub fn unmap(&mut self, iova: IovaRange, now: u64) {
        let mut next = iova.start();
        loop {
            let entry = self.entries.remove(&next.get());
            let entry = entry.unwrap_or_else(|| panic!("unmapping {iova}: no entry begins at {next}"));
            let length = entry.iova.length().get();
            assert!(entry.iova.last() <= iova.last(), "unmapping {iova} splits {entry:?}");
            self.mapped -= length;
            self.lingering.push(Lingering { pages: entry.pages, indexes: entry.indexes, since: now });
            if entry.iova.last() == iova.last() {
                return;
            }
            next = Iova::new(next.get() + length);
        }
    }

    /// Where the byte at `iova` is, and what may be done with it.
    pub fn translate(&self, iova: Iova) -> Option<(PhysAddr, Permission)> {
        let (_, entry) = self.entries.range(..=iova.get()).next_back()?;
        let phys = PhysAddr::new(entry.phys.get() + (iova.get() - entry.iova.start().get()));
        entry.iova.contains(iova).then_some((phys, entry.permission))
    }

    /// Reads frames back, page by page.
    pub fn read(&self, shape: AreaShape, range: IndexRange, batch: &mut PfnBatch) {
        assert_eq!(batch.end(), range.first(), "a read does not continue its batch");
        for at in range.first().get()..=range.last().get() {
            let index = PageIndex::new(at);
            let (phys, _) = self
                .translate(shape.start_of(index))
                .unwrap_or_else(|| panic!("page {index} of {shape:?} is read back but not mapped"));
            let into_page = if index == shape.indexes().first() { shape.page_offset().get() } else { 0 };
            assert_eq!(
                phys.get() % PAGE_SIZE,
                into_page,
                "page {index} of {shape:?} is mapped from a wrong offset"
            );
            if batch.push(Pfn::containing(phys), 1) == 0 {
                return;
            }
        }
    }

    /// Whether an entry shows a page of `range`.
    pub fn shows(&self, pages: u64, range: IndexRange) -> bool {
        self.entries.values().any(|entry| entry.pages == pages && entry.indexes.intersection(range).is_some())
    }

    /// Whether a walker may still be in a page of `range`.
    pub fn lingers(&self, pages: u64, range: IndexRange) -> bool {
        self.lingering.iter().any(|old| old.pages == pages && old.indexes.intersection(range).is_some())
    }

    /// Every walker has left what was unmapped up to `until`.
    pub fn leave(&mut self, until: u64) {
        self.lingering.retain(|old| old.since > until);
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.mapped == 0
    }
}

/// What the map calls hand over: whole runs, or pages.
fn runs(batch: &PfnBatch, large_pages: LargePages) -> Vec<(PageIndex, Run)> {
    let page = |(at, run): (PageIndex, Run), up: u32| {
        let page = Run { pfn: Pfn::new(run.pfn.get() + u64::from(up)), pages: 1 };
        (PageIndex::new(at.get() + u64::from(up)), page)
    };
    match large_pages {
        LargePages::On => batch.spans().collect(),
        LargePages::Off => {
            batch.spans().flat_map(|span| (0..span.1.pages).map(move |up| page(span, up))).collect()
        }
    }
}

/// The entry that shows a run through an area.
fn entry(pages: u64, shape: AreaShape, permission: Permission, at: PageIndex, run: Run) -> Entry {
    let indexes = IndexRange::from_length(at, u64::from(run.pages)).unwrap();
    let iova = shape.iova_of(indexes).expect("a batch holds pages that its area does not show");
    let into_page = if at == shape.indexes().first() { shape.page_offset().get() } else { 0 };
    let phys = PhysAddr::new(run.pfn.phys().get() + into_page);
    Entry { iova, phys, permission, pages, indexes }
}
