//! Random sequences, one operation after the other, against the model after every step.
//!
//! `IOASD_ORACLE_STEPS` sets how many steps there are together, `IOASD_ORACLE_SEED` repeats the one sequence of that seed.

use std::collections::BTreeMap;

use crate::generator::{Generator, world};
use crate::link::Pace;
use crate::memory::Counters;
use crate::model::{Model, agrees};
use crate::ops::{Op, Outcome, System};
use crate::settings::{self, Seeds};
use crate::world::{World, block_on};

/// Steps of one sequence.
const STEPS: u64 = 1000;

/// Steps in a plain test run.
const ALL_STEPS: u64 = 1_000_000;

/// How often each kind of operation went well, and how often not.
#[derive(Default)]
struct Tally {
    outcomes: BTreeMap<&'static str, [u64; 2]>,
    counters: Counters,
}

impl Tally {
    fn count(&mut self, op: &Op, outcome: &Outcome) {
        self.outcomes.entry(op.name()).or_default()[usize::from(outcome.is_err())] += 1;
    }

    fn add(&mut self, other: &Self) {
        for (name, counts) in &other.outcomes {
            let sums = self.outcomes.entry(name).or_default();
            (0..2).for_each(|at| sums[at] += counts[at]);
        }
        self.counters.add(&other.counters);
    }

    /// Panics if too little happened in so many steps for the test to have tested anything.
    fn check(&self, steps: u64) {
        println!("{steps} steps: {:?}\n{:?}", self.outcomes, self.counters);
        let least = steps / 2000;
        for (name, [good, bad]) in &self.outcomes {
            assert!(*good >= least, "{name} went well {good} times only");
            let cannot_fail = ["detach", "detach-access", "death", "spoil"].contains(name);
            assert!(cannot_fail || *bad >= least, "{name} was refused {bad} times only");
        }
        assert_eq!(self.outcomes.len(), 18, "an operation was never tried");
        let Counters { carries, torn_deliveries, reads, overlaps, refused_charges, .. } = &self.counters;
        assert!(
            *carries >= least && *torn_deliveries >= least / 4 && *overlaps >= least,
            "{:?}",
            self.counters
        );
        assert!(reads[0] >= least && reads[1] >= least && reads[3] >= least, "{:?}", self.counters);
        assert!(*refused_charges >= least, "{:?}", self.counters);
    }
}

/// One sequence in a world of its own, and in the end everything goes.
fn run(seed: u64, steps: u64) -> Tally {
    let mut rng = fastrand::Rng::with_seed(seed);
    let spec = world(&mut rng);
    let mut model = Model::new(spec.clone());
    let system = World::new(spec, rng.u64(..), Pace::Sequential);
    let mut generator = Generator::new(rng.u64(..));
    let mut tally = Tally::default();
    for step in 0..steps {
        let op = generator.next(&model);
        let at = At { seed, step, op: &op };
        settings::note(&at);
        let outcome = compare(&mut model, &system, &at);
        tally.count(&op, &outcome);
    }
    finish(&mut model, &system, seed);
    tally.counters = system.machine.counters.borrow().clone();
    tally
}

/// Where a test is.
pub struct At<'a> {
    /// The sequence.
    pub seed: u64,
    /// The step.
    pub step: u64,
    /// The operation.
    pub op: &'a Op,
}

impl std::fmt::Debug for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {}, step {}: {:?}", self.seed, self.step, self.op)
    }
}

/// One step in both, and a look at both.
pub fn compare(model: &mut Model, system: &impl System, at: &At<'_>) -> Outcome {
    let expected = model.apply(at.op);
    let outcome = block_on(system.apply(at.op));
    assert!(agrees(&expected, &outcome), "{at:?}: expected {expected:?}, found {outcome:?}");
    system.check();
    let (expected, found) = (model.observe(), block_on(system.observe()));
    assert_eq!(expected, found, "{at:?}: left is what the model says, right is what was found");
    outcome
}

/// All clients die; nothing may be left, and what was written must be there.
fn finish(model: &mut Model, system: &World, seed: u64) {
    for context in 0..model.spec.accounts.len() {
        let gone = compare(model, system, &At { seed, step: u64::MAX, op: &Op::Death { context } });
        assert!(gone.is_ok(), "seed {seed}: {gone:?}");
    }
    let left = block_on(system.observe());
    assert!(left.pins.is_empty() && left.charges.values().all(|pages| *pages == 0), "seed {seed}: {left:?}");
    assert!(system.machine.tables.borrow().values().all(crate::tables::Table::is_empty), "seed {seed}");
    for (memory, bytes) in model.bytes.iter().enumerate() {
        assert!(*bytes == system.bytes(memory), "seed {seed}: memory {memory} holds other bytes");
    }
}

#[test]
fn random_sequences_do_what_the_model_says_after_every_step() {
    let seeds = settings::seeds(ALL_STEPS, STEPS);
    let tally = parking_lot::Mutex::new(Tally::default());
    seeds.for_each_on_all_cores(|seed| {
        let of_one = run(seed, STEPS);
        tally.lock().add(&of_one);
    });
    if let Seeds::Many { count } = seeds {
        tally.lock().check(count * STEPS);
    }
}
