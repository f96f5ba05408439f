//! Exports and walkers: the right bytes, the right faults, and unmaps that wait.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use ioasd::actors::exported_files::UnsafeFiles;
use ioasd::actors::journal::Kind;
use ioasd_client::calls::{ExportChannel, Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::ids::IoasId;
use ioasd_client::units::{Iova, IovaRange, Permission};
use ioasd_client::walker::{FaultKind, Stream, WalkFault, Walker};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::io::Errno;

use crate::fixture::{Agent, PATIENCE, errno, eventually};
use crate::helper::Helper;
use crate::memory::{
    Bystander, Memory, at, attach_new, client_with_domain, empty_memfd, map, range, read_at, slice, write_at,
};

/// How long an unmap is watched that must wait.
const A_WHILE: Duration = Duration::from_millis(150);

/// Opens a domain.
pub(crate) fn open(channel: OwnedFd) -> Walker {
    Walker::attach(ExportChannel::from_fd(channel)).unwrap()
}

fn read(stream: &mut Stream, iova: u64, length: usize) -> Result<Vec<u8>, WalkFault> {
    let mut bytes = vec![0; length];
    stream.enter().read(Iova::new(iova), &mut bytes)?;
    Ok(bytes)
}

fn fault(stream: &mut Stream, iova: u64) -> FaultKind {
    read(stream, iova, 1).unwrap_err().kind
}

#[test]
fn a_walker_reads_and_writes_the_memory_itself_and_faults_after_the_unmap() {
    let agent = Agent::start();
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(700));
    map(&mut client, ioas, memory.slice(0x1000, 0x2b_a000), at(0x1_0000)).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    let mut stream = walking.stream().unwrap();
    assert_eq!(read(&mut stream, 0x1_0000, 0x2b_a000).unwrap(), Memory::bytes(0x1000, 0x2b_a000));
    stream.enter().write(Iova::new(0x1_0fff), b"xyz").unwrap();
    assert_eq!(read_at(&memory, 0x1fff, 3), b"xyz");
    assert_eq!(fault(&mut stream, 0xffff), FaultKind::NotPresent);
    assert_eq!(fault(&mut stream, 0x2c_a000), FaultKind::NotPresent);
    client.unmap(ioas, range(0x1_0000, 0x2b_a000)).unwrap();
    assert_eq!(fault(&mut stream, 0x1_0000), FaultKind::NotPresent);
    map(&mut client, ioas, memory.slice(0x3000, 0x1000), at(0x1_0000)).unwrap();
    assert_eq!(read(&mut stream, 0x1_0000, 0x1000).unwrap(), Memory::bytes(0x3000, 0x1000));
}

#[test]
fn permissions_bind_walkers() {
    let agent = Agent::start();
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(2));
    client.map_file(ioas, memory.slice(0, 0x1000), Permission::Read, at(0x1000)).unwrap();
    client.map_file(ioas, memory.slice(0x1000, 0x1000), Permission::Write, at(0x2000)).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    let mut stream = walking.stream().unwrap();
    assert_eq!(read(&mut stream, 0x1000, 0x1000).unwrap(), Memory::bytes(0, 0x1000));
    assert_eq!(stream.enter().write(Iova::new(0x1000), b"x").unwrap_err().kind, FaultKind::Permission);
    assert_eq!(fault(&mut stream, 0x2000), FaultKind::Permission);
    stream.enter().write(Iova::new(0x2000), b"x").unwrap();
}

#[test]
fn every_domain_of_an_address_space_shows_the_same() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(33));
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, memory.slice(0, 0x1_0000), at(0x3f_f000)).unwrap();
    let hwpts = [(); 6].map(|()| attach_new(&mut client, ioas, Iommu::Own).1);
    map(&mut client, ioas, memory.slice(0x1_0000, 0x1_1000), at(0x80_0000)).unwrap();
    for hwpt in hwpts {
        let walking = open(client.domain_export(hwpt).unwrap());
        let mut stream = walking.stream().unwrap();
        assert_eq!(read(&mut stream, 0x3f_f000, 0x1_0000).unwrap(), Memory::bytes(0, 0x1_0000));
        assert_eq!(read(&mut stream, 0x80_0000, 0x1_1000).unwrap(), Memory::bytes(0x1_0000, 0x1_1000));
    }
}

