//! Random maps and unmaps, every format, leaves of all sizes, budgets that end anywhere.

use ioasd::domains::dirty::Cleaning;
use ioasd::domains::spec::{Recording, TableSpec};
use ioasd::storage::io_pagetable::LargePages;
use ioasd_client::formats::{FormatId, PageSizes};
use ioasd_client::units::{PAGE_SIZE, Permission};

use crate::fixture::Run;
use crate::model::{Counts, Model};

const STEPS: u32 = 300;
const SEEDS: u64 = 2;

/// Leaves of one size in a row, at most.
const IN_A_ROW: u64 = 5;

struct Generator {
    spec: TableSpec,
    rng: fastrand::Rng,
    large_pages: LargePages,
}

impl Generator {
    /// A size that the format has, small ones more often.
    fn size(&mut self) -> u64 {
        let sizes: Vec<u32> = (0..63).filter(|lg2| self.spec.page_sizes().contains(*lg2)).collect();
        let most = if self.large_pages == LargePages::On { sizes.len() } else { 1 };
        let highest = self.rng.usize(1..=most);
        1 << sizes[self.rng.usize(..highest)]
    }

    /// A place near a border of tables, so that runs meet.
    fn place(&mut self, size: u64) -> u64 {
        let end = self.spec.aperture().last().get() + 1;
        let borders = [0, 1 << 21, 1 << 30, end / 2, end - 4 * size.min(end / 8)];
        let border = *self.rng.choice(&borders).unwrap();
        let place = (border & !(size - 1)) + self.rng.u64(..4) * size;
        place.min(end - size)
    }

    fn run(&mut self) -> Run {
        let (granule, size) = (self.spec.alignment(), self.size());
        let place = self.place(size);
        let frames = 1_u64 << (self.spec.geometry().output_lg2 - 1);
        let mut phys = self.rng.u64(frames / 4..frames / 2) & !(size - 1) | place & (size - 1);
        let mut length = self.rng.u64(1..IN_A_ROW) * size;
        if self.rng.bool() {
            length += self.rng.u64(..20) * granule;
        }
        let mut iova = place;
        if self.rng.bool() {
            let before = (self.rng.u64(..20) * granule).min(iova).min(phys);
            (iova, phys, length) = (iova - before, phys - before, length + before);
        }
        if self.rng.u8(..4) == 0 {
            (phys, length) = (phys + granule, length.min(700 * granule));
        }
        let inside = self.spec.aperture().last().get() + 1 - iova;
        let permission =
            *self.rng.choice(&[Permission::Read, Permission::Write, Permission::ReadWrite]).unwrap();
        Run { iova, phys, length: length.min(inside), permission, large_pages: self.large_pages }
    }

    /// Writes here and there, and now and then looks where.
    fn device(&mut self, model: &mut Model) {
        for _ in 0..4 {
            let run = self.run();
            model.write(run.iova + self.rng.u64(..run.length));
        }
        let (run, budget) = (self.run(), self.budget());
        let cleaning = if self.rng.bool() { Cleaning::Clean } else { Cleaning::Keep };
        model.sweep(run.iova, run.length, cleaning, budget);
    }

    fn budget(&mut self) -> u64 {
        if self.rng.bool() { u64::MAX } else { self.rng.u64(1..300) }
    }
}

fn sequence(spec: TableSpec, seed: u64, large_pages: LargePages) -> Counts {
    println!("seed {seed}, {large_pages:?}, {spec:?}");
    let rng = fastrand::Rng::with_seed(seed);
    let spec =
        spec.with_recording(if seed.is_multiple_of(2) { Recording::Writes } else { Recording::Nothing });
    let mut generator = Generator { spec, rng, large_pages };
    let mut model = Model::new(spec, u8::from(seed % 2 == 1));
    for _ in 0..STEPS {
        let (run, budget) = (generator.run(), generator.budget());
        if generator.rng.u8(..5) < 3 {
            model.map(run, budget);
        } else {
            model.unmap(run.iova, run.length, budget);
        }
        if spec.recording() == Recording::Writes {
            generator.device(&mut model);
        }
        model.check((0..10).map(|_| generator.run().iova));
    }
    model.clear()
}

fn sequences(spec: TableSpec) {
    let mut all = Counts::default();
    for seed in 0..SEEDS {
        all.add(sequence(spec, seed, LargePages::On));
        if spec.alignment() == PAGE_SIZE {
            all.add(sequence(spec, seed, LargePages::Off));
        }
    }
    let happened = [all.mapped, all.overlaps, all.unmapped, all.holes, all.dirty];
    assert!(happened.iter().all(|count| *count > 50), "{all:?}");
    let has_large = spec.page_sizes().bitmap().count_ones() > 1;
    assert!(!has_large || all.large > 5 && all.inside > 0, "{all:?}");
}

#[test]
fn amd_v1() {
    sequences(TableSpec::of(FormatId::AmdV1));
}

#[test]
fn amd_v1_with_a_2_kib_granule() {
    sequences(TableSpec::of(FormatId::AmdV1Granule2K));
}

#[test]
fn vtd_second_stage() {
    sequences(TableSpec::of(FormatId::VtdSs));
}

#[test]
fn arm_stage_2() {
    sequences(TableSpec::of(FormatId::ArmS2));
}

#[test]
fn risc_v_sv48() {
    sequences(TableSpec::of(FormatId::RiscVSv48));
}

#[test]
fn risc_v_sv57() {
    sequences(TableSpec::of(FormatId::RiscVSv57));
}

#[test]
fn pages_made_of_smaller_granules_and_a_few_sizes_alone() {
    let mock = TableSpec::of(FormatId::AmdV1Granule2K);
    sequences(mock.with_page_sizes(PageSizes::new(1 << 20 | PAGE_SIZE)).unwrap());
    let amd = TableSpec::of(FormatId::AmdV1);
    sequences(amd.with_page_sizes(PageSizes::new(PAGE_SIZE)).unwrap());
    sequences(amd.with_page_sizes(PageSizes::new(1 << 30 | 1 << 22 | PAGE_SIZE)).unwrap());
}
