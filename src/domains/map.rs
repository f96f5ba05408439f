//! Mapping: a run of contiguous frames into a table, in the largest leaves that alignment allows.
//!
//! A run is cut into pieces: leaves of one size side by side in one table. Each leaf is the largest whose size divides
//! both addresses and fits into what is left; a piece ends where a larger size becomes possible, and where its table ends.
//! A piece that needs a new table is written with plain stores while nobody can see the table, which is then published
//! with one release store; in a table that is linked, entries are release stores.
//!
//! A table without leaves is never linked, so a table where a leaf must go means that something is mapped below it.
//!
//! Short runs in the same table, as scattered memory has them, take a shorter way.
//!
//! Imports allowed: arena, error, spec, table, storage's LargePages and runs, the client crate's formats.

use std::sync::atomic::{AtomicU64, Ordering};

use ioasd_client::formats::{ABSENT, Copies, Entry, Format, Level, PageSizes, TABLE_ENTRIES, TableAddr};
use ioasd_client::layout::protocol::publish;
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SHIFT, PAGE_SIZE, Permission, PhysAddr};

use super::error::{ArenaError, MapError};
use super::spec::Recording;
use super::table::{Budget, Recent, Table};
use crate::storage::io_pagetable::LargePages;
use crate::storage::pfn::Run;

/// Contiguous memory, and how it shall be mapped.
#[derive(Clone, Copy, Debug)]
pub struct MapRun {
    /// First address.
    pub iova: Iova,
    /// First output address.
    pub phys: PhysAddr,
    /// Bytes, more than 0.
    pub length: ByteLen,
    /// What devices may do.
    pub permission: Permission,
    /// Whether a leaf may be larger than a page.
    pub large_pages: LargePages,
}

/// What one table gets of a run: leaves of one size.
#[derive(Clone, Copy, Debug)]
struct Piece {
    iova: Iova,
    phys: PhysAddr,
    permission: Permission,
    size_lg2: u32,
    level: Level,
    /// 1 to 512.
    entries: u16,
}

/// Why a piece was not mapped.
enum Obstacle {
    MappedAt(Iova),
    NoTable(ArenaError),
}

impl From<ArenaError> for Obstacle {
    fn from(error: ArenaError) -> Self {
        Self::NoTable(error)
    }
}

impl<F: Format> Table<F> {
    /// See [`DomainTable::map`](super::table::DomainTable::map).
    #[inline]
    pub(super) fn map_run(&mut self, run: &MapRun, budget: &mut Budget) -> Result<ByteLen, MapError> {
        let range = self.admit_map(run)?;
        let sizes = match run.large_pages {
            LargePages::On => self.spec.page_sizes(),
            LargePages::Off => self.spec.page_sizes().up_to(PAGE_SIZE),
        };
        let mut done = 0;
        while done < run.length.get() && !budget.is_spent() {
            let piece = next_piece::<F>(run, done, sizes, budget);
            if let Err(obstacle) = self.map_piece(&piece) {
                self.undo(run.iova, done, piece.iova);
                return Err(refusal(range, obstacle));
            }
            budget.spend(u64::from(piece.entries));
            done += piece.bytes::<F>();
            self.mapped += piece.bytes::<F>();
        }
        Ok(ByteLen::new(done))
    }

