//! Mapping: a run of contiguous frames into a table, one leaf table at a time.
//!
//! Imports allowed: arena, error, table, the client crate's formats.

use std::sync::atomic::{AtomicU64, Ordering};

use ioasd_client::formats::{ABSENT, Entry, Format, Level, TABLE_ENTRIES, TableAddr};
use ioasd_client::units::{ByteLen, Iova, IovaRange, Permission, PhysAddr};

use super::error::{ArenaError, MapError};
use super::table::{Budget, RecentLeaf, Table};

/// What one leaf table gets of a run: 1 to 512 entries.
#[derive(Clone, Copy, Debug)]
struct Piece {
    iova: Iova,
    phys: PhysAddr,
    entries: u16,
    permission: Permission,
}

/// Why a piece was not mapped.
#[derive(Clone, Copy)]
enum Obstacle {
    MappedAt(Iova),
    NoTable(ArenaError),
}

impl From<ArenaError> for Obstacle {
    fn from(error: ArenaError) -> Self {
        Self::NoTable(error)
    }
}

/// The level of the entries that point to leaf tables.
const ABOVE_LEAF: Level = Level::new(1);

impl<F: Format> Table<F> {
    /// See [`DomainTable::map`](super::table::DomainTable::map).
    pub(super) fn map_run(
        &mut self,
        iova: Iova,
        phys: PhysAddr,
        length: ByteLen,
        permission: Permission,
        budget: &mut Budget,
    ) -> Result<ByteLen, MapError> {
        let range = self.admit_map(iova, phys, length)?;
        let mut done = 0;
        while done < length.get() && !budget.is_spent() {
            let left = (length.get() - done) >> F::GRANULE_LG2;
            let at = Iova::new(iova.get() + done);
            let entries = entries_in_leaf::<F>(at, left.min(budget.left()));
            let piece = Piece { iova: at, phys: PhysAddr::new(phys.get() + done), entries, permission };
            if let Err(obstacle) = self.map_piece(&piece) {
                self.undo(iova, done, at);
                return Err(refusal(range, obstacle));
            }
            budget.spend(u64::from(entries));
            done += u64::from(entries) << F::GRANULE_LG2;
            self.mapped += u64::from(entries) << F::GRANULE_LG2;
        }
        Ok(ByteLen::new(done))
    }

    fn map_piece(&mut self, piece: &Piece) -> Result<(), Obstacle> {
        let region = piece.iova.get() >> F::item_lg2(ABOVE_LEAF);
        if let Some(recent) = self.recent.filter(|recent| recent.region == region) {
            return self.map_in_place(recent.leaf, piece);
        }
        let leaf = self.map_by_walk(piece)?;
        self.recent = Some(RecentLeaf { leaf, region });
        Ok(())
    }

    /// Maps a piece and returns its leaf table.
    fn map_by_walk(&mut self, piece: &Piece) -> Result<TableAddr, Obstacle> {
        let parent = self.reach_parent(piece.iova)?;
        let link = self.arena.entry(parent, F::index(piece.iova, ABOVE_LEAF)).load(Ordering::Relaxed);
        match F::decode(link, ABOVE_LEAF) {
            Entry::Absent => self.map_in_new_leaf(parent, piece),
            Entry::Table { address, .. } => self.map_in_place(address, piece).map(|()| address),
            _ => Err(Obstacle::MappedAt(piece.iova)),
        }
    }

    /// The table whose entries point to leaf tables, made if there is none.
    fn reach_parent(&mut self, iova: Iova) -> Result<TableAddr, Obstacle> {
        let (mut table, mut level) = (self.root, F::ROOT_LEVEL);
        while level > ABOVE_LEAF {
            table = self.reach_child(table, level, iova)?;
            level = level.below().unwrap_or(ABOVE_LEAF);
        }
        Ok(table)
    }

    fn reach_child(&mut self, table: TableAddr, level: Level, iova: Iova) -> Result<TableAddr, Obstacle> {
        let index = F::index(iova, level);
        match F::decode(self.arena.entry(table, index).load(Ordering::Relaxed), level) {
            Entry::Table { address, .. } => Ok(address),
            Entry::Absent => {
                let child = self.arena.allocate()?;
                self.link(table, level, index, child);
                Ok(child)
            }
            _ => Err(Obstacle::MappedAt(iova)),
        }
    }

