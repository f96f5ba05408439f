//! Random sequences over the real actors, against the model after every step.

use std::collections::BTreeMap;
use std::sync::Arc;

use ioasd::actors::agent::{Agent, Local};
use ioasd::domains::spec::TableSpec;
use ioasd::storage::Tuning;
use ioasd::storage::pfn::RunLimit;
use ioasd_client::formats::FormatId;

use crate::generator::{Generator, world};
use crate::model::{Model, agrees};
use crate::ops::{IoasSpec, Manners, Op, Outcome, Spec};
use crate::system::{Actors, Home, at_home};

/// Sequences of a plain test run.
const SEQUENCES: u64 = 200;

/// Steps of one sequence.
const STEPS: u64 = 500;

/// Formats in turn. RISC-V is not among them: what may be written may be read there.
const FORMATS: [FormatId; 4] = [FormatId::AmdV1, FormatId::AmdV1Granule2K, FormatId::VtdSs, FormatId::ArmS2];

/// A world for real tables of one format: they have its granule and aperture, and no limit of entries.
fn world_of_tables(rng: &mut fastrand::Rng, format: FormatId) -> Spec {
    let mut spec = world(rng);
    let low = spec.ioases[0].clone();
    for ioas in &mut spec.ioases {
        *ioas = IoasSpec { context: ioas.context, ..low.clone() };
    }
    let table = TableSpec::of(format);
    let (granule, last) = (table.alignment(), table.aperture().last().get());
    for domain in &mut spec.domains {
        (domain.granule, domain.start, domain.last, domain.capacity) = (granule, 0, last, u64::MAX);
    }
    spec
}

fn tuning(rng: &mut fastrand::Rng) -> Tuning {
    let mut small = |otherwise: u64| if rng.u8(..4) == 0 { otherwise } else { rng.u64(1..5) };
    let runs = u32::try_from(small(1000)).unwrap();
    Tuning {
        runs: RunLimit::new(runs),
        batch_pages: small(1000),
        unmap_pages: small(1000),
        ..Tuning::default()
    }
}

/// An access that never answers costs three seconds a time; here it answers and holds on, which ends the same way.
fn polite(op: Op) -> Op {
    match op {
        Op::AttachAccess { ioas, access, pins, manners: Manners::Silent } => {
            Op::AttachAccess { ioas, access, pins, manners: Manners::HoldsOn }
        }
        op => op,
    }
}

type Tally = BTreeMap<&'static str, [u64; 2]>;

async fn compare(model: &mut Model, actors: &Actors, op: &Op, at: &str) -> Outcome {
    let expected = model.apply(op);
    let outcome = actors.apply(op).await;
    assert!(agrees(&expected, &outcome), "{at}, {op:?}: expected {expected:?}, found {outcome:?}");
    let (expected, found) = (model.observe(), actors.observe().await);
    assert_eq!(expected, found, "{at}, {op:?}: left is what the model says, right is what was found");
    outcome
}

async fn run(seed: u64, mut rng: fastrand::Rng, agent: Arc<Agent>, local: Local) -> Tally {
    let mut tally = Tally::new();
    let format = FORMATS[(seed % 4) as usize];
    let spec = world_of_tables(&mut rng, format);
    let mut model = Model::new(spec.clone());
    let actors = Actors::new(spec, format, Arc::clone(&agent), local).await;
    let mut generator = Generator::new(rng.u64(..));
    for step in 0..STEPS {
        let op = polite(generator.next(&model));
        let at = format!("IOASD_ORACLE_SEED={seed}, step {step}");
        let outcome = compare(&mut model, &actors, &op, &at).await;
        tally.entry(op.name()).or_default()[usize::from(outcome.is_err())] += 1;
    }
    for context in 0..model.spec.accounts.len() {
        let gone =
            compare(&mut model, &actors, &Op::Death { context }, &format!("the end of seed {seed}")).await;
        assert!(gone.is_ok(), "seed {seed}: {gone:?}");
    }
    for (memory, bytes) in model.bytes.iter().enumerate() {
        assert!(*bytes == actors.bytes(memory), "seed {seed}: memory {memory} holds other bytes");
    }
    assert_eq!(agent.registry.snapshot().pinned().get(), 0, "seed {seed} leaves pins");
    tally
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}: give a number")))
}

#[test]
fn random_sequences_over_the_real_actors_do_what_the_model_says() {
    let mut tally = Tally::new();
    let seeds: Vec<u64> = match number("IOASD_ORACLE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("IOASD_ACTOR_SEQUENCES").unwrap_or(SEQUENCES)).collect(),
    };
    for seed in &seeds {
        let mut rng = fastrand::Rng::with_seed(*seed);
        let (seed, tuning) = (*seed, tuning(&mut rng));
        let home = if rng.bool() { Home::BesideTables } else { Home::Elsewhere };
        let of_one = at_home(home, tuning, async move |agent, local| run(seed, rng, agent, local).await);
        for (name, counts) in of_one {
            let sum = tally.entry(name).or_default();
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
    println!("{} sequences of {STEPS} steps: {tally:?}", seeds.len());
    if seeds.len() >= 100 {
        let least = seeds.len() as u64 * STEPS / 4000;
        for name in ["map", "copy", "unmap", "attach", "pin", "read", "write", "unpin"] {
            let [good, bad] = tally[name];
            assert!(
                good > least && bad > 0,
                "{name} went well {good} times and was refused {bad} times only"
            );
        }
    }
}
