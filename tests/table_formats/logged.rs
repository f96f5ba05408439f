//! Walkers write at random while ranges are mapped and unmapped, every format, leaves of all sizes: what is told is exactly
//! what was written to since it was told before.

use std::collections::{BTreeMap, BTreeSet};

use ioasd::domains::dirty::{Cleaning, Tracking};
use ioasd::domains::epoch::WalkerId;
use ioasd::domains::spec::{Recording, TableSpec};
use ioasd::domains::table::Budget;
use ioasd::storage::io_pagetable::LargePages;
use ioasd_client::formats::FormatId;
use ioasd_client::layout::{FrameWindow, LogShape};
use ioasd_client::mapping::MapAccess;
use ioasd_client::units::{Iova, IovaRange, PageIndex, Permission, Pfn};
use ioasd_client::walker::{BackingFile, DomainParts, Stream, Walker};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use crate::fixture::{Run, Setup, range};

const STEPS: u32 = 400;
const GIB: u64 = 1 << 30;
/// The file: sparse, so that a leaf of 1 GiB costs nothing.
const FILE: u64 = 3 * GIB;
const FIRST: Pfn = Pfn::new(FILE >> 12);
/// Places for areas, so far from each other that none meets another.
const PLACES: u64 = 6;
const PLACE: u64 = 4 * GIB;

struct World {
    setup: Setup,
    unit: u64,
    rng: fastrand::Rng,
    walkers: Vec<(WalkerId, Stream)>,
    /// By their first addresses.
    areas: BTreeMap<u64, u64>,
    /// First addresses of the units that were written to.
    written: BTreeSet<u64>,
    /// Units that were told, leaves that were large, walkers that are gone.
    seen: [u64; 3],
}

impl World {
    fn new(format: FormatId, seed: u64) -> Self {
        let spec = TableSpec::of(format).with_recording(Recording::Writes);
        let setup = Setup::new(spec);
        setup.table.epochs().track(Tracking::On, LogShape::of(spec.geometry()));
        let (rng, unit) = (fastrand::Rng::with_seed(seed), spec.alignment());
        let (walkers, areas, written) = Default::default();
        let mut world = Self { setup, unit, rng, walkers, areas, written, seen: [0; 3] };
        world.open();
        world.open();
        world
    }

    fn open(&mut self) {
        let epochs = self.setup.table.epochs();
        let (slots, id) = epochs.register_walker().unwrap();
        let log = epochs.add_log(id, LogShape::of(self.setup.table.spec().geometry())).unwrap();
        let fd = memfd_create("backing", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, FILE).unwrap();
        let window = FrameWindow { first: FIRST, pages: FILE >> 12, file: 0, file_page: PageIndex::new(0) };
        let walker = Walker::open(DomainParts {
            arena: self.setup.table.export().unwrap(),
            slots,
            log: Some(log),
            windows: vec![window],
            files: vec![BackingFile { fd, access: MapAccess::ReadWrite }],
        });
        let stream = walker.unwrap().stream().unwrap();
        let stream = if self.rng.bool() { stream.with_iotlb() } else { stream };
        self.walkers.push((id, stream));
    }

    /// One walker ends and another begins; what the first one wrote is gone through now, or when it is asked for.
    fn change_walkers(&mut self) {
        let (gone, stream) = self.walkers.swap_remove(self.rng.usize(..self.walkers.len()));
        drop(stream);
        let epochs = self.setup.table.epochs();
        epochs.unregister(gone);
        let (logs, mut rest) = (epochs.left_behind(), Some(IovaRange::ALL).filter(|_| self.rng.bool()));
        while let Some(range) = rest {
            let next = self.setup.table.take_over(&logs, range, &mut Budget::new(self.rng.u64(1..900)));
            rest = next.unwrap().and_then(|next| IovaRange::new(next, range.last()));
            if rest.is_none() {
                epochs.forget(&logs);
            }
        }
        self.seen[2] += 1;
        self.open();
    }

