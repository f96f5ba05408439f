//! The table of one domain, and the trait its writer knows it by.
//!
//! A [`Table`] is generic over the format; [`DomainTable`] hides the format behind one virtual call per batch and turn.
//! How often each table page is used is counted in private memory: the shared bytes are what walkers see, never what
//! decides whether a page is free.
//!
//! Publishing: a new table is filled while nobody can see it and linked with one release store; entries of a linked
//! table are changed with release stores. There is one writer, so nothing is exchanged or compared. A table in which
//! nothing is left is unlinked at once.
//!
//! Imports allowed: arena, dirty, epoch, error, spec, storage's area and pfn, the client crate's formats and layouts.

use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ioasd_client::formats::{Entry, Format, FormatVisitor, Level, Rights, TableAddr};
use ioasd_client::layout::{ArenaHeader, BootId, LogShape, protocol};
use ioasd_client::units::{ByteLen, IndexRange, Iova, IovaRange, Permission, PhysAddr};

use super::arena::{Arena, ArenaSize};
use super::batch::{BatchWriter, Progress};
use super::dirty::{Cleaning, Marked};
use super::epoch::{Epochs, LeftBehind};
use super::error::{ArenaError, MapError, ReadBackError, UnmapError};
use super::map::MapRun;
use super::spec::TableSpec;
use super::written::Written;
use crate::storage::area::AreaShape;
use crate::storage::ledger::node::Allowance;
use crate::storage::ledger::resource::Resource;
use crate::storage::pfn::PfnBatch;
use crate::sys::failure::SysError;

/// How many entries may still be written before others get their turn.
#[derive(Debug)]
pub struct Budget(u64);

impl Budget {
    /// `entries` entries.
    #[must_use]
    pub const fn new(entries: u64) -> Self {
        Self(entries)
    }

    /// As many as it takes.
    #[must_use]
    pub const fn unlimited() -> Self {
        Self(u64::MAX)
    }

    /// Entries left.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.0
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_spent(&self) -> bool {
        self.0 == 0
    }

    /// Spends up to `entries`.
    pub const fn spend(&mut self, entries: u64) {
        self.0 = self.0.saturating_sub(entries);
    }
}

/// One level of a walk, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkStep {
    /// The level, 0 at the leaf.
    pub level: Level,
    /// The table.
    pub table: TableAddr,
    /// The index in the table.
    pub index: usize,
    /// The bits found.
    pub entry: u64,
    /// What they say.
    pub decoded: Entry,
}

/// What the writer of a domain's table can do, whatever the format.
pub trait DomainTable: Send {
    /// Format, aperture and page sizes.
    fn spec(&self) -> TableSpec;

    /// Maps from the start of the range as many leaves as the budget allows; returns the bytes done.
    ///
    /// # Errors
    /// If the range cannot be mapped; nothing of this call stays mapped then. If `epochs().has_walkers()`, they may
    /// have seen some of it: begin a new epoch and wait before the frames are let go.
    fn map(&mut self, run: &MapRun, budget: &mut Budget) -> Result<ByteLen, MapError>;

    /// Writes a batch on as far as the budget goes.
    ///
    /// # Errors
    /// If the table refuses a run; nothing of the batch is left in it then. For walkers holds what holds for
    /// [`DomainTable::map`].
    fn write_batch(&mut self, writer: &mut BatchWriter, budget: &mut Budget) -> Result<Progress, MapError>;

    /// Clears from the start of the range as many leaves as the budget allows; returns the bytes done, which are more than
    /// the range has if it ends inside a leaf: leaves are never split. Needs no memory and does not fail for what is
    /// mapped. Walkers may still be inside: begin a new epoch and wait.
    ///
    /// # Errors
    /// If something in the range was not mapped; the rest is cleared nevertheless. If the range begins inside a leaf;
    /// nothing is cleared then.
    fn unmap(&mut self, range: IovaRange, budget: &mut Budget) -> Result<ByteLen, UnmapError>;

    /// Appends the frames of `pages`, shown by an area of this shape, until the batch is full or the range ends.
    ///
    /// # Errors
    /// If a page is not mapped; what came before it is in the batch.
    fn read_back(
        &self,
        shape: &AreaShape,
        pages: IndexRange,
        batch: &mut PfnBatch,
    ) -> Result<(), ReadBackError>;

    /// Goes from the start of the range through as many leaves as the budget allows and reports what was written to: of a
    /// leaf that is marked all that lies in the range, and else the pages that walkers have logged. Tells where to go on.
    /// What is reported is clean, if asked for, but for marked leaves that end behind the range; walkers may still write to
    /// it: begin a new epoch and wait.
    ///
    /// # Errors
    /// If a log cannot be read. What was reported before is clean nevertheless: see [`DomainTable::put_back`].
    fn sweep_dirty(
        &mut self,
        range: IovaRange,
        cleaning: Cleaning,
        budget: &mut Budget,
        report: &mut dyn FnMut(IovaRange),
    ) -> Result<Option<Iova>, SysError>;

