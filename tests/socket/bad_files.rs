//! Files that are no memory, or not enough of it; and descriptors that must not stay behind.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use ioasd_client::calls::Iommu;
use ioasd_client::formats::FormatId;
use ioasd_client::units::{ByteLen, Iova, PAGE_SIZE, Permission};
use ioasd_client::wire::command::Command;
use ioasd_client::wire::uapi::{IoasAlloc, IoasMapFile, MAP_READABLE};
use rustix::fs::{OFlags, ftruncate};
use rustix::io::Errno;

use crate::fixture::{Agent, errno, eventually};
use crate::memory::{
    Bystander, Memory, at, attach_new, client_with_domain, empty_memfd, map, range, slice, write_at,
};
use crate::raw::{call_message, refusal, request_of};
use crate::walking::open;

/// A MAP_FILE without domain succeeds; with one, and when one comes later, it ends in `errno`.
#[track_caller]
fn assert_only_mappable_without_domain(file: BorrowedFd<'_>, length: u64, expected: Errno) {
    let agent = Agent::start();
    let (mut client, mut bystander) = (agent.connect(), Bystander::new(&agent));
    let (ioas, other) = (client.ioas_alloc().unwrap(), client.ioas_alloc().unwrap());
    map(&mut client, ioas, slice(file, 0, length), at(0x1000)).unwrap();
    let device = client.device_create(FormatId::AmdV1, Iommu::Own).unwrap();
    assert_eq!(errno(client.device_attach(device, ioas)), expected);
    bystander.goes_on();
    client.device_attach(device, other).unwrap();
    assert_eq!(errno(map(&mut client, other, slice(file, 0, length), at(0x1000))), expected);
    bystander.goes_on();
    assert_eq!(client.unmap_all(other).unwrap().get(), 0);
    assert_eq!(client.unmap_all(ioas).unwrap().get(), length);
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

#[test]
fn what_is_no_memory_can_be_mapped_but_not_pinned() {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let directory = File::open("/").unwrap();
    let null = File::open("/dev/null").unwrap();
    let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
    for file in [reader.as_fd(), writer.as_fd(), directory.as_fd(), null.as_fd(), socket.as_fd()] {
        assert_only_mappable_without_domain(file, 0x1000, Errno::INVAL);
    }
}

#[test]
fn memory_that_is_too_short_is_noticed_when_it_is_pinned() {
    let file = empty_memfd("short", 2);
    write_at(&file, 0, &[1; 0x2000]);
    assert_only_mappable_without_domain(file.as_fd(), 0x3000, Errno::INVAL);
    ftruncate(&file, 0x1000).unwrap();
    assert_only_mappable_without_domain(file.as_fd(), 0x2000, Errno::INVAL);
    ftruncate(&file, 0x1001).unwrap();
    assert_only_mappable_without_domain(file.as_fd(), 0x2000, Errno::INVAL);
    ftruncate(&file, 0).unwrap();
    assert_only_mappable_without_domain(file.as_fd(), 0x1000, Errno::INVAL);
}

#[test]
fn a_hole_in_memory_is_noticed_when_it_is_pinned() {
    for hole in [0, 2, 599] {
        let file = empty_memfd("holey", 600);
        for page in (0..600).filter(|page| *page != hole) {
            write_at(&file, page * PAGE_SIZE, &[1]);
        }
        assert_only_mappable_without_domain(file.as_fd(), 600 * PAGE_SIZE, Errno::NOMEM);
    }
}

#[test]
fn only_the_pages_that_are_mapped_must_be_there() {
    let agent = Agent::start();
    let (mut client, ioas, _) = client_with_domain(&agent);
    let file = empty_memfd("holey", 6);
    write_at(&file, 2 * PAGE_SIZE, &[1; 2 * 4096]);
    map(&mut client, ioas, slice(file.as_fd(), 0x2000, 0x2000), at(0x1000)).unwrap();
    assert_eq!(errno(map(&mut client, ioas, slice(file.as_fd(), 0x3000, 0x2000), at(0x8000))), Errno::NOMEM);
    assert_eq!(agent.pinned_and_charged(), (0x2000, 0x2000));
}

#[test]
fn a_file_that_shrinks_under_its_mapping_can_still_be_unmapped() {
    let agent = Agent::start();
    let (mut client, ioas, _) = client_with_domain(&agent);
    let file = empty_memfd("shrinking", 4);
    write_at(&file, 0, &[1; 0x4000]);
    map(&mut client, ioas, slice(file.as_fd(), 0, 0x4000), at(0x1000)).unwrap();
    ftruncate(&file, 0).unwrap();
    let (device, _) = attach_new(&mut client, ioas, Iommu::Own);
    client.device_detach(device).unwrap();
    assert_eq!(client.unmap(ioas, range(0x1000, 0x4000)).unwrap().get(), 0x4000);
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

fn reopened(memory: &Memory, flags: OFlags) -> OwnedFd {
    let path = format!("/proc/self/fd/{}", memory.as_fd().as_raw_fd());
    let flags = i32::try_from(flags.bits()).unwrap();
    OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap().into()
}

#[test]
fn a_read_only_descriptor_of_memory_is_good_for_reading() {
    let agent = Agent::start();
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(2));
    let read_only = reopened(&memory, OFlags::empty());
    let whole = slice(read_only.as_fd(), 0, 0x2000);
    client.map_file(ioas, whole, Permission::Read, at(0x1000)).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    let mut bytes = [0; 0x2000];
    walking.stream().unwrap().enter().read(Iova::new(0x1000), &mut bytes).unwrap();
    assert_eq!(bytes[..], Memory::bytes(0, 0x2000));
}

#[test]
fn a_path_descriptor_is_no_open_file() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(2));
    let ioas = client.ioas_alloc().unwrap();
    let path_only = reopened(&memory, OFlags::PATH);
    assert_eq!(errno(map(&mut client, ioas, slice(path_only.as_fd(), 0, 0x1000), at(0))), Errno::BADF);
    Bystander::new(&agent).goes_on();
}