#[test]
fn a_copy_is_walked_like_what_it_was_made_of() {
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(8));
    map(&mut client, ioas, memory.whole(), at(0x1_0000)).unwrap();
    let target = client.ioas_alloc().unwrap();
    let copied = client.copy((ioas, range(0x1_2000, 0x3000)), (target, Placement::Any), Permission::Read);
    let iova = copied.unwrap().get();
    client.unmap_all(ioas).unwrap();
    let (_, hwpt) = attach_new(&mut client, target, Iommu::Own);
    let walking = open(client.domain_export(hwpt).unwrap());
    assert_eq!(read(&mut walking.stream().unwrap(), iova, 0x3000).unwrap(), Memory::bytes(0x2000, 0x3000));
}

/// Reads in a burst that learns of files.
fn learn(stream: &mut Stream, iova: u64, length: usize) -> Result<Vec<u8>, FaultKind> {
    let mut bytes = vec![0; length];
    stream.burst(|burst| burst.read(Iova::new(iova), &mut bytes)).map_err(|fault| fault.kind)?;
    Ok(bytes)
}

#[test]
fn a_walker_opens_what_is_shown_then_and_learns_of_new_files_while_it_runs() {
    let agent = Agent::start();
    let ((mut client, ioas, hwpt), early) = (client_with_domain(&agent), Memory::new(1));
    let channel = client.domain_export(hwpt).unwrap();
    map(&mut client, ioas, early.whole(), at(0x1000)).unwrap();
    let walking = open(channel);
    let mut streams = [walking.stream().unwrap(), walking.stream().unwrap().with_iotlb()];
    assert_eq!(read(&mut streams[0], 0x1000, 0x1000).unwrap(), Memory::bytes(0, 0x1000));
    let late = Memory::new(2);
    map(&mut client, ioas, late.whole(), at(0x2000)).unwrap();
    assert_eq!(fault(&mut streams[0], 0x2000), FaultKind::NotExported);
    for stream in &mut streams {
        assert_eq!(learn(stream, 0x2000, 0x2000).unwrap(), Memory::bytes(0, 0x2000));
        assert_eq!(read(stream, 0x1000, 0x1000).unwrap(), Memory::bytes(0, 0x1000), "the old file stays");
    }
    assert_eq!(learn(&mut streams[0], 0x9000, 1), Err(FaultKind::NotPresent));
}

#[test]
fn a_file_that_grew_is_learned_again() {
    let agent = Agent::start();
    let (mut client, ioas, hwpt) = client_with_domain(&agent);
    let file = empty_memfd("growing", 1);
    fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    write_at(&file, 0, &[1; 0x1000]);
    map(&mut client, ioas, slice(file.as_fd(), 0, 0x1000), at(0x1000)).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    let mut stream = walking.stream().unwrap();
    assert_eq!(read(&mut stream, 0x1000, 1).unwrap(), [1]);
    write_at(&file, 0x1000, &[2; 0x1000]);
    map(&mut client, ioas, slice(file.as_fd(), 0x1000, 0x1000), at(0x2000)).unwrap();
    assert_eq!(learn(&mut stream, 0x1fff, 2).unwrap(), [1, 2]);
    stream.enter().write(Iova::new(0x2fff), &[7]).unwrap();
    assert_eq!(read_at(&file, 0x1fff, 1), [7]);
}

#[test]
fn what_an_export_channel_cannot_answer_it_refuses() {
    let agent = Agent::start();
    let (mut client, ioas, hwpt) = client_with_domain(&agent);
    let unsealed = empty_memfd("unsealed", 1);
    write_at(&unsealed, 0, &[7; 0x1000]);
    map(&mut client, ioas, slice(unsealed.as_fd(), 0, 0x1000), at(0x1000)).unwrap();
    let mut channel = ExportChannel::from_fd(client.domain_export(hwpt).unwrap());
    assert_eq!(errno(channel.file_at(Iova::new(0x2000))), Errno::NOENT);
    assert_eq!(errno(channel.file_at(Iova::new(0x1000))), Errno::PERM);
    drop(client);
    assert!(channel.file_at(Iova::new(0x1000)).is_err(), "its domain is gone");
}

