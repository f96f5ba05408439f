//! What is finite: objects, tables, files of an export, and what an export channel understands.

use std::os::fd::AsFd;

use ioasd::storage::ledger::limits::Limit;
use ioasd::storage::ledger::resource::Resource;
use ioasd_client::calls::{ExportChannel, Iommu};
use ioasd_client::connection::Connection;
use ioasd_client::formats::FormatId;
use ioasd_client::units::Iova;
use ioasd_client::wire::command::{Command, encode};
use ioasd_client::wire::own::WalkerOpen;
use ioasd_client::wire::uapi::IoasAlloc;
use rustix::fs::fstat;
use rustix::io::Errno;

use crate::fixture::{Agent, errno};
use crate::memory::{Bystander, Memory, at, client_with_domain, map};
use crate::raw::{call_message, request};

#[test]
fn a_context_has_a_limited_number_of_objects() {
    let agent = Agent::with(|start| start.limits.unnamed.context.set(Resource::Objects, Limit::hard(3)));
    let (mut client, memory) = (agent.connect(), Memory::new(3));
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    let devices = [(); 2].map(|()| client.device_create(FormatId::AmdV1, Iommu::Own).unwrap());
    assert_eq!(errno(client.ioas_alloc()), Errno::NOMEM);
    assert_eq!(errno(client.device_attach(devices[0], ioas)), Errno::NOMEM, "a hwpt is an object, too");
    assert_eq!(agent.pinned_and_charged(), (0, 0));
    assert!(agent.snapshot().domains.is_empty());
    client.destroy(devices[1]).unwrap();
    client.device_attach(devices[0], ioas).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0x3000, 0x3000));
    Bystander::new(&agent).goes_on();
}

/// Maps a page every 512 GiB apart until there is no room for tables; tells how many.
fn fill_the_arena(client: &mut Connection, ioas: ioasd_client::ids::IoasId, memory: &Memory) -> u64 {
    for number in 0..512 {
        if let Err(error) = map(client, ioas, memory.whole(), at(number << 39)) {
            assert_eq!(error.errno(), Errno::NOMEM);
            return number;
        }
    }
    panic!("the arena never was full");
}

#[test]
fn the_areas_of_all_address_spaces_of_a_context_count_together() {
    let agent = Agent::with(|start| start.limits.unnamed.context.set(Resource::Areas, Limit::hard(3)));
    let (mut client, memory) = (agent.connect(), Memory::new(1));
    let ioases = [(); 2].map(|()| client.ioas_alloc().unwrap());
    for (ioas, page) in [(ioases[0], 1), (ioases[0], 2), (ioases[1], 1)] {
        map(&mut client, ioas, memory.whole(), at(page << 12)).unwrap();
    }
    assert_eq!(errno(map(&mut client, ioases[1], memory.whole(), at(0x5000))), Errno::NOMEM);
    Bystander::new(&agent).goes_on();
    client.destroy(ioases[0]).unwrap();
    map(&mut client, ioases[1], memory.whole(), at(0x5000)).unwrap();
}

#[test]
fn the_tables_of_all_domains_of_a_context_count_together() {
    let agent =
        Agent::with(|start| start.limits.unnamed.context.set(Resource::Tables, Limit::hard(600 << 10)));
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    let mut attach = || {
        let device = client.device_create(FormatId::AmdV1, Iommu::Own)?;
        client.device_attach(device, ioas).map(|_| device)
    };
    let attached: Vec<_> = std::iter::from_fn(|| attach().ok()).take(100).collect();
    assert!((1..100).contains(&attached.len()), "{} domains fit", attached.len());
    assert_eq!(errno(attach()), Errno::NOMEM);
    Bystander::new(&agent).goes_on();
    client.device_detach(attached[0]).unwrap();
    let device = client.device_create(FormatId::AmdV1, Iommu::Own).unwrap();
    client.device_attach(device, ioas).unwrap();
}

#[test]
fn a_full_arena_refuses_maps_without_a_trace_and_is_as_good_as_new_when_emptied() {
    let agent = Agent::with(|start| start.limits.unnamed.context.set(Resource::Tables, Limit::hard(1 << 20)));
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(1));
    let mut bystander = Bystander::new(&agent);
    let room = fill_the_arena(&mut client, ioas, &memory);
    assert!(room > 3);
    assert_eq!(agent.pinned_and_charged(), (room << 12, room << 12));
    bystander.goes_on();
    for _ in 0..5 {
        assert_eq!(client.unmap_all(ioas).unwrap().get(), room << 12);
        assert_eq!(fill_the_arena(&mut client, ioas, &memory), room);
    }
}

#[test]
fn files_that_an_answer_has_no_room_for_are_given_one_by_one() {
    let agent = Agent::start();
    let (mut client, ioas, hwpt) = client_with_domain(&agent);
    let files: Vec<Memory> = (0..252).map(|_| Memory::new(1)).collect();
    for (file, iova) in files.iter().zip((0x1000..).step_by(0x1000)).take(251) {
        map(&mut client, ioas, file.whole(), at(iova)).unwrap();
    }
    let mut channel = ExportChannel::from_fd(client.domain_export(hwpt).unwrap());
    assert_eq!(channel.open().unwrap().files.len(), 251);
    map(&mut client, ioas, files[251].whole(), at(0x1000_0000)).unwrap();
    let mut channel = ExportChannel::from_fd(client.domain_export(hwpt).unwrap());
    assert_eq!(channel.open().unwrap().files.len(), 251);
    let last = channel.file_at(Iova::new(0x1000_0000)).unwrap();
    assert_eq!(fstat(&last.file).unwrap().st_ino, fstat(&files[251]).unwrap().st_ino);
    assert_eq!(errno(channel.file_at(Iova::new(0x2000_0000))), Errno::NOENT);
}

#[test]
fn an_export_channel_understands_one_command() {
    let agent = Agent::start();
    let (mut client, _, hwpt) = client_with_domain(&agent);
    let mut channel = Connection::from_fd(client.domain_export(hwpt).unwrap());
    let (memory, good) = (Memory::new(1), encode(&WalkerOpen::default()));
    let flags = encode(&WalkerOpen { flags: 1, ..WalkerOpen::default() });
    let cases = [
        (b"not a frame".to_vec(), Errno::PROTO),
        (vec![], Errno::PROTO),
        (vec![1; 5000], Errno::PROTO),
        (request(IoasAlloc::NUMBER, 1, &good), Errno::NOTTY),
        (request(WalkerOpen::NUMBER + 1, 1, &good), Errno::NOTTY),
        (request(WalkerOpen::NUMBER, 1, &good[..12]), Errno::FAULT),
        (request(WalkerOpen::NUMBER, 1, &[15, 0, 0, 0]), Errno::INVAL),
        (request(WalkerOpen::NUMBER, 1, &flags), Errno::OPNOTSUPP),
    ];
    for (message, refused) in cases {
        assert_eq!(call_message(&mut channel, &message, &[memory.as_fd()]).refusal(), Some(refused));
    }
    assert_eq!(agent.snapshot().domains[0].stats.walkers.get(), 0);
    ExportChannel::from_fd(channel.into_fd()).open().unwrap();
    assert_eq!(agent.snapshot().domains[0].stats.walkers.get(), 1);
}
