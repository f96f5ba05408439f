//! A table and the leaves that it should have.

use std::collections::{BTreeMap, BTreeSet};

use ioasd::domains::dirty::{Cleaning, Marked};
use ioasd::domains::error::UnmapError;
use ioasd::domains::spec::TableSpec;
use ioasd::domains::table::Budget;
use ioasd_client::units::{Iova, IovaRange, Permission};

use crate::fixture::{Run, Setup, granted, range};
use crate::leaves::{Leaf, leaves};

/// More entries than any leaf fills.
const ENTRIES_OF_A_LEAF: u64 = 512;

/// Both.
pub struct Model {
    setup: Setup,
    spec: TableSpec,
    leaves: BTreeMap<u64, (Leaf, Permission)>,
    /// First addresses of leaves that something was written through.
    dirty: BTreeSet<u64>,
    counts: Counts,
}

/// What happened, so that a test can see that it tested something.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Runs were mapped.
    pub mapped: u32,
    /// Runs met something mapped.
    pub overlaps: u32,
    /// Ranges were unmapped to their end.
    pub unmapped: u32,
    /// Ranges had holes.
    pub holes: u32,
    /// Ranges began inside a leaf.
    pub inside: u32,
    /// Leaves larger than the smallest were mapped.
    pub large: u32,
    /// Dirty leaves were found.
    pub dirty: u32,
}

impl Counts {
    /// Adds what happened elsewhere.
    pub const fn add(&mut self, other: Self) {
        self.mapped += other.mapped;
        self.overlaps += other.overlaps;
        self.unmapped += other.unmapped;
        self.holes += other.holes;
        self.inside += other.inside;
        self.large += other.large;
        self.dirty += other.dirty;
    }
}

impl Model {
    /// Both empty; with a walker, so that tables wait before they are reused, if asked for.
    pub fn new(spec: TableSpec, walkers: u8) -> Self {
        let setup = Setup::new(spec);
        for _ in 0..walkers {
            setup.table.epochs().register_walker().unwrap();
        }
        Self { setup, spec, leaves: BTreeMap::new(), dirty: BTreeSet::new(), counts: Counts::default() }
    }

    fn at(&self, iova: u64) -> Option<(Leaf, Permission)> {
        let (_, (leaf, permission)) = self.leaves.range(..=iova).next_back()?;
        (iova - leaf.iova < leaf.size).then_some((*leaf, *permission))
    }

    /// Maps as much of a run as the budget allows, or finds that it cannot be.
    pub fn map(&mut self, run: Run, entries: u64) {
        let mut left = entries;
        let wanted: Vec<Leaf> = leaves(self.spec, run)
            .into_iter()
            .take_while(|leaf| {
                let begins = left > 0;
                left = left.saturating_sub(leaf.entries);
                begins
            })
            .collect();
        let end = wanted.last().map_or(run.iova, |leaf| leaf.iova + leaf.size);
        let is_taken = self.at(run.iova).is_some() || self.leaves.range(run.iova..end).next().is_some();
        let mapped = self.setup.map(run, &mut Budget::new(entries));
        if is_taken {
            self.counts.overlaps += 1;
            assert!(mapped.is_err(), "an overlap was not noticed: {run:x?}");
            return;
        }
        self.counts.mapped += 1;
        self.counts.large += u32::from(wanted.iter().any(|leaf| leaf.size > self.spec.alignment()));
        assert_eq!(mapped, Ok(end - run.iova), "{run:x?}");
        let permission = granted(self.spec.format(), run.permission);
        self.leaves.extend(wanted.into_iter().map(|leaf| (leaf.iova, (leaf, permission))));
    }