    /// Maps short runs of pages, one behind the other, as long as they lie in the table mapped to last and no leaf can be
    /// larger than a page; tells how many runs, and how many pages. Stops before whatever is not as simple.
    #[inline]
    pub(super) fn map_short_runs(
        &mut self,
        runs: &[Run],
        range: IovaRange,
        permission: Permission,
        budget: &mut Budget,
    ) -> ShortRuns {
        let mut done = ShortRuns::default();
        let Some((table, sizes, mut free)) = self.table_of_pages(range, budget) else { return done };
        let (_, mut entries) = self.arena.words(table).split_at(F::index(range.start(), Level::LEAF));
        let larger =
            sizes.next_above(PAGE_SHIFT).map_or(0, |larger_lg2| (1_u64 << (larger_lg2 - PAGE_SHIFT)) - 1);
        let mut page = range.start().get() >> PAGE_SHIFT;
        for run in runs {
            let (pages, end) = (u64::from(run.pages), run.pfn.get() + u64::from(run.pages));
            let Some((now, later)) = entries.split_at_checked(run.pages as usize) else { break };
            let is_small =
                pages <= SHORT && (pages <= larger || larger == 0 || (page ^ run.pfn.get()) & larger != 0);
            let fits = pages <= free && end >> (F::OUTPUT_LG2 - PAGE_SHIFT) == 0;
            if !is_small || !fits || now.iter().any(|entry| entry.load(Ordering::Relaxed) != ABSENT) {
                break;
            }
            let mut bits = self.leaf(run.pfn.phys(), PAGE_SHIFT, permission);
            for entry in now {
                publish(entry, bits);
                bits = bits.wrapping_add(F::advance(PAGE_SIZE));
            }
            (entries, free, page) = (later, free - pages, page + pages);
            done = ShortRuns { runs: done.runs + 1, pages: done.pages + pages };
        }
        self.live.add(table, u16::try_from(done.pages).unwrap_or(0));
        self.mapped += done.pages << PAGE_SHIFT;
        budget.spend(done.pages);
        done
    }

    /// The table mapped to last, if it maps the start of the range and its entries are pages; the sizes of leaves; and how
    /// many pages of the range may be written.
    #[inline]
    fn table_of_pages(&self, range: IovaRange, budget: &Budget) -> Option<(TableAddr, PageSizes, u64)> {
        let start = range.start();
        let are_pages = F::GRANULE_LG2 == PAGE_SHIFT && self.spec.alignment() == PAGE_SIZE;
        let key = Recent::key::<F>(start, Level::LEAF);
        let recent =
            self.recent.filter(|recent| recent.key == key && are_pages && start.is_aligned(PAGE_SIZE))?;
        let allowed = range.intersection(self.spec.aperture()).filter(|allowed| allowed.start() == start)?;
        Some((
            recent.table,
            self.spec.page_sizes(),
            (allowed.length().get() >> PAGE_SHIFT).min(budget.left()),
        ))
    }

    #[inline]
    fn map_piece(&mut self, piece: &Piece) -> Result<(), Obstacle> {
        let key = Recent::key::<F>(piece.iova, piece.level);
        if let Some(recent) = self.recent.filter(|recent| recent.key == key) {
            return self.map_in_place(recent.table, piece);
        }
        let table = self.map_by_walk(piece)?;
        self.recent = Some(Recent { table, key });
        Ok(())
    }

    /// Maps a piece and returns its table.
    fn map_by_walk(&mut self, piece: &Piece) -> Result<TableAddr, Obstacle> {
        let (mut table, mut level) = (self.root, F::ROOT_LEVEL);
        while level > piece.level {
            let index = F::index(piece.iova, level);
            let found = F::decode(self.arena.entry(table, index).load(Ordering::Relaxed), level);
            let below = level.below().unwrap_or(Level::LEAF);
            table = match found {
                Entry::Table { address, .. } => address,
                Entry::Absent if below == piece.level => {
                    return self.map_in_new_table((table, level, index), piece);
                }
                Entry::Absent => {
                    let child = self.arena.allocate()?.into_address();
                    self.link((table, level, index), child);
                    child
                }
                _ => return Err(Obstacle::MappedAt(piece.iova)),
            };
            level = below;
        }
        self.map_in_place(table, piece).map(|()| table)
    }

    fn map_in_new_table(&mut self, parent: Parent, piece: &Piece) -> Result<TableAddr, Obstacle> {
        let first = self.leaf(piece.phys, piece.size_lg2, piece.permission);
        let mut table = self.arena.allocate()?;
        let words = self.arena.private_words(&mut table).iter_mut();
        let entries = words.skip(F::index(piece.iova, piece.level)).take(usize::from(piece.entries));
        fill::<F, _>(entries, piece, first, |entry, bits| *entry = bits);
        let table = table.into_address();
        self.live.add(table, piece.entries);
        self.link(parent, table);
        Ok(table)
    }