#[test]
fn a_file_that_can_shrink_is_mapped_but_not_exported() {
    let agent = Agent::start();
    let (mut client, ioas, hwpt) = client_with_domain(&agent);
    let unsealed = empty_memfd("unsealed", 1);
    write_at(&unsealed, 0, &[7; 0x1000]);
    map(&mut client, ioas, slice(unsealed.as_fd(), 0, 0x1000), at(0x1000)).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    assert_eq!(fault(&mut walking.stream().unwrap(), 0x1000), FaultKind::NotExported);
}

#[test]
fn a_file_that_can_shrink_is_exported_where_that_is_allowed() {
    let agent = Agent::with(|start| start.settings.unsafe_files = UnsafeFiles::Exported);
    let (mut client, ioas, hwpt) = client_with_domain(&agent);
    let unsealed = empty_memfd("unsealed", 1);
    write_at(&unsealed, 0, &[7; 0x1000]);
    map(&mut client, ioas, slice(unsealed.as_fd(), 0, 0x1000), at(0x1000)).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    assert_eq!(read(&mut walking.stream().unwrap(), 0x1000, 1).unwrap(), [7]);
}

#[test]
fn huge_pages_are_exported_when_all_of_them_are_there() {
    const HUGE: u64 = 2 << 20;
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let allocate = |file: &OwnedFd, page: u64| fallocate(file, FallocateFlags::empty(), page * HUGE, HUGE);
    let made = memfd_create("huge", flags).and_then(|file| {
        ftruncate(&file, HUGE)?;
        allocate(&file, 0).map(|()| file)
    });
    let Ok(file) = made else {
        ioasd::skip!("huge_pages_are_exported_when_all_of_them_are_there: no huge pages are free");
        return;
    };
    fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    let agent = Agent::start();
    let (mut client, ioas, hwpt) = client_with_domain(&agent);
    map(&mut client, ioas, slice(file.as_fd(), 0, HUGE), at(HUGE)).unwrap();
    ftruncate(&file, 2 * HUGE).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    let mut stream = walking.stream().unwrap();
    assert_eq!(learn(&mut stream, HUGE, 1), Err(FaultKind::NotExported));
    if allocate(&file, 1).is_err() {
        ioasd::skip!(
            "huge_pages_are_exported_when_all_of_them_are_there: one huge page is free, but not two"
        );
        return;
    }
    assert_eq!(learn(&mut stream, HUGE, 1), Ok(vec![0]));
}

#[test]
fn who_opens_a_domain_is_in_the_journal() {
    let agent = Agent::start();
    let (mut client, _, hwpt) = client_with_domain(&agent);
    let walked = || {
        let events = agent.registry().journal().since(0, usize::MAX).events;
        events.into_iter().filter(|event| event.what.kind == Kind::Walked).collect::<Vec<_>>()
    };
    let channel = client.domain_export(hwpt).unwrap();
    assert!(walked().is_empty(), "nobody has opened it yet");
    let _walking = open(channel);
    let [event] = &walked()[..] else { panic!("{:?}", walked()) };
    assert_eq!(event.what.context, Some(1));
    let who = format!("process {}, user {}", std::process::id(), rustix::process::getuid().as_raw());
    assert!(event.what.text.ends_with(&who), "{}", event.what.text);
}

#[test]
fn one_channel_opens_many_walkers_and_the_agent_counts_them() {
    let agent = Agent::start();
    let (mut client, _, hwpt) = client_with_domain(&agent);
    let walkers = || agent.snapshot().domains[0].stats.walkers.get();
    let mut channel = ExportChannel::from_fd(client.domain_export(hwpt).unwrap());
    let opened: Vec<_> = (0..3).map(|_| channel.open().unwrap()).collect();
    assert_eq!(walkers(), 3);
    drop(opened);
    assert_eq!(walkers(), 3, "the channel holds them, not their descriptors");
    drop(channel);
    assert!(eventually(|| walkers() == 0));
}