    fn map_in_new_leaf(&mut self, parent: TableAddr, piece: &Piece) -> Result<TableAddr, Obstacle> {
        let leaf = self.arena.allocate()?;
        fill::<F>(self.entries_of(leaf, piece), piece, Ordering::Relaxed);
        self.live.add(leaf, piece.entries);
        self.link(parent, ABOVE_LEAF, F::index(piece.iova, ABOVE_LEAF), leaf);
        Ok(leaf)
    }

    fn map_in_place(&mut self, leaf: TableAddr, piece: &Piece) -> Result<(), Obstacle> {
        let body = self.entries_of(leaf, piece);
        if let Some(taken) = body.iter().position(|entry| entry.load(Ordering::Relaxed) != ABSENT) {
            let offset = (taken as u64) << F::GRANULE_LG2;
            return Err(Obstacle::MappedAt(Iova::new(piece.iova.get() + offset)));
        }
        fill::<F>(body, piece, Ordering::Release);
        self.live.add(leaf, piece.entries);
        Ok(())
    }

    /// The entries of a leaf table that a piece is for.
    fn entries_of(&self, leaf: TableAddr, piece: &Piece) -> &[AtomicU64] {
        let (_, rest) = self.arena.words(leaf).split_at(F::index(piece.iova, Level::LEAF));
        let (entries, _) = rest.split_at(usize::from(piece.entries));
        entries
    }

    /// Publishes `child`, whose entries are written.
    fn link(&mut self, table: TableAddr, level: Level, index: usize, child: TableAddr) {
        self.arena.entry(table, index).store(F::table(child, level), Ordering::Release);
        self.live.add(table, 1);
    }

    /// Removes the `done` bytes mapped from `iova`, and the tables made on the way to `failed`.
    fn undo(&mut self, iova: Iova, done: u64, failed: Iova) {
        if let Some(range) = IovaRange::from_length(iova, ByteLen::new(done)) {
            let undone = self.unmap_range(range, &mut Budget::unlimited());
            debug_assert_eq!(undone, Ok(ByteLen::new(done)), "what this call mapped was not there");
        }
        self.prune(failed);
    }

    fn admit_map(&self, iova: Iova, phys: PhysAddr, length: ByteLen) -> Result<IovaRange, MapError> {
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

fn refusal(range: IovaRange, obstacle: Obstacle) -> MapError {
    match obstacle {
        Obstacle::MappedAt(at) => MapError::Overlap { range, at },
        Obstacle::NoTable(source) => MapError::NoMemory { range, source },
    }
}

/// How many entries from `iova` on lie in the same leaf table, `most` at most.
pub(super) fn entries_in_leaf<F: Format>(iova: Iova, most: u64) -> u16 {
    let to_end = (TABLE_ENTRIES - F::index(iova, Level::LEAF)) as u64;
    u16::try_from(to_end.min(most)).unwrap_or(0)
}

/// Writes consecutive leaves; the ordering is a constant at each call.
#[inline]
fn fill<F: Format>(entries: &[AtomicU64], piece: &Piece, ordering: Ordering) {
    let mut phys = piece.phys.get();
    for entry in entries {
        entry.store(F::leaf(PhysAddr::new(phys), F::GRANULE_LG2, piece.permission), ordering);
        phys = phys.wrapping_add(1 << F::GRANULE_LG2);
    }
}

#[cfg(test)]
mod tests {
    use ioasd_client::formats::AmdV1;
    use ioasd_client::layout::BootId;

    use super::*;
    use crate::domains::arena::ArenaSize;
    use crate::domains::table::DomainTable;
    use crate::error::{Coded, Errno};

    type Amd = AmdV1<4>;

    fn table() -> Table<Amd> {
        Table::new(ArenaSize::new(ByteLen::new(1 << 22)), BootId([0; 16])).unwrap()
    }

    fn map(table: &mut Table<Amd>, iova: u64, phys: u64, length: u64, entries: u64) -> Result<u64, MapError> {
        let (iova, phys, length) = (Iova::new(iova), PhysAddr::new(phys), ByteLen::new(length));
        let done = table.map(iova, phys, length, Permission::ReadWrite, &mut Budget::new(entries));
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
