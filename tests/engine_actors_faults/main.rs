//! The fault sweep over the real actors: in each scenario the n-th fault point fails, for every n until none is left.
//!
//! After each failure everything is as it was before: areas, pins, caches, every translation in the tables' bytes,
//! charges, objects, figures. Points that are passed by (a smaller batch, an unknown sender) may leave the operation to
//! succeed. A binary of its own, because the armed point is one per process.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    unreachable_pub,
    dead_code,
    reason = "a test, which shares files with another"
)]

#[path = "../engine/access_rules.rs"]
mod access_rules;
mod files;
#[path = "../engine/model.rs"]
mod model;
#[path = "../engine/ops.rs"]
mod ops;
#[path = "../engine/placing.rs"]
mod placing;
#[path = "../engine/rules.rs"]
mod rules;
mod session;
#[path = "../engine_actors/source.rs"]
mod source;
#[path = "../engine_actors/system.rs"]
mod system;

use std::collections::BTreeMap;
use std::sync::Arc;

use ioasd::actors::agent::{Agent, Local};
use ioasd::fault_points::{Armed, Point};
use ioasd::storage::Tuning;
use ioasd::storage::pfn::RunLimit;
use ioasd_client::formats::FormatId;
use ioasd_client::units::{PAGE_SIZE, Permission};

use ops::{Asked, DomainSpec, IoasSpec, Manners, MemorySpec, Op, Range, Spec, Way};
use system::{Actors, Home, at_home};

const P: u64 = PAGE_SIZE;

/// Held by each test from beginning to end: preparing one would use up the armed point of another.
static ONE_AT_A_TIME: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// Points swept, by name.
type Tally = BTreeMap<String, u64>;

fn spec() -> Spec {
    let frames = vec![7, 8, 9, 30, 31, 50, 20, 21, 22, 23, 3, 60, 61, 62, 90, 91];
    let domain = |ioas| DomainSpec { ioas, granule: P, start: 0, last: (1 << 48) - 1, capacity: u64::MAX };
    Spec {
        memories: vec![MemorySpec { frames, origin: 0 }],
        ioases: (0..2).map(|_| IoasSpec { context: 0, start: 0, last: 64 * P - 1 }).collect(),
        domains: [0, 0, 0, 1, 1].map(domain).to_vec(),
        accounts: vec![7],
        limits: [(7, 13)].into_iter().collect(),
        accesses: 2,
    }
}

fn map(ioas: usize, pages: u64, first: u64, count: u64, place: u64) -> Op {
    Op::Map {
        ioas,
        pages,
        memory: 0,
        offset: first * P,
        length: count * P,
        permission: Permission::ReadWrite,
        writable: Asked::Yes,
        limited: Asked::Yes,
        place: Some(place * P),
    }
}

fn range(first: u64, count: u64) -> Range {
    Range { iova: first * P, length: count * P }
}

fn copy(from: usize, first: u64, count: u64, to: usize, place: u64) -> Op {
    Op::Copy {
        from,
        range: range(first, count),
        to,
        permission: Permission::ReadWrite,
        place: Some(place * P),
    }
}

fn attach(domains: &[usize]) -> Vec<Op> {
    domains.iter().map(|domain| Op::Attach { domain: *domain }).collect()
}

fn pinned_source() -> Vec<Op> {
    let access = Op::AttachAccess { ioas: 1, access: 0, pins: Asked::Yes, manners: Manners::LetsGo };
    let pin = |first, count| Op::Pin { ioas: 1, access: 0, range: range(first, count), way: Way::Read };
    vec![map(1, 1, 0, 6, 8), map(1, 2, 6, 7, 14), access, pin(10, 2), pin(13, 3)]
}

