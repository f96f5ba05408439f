//! Operations that overlap in time, polled in random order.
//!
//! What each of them should answer is not predicted. Whenever none is under way, every rule must hold: domains show
//! exactly the ready areas, a page holds a pin exactly if an area in a domain shows it or an access pins it, accounts
//! pay for exactly that; and the tiers panic meanwhile when they are misused.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use rustix::io::Errno;

use crate::generator::{Generator, world};
use crate::link::Pace;
use crate::memory::Counters;
use crate::model::{AccessModel, AreaModel, Model, PinModel};
use crate::ops::{Asked, Manners, Observation, Op, Outcome, Range, System};
use crate::settings::{self, Seeds};
use crate::world::{World, block_on};

/// Rounds of one sequence, each of some operations at once.
const ROUNDS: u64 = 150;

/// Operations of one sequence, about.
const STEPS: u64 = 4 * ROUNDS;

/// Operations in a plain test run, about.
const ALL_STEPS: u64 = 500_000;

/// Polls after which a round counts as stuck.
const PATIENCE: u64 = 1_000_000;

type Running<'a> = (Op, Pin<Box<dyn Future<Output = Outcome> + 'a>>);

/// Polls in random order until all are done.
pub fn run_together<'a>(system: &'a World, rng: &mut fastrand::Rng, ops: Vec<Op>) -> Vec<(Op, Outcome)> {
    let mut running: Vec<Running<'a>> = ops.into_iter().map(|op| (op.clone(), start(system, op))).collect();
    let mut context = Context::from_waker(Waker::noop());
    let mut done = Vec::new();
    let mut polls = 0;
    while !running.is_empty() {
        let at = rng.usize(..running.len());
        if let Poll::Ready(outcome) = running[at].1.as_mut().poll(&mut context) {
            done.push((running.swap_remove(at).0, outcome));
        }
        polls += 1;
        let stuck = || running.iter().map(|(op, _)| op).collect::<Vec<_>>();
        assert!(polls < PATIENCE, "these do not come to an end: {:?}", stuck());
    }
    done
}

fn start(system: &World, op: Op) -> Pin<Box<dyn Future<Output = Outcome> + '_>> {
    Box::pin(async move { system.apply(&op).await })
}

/// What is known from outside, for the generator and for the checks.
pub struct Guide {
    model: Model,
}

impl Guide {
    /// Nothing is known but the world.
    pub fn new(spec: crate::ops::Spec) -> Self {
        Self { model: Model::new(spec) }
    }

    /// Remembers the pages object that a MAP may make.
    pub fn know(&mut self, op: &Op) {
        if let Op::Map { pages, length: 1..=0xff_ffff, .. } = op {
            self.model.pages.insert(*pages, self.model.pages_of(op));
        }
    }

    /// Operations that may run together: a client dies only while it asks for nothing.
    fn round(&mut self, generator: &mut Generator, rng: &mut fastrand::Rng) -> Vec<Op> {
        let mut ops: Vec<Op> = match rng.u8(..3) {
            0 => generator.storm(&self.model),
            _ => (0..rng.usize(2..7)).map(|_| cooperative(generator.next(&self.model))).collect(),
        };
        let dying =
            ops.iter().find_map(|op| if let Op::Death { context } = op { Some(*context) } else { None });
        if let Some(dying) = dying {
            let mut death = Some(Op::Death { context: dying });
            ops.retain(|op| self.context_of(op).is_some_and(|context| context != dying));
            ops.extend(death.take());
        }
        ops.iter().for_each(|op| self.know(op));
        ops
    }

    fn context_of(&self, op: &Op) -> Option<usize> {
        let ioas = match op {
            Op::Map { ioas, .. }
            | Op::Copy { from: ioas, .. }
            | Op::Unmap { ioas, .. }
            | Op::Cut { ioas, .. }
            | Op::Allow { ioas, .. }
            | Op::AttachAccess { ioas, .. }
            | Op::DetachAccess { ioas, .. }
            | Op::Pin { ioas, .. }
            | Op::Unpin { ioas, .. }
            | Op::Read { ioas, .. }
            | Op::Write { ioas, .. }
            | Op::LargePages { ioas, .. }
            | Op::ReplaceAccess { ioas, .. } => *ioas,
            Op::Attach { domain } | Op::Detach { domain } | Op::Replace { domain, .. } => {
                self.model.spec.domains[*domain].ioas
            }
            Op::Death { .. } | Op::Spoil { .. } => return None,
        };
        Some(self.model.spec.ioases[ioas].context)
    }

    /// Learns what the world looks like now.
    pub fn look(&mut self, system: &World, seen: &Observation, done: &[(Op, Outcome)]) {
        for (ioas, areas) in seen.areas.iter().enumerate() {
            let state = &mut self.model.ioases[ioas];
            state.domains = system.attached(ioas);
            state.areas = areas.iter().enumerate().map(|(id, area)| area_model(id as u64, area)).collect();
        }
        for (op, outcome) in done {
            if outcome.is_ok() {
                self.note_access(op);
            }
        }
    }

