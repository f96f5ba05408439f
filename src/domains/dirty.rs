//! What was written to: leaves that are marked, as hardware marks them in their entries, and pages that walkers have logged.
//!
//! A leaf that is marked is dirty as a whole, whichever of its entries is marked, and is cleaned as a whole, by whoever asks
//! for its end: a bitmap may be asked for part by part. Only what is mapped is ever told: what was unmapped is forgotten
//! before the same addresses are mapped again, so that a new leaf begins clean.
//!
//! Imports allowed: table, map, error, written, walker_log, epoch, sys, the client crate's formats and layouts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ioasd_client::formats::{Entry, Format};
use ioasd_client::layout::protocol::publish;
use ioasd_client::units::{ByteLen, Iova, IovaRange};

use super::epoch::LeftBehind;
use super::error::MapError;
use super::map::MapRun;
use super::spec::Recording;
use super::table::{Budget, Table};
use super::walker_log::{Cursor, WalkerLog};
use super::written::Written;
use crate::sys::failure::SysError;

/// Whether what devices write through a HWPT is being tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tracking {
    /// It is.
    On,
    /// It is not.
    #[default]
    Off,
}

/// What becomes of what is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    /// It stays dirty.
    Keep,
    /// It is clean.
    Clean,
}

/// What came of marking a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// It is dirty, if it can be written.
    Leaf,
    /// Nothing is mapped there.
    Nothing,
}

/// Leaves side by side in one table.
struct Leaves {
    /// All of them, if there are any.
    span: Option<IovaRange>,
    /// Those that are marked.
    marked: Vec<IovaRange>,
    /// Where to go on.
    next: Option<Iova>,
}

impl<F: Format> Table<F> {
    /// See [`DomainTable::sweep_dirty`](super::table::DomainTable::sweep_dirty).
    pub(super) fn sweep(
        &mut self,
        range: IovaRange,
        cleaning: Cleaning,
        budget: &mut Budget,
        report: &mut dyn FnMut(IovaRange),
    ) -> Result<Option<Iova>, SysError> {
        let logs = self.arena.epochs().logs();
        let mut cursors = cursors(&logs);
        self.each_span(range, cleaning, budget, |table, span, marked| {
            marked.iter().filter_map(|leaf| leaf.intersection(span)).for_each(&mut *report);
            table.look_or_take(span, cleaning, &mut cursors)?.ranges().for_each(&mut *report);
            Ok(())
        })
    }

    /// See [`DomainTable::take_over`](super::table::DomainTable::take_over).
    pub(super) fn gather(
        &mut self,
        LeftBehind(logs): &LeftBehind,
        range: IovaRange,
        budget: &mut Budget,
    ) -> Result<Option<Iova>, SysError> {
        let mut cursors = cursors(logs);
        self.each_span(range, Cleaning::Keep, budget, |table, span, _| table.collect(span, &mut cursors))
    }

    /// Maps a run whose leaves begin clean.
    pub(super) fn map_clean(&mut self, run: &MapRun, budget: &mut Budget) -> Result<ByteLen, MapError> {
        let range = IovaRange::from_length(run.iova, run.length);
        let forgotten = range.map(|range| self.forget_written(range)).transpose()?;
        let mapped = self.map_run(run, budget);
        if let (Err(_), Some(forgotten)) = (&mapped, forgotten) {
            self.written.add_all(&forgotten);
        }
        mapped
    }

    /// Forgets what was written to in a range where nothing is mapped, before something is; gives what that was.
    pub(super) fn forget_written(&mut self, range: IovaRange) -> Result<Written, MapError> {
        if self.spec.recording() == Recording::Writes {
            let logs = self.arena.epochs().logs();
            let collected = self.collect(range, &mut cursors(&logs));
            collected.map_err(|error| MapError::NoMemory { range, source: error.into() })?;
        }
        Ok(self.written.take(range))
    }