    /// Has pages reported by the next sweep, whatever else is known of them.
    fn put_back(&mut self, written: &Written);

    /// Takes what is mapped in the range out of the logs of walkers that are gone, as far as the budget goes, so that the
    /// logs need not be kept. Tells where to go on.
    ///
    /// # Errors
    /// If a log cannot be read.
    fn take_over(
        &mut self,
        logs: &LeftBehind,
        range: IovaRange,
        budget: &mut Budget,
    ) -> Result<Option<Iova>, SysError>;

    /// Marks the leaf at `iova` as hardware does that writes through it; whether there is one.
    fn mark_dirty(&mut self, iova: Iova) -> Marked;

    /// Where `iova` leads, how many bytes of the same leaf follow, and what is allowed. For people and tests.
    fn translate(&self, iova: Iova) -> Option<(PhysAddr, ByteLen, Permission)>;

    /// The entries on the way to `iova`, from the root. For people.
    fn walk(&self, iova: Iova) -> Vec<WalkStep>;

    /// Bytes mapped.
    fn mapped(&self) -> ByteLen;

    /// Bytes of tables that are linked, or that a walker may still look at.
    fn table_bytes(&self) -> ByteLen;

    /// Panics unless the bytes of the tables agree with what is counted. For tests.
    fn check(&self);

    /// Who is walking, to be shared with whoever waits for them.
    fn epochs(&self) -> Arc<Epochs>;

    /// Another descriptor of the arena, for a walker.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn export(&self) -> Result<OwnedFd, SysError>;
}

/// Makes an empty table whose pages count towards `budget`.
///
/// # Errors
/// If the kernel refuses the memory, or the budget is used up.
pub fn create(
    spec: TableSpec,
    budget: Allowance,
    size: ArenaSize,
    boot: BootId,
) -> Result<Box<dyn DomainTable>, ArenaError> {
    spec.format().visit(Create { spec, budget, size, boot })
}

struct Create {
    spec: TableSpec,
    budget: Allowance,
    size: ArenaSize,
    boot: BootId,
}

impl FormatVisitor for Create {
    type Output = Result<Box<dyn DomainTable>, ArenaError>;

    fn visit<F: Format>(self) -> Self::Output {
        let Self { spec, budget, size, boot } = self;
        Ok(Box::new(Table::<F>::within(spec, budget, size, boot)?))
    }
}

/// A table of format `F` in an arena of its own.
#[derive(Debug)]
pub struct Table<F> {
    pub(super) spec: TableSpec,
    pub(super) arena: Arena,
    pub(super) root: TableAddr,
    pub(super) live: LiveCounts,
    pub(super) mapped: u64,
    /// The table mapped to last, so that short runs side by side need no walk.
    pub(super) recent: Option<Recent>,
    /// What was written to and was not told, beside what entries and the logs of walkers say.
    pub(super) written: Written,
    format: PhantomData<F>,
}

impl<F: Format> Table<F> {
    /// An empty table that can do all that its format can, without a budget.
    ///
    /// # Errors
    /// If the kernel refuses the memory.
    pub fn new(size: ArenaSize, boot: BootId) -> Result<Self, ArenaError> {
        Self::within(TableSpec::of(F::ID), Allowance::unlimited(Resource::Tables), size, boot)
    }

    /// An empty table whose pages count towards `budget`.
    ///
    /// # Errors
    /// If the kernel refuses the memory, or the budget is used up.
    fn within(spec: TableSpec, budget: Allowance, size: ArenaSize, boot: BootId) -> Result<Self, ArenaError> {
        const { assert!(F::LEVELS >= 2, "leaf tables need a parent") };
        debug_assert_eq!(spec.format(), F::ID, "a table of another format");
        let mut arena = Arena::new(size, budget)?;
        let root = arena.allocate()?.into_address();
        arena.write_header(&ArenaHeader { geometry: spec.geometry(), root, length: size.bytes(), boot });
        let (live, written) = (LiveCounts::default(), Written::nothing(LogShape::of(spec.geometry())));
        Ok(Self { spec, arena, root, live, mapped: 0, recent: None, written, format: PhantomData })
    }

    /// The lowest entry on the way to `iova`.
    #[inline]
    pub(super) fn descend(&self, iova: Iova) -> Found {
        let (mut table, mut level, mut rights) = (self.root, F::ROOT_LEVEL, Rights::ALL);
        loop {
            let index = F::index(iova, level);
            let decoded = F::decode(self.arena.entry(table, index).load(Ordering::Relaxed), level);
            match (decoded, level.below()) {
                (Entry::Table { address, rights: granted }, Some(below)) => {
                    (table, level, rights) = (address, below, rights.intersection(granted));
                }
                _ => {
                    return Found { table, level, index, decoded, rights };
                }
            }
        }
    }