    #[inline]
    fn map_in_place(&mut self, table: TableAddr, piece: &Piece) -> Result<(), Obstacle> {
        let entries = self.entries_of(table, piece);
        if let Some(taken) = entries.iter().position(|entry| entry.load(Ordering::Relaxed) != ABSENT) {
            return Err(Obstacle::MappedAt(self.first_mapped(table, piece, taken)));
        }
        let first = self.leaf(piece.phys, piece.size_lg2, piece.permission);
        fill::<F, _>(entries.iter(), piece, first, publish);
        self.live.add(table, piece.entries);
        Ok(())
    }

    /// The first entry of a leaf, through which nothing was written yet if that is recorded.
    #[inline]
    fn leaf(&self, phys: PhysAddr, size_lg2: u32, permission: Permission) -> u64 {
        let leaf = F::leaf(phys, size_lg2, permission);
        match self.spec.recording() {
            Recording::Nothing => leaf,
            Recording::Writes => F::clean(leaf),
        }
    }

    /// The entries of a table that a piece is for.
    #[inline]
    fn entries_of(&self, table: TableAddr, piece: &Piece) -> &[AtomicU64] {
        let (_, rest) = self.arena.words(table).split_at(F::index(piece.iova, piece.level));
        let (entries, _) = rest.split_at(usize::from(piece.entries));
        entries
    }

    /// The first address mapped by the `taken`-th of the entries that a piece is for.
    #[cold]
    fn first_mapped(&self, table: TableAddr, piece: &Piece, taken: usize) -> Iova {
        let (mut table, mut level) = (table, piece.level);
        let mut index = F::index(piece.iova, level) + taken;
        let mut iova = piece.iova.get() + ((taken as u64) << F::item_lg2(level));
        while let (Entry::Table { address, .. }, Some(below)) =
            (F::decode(self.arena.entry(table, index).load(Ordering::Relaxed), level), level.below())
        {
            let used = |word: &AtomicU64| word.load(Ordering::Relaxed) != ABSENT;
            index = self.arena.words(address).iter().position(used).unwrap_or(0);
            iova += (index as u64) << F::item_lg2(below);
            (table, level) = (address, below);
        }
        Iova::new(iova)
    }

    /// Publishes `child`, whose entries are written.
    fn link(&mut self, (table, level, index): Parent, child: TableAddr) {
        publish(self.arena.entry(table, index), F::table(child, level));
        self.live.add(table, 1);
    }

    /// Removes the `done` bytes mapped from `iova`, and the tables made on the way to `failed`.
    #[cold]
    fn undo(&mut self, iova: Iova, done: u64, failed: Iova) {
        if let Some(range) = IovaRange::from_length(iova, ByteLen::new(done)) {
            let undone = self.unmap_range(range, &mut Budget::unlimited());
            debug_assert_eq!(undone, Ok(ByteLen::new(done)), "what this call mapped was not there");
        }
        self.prune(failed);
    }

    #[inline]
    fn admit_map(&self, run: &MapRun) -> Result<IovaRange, MapError> {
        let MapRun { iova, phys, length, .. } = *run;
        let (aperture, granule, width) = (self.spec.aperture(), self.spec.alignment(), F::OUTPUT_LG2);
        let range = IovaRange::from_length(iova, length);
        if length == ByteLen::new(0) || (iova.get() | phys.get() | length.get()) & (granule - 1) != 0 {
            return Err(MapError::Misaligned { iova, phys, length, granule: ByteLen::new(granule) });
        }
        let range = range.filter(|range| aperture.covers(*range)).ok_or(MapError::Aperture {
            iova,
            length,
            aperture,
        })?;
        let last = phys.checked_add(length.get() - 1);
        match last.filter(|last| last.get() >> width == 0) {
            Some(_) => Ok(range),
            None => Err(MapError::OutputWidth { phys, length, width }),
        }
    }
}

/// What was mapped of a list of runs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ShortRuns {
    /// Whole runs.
    pub(super) runs: usize,
    /// Their pages.
    pub(super) pages: u64,
}

/// Pages up to which a run is short: longer ones are as fast one by one.
const SHORT: u64 = 8;

/// An entry that points to a table: the table it is in, the level, the index.
type Parent = (TableAddr, Level, usize);

impl Piece {
    #[inline]
    fn bytes<F: Format>(&self) -> u64 {
        u64::from(self.entries) << F::item_lg2(self.level)
    }
}

