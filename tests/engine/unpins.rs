//! Unpins between the steps of fills and pins of the same pages: the one thing that may interrupt a movement.

use ioasd_client::units::{PAGE_SIZE, Permission};

use crate::concurrent::{Guide, finish, run_together};
use crate::link::Pace;
use crate::ops::{Asked, DomainSpec, IoasSpec, Manners, MemorySpec, Op, Range, Spec, System, Way};
use crate::world::{World, block_on};

/// Sequences.
const SEQUENCES: u64 = 4000;

/// Pages of the one area.
const PAGES: u64 = 8;

/// One area of pages that mostly lie apart, and two domains.
fn spec() -> Spec {
    let last = 64 * PAGE_SIZE - 1;
    let domain = DomainSpec { ioas: 0, granule: PAGE_SIZE, start: 0, last, capacity: u64::MAX };
    Spec {
        memories: vec![MemorySpec { frames: vec![9, 7, 5, 30, 31, 50, 20, 3], origin: 0 }],
        ioases: vec![IoasSpec { context: 0, start: 0, last }],
        domains: vec![domain, domain],
        accounts: vec![1],
        limits: [].into_iter().collect(),
        accesses: 1,
    }
}

fn range(rng: &mut fastrand::Rng) -> Range {
    let first = rng.u64(..PAGES);
    Range { iova: first * PAGE_SIZE, length: rng.u64(1..=PAGES - first) * PAGE_SIZE }
}

fn before() -> Vec<Op> {
    let map = Op::Map {
        ioas: 0,
        pages: 1,
        memory: 0,
        offset: 0,
        length: PAGES * PAGE_SIZE,
        permission: Permission::ReadWrite,
        writable: Asked::Yes,
        limited: Asked::Yes,
        place: Some(0),
    };
    vec![map, Op::AttachAccess { ioas: 0, access: 0, pins: Asked::Yes, manners: Manners::LetsGo }]
}

fn pin(range: Range) -> Op {
    Op::Pin { ioas: 0, access: 0, range, way: Way::Read }
}

/// Every pin is taken back while the area is filled, copied and pinned.
fn run(seed: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let system = World::new(spec(), rng.u64(..), Pace::Interleaved);
    let mut guide = Guide::new(spec());
    let pinned: Vec<Range> = (0..rng.usize(1..5)).map(|_| range(&mut rng)).collect();
    let mut before = before();
    before.extend(pinned.iter().map(|range| pin(*range)));
    for op in &before {
        assert!(block_on(system.apply(op)).is_ok(), "seed {seed}: {op:?}");
    }
    let mut ops: Vec<Op> = pinned.into_iter().map(|range| Op::Unpin { ioas: 0, access: 0, range }).collect();
    ops.push(Op::Attach { domain: 0 });
    ops.push(if rng.bool() { Op::Attach { domain: 1 } } else { Op::Detach { domain: 0 } });
    ops.push(pin(range(&mut rng)));
    rng.shuffle(&mut ops);
    guide.know(&before[0]);
    let done = run_together(&system, &mut rng, ops);
    assert!(done.iter().all(|(_, outcome)| outcome.is_ok()), "seed {seed}: {done:?}");
    system.check();
    let seen = block_on(system.observe());
    guide.look(&system, &seen, &done);
    guide.check(&seen);
    finish(&system, seed);
    system.machine.counters.borrow().interruptions
}

#[test]
fn unpins_may_run_between_the_steps_of_fills_and_pins() {
    let interruptions: u64 = (0..SEQUENCES).map(run).sum();
    println!("{SEQUENCES} sequences, {interruptions} interruptions");
    assert!(interruptions > SEQUENCES / 4, "{interruptions} interruptions only");
}