/// Runs `call` in a thread of its own and tells its result when it returns.
fn in_background<T: Send + 'static>(
    mut client: Connection,
    call: impl FnOnce(&mut Connection) -> T + Send + 'static,
) -> Receiver<(T, Connection)> {
    let (done, when_done) = channel();
    thread::spawn(move || {
        let result = call(&mut client);
        done.send((result, client)).unwrap();
    });
    when_done
}

#[track_caller]
fn assert_waits<T>(when_done: &Receiver<T>) {
    let early = when_done.recv_timeout(A_WHILE);
    assert!(matches!(early, Err(RecvTimeoutError::Timeout)), "a call came back while a walker was inside");
}

fn unmap_in_background(client: Connection, ioas: IoasId) -> Receiver<(u64, Connection)> {
    in_background(client, move |client| client.unmap(ioas, IovaRange::ALL).unwrap().get())
}

#[test]
fn an_unmap_waits_for_the_walker_that_is_inside() {
    let agent = Agent::start();
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(4));
    map(&mut client, ioas, memory.whole(), at(0x1_0000)).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    let (mut stream, mut outside) = (walking.stream().unwrap(), walking.stream().unwrap());
    let burst = stream.enter();
    let unmapped = unmap_in_background(client, ioas);
    assert_waits(&unmapped);
    assert_eq!(fault(&mut outside, 0x1_0000), FaultKind::NotPresent, "who enters now sees it gone");
    let retiring = agent.snapshot().pages[0].stats.retiring.get().get();
    assert_eq!((agent.pinned_and_charged(), retiring), ((0x4000, 0x4000), 0x4000));
    drop(burst);
    let (bytes, _client) = unmapped.recv_timeout(PATIENCE).unwrap();
    assert_eq!((bytes, agent.pinned_and_charged()), (0x4000, (0, 0)));
}

#[test]
fn while_an_unmap_waits_its_addresses_are_taken_and_everybody_else_goes_on() {
    let agent = Agent::start();
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(4));
    let mut bystanders = [(); 3].map(|()| Bystander::new(&agent));
    map(&mut client, ioas, memory.whole(), at(0x1_0000)).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    let mut stream = walking.stream().unwrap();
    let burst = stream.enter();
    let unmapped = unmap_in_background(client, ioas);
    assert_waits(&unmapped);
    bystanders.iter_mut().for_each(Bystander::goes_on);
    drop(burst);
    unmapped.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_detach_waits_for_the_walker_and_leaves_a_dead_domain() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(4));
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, memory.whole(), at(0x1_0000)).unwrap();
    let (device, hwpt) = attach_new(&mut client, ioas, Iommu::Shared);
    let walking = open(client.domain_export(hwpt).unwrap());
    let mut stream = walking.stream().unwrap();
    let burst = stream.enter();
    let detached = in_background(client, move |client| client.device_detach(device));
    assert_waits(&detached);
    drop(burst);
    let (result, _client) = detached.recv_timeout(PATIENCE).unwrap();
    result.unwrap();
    assert_eq!(fault(&mut stream, 0x1_0000), FaultKind::Dead);
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

#[test]
fn the_death_of_a_walker_inside_ends_the_wait() {
    let agent = Agent::start();
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(4));
    map(&mut client, ioas, memory.whole(), at(0x1_0000)).unwrap();
    let helper = Helper::walker_in_burst(client.domain_export(hwpt).unwrap());
    let unmapped = unmap_in_background(client, ioas);
    assert_waits(&unmapped);
    helper.kill();
    let (bytes, _client) = unmapped.recv_timeout(PATIENCE).unwrap();
    assert_eq!((bytes, agent.pinned_and_charged()), (0x4000, (0, 0)));
}

#[test]
fn when_the_agent_stops_walkers_fault() {
    let mut agent = Agent::start();
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(4));
    map(&mut client, ioas, memory.whole(), at(0x1_0000)).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    let mut stream = walking.stream().unwrap();
    assert!(read(&mut stream, 0x1_0000, 1).is_ok());
    agent.stop();
    assert_eq!(fault(&mut stream, 0x1_0000), FaultKind::Dead);
    client.ioas_alloc().expect_err("the agent is gone");
}