/// The piece that begins `done` bytes into a run, all of whose addresses are multiples of the smallest size.
#[inline]
fn next_piece<F: Format>(run: &MapRun, done: u64, sizes: PageSizes, budget: &Budget) -> Piece {
    let (iova, phys, left) = (run.iova.get() + done, run.phys.get() + done, run.length.get() - done);
    let size_lg2 = sizes.largest_for(iova | phys, left).unwrap_or(F::GRANULE_LG2);
    let level = F::level_of(size_lg2);
    let item_lg2 = F::item_lg2(level);
    let bytes = left
        .min(to_next_size(iova, phys, sizes, size_lg2))
        .min(to_multiple(iova, F::item_lg2(level.above())));
    let entries_lg2 = size_lg2 - item_lg2;
    let leaves = (bytes >> size_lg2).min((budget.left() >> entries_lg2).max(1));
    let entries = u16::try_from(leaves << entries_lg2).unwrap_or(0);
    Piece {
        iova: Iova::new(iova),
        phys: PhysAddr::new(phys),
        permission: run.permission,
        size_lg2,
        level,
        entries,
    }
}

/// Bytes until a larger size divides both addresses; without end if none ever does.
#[inline]
fn to_next_size(iova: u64, phys: u64, sizes: PageSizes, size_lg2: u32) -> u64 {
    match sizes.next_above(size_lg2) {
        Some(larger_lg2) if (iova ^ phys) & ((1 << larger_lg2) - 1) == 0 => to_multiple(iova, larger_lg2),
        _ => u64::MAX,
    }
}

/// Bytes to the next multiple of 2^`lg2`, at least 1.
#[inline]
const fn to_multiple(iova: u64, lg2: u32) -> u64 {
    (1 << lg2) - (iova & ((1 << lg2) - 1))
}

fn refusal(range: IovaRange, obstacle: Obstacle) -> MapError {
    match obstacle {
        Obstacle::MappedAt(at) => MapError::Overlap { range, at },
        Obstacle::NoTable(source) => MapError::NoMemory { range, source },
    }
}

/// Writes the leaves of a piece, of which `first` is the first entry, into its entries.
#[inline]
fn fill<F: Format, E>(entries: impl Iterator<Item = E>, piece: &Piece, first: u64, put: impl Fn(E, u64)) {
    let mut bits = first;
    let item_lg2 = F::item_lg2(piece.level);
    if piece.size_lg2 == item_lg2 || F::COPIES == Copies::Advancing {
        for entry in entries {
            put(entry, bits);
            bits = bits.wrapping_add(F::advance(1 << item_lg2));
        }
    } else {
        let last_copy = (1_usize << (piece.size_lg2 - item_lg2)) - 1;
        for (copy, entry) in entries.enumerate() {
            put(entry, bits);
            if copy & last_copy == last_copy {
                bits = bits.wrapping_add(F::advance(1 << piece.size_lg2));
            }
        }
    }
}

