//! Clients that vanish: nothing of theirs stays.

use std::os::fd::{AsFd, BorrowedFd};

use ioasd_client::calls::{AccessKind, Iommu, PinIntent};
use ioasd_client::connection::Connection;
use ioasd_client::ids::{AccessId, DeviceId, HwptId, IoasId};
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::wire::own::{
    ACCESS_MAY_PIN, AccessCreate, AccessPin, AccessUnpin, DEVICE_OWN_IOMMU, DeviceAttach, DeviceCreate,
    DeviceDetach, DomainExport,
};
use ioasd_client::wire::uapi::{
    Destroy, IoasAlloc, IoasCopy, IoasMapFile, IoasUnmap, MAP_FIXED_IOVA, MAP_READABLE, MAP_WRITEABLE,
};
use rustix::io::Errno;

use crate::fixture::{Agent, eventually};
use crate::helper::Helper;
use crate::memory::{Bystander, Memory, at, attach_new, client_with_domain, map, range};
use crate::raw::{next_answer, post, request_of};
use crate::walking::open;

const KILLS: u64 = 200;

#[test]
fn a_client_that_hangs_up_leaves_nothing_of_what_it_had() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(30));
    let (ioas, other) = (client.ioas_alloc().unwrap(), client.ioas_alloc().unwrap());
    map(&mut client, ioas, memory.whole(), at(0x1_0000)).unwrap();
    let (_, hwpt) = attach_new(&mut client, ioas, Iommu::Shared);
    attach_new(&mut client, other, Iommu::Own);
    let copied = (ioas, range(0x1_0000, 0x8000));
    client.copy(copied, (other, at(0)), ioasd_client::units::Permission::Read).unwrap();
    let access = client.access_create(ioas, AccessKind::Pinning).unwrap();
    client.access_pin(access, range(0x1_1000, 0x5000), PinIntent::Write).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    drop(client);
    agent.assert_clean();
    drop(walking);
}

#[test]
fn a_client_process_that_is_killed_leaves_nothing_of_what_it_had() {
    let agent = Agent::start();
    let mut bystander = Bystander::new(&agent);
    for _ in 0..3 {
        let helper = Helper::busy_client(&agent.socket());
        assert_eq!(agent.pinned_and_charged(), (40 << 12, 40 << 12));
        bystander.goes_on();
        helper.kill();
        assert!(eventually(|| agent.snapshot().contexts.len() == 1));
        assert!(eventually(|| agent.pinned_and_charged() == (0, 0)));
        bystander.goes_on();
    }
}

#[test]
fn a_client_that_dies_while_its_unmap_waits_for_a_walker_is_taken_down_after_it() {
    let agent = Agent::start();
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(4));
    let mut bystanders = [(); 2].map(|()| Bystander::new(&agent));
    map(&mut client, ioas, memory.whole(), at(0x1_0000)).unwrap();
    let walker = Helper::walker_in_burst(client.domain_export(hwpt).unwrap());
    let unmap = IoasUnmap { ioas_id: ioas, iova: Iova::new(0), length: ByteLen::new(u64::MAX) };
    post(&client, &request_of(1, &unmap), &[]).unwrap();
    drop(client);
    bystanders.iter_mut().for_each(Bystander::goes_on);
    assert_eq!(agent.pinned_and_charged(), (0x4000, 0x4000), "a walker is inside of it");
    walker.kill();
    assert!(eventually(|| agent.snapshot().contexts.len() == 2));
    assert!(eventually(|| agent.pinned_and_charged() == (0, 0)));
}

#[test]
fn contexts_on_the_same_file_have_pages_of_their_own_and_pay_for_each() {
    let agent = Agent::start();
    let memory = Memory::new(16);
    let mut clients: Vec<_> = (0..4).map(|_| client_with_domain(&agent)).collect();
    for (client, ioas, _) in &mut clients {
        map(client, *ioas, memory.whole(), at(0x1_0000)).unwrap();
    }
    assert_eq!(agent.snapshot().pages.len(), 4);
    for left in (0..4).rev() {
        drop(clients.pop());
        let bytes = left * memory.size();
        assert!(eventually(|| agent.pinned_and_charged() == (bytes, bytes)), "{left} clients are left");
        assert!(eventually(|| agent.ledger_sum() == 16 * left));
    }
}

const FLAGS: u32 = MAP_FIXED_IOVA | MAP_READABLE | MAP_WRITEABLE;
const ONE: IoasId = IoasId::new(1);
const TWO: IoasId = IoasId::new(2);

