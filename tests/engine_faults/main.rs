//! The fault sweep: in scripted scenarios the n-th fault point fails, for every n until none is left; and the operation is
//! cancelled when its movements are looked at for the n-th time.
//!
//! After each failure everything is as it was before, and the same operation then succeeds. What cannot fail does not
//! fail, whatever does below it. A binary of its own, because the armed point is one per process.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    unreachable_pub,
    dead_code,
    reason = "a test, which uses a part of the oracle's modules"
)]

#[path = "../engine/driver.rs"]
mod driver;
#[path = "../engine/link.rs"]
mod link;
#[path = "../engine/memory.rs"]
mod memory;
#[path = "../engine/model.rs"]
mod model;
#[path = "../engine/ops.rs"]
mod ops;
mod scenarios;
#[path = "../engine/tables.rs"]
mod tables;
#[path = "../engine/world.rs"]
mod world;

use std::collections::BTreeMap;

use ioasd::fault_points::{Armed, Point};

use link::Pace;
use ops::{Observation, Op, Outcome, System};
use scenarios::{Failing, Scenario};
use world::{World, block_on};

/// Orders of steps, and limits of movements, in which each scenario is swept.
const ORDERS: u64 = 24;

/// What a sweep saw.
#[derive(Default)]
struct Swept {
    points: BTreeMap<String, u64>,
    failures: u64,
}

/// A world in which everything but the last operation has happened.
fn prepared(scenario: &Scenario, order: u64) -> World {
    let world = World::new(scenarios::spec(), order, Pace::Sequential);
    for op in &scenario.before {
        let outcome = block_on(world.apply(op));
        assert!(outcome.is_ok(), "{}: {op:?}: {outcome:?}", scenario.name);
    }
    world
}

fn look(world: &World) -> (Observation, Vec<u8>) {
    world.check();
    (block_on(world.observe()), world.bytes(0))
}

/// What disturbs an operation.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    /// The n-th point fails.
    Point(u64),
    /// It is cancelled at the n-th look at its movements.
    Cancel(u64),
}

/// The name under which cancellations are counted.
const CANCEL: &str = "Cancel";

/// The outcome, and what disturbed it, if it came to that.
fn apply_disturbed(world: &World, op: &Op, disturbance: Disturbance) -> (Outcome, Option<String>) {
    match disturbance {
        Disturbance::Point(n) => {
            let armed = Armed::nth(n);
            let outcome = block_on(world.apply(op));
            (outcome, armed.disarm().map(|point: Point| format!("{point:?}")))
        }
        Disturbance::Cancel(n) => {
            world.machine.cancel_after.set(Some(n + 1));
            let outcome = block_on(world.apply(op));
            let reached = world.machine.cancel_after.take() == Some(0);
            (outcome, reached.then(|| CANCEL.to_owned()))
        }
    }
}

/// How it is when nothing fails.
fn without_failure(scenario: &Scenario, order: u64) -> (Observation, Vec<u8>) {
    let world = prepared(scenario, order);
    let outcome = block_on(world.apply(&scenario.op));
    assert!(outcome.is_ok(), "{}: {outcome:?} though nothing failed", scenario.name);
    let seen = look(&world);
    leave_nothing(&world, scenario.name);
    seen
}

/// Disturbs a scenario; `None` if it does not come to that.
fn disturb(
    scenario: &Scenario,
    order: u64,
    disturbance: Disturbance,
    wanted: &(Observation, Vec<u8>),
) -> Option<(String, Failing)> {
    let at = format!("{}, order {order}, {disturbance:?}", scenario.name);
    let world = prepared(scenario, order);
    let before = look(&world);
    let (outcome, fired) = apply_disturbed(&world, &scenario.op, disturbance);
    let Some(fired) = fired else {
        leave_nothing(&world, &at);
        return None;
    };
    let failing = if outcome.is_ok() { Failing::Never } else { Failing::May };
    if let Err(errno) = outcome {
        assert_eq!(scenario.failing, Failing::May, "{at}: {errno} from what cannot fail, by {fired:?}");
        let after = look(&world);
        assert_eq!(before.0, after.0, "{at}, {fired:?}: left is before, right is after");
        assert!(
            before.1 == after.1 || matches!(scenario.op, Op::Write { .. }),
            "{at}, {fired:?}: other bytes"
        );
        let again = block_on(world.apply(&scenario.op));
        assert!(again.is_ok(), "{at}, {fired:?}: {again:?} when repeated");
    }
    let found = look(&world);
    assert_eq!(wanted.0, found.0, "{at}, {fired:?}: left is without a failure, right is after it");
    assert!(wanted.1 == found.1, "{at}, {fired:?}: other bytes in the end");
    leave_nothing(&world, &at);
    Some((fired, failing))
}

fn leave_nothing(world: &World, at: &str) {
    assert!(block_on(world.apply(&Op::Death { context: 0 })).is_ok());
    let (left, _) = look(world);
    assert!(left.pins.is_empty() && left.charges.values().all(|pages| *pages == 0), "{at}: {left:?}");
    assert!(world.machine.tables.borrow().values().all(tables::Table::is_empty), "{at}");
}

fn sweep(scenario: &Scenario) -> Swept {
    let mut swept = Swept::default();
    for order in 0..ORDERS {
        let wanted = without_failure(scenario, order);
        for kind in [Disturbance::Point, Disturbance::Cancel] {
            for n in 0.. {
                let Some((point, failing)) = disturb(scenario, order, kind(n), &wanted) else { break };
                *swept.points.entry(point).or_default() += 1;
                swept.failures += u64::from(failing == Failing::May);
            }
        }
    }
    println!("{}: {:?}, {} refused", scenario.name, swept.points, swept.failures);
    swept
}

/// One test for all, because what else runs in this process would count as well.
#[test]
fn whatever_point_fails_or_wherever_it_is_cancelled_the_state_is_as_before_and_a_repetition_succeeds() {
    let scenarios = scenarios::all();
    let mut points: BTreeMap<String, u64> = BTreeMap::new();
    for scenario in &scenarios {
        let swept = sweep(scenario);
        let count: u64 = swept.points.values().sum();
        assert!(count >= ORDERS * scenario.least, "{}: {count} points only", scenario.name);
        assert!(
            scenario.failing == Failing::Never || swept.failures >= ORDERS,
            "{} never failed",
            scenario.name
        );
        swept.points.iter().for_each(|(point, count)| *points.entry(point.clone()).or_default() += count);
    }
    let count: u64 = points.values().sum();
    println!("{} scenarios, {count} failures of points: {points:?}", scenarios.len());
    assert!(scenarios.len() >= 16 && count >= 4000, "{count} failures in {} scenarios", scenarios.len());
    for point in [CANCEL, "BatchAlloc", "CacheAlloc", "Charge", "FileIo", "Pin", "Reserve", "TableAlloc"] {
        assert!(points.contains_key(point), "{point} was never reached");
    }
}
