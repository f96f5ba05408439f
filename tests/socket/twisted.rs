//! Requests that were right once: bits flipped, bytes lost and added. Each is answered, and the agent stays whole.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};

use ioasd_client::calls::{AccessKind, Iommu};
use ioasd_client::connection::Connection;
use ioasd_client::wire::frame::Reply;

use crate::fixture::Agent;
use crate::memory::{Bystander, Memory, attach_new};

const SEEDS: u64 = 40;
const REQUESTS: usize = 100;

/// The requests that fuzzers start from; they name the objects that [`furnished`] makes.
fn good_requests() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/request");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// A client with address space 1, device 2, hwpt 3 and access 4.
fn furnished(agent: &Agent) -> Connection {
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    attach_new(&mut client, ioas, Iommu::Shared);
    client.access_create(ioas, AccessKind::Pinning).unwrap();
    client
}

/// Twists a few bytes, mostly behind the header, and now and then the length.
fn twist(message: &mut Vec<u8>, rng: &mut fastrand::Rng) {
    for _ in 0..rng.usize(0..4) {
        if message.len() < 28 {
            return;
        }
        let from = if rng.u8(0..8) == 0 { 0 } else { 24 };
        let place = rng.usize(from..message.len());
        match rng.u8(0..12) {
            0 => message.truncate(place),
            1 => message.insert(place, rng.u8(..)),
            2..5 => message[place] = [0, 1, 0x7f, 0x80, 0xff][rng.usize(0..5)],
            5 => message[place] = rng.u8(..),
            _ => message[place] ^= 1 << rng.u8(0..8),
        }
    }
}

#[test]
fn every_twisted_request_is_answered_and_the_agent_goes_on() {
    let (agent, memory, good) = (Agent::start(), Memory::new(8), good_requests());
    let mut bystander = Bystander::new(&agent);
    for seed in 0..SEEDS {
        let (mut client, mut rng) = (furnished(&agent), fastrand::Rng::with_seed(seed));
        for turn in 0..REQUESTS {
            let mut message = rng.choice(&good).unwrap().clone();
            twist(&mut message, &mut rng);
            let file: &[BorrowedFd<'_>] = if rng.bool() { &[memory.as_fd()] } else { &[] };
            let answer = client.call_bytes(&message, file);
            let answer = answer.unwrap_or_else(|error| panic!("seed {seed}, turn {turn}: {error:?}"));
            assert!(Reply::decode(&answer.bytes).is_ok(), "seed {seed}, turn {turn}");
        }
        bystander.goes_on();
    }
}
