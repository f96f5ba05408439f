//! An agent with 10,000 address spaces and some 100,000 areas: what a part of a list, a part of the areas and a scrape take, and
//! what a map of one page costs meanwhile. Prints figures; nothing is asserted but that the answers are right.
//!
//! ```text
//! cargo test --release --test admin scale -- --ignored --nocapture
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ioasd_client::calls::Placement;
use ioasd_client::connection::Connection;
use ioasd_client::ids::IoasId;
use ioasd_client::units::{ByteLen, Iova, IovaRange, Permission};

use crate::fixture::{Agent, map, memory, range};
use crate::http::Door;

/// Contexts, since each may have so many objects and areas only.
const CONTEXTS: u64 = 20;
const SPACES: u64 = 500;
const AREAS: u64 = 10;

/// One context with its share of address spaces and areas.
fn fill(agent: &Agent) -> Connection {
    let (mut client, file) = (agent.connect(), memory(1));
    let source = client.ioas_alloc().unwrap();
    map(&mut client, source, &file, (0, 0x1000), 0);
    for _ in 1..SPACES {
        let ioas = client.ioas_alloc().unwrap();
        for number in 0..AREAS {
            let place = Placement::Fixed(Iova::new(number * 0x2000));
            client.copy((source, range(0, 0x1000)), (ioas, place), Permission::Read).unwrap();
        }
    }
    client
}

/// The median and the slowest of `times`.
fn spread(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() - 1])
}

fn asked(door: &Door, target: &str) -> (Duration, Duration) {
    let ask = || {
        let since = Instant::now();
        assert_eq!(door.get(target).status, 200, "{target}");
        since.elapsed()
    };
    spread((0..20).map(|_| ask()).collect())
}

/// Maps and unmaps one page again and again, `rounds` times; how long each map took.
fn mapped(client: &mut Connection, ioas: IoasId, rounds: usize) -> (Duration, Duration) {
    let file = memory(1);
    let page = IovaRange::from_length(Iova::new(0x100_0000), ByteLen::new(0x1000)).unwrap();
    let mut once = || {
        let since = Instant::now();
        map(client, ioas, &file, (0, 0x1000), page.start().get());
        let took = since.elapsed();
        client.unmap(ioas, page).unwrap();
        took
    };
    spread((0..rounds).map(|_| once()).collect())
}

#[test]
#[ignore = "prints figures, to be run alone and in release"]
fn scale_of_lists_and_scrapes_and_what_they_cost_a_map() {
    let agent = Agent::start();
    let full: Vec<Connection> = (0..CONTEXTS).map(|_| fill(&agent)).collect();
    let door = agent.socket();
    let status = door.json("/v1/status");
    println!("{} address spaces, {} areas", status["ioases"], status["areas"]);
    assert_eq!(status["ioases"], CONTEXTS * SPACES);
    for target in
        ["/v1/ioas?limit=1000", "/v1/ioas?context=7&limit=1000", "/v1/ioas/2/areas", "/v1/status", "/metrics"]
    {
        println!("{target}: median and slowest {:?}", asked(&door, target));
    }
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    println!("map of a page, nobody asks: {:?}", mapped(&mut client, ioas, 2000));
    let over = AtomicBool::new(false);
    let meanwhile = thread::scope(|scope| {
        let scrapes = scope.spawn(|| {
            let mut scrapes = 0;
            while scrapes == 0 || !over.load(Ordering::Relaxed) {
                assert_eq!(door.get("/metrics").status, 200);
                scrapes += 1;
            }
            scrapes
        });
        let times = mapped(&mut client, ioas, 2000);
        over.store(true, Ordering::Relaxed);
        (times, scrapes.join().unwrap())
    });
    println!(
        "map of a page while somebody scrapes without pause: {:?}, {} scrapes",
        meanwhile.0, meanwhile.1
    );
    drop(full);
}
