//! Address spaces in normal use: alloc, map, unmap, copy, destroy, accesses.

use ioasd_client::calls::{AccessKind, Iommu, PinIntent, Placement};
use ioasd_client::formats::FormatId;
use ioasd_client::ids::{DeviceId, IoasId, ObjectId};
use ioasd_client::units::{Iova, PAGE_SIZE, Permission};
use rustix::io::Errno;

use crate::fixture::{Agent, errno, eventually};
use crate::memory::{Memory, at, attach_new, client_with_domain, map, range, read_at};

#[test]
fn ids_are_the_lowest_free_ones_and_given_again_at_once() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let ids: Vec<u32> = (0..3).map(|_| client.ioas_alloc().unwrap().get()).collect();
    assert_eq!(ids, [1, 2, 3]);
    client.destroy(ObjectId::new(2)).unwrap();
    assert_eq!(errno(client.destroy(ObjectId::new(2))), Errno::NOENT);
    assert_eq!(client.ioas_alloc().unwrap(), IoasId::new(2));
    assert_eq!(agent.connect().ioas_alloc().unwrap(), IoasId::new(1), "ids are local to a context");
}

#[test]
fn without_a_domain_any_bytes_can_be_mapped_anywhere_and_nothing_is_pinned() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(4));
    let ioas = client.ioas_alloc().unwrap();
    assert_eq!(map(&mut client, ioas, memory.slice(0x123, 0x10), at(0)).unwrap(), 0);
    assert_eq!(map(&mut client, ioas, memory.slice(5, 1), at(0x10)).unwrap(), 0x10);
    let last = u64::MAX - 0x1fff;
    assert_eq!(map(&mut client, ioas, memory.slice(0, 0x2000), at(last)).unwrap(), last);
    assert_eq!(agent.pinned_and_charged(), (0, 0));
    let lengths: Vec<u64> = agent.snapshot().pages.iter().map(|entry| entry.stats.length.get()).collect();
    assert_eq!(lengths, [0x1000, 0x1000, 0x2000], "pages objects consist of whole pages");
    let ioases = agent.snapshot().ioases;
    assert_eq!((ioases[0].stats.areas.get(), ioases[0].stats.mapped.get().get()), (3, 0x2011));
}

#[test]
fn automatic_placement_is_first_fit_and_keeps_the_place_in_the_page() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(8));
    let ioas = client.ioas_alloc().unwrap();
    let mut any = |offset, length| map(&mut client, ioas, memory.slice(offset, length), Placement::Any);
    assert_eq!(any(0, 0x1000).unwrap(), 0x1000, "page 0 is never given");
    assert_eq!(any(0x123, 0x10).unwrap(), 0x2123);
    assert_eq!(any(0, 0x4000).unwrap(), 0x4000);
    assert_eq!(any(0x1000, 0x1000).unwrap(), 0x3000);
}

#[test]
fn with_a_domain_everything_is_aligned_to_pages() {
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(4));
    let mut refused =
        |offset, length, placement| errno(map(&mut client, ioas, memory.slice(offset, length), placement));
    assert_eq!(refused(0, 0x800, at(0x1000)), Errno::INVAL);
    assert_eq!(refused(0, 0x1001, Placement::Any), Errno::INVAL);
    assert_eq!(refused(0, 0x1000, at(0x1800)), Errno::INVAL);
    assert_eq!(refused(0x800, 0x1000, at(0x1000)), Errno::INVAL);
    assert_eq!(refused(0x800, 0x1000, Placement::Any), Errno::INVAL);
    assert_eq!(agent.pinned_and_charged(), (0, 0));
    assert_eq!(map(&mut client, ioas, memory.slice(0x1000, 0x2000), at(0)).unwrap(), 0);
    assert_eq!(agent.pinned_and_charged(), (0x2000, 0x2000));
}