/// How many entries from `iova` on lie in the same table of `level`, `most` at most.
pub(super) fn entries_in_table<F: Format>(iova: Iova, level: Level, most: u64) -> u16 {
    let to_end = (TABLE_ENTRIES - F::index(iova, level)) as u64;
    u16::try_from(to_end.min(most)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use ioasd_client::formats::{AmdV1, AmdV1Granule2K, ArmS2, RiscV, VtdSs};
    use ioasd_client::layout::BootId;

    use super::*;
    use crate::domains::arena::ArenaSize;
    use crate::domains::table::DomainTable;
    use crate::error::{Coded, Errno};

    type Amd = AmdV1<4>;

    fn table() -> Table<Amd> {
        Table::new(ArenaSize::new(ByteLen::new(1 << 22)), BootId([0; 16])).unwrap()
    }

    /// Maps leaves of at most a page.
    fn map(table: &mut Table<Amd>, iova: u64, phys: u64, length: u64, entries: u64) -> Result<u64, MapError> {
        map_leaves(table, LargePages::Off, (iova, phys, length), entries)
    }

    fn map_leaves<F: Format>(
        table: &mut Table<F>,
        large_pages: LargePages,
        (iova, phys, length): (u64, u64, u64),
        entries: u64,
    ) -> Result<u64, MapError> {
        let (iova, phys, length) = (Iova::new(iova), PhysAddr::new(phys), ByteLen::new(length));
        let permission = Permission::ReadWrite;
        let run = MapRun { iova, phys, length, permission, large_pages };
        let done = table.map(&run, &mut Budget::new(entries));
        table.check();
        done.map(ByteLen::get)
    }

    #[test]
    fn the_entries_written_are_those_of_the_worked_example() {
        let mut table = table();
        let iova = 0x1234_5678_9000;
        assert_eq!(map(&mut table, iova, 0xab_cdef_0000, 0x1000, 10), Ok(0x1000));
        let steps = table.walk(Iova::new(iova));
        let indexes: Vec<_> = steps.iter().map(|step| step.index).collect();
        assert_eq!(indexes, [0x24, 0xd1, 0xb3, 0x189]);
        assert_eq!(steps[3].entry, 0x7000_00ab_cdef_0001);
        for (step, next) in steps.iter().zip(&steps[1..]) {
            let next_level = u64::from(step.level.get()) << 9;
            assert_eq!(step.entry, 0x6000_0000_0000_0001 | next_level | next.table.get());
        }
    }

    #[test]
    fn a_run_over_several_leaf_tables_stops_at_the_budget_and_goes_on_from_there() {
        let mut table = table();
        let (iova, phys, length) = (0x1f_f000, 0x5000, 1030 * 0x1000);
        assert_eq!(map(&mut table, iova, phys, length, 514), Ok(514 * 0x1000));
        assert_eq!(table.mapped(), ByteLen::new(514 * 0x1000));
        let (iova, phys, length) = (iova + 514 * 0x1000, phys + 514 * 0x1000, 516 * 0x1000);
        assert_eq!(map(&mut table, iova, phys, length, 0), Ok(0));
        assert_eq!(map(&mut table, iova, phys, length, 600), Ok(length));
        for page in [0, 1, 513, 514, 1029] {
            let (found, _, _) = table.translate(Iova::new(0x1f_f000 + page * 0x1000 + 5)).unwrap();
            assert_eq!(found, PhysAddr::new(0x5005 + page * 0x1000));
        }
        assert_eq!(table.translate(Iova::new(0x1f_f000 + 1030 * 0x1000)), None);
        assert_eq!(table.translate(Iova::new(0x1f_efff)), None);
    }

    /// The sizes of the leaves that a run becomes, in order.
    fn sizes<F: Format>(run: (u64, u64, u64)) -> Vec<u32> {
        let mut table = Table::<F>::new(ArenaSize::new(ByteLen::new(1 << 22)), BootId([0; 16])).unwrap();
        assert_eq!(map_leaves(&mut table, LargePages::On, run, u64::MAX), Ok(run.2));
        let mut sizes = Vec::new();
        let mut at = run.0;
        while at < run.0 + run.2 {
            let (phys, left, _) = table.translate(Iova::new(at)).unwrap();
            assert_eq!(phys.get() - run.1, at - run.0);
            sizes.push(left.get().ilog2());
            at += left.get();
        }
        sizes
    }

    #[test]
    fn each_leaf_is_the_largest_that_alignment_and_length_allow() {
        let run = (0x3f_f000, 0x803f_f000, 0x40_2000);
        assert_eq!(sizes::<VtdSs<4>>(run), [12, 21, 21, 12]);
        assert_eq!(sizes::<Amd>(run), [12, 22, 12]);
        assert_eq!(sizes::<ArmS2>((0xf000, 0x1f000, 0x2_3000)), [12, 16, 16, 12, 12]);
        assert_eq!(
            sizes::<RiscV<4>>((0x1_0000, 0x4_0000, 0x1_8000)),
            [16].into_iter().chain([12; 8]).collect::<Vec<_>>()
        );
        assert_eq!(sizes::<AmdV1Granule2K>((0x800, 0x1800, 0x3800)), [11, 12, 12, 12]);
        assert_eq!(
            sizes::<Amd>((0x2000, 0x1000, 0x6000)),
            [12; 6],
            "addresses that differ in their lowest bit"
        );
        assert_eq!(sizes::<Amd>((0x2000, 0x4000, 0x8000)), [13, 13, 13, 13], "and in the next");
        assert_eq!(sizes::<VtdSs<4>>((0, 0, 0x4000_0000)), [30]);
    }

    #[test]
    fn a_leaf_is_written_whole_although_the_budget_ends_inside() {
        let mut table = table();
        let run = (0x10_0000, 0x10_0000, 0x18_0000);
        assert_eq!(map_leaves(&mut table, LargePages::On, run, 10), Ok(0x10_0000));
        assert_eq!(table.mapped(), ByteLen::new(0x10_0000));
    }

    #[test]
    fn a_leaf_goes_neither_onto_a_table_nor_under_another_leaf() {
        let mut table = table();
        assert_eq!(map(&mut table, 0x4010_5000, 0, 0x1000, 9), Ok(0x1000));
        let error = map_leaves(&mut table, LargePages::On, (0, 0, 0x8000_0000), u64::MAX).unwrap_err();
        assert!(matches!(error, MapError::Overlap { at, .. } if at == Iova::new(0x4010_5000)), "{error}");
        assert_eq!(map_leaves(&mut table, LargePages::On, (0, 0, 0x4000_0000), u64::MAX), Ok(0x4000_0000));
        let error = map(&mut table, 0x3fff_f000, 0, 0x1000, 1).unwrap_err();
        assert!(matches!(error, MapError::Overlap { at, .. } if at == Iova::new(0x3fff_f000)), "{error}");
        assert_eq!(table.mapped(), ByteLen::new(0x4000_1000));
    }

    #[test]
    fn a_run_that_meets_something_mapped_leaves_no_trace() {
        let mut table = table();
        assert_eq!(map(&mut table, 0x80_5000, 0, 0x1000, 9), Ok(0x1000));
        let (mapped, bytes) = (table.mapped(), table.table_bytes());
        let error = map(&mut table, 0x3f_f000, 0x10_0000, 0x50_0000, 5000).unwrap_err();
        assert!(matches!(error, MapError::Overlap { at, .. } if at == Iova::new(0x80_5000)), "{error}");
        assert_eq!((error.errno(), table.mapped(), table.table_bytes()), (Errno::ADDRINUSE, mapped, bytes));
        assert_eq!(table.translate(Iova::new(0x3f_f000)), None);
    }

    #[test]
    fn an_arena_that_is_full_refuses_and_leaves_no_trace() {
        let mut table = Table::<Amd>::new(ArenaSize::new(ByteLen::new(0)), BootId([0; 16])).unwrap();
        let bytes = table.table_bytes();
        let error = map(&mut table, 0, 0, 1 << 30, u64::MAX).unwrap_err();
        assert_eq!((error.errno(), error.code()), (Errno::NOMEM, "table-arena-full"));
        assert_eq!((table.mapped(), table.table_bytes()), (ByteLen::new(0), bytes));
        assert_eq!(map(&mut table, 0, 0, 0x1000, 1), Ok(0x1000));
    }

    #[test]
    fn what_does_not_fit_the_format_is_refused_with_its_errno() {
        let mut table = table();
        let mut errno = |iova, phys, length| map(&mut table, iova, phys, length, 9).unwrap_err().errno();
        assert_eq!(errno(0x800, 0, 0x1000), Errno::NXIO);
        assert_eq!(errno(0, 0x800, 0x1000), Errno::NXIO);
        assert_eq!(errno(0, 0, 0x1800), Errno::NXIO);
        assert_eq!(errno(0, 0, 0), Errno::NXIO);
        assert_eq!(errno((1 << 48) - 0x1000, 0, 0x2000), Errno::RANGE);
        assert_eq!(errno(0xffff_ffff_ffff_f000, 0, 0x2000), Errno::RANGE);
        assert_eq!(errno(0, (1 << 52) - 0x1000, 0x2000), Errno::RANGE);
        assert_eq!(errno(0, 0xffff_ffff_ffff_f000, 0x2000), Errno::RANGE);
        assert_eq!(map(&mut table, (1 << 48) - 0x1000, (1 << 52) - 0x1000, 0x1000, 1), Ok(0x1000));
    }
}
