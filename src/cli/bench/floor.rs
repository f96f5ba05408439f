//! Floors: what bare code needs for the work that cannot be avoided, measured in turn with the engine.
//!
//! Each kind has a figure recorded on a quiet machine of the kind this is developed on. A floor that is more than half
//! slower than that says that something else used the machine, and that the figures beside it mean little.
//!
//! Imports allowed: sample, `std`.

use std::hint::black_box;

use super::sample::{Samples, timed};

/// How much slower than recorded a floor may be.
const TOLERANCE: f64 = 1.5;

/// Entries in a table page.
const ENTRIES: usize = 512;

/// Different beginnings of tables.
const COLOURS: usize = 32;

/// Bytes copied at a time by [`Copying`]: more than a cache holds.
const COPIED: usize = 64 << 20;

/// A kind of bare code, with its recorded figure in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bare {
    /// A page of touched memory copied to touched memory.
    CopyPage,
    /// An entry stored from an array of frames.
    StoreEntry,
    /// An entry copied.
    CopyEntry,
    /// An entry cleared.
    ClearEntry,
    /// The place of a page looked up in an array that fits into a cache.
    LookUp,
    /// A page of a program's own memory registered with a ring.
    PinPage,
    /// A message of 64 bytes to another process and back, with credentials, on one CPU.
    Echo,
}

impl Bare {
    const fn recorded(self) -> f64 {
        match self {
            Self::CopyPage => 465.0,
            Self::StoreEntry => 0.36,
            Self::CopyEntry => 0.25,
            Self::ClearEntry => 0.23,
            Self::LookUp => 1.5,
            Self::PinPage => 70.0,
            Self::Echo => 10_050.0,
        }
    }
}

/// What bare code needed.
#[derive(Clone, Debug)]
pub(super) struct Floor {
    bare: Bare,
    /// How many of them one unit of the case takes.
    each: f64,
    samples: Samples,
}

impl Floor {
    /// No measurement yet; one unit of the case takes `each` times the bare work.
    pub(super) fn new(bare: Bare, each: usize) -> Self {
        Self { bare, each: each as f64, samples: Samples::default() }
    }

    /// Where the measurements go.
    pub(super) const fn samples(&mut self) -> &mut Samples {
        &mut self.samples
    }

    /// What one unit of the case takes at least.
    pub(super) fn median(&self) -> f64 {
        self.samples.quantile(50) * self.each
    }

    /// The same measurements, for a unit that is the bare work itself.
    pub(super) fn of_each(&self) -> Self {
        Self { each: 1.0, ..self.clone() }
    }

    /// Whether the machine was as fast as this kind of machine is.
    pub(super) fn is_valid(&self) -> bool {
        self.samples.quantile(50) <= self.bare.recorded() * TOLERANCE
    }
}

/// Memory that stands for the tables of one domain.
struct Leaves {
    words: Vec<u64>,
    /// Where it begins: pages of different tables must not all compete for the same places in a cache.
    colour: usize,
}

impl Leaves {
    fn new(entries: usize, domain: usize) -> Self {
        let colour = domain % COLOURS * ENTRIES;
        Self { words: vec![1; entries + colour], colour }
    }

    fn entries(&mut self) -> &mut [u64] {
        self.words.split_at_mut(self.colour).1
    }
}

/// Memory that stands for tables: written once before it is measured, as the engine's tables are.
pub(super) struct Entries {
    frames: Vec<u32>,
    tables: Vec<Leaves>,
}

impl Entries {
    /// `domains` times `pages` entries.
    pub(super) fn new(pages: u64, domains: usize) -> Self {
        let entries = usize::try_from(pages).unwrap_or(0);
        let frames = (0..entries).map(|page| u32::try_from(page).unwrap_or(0)).collect();
        Self { frames, tables: (0..domains).map(|domain| Leaves::new(entries, domain)).collect() }
    }

    /// Stores an entry for every page in every table, one table after the other.
    pub(super) fn store(&mut self, floor: &mut Floor) {
        let count = (self.frames.len() * self.tables.len()) as u64;
        let (time, ()) = timed(|| {
            for table in &mut self.tables {
                for (entry, frame) in table.entries().iter_mut().zip(&self.frames) {
                    *entry = u64::from(*frame) << 12 | 1;
                }
            }
            black_box(&mut self.tables);
        });
        floor.samples().add(time, count);
    }

    /// Clears every entry.
    pub(super) fn clear(&mut self, floor: &mut Floor) {
        let count = (self.frames.len() * self.tables.len()) as u64;
        let (time, ()) = timed(|| {
            self.tables.iter_mut().for_each(|table| table.entries().fill(0));
            black_box(&mut self.tables);
        });
        floor.samples().add(time, count);
    }

    /// Copies the entries of the first table to each of the others.
    pub(super) fn copy(&mut self, floor: &mut Floor) {
        let Some((from, others)) = self.tables.split_first_mut() else { return };
        let count = (self.frames.len() * others.len()) as u64;
        let (time, ()) = timed(|| {
            for to in &mut *others {
                to.entries().copy_from_slice(from.entries());
            }
            black_box(&mut *others);
        });
        floor.samples().add(time, count);
    }
}

/// Touched memory to copy.
pub(super) struct Copying {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Copying {
    /// As much as tells, at most `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(COPIED).min(COPIED);
        Self { from: vec![1; bytes], to: vec![2; bytes] }
    }

    /// Copies all of it.
    pub(super) fn copy(&mut self, floor: &mut Floor) {
        let (time, ()) = timed(|| {
            self.to.copy_from_slice(black_box(&self.from));
            black_box(&mut self.to);
        });
        floor.samples().add(time, self.from.len() as u64 / 4096);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn bare_code_does_what_it_is_measured_for() {
        let (mut entries, mut floor) = (Entries::new(1000, 3), Floor::new(Bare::StoreEntry, 3));
        entries.store(&mut floor);
        for table in &mut entries.tables {
            assert!(table.entries().iter().zip(0..).all(|(entry, page)| *entry == page << 12 | 1));
        }
        entries.tables[0].entries().fill(7);
        entries.copy(&mut floor);
        assert!(entries.tables.iter_mut().all(|table| table.entries() == [7; 1000]));
        entries.clear(&mut floor);
        assert!(entries.tables.iter_mut().all(|table| table.entries() == [0; 1000]));
        assert_eq!(floor.samples().values().len(), 3);
    }

    #[test]
    fn a_floor_that_is_much_slower_than_recorded_is_not_valid() {
        let floor = |nanoseconds| {
            let mut floor = Floor::new(Bare::Echo, 1);
            floor.samples().add(Duration::from_nanos(nanoseconds), 1);
            floor.is_valid()
        };
        assert!(floor(15_000) && !floor(15_100));
    }
}