#[test]
fn an_area_that_is_not_aligned_keeps_devices_away_until_it_is_gone() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(1));
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, memory.slice(0x10, 0x20), at(0x10)).unwrap();
    let device = client.device_create(FormatId::AmdV1, Iommu::Shared).unwrap();
    assert_eq!(errno(client.device_attach(device, ioas)), Errno::ADDRINUSE);
    assert!(agent.snapshot().domains.is_empty(), "a refused attach leaves a domain");
    client.unmap_all(ioas).unwrap();
    client.device_attach(device, ioas).unwrap();
    assert_eq!(errno(map(&mut client, ioas, memory.slice(0x10, 0x20), at(0x10))), Errno::INVAL);
    client.device_detach(device).unwrap();
    map(&mut client, ioas, memory.slice(0x10, 0x20), at(0x10)).unwrap();
}

#[test]
fn unmap_takes_whole_areas_only() {
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(16));
    for iova in [0x1_0000, 0x2_0000, 0x3_0000] {
        map(&mut client, ioas, memory.whole(), at(iova)).unwrap();
    }
    assert_eq!(agent.pinned_and_charged(), (0x3_0000, 0x3_0000), "each map is a pages object of its own");
    let mut unmap = |start, length| client.unmap(ioas, range(start, length));
    assert_eq!(errno(unmap(0x1_0000, 0x1000)), Errno::NOENT);
    assert_eq!(errno(unmap(0x1_1000, 0xf000)), Errno::NOENT);
    assert_eq!(errno(unmap(0x4_0000, 0x1000)), Errno::NOENT);
    assert_eq!(unmap(0x1_0000, 0x1_0000).unwrap().get(), 0x1_0000);
    assert_eq!(unmap(0x1000, 0x2_f000).unwrap().get(), 0x1_0000, "holes in the range do not count");
    assert_eq!(errno(unmap(0x1000, 0x3_0000)), Errno::NOENT, "the third area is cut");
    assert_eq!(client.unmap_all(ioas).unwrap().get(), 0x1_0000);
    assert_eq!(client.unmap_all(ioas).unwrap().get(), 0, "emptying what is empty is no error");
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

#[test]
fn what_an_unmap_removed_before_its_error_stays_removed() {
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(2));
    map(&mut client, ioas, memory.slice(0, 0x1000), at(0x1000)).unwrap();
    map(&mut client, ioas, memory.whole(), at(0x2000)).unwrap();
    assert_eq!(errno(client.unmap(ioas, range(0x1000, 0x2000))), Errno::NOENT);
    assert_eq!(agent.pinned_and_charged(), (0x2000, 0x2000));
    map(&mut client, ioas, memory.slice(0, 0x1000), at(0x1000)).unwrap();
}

#[test]
fn an_occupied_address_is_refused_and_free_again_after_the_unmap() {
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(2));
    map(&mut client, ioas, memory.whole(), at(0x1_0000)).unwrap();
    for iova in [0xf000, 0x1_0000, 0x1_1000] {
        assert_eq!(errno(map(&mut client, ioas, memory.whole(), at(iova))), Errno::EXIST);
    }
    client.unmap(ioas, range(0x1_0000, 0x2000)).unwrap();
    map(&mut client, ioas, memory.whole(), at(0x1_0000)).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0x2000, 0x2000));
}

#[test]
fn a_copy_shares_the_pages_and_outlives_its_source() {
    let agent = Agent::start();
    let ((mut client, source, _), memory) = (client_with_domain(&agent), Memory::new(8));
    let target = client.ioas_alloc().unwrap();
    attach_new(&mut client, target, Iommu::Own);
    map(&mut client, source, memory.slice(0, 0x4000), at(0x1_0000)).unwrap();
    map(&mut client, source, memory.slice(0x4000, 0x4000), at(0x1_4000)).unwrap();
    let span = (source, range(0x1_3000, 0x2000));
    let copied = client.copy(span, (target, at(0x8_0000)), Permission::Read).unwrap();
    assert_eq!(copied.get(), 0x8_0000);
    assert_eq!(agent.pinned_and_charged(), (0x8000, 0x8000), "a copy pins nothing that is pinned already");
    assert_eq!(agent.snapshot().ioases[1].stats.areas.get(), 2, "one new area for each that was touched");
    client.unmap_all(source).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0x2000, 0x2000));
    client.destroy(target).expect_err("a device sits on it");
    assert_eq!(client.unmap(target, range(0x8_0000, 0x2000)).unwrap().get(), 0x2000);
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