    /// Unmaps as much of a range as the budget allows, whole leaves alone.
    pub fn unmap(&mut self, iova: u64, length: u64, entries: u64) {
        let result = self.setup.table.unmap(range(iova, length), &mut Budget::new(entries));
        self.setup.table.check();
        if let Some((leaf, _)) = self.at(iova).filter(|(leaf, _)| leaf.iova != iova) {
            self.counts.inside += 1;
            let inside =
                UnmapError::InsideLeaf { range: range(iova, length), leaf: range(leaf.iova, leaf.size) };
            assert_eq!(result, Err(inside));
            return;
        }
        let (done, missing) = match result {
            Ok(done) => (done.get(), 0),
            Err(UnmapError::NotMapped { done, missing, first, .. }) => {
                self.counts.holes += 1;
                assert!(self.at(first.get()).is_none(), "{first} was mapped");
                (done.get(), missing.get())
            }
            Err(error) => panic!("{error}"),
        };
        let gone: Vec<Leaf> = self.leaves.range(iova..iova + done).map(|(_, (leaf, _))| *leaf).collect();
        let bytes: u64 = gone.iter().map(|leaf| leaf.size).sum();
        let spent: u64 = gone.iter().map(|leaf| leaf.entries).sum();
        assert_eq!(bytes + missing, done, "{iova:#x} {length:#x}: bytes mapped and bytes cleared");
        assert!(
            spent < entries.saturating_add(ENTRIES_OF_A_LEAF),
            "a budget of {entries} entries, {spent} were cleared"
        );
        assert!(done >= length || spent > 0 || missing > 0, "nothing was done");
        self.counts.unmapped += u32::from(done >= length);
        self.leaves.retain(|start, _| *start < iova || *start >= iova + done);
        self.dirty.retain(|start| *start < iova || *start >= iova + done);
        self.setup.table.epochs().advance();
    }

    /// Writes through whatever is at `iova`, as hardware does.
    pub fn write(&mut self, iova: u64) {
        let leaf = self.at(iova);
        if leaf.is_some_and(|(_, permission)| !permission.can_write()) {
            return;
        }
        let marked = self.setup.table.mark_dirty(Iova::new(iova));
        assert_eq!(marked == Marked::Leaf, leaf.is_some(), "{iova:#x}");
        self.dirty.extend(leaf.map(|(leaf, _)| leaf.iova));
    }

    /// Finds what is dirty in a range, in turns of so many entries.
    pub fn sweep(&mut self, iova: u64, length: u64, cleaning: Cleaning, entries: u64) {
        let (mut found, mut at) = (Vec::new(), Some(Iova::new(iova)));
        let last = Iova::new(iova + (length - 1));
        while let Some(start) = at {
            let mut report = |leaf: IovaRange| found.push(leaf);
            let rest = IovaRange::new(start, last).unwrap();
            at =
                self.setup.table.sweep_dirty(rest, cleaning, &mut Budget::new(entries), &mut report).unwrap();
            assert!(at.is_none_or(|next| next > start), "the sweep stands still");
        }
        self.setup.table.check();
        let first = self.at(iova).map_or(iova, |(leaf, _)| leaf.iova);
        let expected: Vec<u64> = self.dirty.range(first..=last.get()).copied().collect();
        let whole = |start: &u64| range(*start, self.at(*start).unwrap().0.size);
        let asked: Vec<_> =
            expected.iter().filter_map(|leaf| whole(leaf).intersection(range(iova, length))).collect();
        assert_eq!(found, asked, "{iova:#x} {length:#x}");
        self.counts.dirty += u32::from(!found.is_empty());
        if cleaning == Cleaning::Clean {
            let ends_inside = |start: &u64| {
                self.leaves.get(start).is_some_and(|(leaf, _)| leaf.iova + (leaf.size - 1) <= last.get())
            };
            let cleaned: Vec<u64> = expected.into_iter().filter(ends_inside).collect();
            self.dirty.retain(|start| !cleaned.contains(start));
        }
    }

    /// Compares at the borders of every leaf, and at `others`.
    pub fn check(&self, others: impl Iterator<Item = u64>) {
        let mapped: u64 = self.leaves.values().map(|(leaf, _)| leaf.size).sum();
        assert_eq!(self.setup.table.mapped().get(), mapped);
        let step = self.leaves.len() / 50 + 1;
        let borders = self.leaves.values().step_by(step).flat_map(|(leaf, _)| {
            [leaf.iova.saturating_sub(1), leaf.iova, leaf.iova + leaf.size - 1, leaf.iova + leaf.size]
        });
        let inside = |iova: &u64| *iova <= self.spec.aperture().last().get();
        for iova in borders.chain(others).filter(inside) {
            let expected = self
                .at(iova)
                .map(|(leaf, permission)| (leaf.phys + (iova - leaf.iova), leaf.size, permission));
            assert_eq!(self.setup.translate(iova), expected, "{iova:#x}");
        }
    }

    /// Unmaps everything, finds nothing, and tells what happened.
    pub fn clear(mut self) -> Counts {
        for leaf in self.leaves.values().map(|(leaf, _)| *leaf).collect::<Vec<_>>() {
            self.unmap(leaf.iova, leaf.size, u64::MAX);
        }
        assert_eq!(self.setup.table.mapped().get(), 0);
        self.counts
    }
}
