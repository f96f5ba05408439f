//! Re-reading every byte of a table and comparing it with what is counted.
//!
//! Imports allowed: arena, table, the client crate's formats.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use ioasd_client::formats::{Entry, Format, Level, TableAddr};

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
        let recent = self.recent.map(|recent| recent.leaf);
        assert!(recent.is_none_or(|leaf| seen.tables.contains(&leaf)), "the table mapped to last is gone");
        self.arena.check(&seen.tables);
    }

    fn check_table(&self, table: TableAddr, level: Level, seen: &mut Seen) {
        assert!(seen.tables.insert(table), "table {table} is linked twice");
        let mut live = 0;
        for word in self.arena.words(table) {
            let entry = word.load(Ordering::Relaxed);
            live += u16::from(self.check_entry(entry, level, seen) == Use::Live);
        }
        assert_eq!(live, self.live.of(table), "entries in use in table {table} of level {level}");
        assert!(live > 0 || table == self.root, "table {table} of level {level} is empty but linked");
    }

    fn check_entry(&self, entry: u64, level: Level, seen: &mut Seen) -> Use {
        match (F::decode(entry, level), level.below()) {
            (Entry::Absent, _) => {
                assert_eq!(entry, 0, "an absent entry of level {level} holds bits");
                return Use::Empty;
            }
            (Entry::Table { address, .. }, Some(below)) => self.check_table(address, below, seen),
            (Entry::Leaf { .. }, None) => seen.mapped += 1 << F::GRANULE_LG2,
            (decoded, _) => panic!("entry {entry:#x} of level {level} is {decoded:?}"),
        }
        Use::Live
    }
}

#[derive(PartialEq, Eq)]
enum Use {
    Live,
    Empty,
}
