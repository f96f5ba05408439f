//! Many clients at once on the same file, with walkers that check every byte.

use std::os::fd::OwnedFd;
use std::thread;

use ioasd_client::calls::{Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::ids::{DeviceId, HwptId, IoasId};
use ioasd_client::units::{Iova, Permission};

use crate::fixture::{Agent, eventually};
use crate::memory::{Memory, attach_new, map, range};
use crate::walking::open;

const CLIENTS: u64 = 6;
const TURNS: usize = 40;
const PAGES: u64 = 700;

/// A mapping as the client remembers it.
struct Mapping {
    iova: u64,
    offset: u64,
    length: u64,
}

struct Life<'a> {
    client: Connection,
    ioas: IoasId,
    memory: &'a Memory,
    mappings: Vec<Mapping>,
    devices: Vec<(DeviceId, HwptId)>,
    rng: fastrand::Rng,
}

impl<'a> Life<'a> {
    fn new(agent: &Agent, memory: &'a Memory, seed: u64) -> Self {
        let mut client = agent.connect();
        let ioas = client.ioas_alloc().unwrap();
        let (mappings, devices) = Default::default();
        Self { client, ioas, memory, mappings, devices, rng: fastrand::Rng::with_seed(seed) }
    }

    fn turn(&mut self) {
        match self.rng.u8(0..10) {
            0..4 => self.map(),
            4..6 => self.unmap(),
            6 => self.attach(),
            7 => self.detach(),
            _ => self.walk(),
        }
    }

    fn map(&mut self) {
        let first = self.rng.u64(0..PAGES);
        let (offset, length) = (first << 12, self.rng.u64(1..=PAGES - first) << 12);
        let slice = self.memory.slice(offset, length);
        let iova = map(&mut self.client, self.ioas, slice, Placement::Any).unwrap();
        self.mappings.push(Mapping { iova, offset, length });
    }

    fn unmap(&mut self) {
        if self.mappings.is_empty() {
            return;
        }
        let place = self.rng.usize(0..self.mappings.len());
        let Mapping { iova, length, .. } = self.mappings.swap_remove(place);
        assert_eq!(self.client.unmap(self.ioas, range(iova, length)).unwrap().get(), length);
    }

    fn attach(&mut self) {
        self.devices.push(attach_new(&mut self.client, self.ioas, Iommu::Own));
    }

    fn detach(&mut self) {
        let Some((device, _)) = self.devices.pop() else { return };
        self.client.device_detach(device).unwrap();
        self.client.destroy(device).unwrap();
    }

    fn walk(&mut self) {
        let Some((_, hwpt)) = self.rng.choice(&self.devices) else { return };
        let channel: OwnedFd = self.client.domain_export(*hwpt).unwrap();
        let walking = open(channel);
        let mut stream = walking.stream().unwrap();
        for Mapping { iova, offset, length } in &self.mappings {
            let mut bytes = vec![0; usize::try_from(*length).unwrap()];
            stream.enter().read(Iova::new(*iova), &mut bytes).unwrap();
            assert!(bytes == Memory::bytes(*offset, *length), "wrong bytes at {iova:#x}");
        }
    }
}

#[test]
fn clients_that_live_side_by_side_see_their_own_memory_and_no_other() {
    let (agent, memory) = (Agent::start(), Memory::new(PAGES));
    thread::scope(|scope| {
        for seed in 0..CLIENTS {
            let mut life = Life::new(&agent, &memory, seed);
            scope.spawn(move || (0..TURNS).for_each(|_| life.turn()));
        }
    });
    agent.assert_clean();
}

#[test]
fn contexts_come_and_go_on_both_arbiters() {
    let (agent, memory) = (Agent::start(), Memory::new(4));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let mut client = agent.connect();
                    let ioas = client.ioas_alloc().unwrap();
                    attach_new(&mut client, ioas, Iommu::Shared);
                    client.map_file(ioas, memory.whole(), Permission::Read, Placement::Any).unwrap();
                }
            });
        }
    });
    assert!(eventually(|| agent.snapshot().contexts.is_empty()));
}