    /// Maps something in a free place, aligned like its memory or not, so that its leaves are large or small.
    fn map(&mut self) {
        let place = self.rng.u64(..PLACES) * PLACE;
        if self.areas.range(place..place + PLACE).next().is_some() {
            return;
        }
        let large = self.rng.bool();
        let offset = if large { 0 } else { self.unit };
        let most = if large { GIB + (5 << 20) } else { 3 << 20 };
        let into = self.rng.u64(..4 << 20) & !(self.unit - 1);
        let length = (self.rng.u64(1..most) & !(self.unit - 1)).max(self.unit);
        let run = Run {
            iova: place + into,
            phys: FIRST.phys().get() + into + offset,
            length,
            permission: Permission::ReadWrite,
            large_pages: LargePages::On,
        };
        assert_eq!(self.setup.map(run, &mut Budget::unlimited()), Ok(length));
        let middle = self.setup.translate(run.iova + length / 2).unwrap();
        self.seen[1] += u64::from(middle.1 >= 2 << 20);
        self.areas.insert(run.iova, length);
    }

    fn any_area(&mut self) -> Option<(u64, u64)> {
        let nth = self.rng.usize(..self.areas.len().max(1));
        self.areas.iter().nth(nth).map(|(iova, length)| (*iova, *length))
    }

    fn unmap(&mut self) {
        let Some((iova, length)) = self.any_area() else { return };
        self.setup.table.unmap(range(iova, length), &mut Budget::unlimited()).unwrap();
        self.setup.table.epochs().advance();
        self.areas.remove(&iova);
        self.written.retain(|unit| !(iova..iova + length).contains(unit));
    }

    fn write(&mut self) {
        let Some((iova, length)) = self.any_area() else { return };
        let bytes = self.rng.u64(1..3 * self.unit).min(length);
        let at = iova + self.rng.u64(..=(length - bytes).min(64 * self.unit));
        let at = if self.rng.bool() { at } else { iova + length - bytes };
        let nth = self.rng.usize(..self.walkers.len());
        let burst = self.walkers[nth].1.enter();
        burst.write(Iova::new(at), &vec![1; usize::try_from(bytes).unwrap()]).unwrap();
        burst.read(Iova::new(iova), &mut [0]).unwrap();
        let units = at / self.unit..=(at + bytes - 1) / self.unit;
        self.written.extend(units.map(|unit| unit * self.unit));
    }

    /// Asks for what was written to in some range, in turns.
    fn ask(&mut self) {
        let units = PLACES * PLACE / self.unit;
        let first = if self.rng.bool() { 0 } else { self.rng.u64(..units) };
        let asked = range(first * self.unit, self.rng.u64(1..=units - first) * self.unit);
        let cleaning = if self.rng.bool() { Cleaning::Keep } else { Cleaning::Clean };
        let (mut told, mut rest) = (BTreeSet::new(), Some(asked));
        while let Some(range) = rest {
            let unit = self.unit;
            let mut report = |pages: IovaRange| {
                told.extend(
                    (pages.start().get()..=pages.last().get()).step_by(usize::try_from(unit).unwrap()),
                );
            };
            let mut budget = Budget::new(self.rng.u64(1..3000));
            let next = self.setup.table.sweep_dirty(range, cleaning, &mut budget, &mut report).unwrap();
            rest = next.and_then(|next| IovaRange::new(next, range.last()));
        }
        let is_asked = |unit: &u64| asked.contains(Iova::new(*unit));
        let expected: BTreeSet<u64> = self.written.iter().copied().filter(is_asked).collect();
        assert_eq!(told, expected, "{asked}");
        self.seen[0] += told.len() as u64;
        if cleaning == Cleaning::Clean {
            self.written.retain(|unit| !is_asked(unit));
            self.setup.table.epochs().advance();
        }
    }

    fn step(&mut self) {
        match self.rng.u8(..20) {
            0..3 => self.map(),
            3..4 => self.unmap(),
            4..16 => self.write(),
            16..17 => self.change_walkers(),
            _ => self.ask(),
        }
    }
}

#[test]
fn what_walkers_write_is_told_exactly_and_once() {
    for (format, seed) in FormatId::ALL.into_iter().zip(1..) {
        let mut world = World::new(format, seed);
        (0..STEPS).for_each(|_| world.step());
        let [told, large, gone] = world.seen;
        assert!(told > 20 && large > 0 && gone > 3, "{}: {told} {large} {gone}", format.name());
    }
}