/// Name, what happens before, what is disturbed.
type Scenario = (&'static str, Vec<Op>, Op);

fn scenarios() -> Vec<Scenario> {
    let populated = || [pinned_source(), vec![copy(1, 8, 13, 0, 20)]].concat();
    let pin = Op::Pin { ioas: 1, access: 0, range: range(9, 10), way: Way::Write };
    vec![
        ("map into three domains", attach(&[0, 1, 2]), map(0, 1, 2, 9, 3)),
        (
            "copy with pins into three domains",
            [pinned_source(), attach(&[0, 1, 2])].concat(),
            copy(1, 8, 13, 0, 1),
        ),
        (
            "copy from domains into domains",
            [attach(&[3, 4, 0, 1]), pinned_source()].concat(),
            copy(1, 9, 11, 0, 1),
        ),
        ("attach the first domain", populated(), Op::Attach { domain: 0 }),
        ("attach a further domain", [attach(&[0, 1]), populated()].concat(), Op::Attach { domain: 2 }),
        ("pin pages in domains", [attach(&[3]), pinned_source()].concat(), pin.clone()),
        ("pin pages in no domain", pinned_source(), pin),
        (
            "unmap from three domains",
            [attach(&[0, 1, 2]), populated()].concat(),
            Op::Unmap { ioas: 0, range: range(20, 13) },
        ),
        ("attach a hwpt made by hand", populated(), Op::Attach { domain: 1 }),
        ("replace", [attach(&[0, 1]), populated()].concat(), Op::Replace { domain: 0, by: 4 }),
        (
            "replace by a hwpt made by hand",
            [attach(&[1]), populated()].concat(),
            Op::Replace { domain: 1, by: 3 },
        ),
        (
            "an access moves away from what it holds",
            [attach(&[3]), populated()].concat(),
            Op::ReplaceAccess { ioas: 1, access: 0, to: 0 },
        ),
        ("large pages off", populated(), Op::LargePages { ioas: 1, on: Asked::No }),
        ("detach the last domain", [attach(&[0]), populated()].concat(), Op::Detach { domain: 0 }),
        ("detach one of three", [attach(&[0, 1, 2]), populated()].concat(), Op::Detach { domain: 0 }),
        ("read unpinned pages", pinned_source(), Op::Read { ioas: 1, access: 0, range: range(8, 13) }),
        (
            "write unpinned pages",
            pinned_source(),
            Op::Write { ioas: 1, access: 0, range: range(8, 2), seed: 0 },
        ),
    ]
}

fn small() -> Tuning {
    Tuning { runs: RunLimit::new(2), batch_pages: 3, unmap_pages: 2, ..Tuning::default() }
}

/// Disturbs the n-th point of a scenario; the point, if there was one left.
async fn disturb((name, before, op): &Scenario, n: u64, agent: Arc<Agent>, local: Local) -> Option<Point> {
    let actors = Actors::new(spec(), FormatId::AmdV1, Arc::clone(&agent), local).await;
    for op in before {
        let prepared = actors.apply(op).await;
        assert!(prepared.is_ok(), "{name}: {op:?}: {prepared:?}");
    }
    let was = actors.observe().await;
    let armed = Armed::nth(n);
    let outcome = actors.apply(op).await;
    let fired = armed.disarm();
    let is = actors.observe().await;
    assert!(fired.is_some() || outcome.is_ok(), "{name}: {outcome:?} though nothing failed");
    if outcome.is_err() {
        assert_eq!(was, is, "{name}: point {n}, {fired:?}, left a trace");
        let again = actors.apply(op).await;
        assert!(again.is_ok(), "{name}: after point {n}, {fired:?}, it does not work any more: {again:?}");
    }
    let ended = actors.apply(&Op::Death { context: 0 }).await;
    assert!(ended.is_ok() && agent.registry.snapshot().pinned().get() == 0, "{name}: {n}, {fired:?}");
    fired
}

/// Disturbs every point of a scenario in turn.
fn sweep(home: Home, scenario: &Scenario, tally: &mut Tally) {
    let (name, _, op) = scenario;
    let mut n = 0;
    let disturbed = |n| {
        let scenario = scenario.clone();
        at_home(home, small(), async move |agent, local| disturb(&scenario, n, agent, local).await)
    };
    while let Some(point) = disturbed(n) {
        *tally.entry(format!("{point:?}")).or_default() += 1;
        n += 1;
    }
    println!("{name}, {home:?}: {n} points");
    let sure =
        matches!(op, Op::Detach { .. } | Op::Unmap { .. } | Op::ReplaceAccess { .. } | Op::LargePages { .. });
    assert!(n > 0 || sure, "{name} reaches no point");
}

#[test]
fn every_point_of_every_scenario_fails_without_a_trace() {
    let _alone = ONE_AT_A_TIME.lock();
    let mut tally = Tally::new();
    for home in [Home::BesideTables, Home::Elsewhere] {
        for scenario in scenarios() {
            sweep(home, &scenario, &mut tally);
        }
    }
    println!("{} points x scenarios: {tally:?}", tally.values().sum::<u64>());
    for point in
        ["BatchAlloc", "CacheAlloc", "TableAlloc", "Mailbox", "Charge", "Reserve", "Pin", "ActorStart"]
    {
        assert!(tally.contains_key(point), "no scenario reaches {point}: {tally:?}");
    }
}