    /// Unlinks the tables on the way to `iova` in which nothing is left, except the root.
    pub(super) fn prune(&mut self, iova: Iova) {
        self.prune_below(self.root, F::ROOT_LEVEL, iova);
    }

    fn prune_below(&mut self, table: TableAddr, level: Level, iova: Iova) {
        let index = F::index(iova, level);
        let decoded = F::decode(self.arena.entry(table, index).load(Ordering::Relaxed), level);
        let (Entry::Table { address, .. }, Some(below)) = (decoded, level.below()) else {
            return;
        };
        self.prune_below(address, below, iova);
        if self.live.of(address) == 0 {
            protocol::clear(self.arena.entry(table, index));
            self.live.remove(table, 1);
            self.recent = self.recent.filter(|recent| recent.table != address);
            self.arena.retire(address);
        }
    }
}

/// A table that was mapped to, and what leads there again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recent {
    pub(super) table: TableAddr,
    pub(super) key: RecentKey,
}

/// A level, and what all IOVAs that a table of it translates have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecentKey {
    level: Level,
    region: u64,
}

impl Recent {
    /// What leads to the table of `level` on the way to `iova`.
    #[inline]
    pub(super) fn key<F: Format>(iova: Iova, level: Level) -> RecentKey {
        RecentKey { level, region: iova.get() >> F::item_lg2(level.above()) }
    }
}

/// Where a walk ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// The table of the lowest entry.
    pub(super) table: TableAddr,
    /// Its level.
    pub(super) level: Level,
    /// The index of the entry.
    pub(super) index: usize,
    /// What the entry says; never a table.
    pub(super) decoded: Entry,
    /// What all entries above it grant.
    pub(super) rights: Rights,
}

/// How many entries of each table are in use: those of leaves, and those that point to tables.
#[derive(Debug, Default)]
pub(super) struct LiveCounts {
    by_page: Vec<u16>,
}

impl LiveCounts {
    /// Entries in use in `table`.
    pub(super) fn of(&self, table: TableAddr) -> u16 {
        self.by_page.get(page_of(table)).copied().unwrap_or(0)
    }

    /// `entries` more are in use.
    pub(super) fn add(&mut self, table: TableAddr, entries: u16) {
        let page = page_of(table);
        if page >= self.by_page.len() {
            self.by_page.resize(page + 1, 0);
        }
        if let Some(count) = self.by_page.get_mut(page) {
            *count += entries;
        }
    }

    /// `entries` fewer are in use.
    pub(super) fn remove(&mut self, table: TableAddr, entries: u16) {
        if let Some(count) = self.by_page.get_mut(page_of(table)) {
            *count -= entries;
        }
    }
}

fn page_of(table: TableAddr) -> usize {
    usize::try_from(table.page()).unwrap_or(usize::MAX)
}

impl<F: Format> DomainTable for Table<F> {
    fn spec(&self) -> TableSpec {
        self.spec
    }

    fn map(&mut self, run: &MapRun, budget: &mut Budget) -> Result<ByteLen, MapError> {
        self.map_clean(run, budget)
    }

    fn write_batch(&mut self, writer: &mut BatchWriter, budget: &mut Budget) -> Result<Progress, MapError> {
        writer.write_into(self, budget)
    }

    fn unmap(&mut self, range: IovaRange, budget: &mut Budget) -> Result<ByteLen, UnmapError> {
        self.unmap_range(range, budget)
    }

    fn read_back(
        &self,
        shape: &AreaShape,
        pages: IndexRange,
        batch: &mut PfnBatch,
    ) -> Result<(), ReadBackError> {
        self.read_frames(shape, pages, batch)
    }

    fn sweep_dirty(
        &mut self,
        range: IovaRange,
        cleaning: Cleaning,
        budget: &mut Budget,
        report: &mut dyn FnMut(IovaRange),
    ) -> Result<Option<Iova>, SysError> {
        self.sweep(range, cleaning, budget, report)
    }

    fn put_back(&mut self, written: &Written) {
        self.written.add_all(written);
    }

    fn take_over(
        &mut self,
        logs: &LeftBehind,
        range: IovaRange,
        budget: &mut Budget,
    ) -> Result<Option<Iova>, SysError> {
        self.gather(logs, range, budget)
    }

    fn mark_dirty(&mut self, iova: Iova) -> Marked {
        self.mark(iova)
    }

    fn translate(&self, iova: Iova) -> Option<(PhysAddr, ByteLen, Permission)> {
        self.leaf_at(iova)
    }

    fn walk(&self, iova: Iova) -> Vec<WalkStep> {
        self.steps_to(iova)
    }

    fn mapped(&self) -> ByteLen {
        ByteLen::new(self.mapped)
    }

    fn table_bytes(&self) -> ByteLen {
        self.arena.in_use()
    }

    fn check(&self) {
        self.check_all();
    }

    fn epochs(&self) -> Arc<Epochs> {
        Arc::clone(self.arena.epochs())
    }

    fn export(&self) -> Result<OwnedFd, SysError> {
        self.arena.export()
    }
}