    /// The pages of a span that are known to have been written to, beside those of marked leaves.
    fn look_or_take(
        &mut self,
        span: IovaRange,
        cleaning: Cleaning,
        cursors: &mut [Cursor<'_>],
    ) -> Result<Written, SysError> {
        match cleaning {
            Cleaning::Keep => {
                let mut written = self.written.copy_of(span);
                self.arena.epochs().collect_by_accesses(span, cleaning, &mut written);
                for cursor in cursors {
                    cursor.collect(span, cleaning, &mut written)?;
                }
                Ok(written)
            }
            Cleaning::Clean => {
                self.collect(span, cursors)?;
                Ok(self.written.take(span))
            }
        }
    }

    /// Takes what accesses wrote in a range, and what is in logs of it. If one of them fails, nothing is lost.
    fn collect(&mut self, range: IovaRange, cursors: &mut [Cursor<'_>]) -> Result<(), SysError> {
        self.arena.epochs().collect_by_accesses(range, Cleaning::Clean, &mut self.written);
        cursors.iter_mut().try_for_each(|cursor| cursor.collect(range, Cleaning::Clean, &mut self.written))
    }

    /// Goes through the leaves of a range, those side by side together; tells where to go on. Marks of leaves that end in it
    /// are cleared, if asked for.
    fn each_span(
        &mut self,
        range: IovaRange,
        cleaning: Cleaning,
        budget: &mut Budget,
        mut visit: impl FnMut(&mut Self, IovaRange, &[IovaRange]) -> Result<(), SysError>,
    ) -> Result<Option<Iova>, SysError> {
        let Some(range) = self.spec.aperture().intersection(range) else { return Ok(None) };
        let mut at = range.start();
        while !budget.is_spent() {
            let leaves = self.leaves_from(at, range.last(), cleaning, budget);
            if let Some(span) = leaves.span.and_then(|span| span.intersection(range)) {
                visit(self, span, &leaves.marked)?;
            }
            match leaves.next.filter(|next| *next <= range.last()) {
                Some(next) => at = next,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    /// The leaves from `at` on in the lowest table on the way there, up to the first entry that is none.
    fn leaves_from(&self, at: Iova, last: Iova, cleaning: Cleaning, budget: &mut Budget) -> Leaves {
        let found = self.descend(at);
        let (level, item_lg2) = (found.level, F::item_lg2(found.level));
        let words = self.arena.words(found.table);
        let base = at.get() >> item_lg2 << item_lg2;
        let address = |index: usize| {
            let items = u64::try_from(index - found.index).ok()?;
            base.checked_add(items << item_lg2).map(Iova::new)
        };
        let decode = |index: usize| Some(F::decode(words.get(index)?.load(Ordering::Relaxed), level));
        let (mut index, mut marked, mut span) = (found.index, Vec::new(), None::<IovaRange>);
        while let Some(start) = address(index).filter(|start| *start <= last)
            && !budget.is_spent()
            && let Some(entry) = decode(index)
        {
            match (entry, span) {
                (Entry::Leaf { size_lg2, .. }, _) => {
                    let entries = 1 << (size_lg2 - item_lg2);
                    let first = index & !(entries - 1);
                    let (leaf, of_leaf) = (leaf_at(start, size_lg2), words.get(first..first + entries));
                    let ends_here = leaf.is_some_and(|leaf| leaf.last() <= last);
                    let cleaning = if ends_here { cleaning } else { Cleaning::Keep };
                    let is_marked = of_leaf.is_some_and(|of_leaf| is_marked::<F>(of_leaf, cleaning));
                    span = leaf.and_then(|leaf| IovaRange::new(span.unwrap_or(leaf).start(), leaf.last()));
                    marked.extend(leaf.filter(|_| is_marked));
                    budget.spend(entries as u64);
                    index = first + entries;
                }
                (Entry::Absent | Entry::Malformed, None) => {
                    budget.spend(1);
                    index += 1;
                }
                _ => break,
            }
        }
        Leaves { span, marked, next: address(index) }
    }

    /// See [`DomainTable::mark_dirty`](super::table::DomainTable::mark_dirty). As hardware does, it marks the one entry that
    /// leads to `iova`.
    pub(super) fn mark(&self, iova: Iova) -> Marked {
        if !self.spec.aperture().contains(iova) {
            return Marked::Nothing;
        }
        let found = self.descend(iova);
        let Entry::Leaf { .. } = found.decoded else { return Marked::Nothing };
        let entry = self.arena.entry(found.table, found.index);
        publish(entry, F::dirtied(entry.load(Ordering::Relaxed)));
        Marked::Leaf
    }
}

fn cursors(logs: &[Arc<WalkerLog>]) -> Vec<Cursor<'_>> {
    logs.iter().map(|log| Cursor::new(log)).collect()
}

/// The leaf of this size around `iova`.
fn leaf_at(iova: Iova, size_lg2: u32) -> Option<IovaRange> {
    let within = (1 << size_lg2) - 1;
    IovaRange::new(Iova::new(iova.get() & !within), Iova::new(iova.get() | within))
}

/// Whether one of the entries of a leaf is marked. They are not any more, if asked for.
fn is_marked<F: Format>(entries: &[AtomicU64], cleaning: Cleaning) -> bool {
    let is_marked = entries.iter().any(|entry| F::is_dirty(entry.load(Ordering::Relaxed)));
    if is_marked && cleaning == Cleaning::Clean {
        for entry in entries {
            publish(entry, F::clean(entry.load(Ordering::Relaxed)));
        }
    }
    is_marked
}

#[cfg(test)]
mod tests {
    use ioasd_client::formats::{AmdV1, ArmS2, RiscV, VtdSs};
    use ioasd_client::layout::BootId;
    use ioasd_client::units::{ByteLen, Permission, PhysAddr};

    use super::*;
    use crate::domains::arena::ArenaSize;
    use crate::domains::map::MapRun;
    use crate::domains::spec::{Recording, TableSpec};
    use crate::domains::table::{DomainTable, create};
    use crate::storage::io_pagetable::LargePages;
    use crate::storage::ledger::node::Allowance;
    use crate::storage::ledger::resource::Resource;

    /// A leaf of 2 MiB at 2 MiB, one of 64 KiB where the format has them at 64 KiB, a page behind it, and nothing between.
    fn table<F: Format>() -> Box<dyn DomainTable> {
        let spec = TableSpec::of(F::ID).with_recording(Recording::Writes);
        let size = ArenaSize::new(ByteLen::new(1 << 22));
        let mut table = create(spec, Allowance::unlimited(Resource::Tables), size, BootId([0; 16])).unwrap();
        for (iova, length) in [(0x20_0000, 0x20_0000), (0x1_0000, 0x1_0000), (0x2_0000, 0x1000)] {
            let run = MapRun {
                iova: Iova::new(iova),
                phys: PhysAddr::new(iova),
                length: ByteLen::new(length),
                permission: Permission::ReadWrite,
                large_pages: LargePages::On,
            };
            table.map(&run, &mut Budget::unlimited()).unwrap();
        }
        table
    }

    /// First addresses and lengths of what is dirty in (start, last), found in turns of so many entries.
    fn swept(
        table: &mut dyn DomainTable,
        (start, last): (u64, u64),
        cleaning: Cleaning,
        turn: u64,
    ) -> Vec<(u64, u64)> {
        let (mut found, mut at) = (Vec::new(), Some(Iova::new(start)));
        while let Some(start) = at {
            let range = IovaRange::new(start, Iova::new(last)).unwrap();
            let mut report = |leaf: IovaRange| found.push((leaf.start().get(), leaf.length().get()));
            at = table.sweep_dirty(range, cleaning, &mut Budget::new(turn), &mut report).unwrap();
            table.check();
        }
        found
    }

    const ALL: (u64, u64) = (0, u64::MAX);

    fn check_leaves<F: Format>(middle: u64) {
        let mut table = table::<F>();
        assert_eq!(swept(&mut *table, ALL, Cleaning::Keep, 1), [], "new leaves are clean");
        for iova in [0x1_5008, 0x3f_ffff] {
            assert_eq!(table.mark_dirty(Iova::new(iova)), Marked::Leaf);
        }
        for nothing in [0, 0x2_1000, 0x40_0000, u64::MAX] {
            assert_eq!(table.mark_dirty(Iova::new(nothing)), Marked::Nothing);
        }
        let dirty = [(0x1_5000 & !(middle - 1), middle), (0x20_0000, 0x20_0000)];
        assert_eq!(swept(&mut *table, ALL, Cleaning::Keep, u64::MAX), dirty);
        assert_eq!(swept(&mut *table, ALL, Cleaning::Clean, 7), dirty, "keeping kept them");
        assert_eq!(swept(&mut *table, ALL, Cleaning::Clean, 7), []);
    }

    #[test]
    fn a_dirty_leaf_is_reported_whole_and_cleaned_once() {
        check_leaves::<AmdV1<4>>(0x1_0000);
        check_leaves::<VtdSs<4>>(0x1000);
        check_leaves::<ArmS2>(0x1_0000);
        check_leaves::<RiscV<4>>(0x1_0000);
    }

    #[test]
    fn a_leaf_is_cleaned_by_the_sweep_that_reaches_its_end() {
        let mut table = table::<AmdV1<4>>();
        table.mark_dirty(Iova::new(0x30_0000));
        for turn in [9, 1] {
            assert_eq!(swept(&mut *table, (0, 0x2f_ffff), Cleaning::Clean, turn), [(0x20_0000, 0x10_0000)]);
        }
        assert_eq!(swept(&mut *table, (0x30_0000, 0x3f_ffff), Cleaning::Clean, 9), [(0x30_0000, 0x10_0000)]);
        assert_eq!(swept(&mut *table, ALL, Cleaning::Clean, 9), []);
    }
}