#[test]
fn a_copy_may_stay_in_its_address_space_and_narrow_or_widen_the_permission() {
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(1));
    client.map_file(ioas, memory.whole(), Permission::Write, at(0x1000)).unwrap();
    let source = (ioas, range(0x1000, 0x1000));
    client.copy(source, (ioas, at(0x2000)), Permission::ReadWrite).unwrap();
    client.map_file(ioas, memory.whole(), Permission::Read, at(0x3000)).unwrap();
    let read_only = (ioas, range(0x3000, 0x1000));
    assert_eq!(errno(client.copy(read_only, (ioas, at(0x4000)), Permission::Write)), Errno::PERM);
    assert_eq!(errno(client.copy(source, (ioas, at(0x2000)), Permission::Read)), Errno::EXIST);
    assert_eq!(
        errno(client.copy((ioas, range(0x3000, 0x1001)), (ioas, at(0x5000)), Permission::Read)),
        Errno::NOENT
    );
    assert_eq!(agent.pinned_and_charged(), (0x2000, 0x2000));
}

#[test]
fn mapped_areas_do_not_keep_an_address_space_but_devices_and_accesses_do() {
    let agent = Agent::start();
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(4));
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    assert_eq!(errno(client.destroy(ioas)), Errno::BUSY);
    assert_eq!(errno(client.destroy(hwpt)), Errno::BUSY);
    let device = ObjectId::new(2);
    assert_eq!(errno(client.destroy(device)), Errno::BUSY, "it is attached");
    client.device_detach(DeviceId::new(2)).unwrap();
    client.destroy(device).unwrap();
    let access = client.access_create(ioas, AccessKind::Bytes).unwrap();
    assert_eq!(errno(client.destroy(ioas)), Errno::BUSY);
    client.destroy(access).unwrap();
    client.destroy(ioas).unwrap();
    assert_eq!(errno(client.destroy(ioas)), Errno::NOENT);
    assert!(eventually(|| agent.snapshot().pages.is_empty()), "nobody shows the pages any more");
}

#[test]
fn an_access_moves_bytes_and_holds_what_it_pins() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(4));
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    let access = client.access_create(ioas, AccessKind::Pinning).unwrap();
    let mut bytes = vec![0; 0x1800];
    client.access_read(access, Iova::new(0x1700), &mut bytes).unwrap();
    assert_eq!(bytes, Memory::bytes(0x700, 0x1800));
    client.access_write(access, Iova::new(0x1fff), b"ab").unwrap();
    assert_eq!(read_at(&memory, 0xfff, 2), b"ab");
    assert_eq!(agent.pinned_and_charged(), (0, 0));
    client.access_pin(access, range(0x2000, 0x2000), PinIntent::Read).unwrap();
    assert_eq!(agent.pinned_and_charged(), (2 * PAGE_SIZE, 2 * PAGE_SIZE));
    assert_eq!(errno(client.unmap_all(ioas)), Errno::DEADLK);
    assert_eq!(errno(client.access_unpin(access, range(0x2000, 0x1000))), Errno::NOENT);
    client.access_unpin(access, range(0x2000, 0x2000)).unwrap();
    assert_eq!(client.unmap_all(ioas).unwrap().get(), 0x4000);
    assert_eq!(errno(client.access_read(access, Iova::new(0x1000), &mut bytes)), Errno::NOENT);
}