fn map_of(page: u64, pages: u64, iova: u64) -> Vec<u8> {
    let (start, length) = (ByteLen::new(page << 12), ByteLen::new(pages << 12));
    let map = IoasMapFile { flags: FLAGS, ioas_id: ONE, fd: 0, start, length, iova: Iova::new(iova) };
    request_of(0, &map)
}

fn copy_to_two(src_iova: Iova, length: ByteLen) -> Vec<u8> {
    let (dst_ioas_id, src_ioas_id, dst_iova) = (TWO, ONE, Iova::new(0x100_0000));
    request_of(0, &IoasCopy { flags: FLAGS, dst_ioas_id, src_ioas_id, length, dst_iova, src_iova })
}

fn device_of(flags: u32) -> Vec<u8> {
    request_of(0, &DeviceCreate { flags, format: 1, ..Default::default() })
}

fn attach_of(device: u32) -> Vec<u8> {
    request_of(0, &DeviceAttach { flags: 0, device_id: DeviceId::new(device), pt_id: ONE.into() })
}

fn unmap_of(ioas_id: IoasId) -> Vec<u8> {
    request_of(0, &IoasUnmap { ioas_id, iova: Iova::new(0), length: ByteLen::new(u64::MAX) })
}

/// The requests of a client that knows the ids it will get, each with whether it passes the file.
fn script(rng: &mut fastrand::Rng) -> Vec<(Vec<u8>, Passes)> {
    let (access_id, iova, length) = (AccessId::new(7), Iova::new(0x20_0000), ByteLen::new(0x20_0000));
    let access = AccessCreate { flags: ACCESS_MAY_PIN, ioas_id: ONE, ..Default::default() };
    let export = DomainExport { hwpt_id: HwptId::new(5), ..Default::default() };
    let detach = DeviceDetach { device_id: DeviceId::new(3), ..Default::default() };
    let mut all = vec![
        (request_of(0, &IoasAlloc::default()), Passes::Nothing),
        (request_of(0, &IoasAlloc::default()), Passes::Nothing),
        (device_of(0), Passes::Nothing),
        (device_of(DEVICE_OWN_IOMMU), Passes::Nothing),
        (attach_of(3), Passes::Nothing),
        (attach_of(4), Passes::Nothing),
        (request_of(0, &access), Passes::Nothing),
        (map_of(0, 1024, 0x20_0000), Passes::TheFile),
        (map_of(100, 900, 0x1000_0000), Passes::TheFile),
        (request_of(0, &AccessPin { access_id, iova, length, ..Default::default() }), Passes::Nothing),
        (copy_to_two(iova, length), Passes::Nothing),
        (request_of(0, &export), Passes::Nothing),
        (request_of(0, &AccessUnpin { access_id, iova, length, ..Default::default() }), Passes::Nothing),
        (unmap_of(TWO), Passes::Nothing),
        (unmap_of(ONE), Passes::Nothing),
        (request_of(0, &detach), Passes::Nothing),
        (request_of(0, &Destroy { id: access_id.into() }), Passes::Nothing),
    ];
    if rng.bool() {
        rng.shuffle(&mut all[7..]);
    }
    all
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Passes {
    Nothing,
    TheFile,
}

/// Sends a part of a script and vanishes; reads only the first answers.
fn live_and_die(client: Connection, memory: &Memory, rng: &mut fastrand::Rng) {
    let script = script(rng);
    let sent = rng.usize(0..=script.len());
    let read = rng.usize(0..=sent);
    for (message, passes) in &script[..sent] {
        let file: &[BorrowedFd<'_>] = if *passes == Passes::TheFile { &[memory.as_fd()] } else { &[] };
        assert_ne!(post(&client, message, file), Err(Errno::PIPE));
    }
    (0..read).for_each(|_| drop(next_answer(&client)));
    drop(client);
}

#[test]
fn whenever_a_client_dies_nothing_of_it_stays() {
    let (agent, memory) = (Agent::start(), Memory::new(1024));
    for seed in 0..KILLS {
        let mut rng = fastrand::Rng::with_seed(seed);
        let clients = (0..rng.usize(1..4)).map(|_| agent.connect()).collect::<Vec<_>>();
        for client in clients {
            live_and_die(client, &memory, &mut rng);
        }
        eprintln!("seed {seed}");
        agent.assert_clean();
    }
}
