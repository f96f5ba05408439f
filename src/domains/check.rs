//! Re-reading every byte of a table and comparing it with what is counted.
//!
//! Imports allowed: arena, spec, table, the client crate's formats.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use ioasd_client::formats::{ABSENT, Entry, Format, Level, TableAddr};

use super::spec::Recording;
use super::table::Table;

/// What was found so far.
#[derive(Default)]
struct Seen {
    tables: BTreeSet<TableAddr>,
    mapped: u64,
}

impl<F: Format> Table<F> {
    /// See [`DomainTable::check`](super::table::DomainTable::check).
    pub(super) fn check_all(&self) {
        let mut seen = Seen::default();
        self.check_table(self.root, F::ROOT_LEVEL, &mut seen);
        assert_eq!(seen.mapped, self.mapped, "bytes mapped in the tables and bytes counted");
        let recent = self.recent.map(|recent| recent.table);
        assert!(recent.is_none_or(|table| seen.tables.contains(&table)), "the table mapped to last is gone");
        self.arena.check(&seen.tables);
    }

    fn check_table(&self, table: TableAddr, level: Level, seen: &mut Seen) {
        assert!(seen.tables.insert(table), "table {table} is linked twice");
        let entries: Vec<u64> =
            self.arena.words(table).iter().map(|word| word.load(Ordering::Relaxed)).collect();
        let (mut live, mut rest) = (0, entries.as_slice());
        while let Some(entry) = rest.first() {
            let taken = self.check_entry(*entry, rest, entries.len() - rest.len(), level);
            live += if *entry == ABSENT { 0 } else { taken };
            if let Entry::Leaf { size_lg2, .. } = F::decode(*entry, level) {
                seen.mapped += 1 << size_lg2;
            }
            if let (Entry::Table { address, .. }, Some(below)) = (F::decode(*entry, level), level.below()) {
                self.check_table(address, below, seen);
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
        assert_eq!(
            live,
            usize::from(self.live.of(table)),
            "entries in use in table {table} of level {level}"
        );
        assert!(live > 0 || table == self.root, "table {table} of level {level} is empty but linked");
    }

    /// Panics unless `entry`, the first of `rest` and at `index` in its table, is what a writer writes; tells how many
    /// entries it takes.
    fn check_entry(&self, entry: u64, rest: &[u64], index: usize, level: Level) -> usize {
        match (F::decode(entry, level), level.below()) {
            (Entry::Absent, _) => {
                assert_eq!(entry, ABSENT, "an absent entry of level {level} holds bits");
                1
            }
            (Entry::Table { address, .. }, Some(_)) => {
                assert_eq!(entry, F::table(address, level), "a pointer of level {level}");
                1
            }
            (Entry::Leaf { phys, size_lg2, rights }, _) => {
                assert!(self.spec.page_sizes().contains(size_lg2), "a leaf of 2^{size_lg2} bytes");
                assert_eq!(F::level_of(size_lg2), level, "a leaf of 2^{size_lg2} bytes");
                let copies = 1 << (size_lg2 - F::item_lg2(level));
                assert_eq!(index % copies, 0, "the first entry of a leaf of 2^{size_lg2} bytes");
                let permission = rights.permission();
                let first = permission.map(|permission| F::leaf(phys, size_lg2, permission));
                let first = first.unwrap_or_else(|| panic!("leaf {entry:#x} grants nothing"));
                let expected = (0..).map(|copy| first + copy * F::copy_step(level)).take(copies);
                let found = rest.iter().take(copies).copied();
                let same = match self.spec.recording() {
                    Recording::Nothing => expected.eq(found),
                    Recording::Writes => expected.map(F::clean).eq(found.map(F::clean)),
                };
                assert!(same, "the entries of leaf {entry:#x}");
                copies
            }
            (decoded, _) => panic!("entry {entry:#x} of level {level} is {decoded:?}"),
        }
    }
}