    /// Roughly: a pin that an unmap made its access drop is still known here.
    fn note_access(&mut self, op: &Op) {
        match op {
            Op::AttachAccess { ioas, access, pins, manners } => {
                let state = AccessModel { pins: *pins, manners: *manners, held: Vec::new() };
                self.model.ioases[*ioas].accesses.entry(*access).or_insert(state);
            }
            Op::DetachAccess { ioas, access } => drop(self.model.ioases[*ioas].accesses.remove(access)),
            Op::ReplaceAccess { ioas, access, to } => {
                if let Some(mut state) = self.model.ioases[*ioas].accesses.remove(access) {
                    state.held.clear();
                    self.model.ioases[*to].accesses.entry(*access).or_insert(state);
                }
            }
            Op::LargePages { ioas, on } => self.model.ioases[*ioas].large_pages = *on,
            Op::Pin { ioas, access, range, .. } => self.note_pin(*ioas, *access, *range),
            Op::Unpin { ioas, access, range } => {
                if let Some(state) = self.model.ioases[*ioas].accesses.get_mut(access) {
                    state.held.retain(|pin| pin.range.0 != range.iova);
                }
            }
            Op::Death { context } => {
                for (ioas, state) in self.model.ioases.iter_mut().enumerate() {
                    if self.model.spec.ioases[ioas].context == *context {
                        state.accesses.clear();
                    }
                }
            }
            _ => {}
        }
    }

    fn note_pin(&mut self, ioas: usize, access: usize, range: Range) {
        if let Some(state) = self.model.ioases[ioas].accesses.get_mut(&access) {
            state
                .held
                .push(PinModel { range: (range.iova, range.iova + (range.length - 1)), parts: Vec::new() });
        }
    }

    /// Panics unless what is seen hangs together.
    pub fn check(&self, seen: &Observation) {
        let mut wanted = self.model.observe();
        for (serial, cached) in &seen.cached {
            let pins = wanted.pins.entry(*serial).or_insert_with(|| vec![false; cached.len()]);
            pins.iter_mut().zip(cached).for_each(|(pinned, cached)| *pinned |= cached);
        }
        assert_eq!(
            wanted.pins, seen.pins,
            "left: what areas in domains show and accesses pin; right: the pins"
        );
        assert_eq!(
            wanted.translations, seen.translations,
            "left: what the areas say; right: what the domains say"
        );
        for (account, charged) in &seen.charges {
            assert_eq!(*charged, self.model.charged(&seen.pins, *account, Asked::No), "account {account}");
        }
    }
}

/// An operation whose access lets go when asked.
fn cooperative(mut op: Op) -> Op {
    if let Op::AttachAccess { manners, .. } = &mut op {
        *manners = Manners::LetsGo;
    }
    op
}

fn area_model(id: u64, area: &crate::ops::SeenArea) -> AreaModel {
    AreaModel {
        id,
        start: area.iova.0,
        last: area.iova.1,
        pages: area.pages,
        offset: area.offset,
        permission: area.permission,
        prevented: area.prevented,
    }
}

fn run(seed: u64) -> (Counters, BTreeMap<&'static str, u64>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let spec = world(&mut rng);
    let system = World::new(spec.clone(), rng.u64(..), Pace::Interleaved);
    let mut guide = Guide::new(spec);
    let mut generator = Generator::new(rng.u64(..));
    let mut successes = BTreeMap::new();
    for round in 0..ROUNDS {
        let ops = guide.round(&mut generator, &mut rng);
        settings::note(&(seed, round, &ops));
        let done = run_together(&system, &mut rng, ops);
        settings::note(&done);
        for (op, outcome) in &done {
            assert_ne!(
                *outcome,
                Err(Errno::DEADLK),
                "seed {seed}, round {round}: {op:?}, all accesses let go"
            );
            *successes.entry(op.name()).or_default() += u64::from(outcome.is_ok());
        }
        system.check();
        let seen = block_on(system.observe());
        guide.look(&system, &seen, &done);
        guide.check(&seen);
    }
    finish(&system, seed);
    let counters = system.machine.counters.borrow().clone();
    (counters, successes)
}

/// All clients die; nothing may be left.
pub fn finish(system: &World, seed: u64) {
    for context in 0..system.spec.accounts.len() {
        assert!(block_on(system.apply(&Op::Death { context })).is_ok());
    }
    system.check();
    let left = block_on(system.observe());
    assert!(left.pins.is_empty() && left.charges.values().all(|pages| *pages == 0), "seed {seed}: {left:?}");
    assert!(system.machine.tables.borrow().values().all(crate::tables::Table::is_empty), "seed {seed}");
}

#[test]
fn whatever_overlaps_every_rule_holds_when_nothing_is_under_way() {
    let seeds = settings::seeds(ALL_STEPS, STEPS);
    let all = parking_lot::Mutex::new((Counters::default(), BTreeMap::<&str, u64>::new()));
    seeds.for_each_on_all_cores(|seed| {
        let (counters, successes) = run(seed);
        let mut all = all.lock();
        all.0.add(&counters);
        successes.iter().for_each(|(name, count)| *all.1.entry(name).or_default() += count);
    });
    if let Seeds::Many { count } = seeds {
        let (counters, successes) = all.into_inner();
        println!("{} rounds: {successes:?}\n{counters:?}", count * ROUNDS);
        let least = count * ROUNDS / 1000;
        assert!(successes.len() == 18 && successes.values().all(|count| *count >= least), "{successes:?}");
        assert!(counters.interruptions >= least && counters.reads[2] >= least, "{counters:?}");
    }
}
