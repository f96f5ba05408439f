//! When the data side is stuck: what can be told without it is told, and the rest is refused in time.

use std::sync::mpsc::{Sender, TryRecvError, channel};
use std::time::Duration;

use ioasd::actors::inbox::WAITING_MAX;
use rustix::io::Errno;

use crate::fixture::{Agent, attach, eventually, map, memory};

/// Keeps an arbiter from doing anything until the sender is dropped; returns when it is stuck.
pub(crate) fn stick(agent: &Agent, arbiter: usize) -> Sender<()> {
    let (release, released) = channel::<()>();
    let (begun, when_begun) = channel();
    let spawned = agent.shared.arbiters[arbiter].spawn(async move {
        begun.send(()).unwrap();
        assert!(released.recv().is_err(), "the sender is only dropped");
    });
    assert!(spawned);
    when_begun.recv().unwrap();
    release
}

/// How long whoever lives on a slow arbiter waits for each of its turns.
const TURN: Duration = Duration::from_millis(4);

/// Has an arbiter take its time for everything until the sender is dropped.
pub(crate) fn slow_down(agent: &Agent, arbiter: usize) -> Sender<()> {
    let (release, released) = channel::<()>();
    let spawned = agent.shared.arbiters[arbiter].spawn(async move {
        while released.try_recv() == Err(TryRecvError::Empty) {
            std::thread::sleep(TURN);
            tokio::task::yield_now().await;
        }
    });
    assert!(spawned);
    release
}

#[test]
fn a_stuck_data_side_stops_no_figure_and_collects_no_questions() {
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), memory(2));
    let ioas = client.ioas_alloc().unwrap();
    attach(&mut client, ioas);
    map(&mut client, ioas, &file, (0, 0x2000), 0x1000);
    let stuck = [stick(&agent, 0), stick(&agent, 1)];
    let door = agent.tcp();
    for target in [
        "/livez",
        "/readyz",
        "/metrics",
        "/version",
        "/",
        "/v1/status",
        "/v1/ioas",
        "/v1/pages",
        "/v1/accounts",
        "/v1/domains/1/faults",
    ] {
        assert_eq!(door.get(target).status, 200, "{target}");
    }
    for target in [
        "/v1/ioas/1/areas",
        "/v1/ioas/1/gaps",
        "/v1/ioas/1/ranges",
        "/v1/pages/1",
        "/v1/domains/1",
        "/v1/domains/1/walk?iova=0x1000",
    ] {
        let answer = door.get(target);
        answer.assert_problem(503, "owner-silent", Errno::TIMEDOUT);
        assert!(answer.head.contains("retry-after: 1"), "{}", answer.head);
    }
    let together: Vec<_> = (1..WAITING_MAX)
        .map(|_| {
            let door = door.clone();
            std::thread::spawn(move || door.get("/v1/ioas/1/areas").status)
        })
        .collect();
    for asking in together {
        assert_eq!(asking.join().unwrap(), 503);
    }
    door.get("/v1/ioas/1/areas").assert_problem(503, "owner-busy", Errno::BUSY);
    drop(stuck);
    assert!(eventually(|| door.get("/v1/ioas/1/areas").status == 200), "its places are never free again");
    assert_eq!(door.json("/v1/ioas/1/areas")["items"][0]["start"], "0x1000");
}