/// Descriptors of this process, the agent's included, that name this memfd.
fn descriptors_of(name: &str) -> usize {
    let names = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = names.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().contains(name)).count()
}

#[test]
fn the_agent_holds_a_file_as_long_as_it_is_mapped() {
    const NAME: &str = "held-while-mapped";
    let agent = Agent::start();
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::named(NAME, 1));
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    assert_eq!(descriptors_of(NAME), 2);
    client.copy((ioas, range(0x1000, 0x1000)), (ioas, at(0x2000)), Permission::Read).unwrap();
    assert_eq!(descriptors_of(NAME), 2);
    let channel = client.domain_export(hwpt).unwrap();
    client.unmap_all(ioas).unwrap();
    drop(channel);
    assert!(eventually(|| descriptors_of(NAME) == 1), "{} are left", descriptors_of(NAME));
}

#[test]
fn descriptors_that_come_with_a_refused_request_are_closed() {
    const NAME: &str = "never-mapped";
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::named(NAME, 1));
    let mut bystander = Bystander::new(&agent);
    let ioas_id = client.ioas_alloc().unwrap();
    let good =
        IoasMapFile { flags: MAP_READABLE, ioas_id, length: ByteLen::new(0x1000), ..Default::default() };
    let unknown_flag = IoasMapFile { flags: 16, ..good };
    let other_index = IoasMapFile { fd: 1, ..good };
    for files in [1, 2, 3, 4, 5, 20, 252] {
        let fds = vec![memory.as_fd(); files];
        assert!(refusal(&mut client, &unknown_flag, &fds).is_some());
        assert!(refusal(&mut client, &other_index, &fds).is_some());
        let surplus = if files > 4 { Errno::TOOMANYREFS } else { Errno::INVAL };
        assert_eq!(refusal(&mut client, &IoasAlloc::default(), &fds), Some(surplus), "{files} descriptors");
        assert!(call_message(&mut client, b"not a frame", &fds).refusal().is_some());
        assert!(eventually(|| descriptors_of(NAME) == 1), "{files} descriptors");
        bystander.goes_on();
    }
    let mut cut = request_of(1, &good);
    cut.truncate(IoasMapFile::SIZE);
    assert_eq!(call_message(&mut client, &cut, &[memory.as_fd()]).refusal(), Some(Errno::PROTO));
    assert!(eventually(|| descriptors_of(NAME) == 1));
}
