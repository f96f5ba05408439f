//! Devices and their domains: sharing, attaching to what is mapped already, detaching.

use std::os::fd::AsFd;

use ioasd_client::calls::Iommu;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::DeviceId;
use rustix::io::Errno;

use crate::fixture::{Agent, errno};
use crate::memory::{Memory, at, attach_new, empty_memfd, map, slice, write_at};

#[test]
fn devices_behind_the_shared_iommu_share_a_domain_and_others_own_one() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let (ioas, other) = (client.ioas_alloc().unwrap(), client.ioas_alloc().unwrap());
    let (_, shared) = attach_new(&mut client, ioas, Iommu::Shared);
    let (_, also_shared) = attach_new(&mut client, ioas, Iommu::Shared);
    let (_, own) = attach_new(&mut client, ioas, Iommu::Own);
    let (_, also_own) = attach_new(&mut client, ioas, Iommu::Own);
    let (_, elsewhere) = attach_new(&mut client, other, Iommu::Shared);
    assert_eq!(shared, also_shared);
    let mut different = vec![shared, own, also_own, elsewhere];
    different.dedup();
    assert_eq!(different.len(), 4);
    assert_eq!(agent.snapshot().domains.len(), 4);
}

#[test]
fn memory_is_pinned_once_whatever_the_number_of_domains() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(600));
    let ioas = client.ioas_alloc().unwrap();
    attach_new(&mut client, ioas, Iommu::Own);
    map(&mut client, ioas, memory.whole(), at(0x40_0000)).unwrap();
    let once = (memory.size(), memory.size());
    assert_eq!(agent.pinned_and_charged(), once);
    for _ in 0..7 {
        attach_new(&mut client, ioas, Iommu::Own);
        assert_eq!(agent.pinned_and_charged(), once);
    }
    assert!(agent.snapshot().domains.iter().all(|entry| entry.stats.mapped.get().get() == memory.size()));
    client.unmap_all(ioas).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0, 0));
    assert!(agent.snapshot().domains.iter().all(|entry| entry.stats.mapped.get().get() == 0));
}

#[test]
fn attaching_pins_what_is_mapped_and_the_last_detach_lets_go() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(20));
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, memory.slice(0, 0x5000), at(0)).unwrap();
    map(&mut client, ioas, memory.slice(0x5000, 0x3000), at(0x8000)).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0, 0));
    let (first, hwpt) = attach_new(&mut client, ioas, Iommu::Shared);
    let (second, _) = attach_new(&mut client, ioas, Iommu::Shared);
    assert_eq!(agent.pinned_and_charged(), (0x8000, 0x8000));
    client.device_detach(first).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0x8000, 0x8000), "the other device still uses the domain");
    client.device_detach(second).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0, 0));
    assert_eq!(errno(client.domain_export(hwpt)), Errno::NOENT, "the hwpt went with its last device");
    assert_eq!(agent.snapshot().ioases[0].stats.areas.get(), 2, "the areas stay");
    assert_eq!(client.device_attach(first, ioas).unwrap(), hwpt, "ids are given again");
    assert_eq!(agent.pinned_and_charged(), (0x8000, 0x8000));
}

#[test]
fn the_storage_domain_may_leave_before_others() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(9));
    let ioas = client.ioas_alloc().unwrap();
    let devices: Vec<DeviceId> = (0..3).map(|_| attach_new(&mut client, ioas, Iommu::Own).0).collect();
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    for device in &devices[..2] {
        client.device_detach(*device).unwrap();
        assert_eq!(agent.pinned_and_charged(), (0x9000, 0x9000));
    }
    assert_eq!(agent.snapshot().domains.len(), 1);
    client.device_detach(devices[2]).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

#[test]
fn a_device_is_attached_once_and_detaching_what_is_not_attached_does_nothing() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let (ioas, other) = (client.ioas_alloc().unwrap(), client.ioas_alloc().unwrap());
    let (device, hwpt) = attach_new(&mut client, ioas, Iommu::Own);
    for target in [ioas, other] {
        assert_eq!(errno(client.device_attach(device, target)), Errno::BUSY);
    }
    assert_eq!(agent.snapshot().domains.len(), 1);
    client.device_detach(device).unwrap();
    client.device_detach(device).unwrap();
    assert_eq!(errno(client.domain_export(hwpt)), Errno::NOENT);
    let unattached = client.device_create(FormatId::AmdV1, Iommu::Own).unwrap();
    client.destroy(unattached).unwrap();
    assert_eq!(errno(client.device_detach(unattached)), Errno::NOENT);
}

#[test]
fn an_attach_that_cannot_pin_leaves_no_trace() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(5));
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    let holey = empty_memfd("holey", 2);
    map(&mut client, ioas, slice(holey.as_fd(), 0, 0x2000), at(0x10_0000)).unwrap();
    let device = client.device_create(FormatId::AmdV1, Iommu::Own).unwrap();
    assert_eq!(errno(client.device_attach(device, ioas)), Errno::NOMEM);
    assert_eq!(agent.pinned_and_charged(), (0, 0));
    assert!(agent.snapshot().domains.is_empty());
    write_at(&holey, 0, &[1; 0x2000]);
    client.device_attach(device, ioas).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0x7000, 0x7000));
}
