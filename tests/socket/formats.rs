//! Devices of every format: each gets tables it can walk, and shares them only with its like.

use ioasd_client::calls::Iommu;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::{DeviceId, HwptId};
use ioasd_client::units::Iova;
use ioasd_client::walker::FaultKind;
use rustix::io::Errno;

use crate::fixture::{Agent, errno};
use crate::helper::{Helper, LARGE, WRITTEN};
use crate::memory::{Memory, at, map, range, read_at};
use crate::walking::open;

#[test]
fn an_address_space_is_walked_in_every_format_at_once() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(600));
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, memory.slice(0, 0x3000), at(0x1f_e000)).unwrap();
    let domains: Vec<(FormatId, DeviceId, HwptId)> = FormatId::ALL
        .into_iter()
        .map(|format| {
            let device = client.device_create(format, Iommu::Shared).unwrap();
            (format, device, client.device_attach(device, ioas).unwrap())
        })
        .collect();
    map(&mut client, ioas, memory.slice(0x1000, 0x25_0000), at(0x40_0000)).unwrap();
    assert_eq!(agent.snapshot().domains.len(), FormatId::ALL.len());
    assert_eq!(agent.pinned_and_charged(), (0x25_3000, 0x25_3000));
    for (format, _, hwpt) in &domains {
        let walking = open(client.domain_export(*hwpt).unwrap());
        let mut stream = walking.stream().unwrap();
        let mut bytes = vec![0; 0x25_0000];
        stream.enter().read(Iova::new(0x40_0000), &mut bytes).unwrap();
        assert_eq!(bytes, Memory::bytes(0x1000, 0x25_0000), "{format:?}");
        stream.enter().read(Iova::new(0x1f_e000), &mut bytes[..0x3000]).unwrap();
        assert_eq!(bytes[..0x3000], Memory::bytes(0, 0x3000), "{format:?}");
        let fault = stream.enter().read(Iova::new(0x65_0000), &mut [0]).unwrap_err();
        assert_eq!(fault.kind, FaultKind::NotPresent, "{format:?}");
    }
    client.unmap(ioas, range(0x40_0000, 0x25_0000)).unwrap();
    for (_, device, _) in domains {
        client.device_detach(device).unwrap();
    }
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

#[test]
fn only_devices_of_one_format_share_a_domain() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    let mut attach = |format| {
        let device = client.device_create(format, Iommu::Shared).unwrap();
        client.device_attach(device, ioas).unwrap()
    };
    let (amd, vtd) = (attach(FormatId::AmdV1), attach(FormatId::VtdSs));
    assert_ne!(amd, vtd);
    assert_eq!((attach(FormatId::VtdSs), attach(FormatId::AmdV1)), (vtd, amd));
}

#[test]
fn large_leaves_are_walked_by_another_process() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(LARGE.1 >> 12));
    let ioas = client.ioas_alloc().unwrap();
    let device = client.device_create(FormatId::VtdSs, Iommu::Own).unwrap();
    let hwpt = client.device_attach(device, ioas).unwrap();
    map(&mut client, ioas, memory.whole(), at(LARGE.0)).unwrap();
    assert_eq!(
        agent.snapshot().domains[0].stats.table.get().get(),
        4 * 4096,
        "three leaves of 2 MiB and one page"
    );
    let helper = Helper::walker_of_large_leaves(client.domain_export(hwpt).unwrap());
    assert_eq!(read_at(&memory, 0x40_0000 - 4, WRITTEN.len()), WRITTEN);
    let walking = open(client.domain_export(hwpt).unwrap());
    let mut stream = walking.stream().unwrap();
    client.unmap(ioas, range(LARGE.0, LARGE.1)).unwrap();
    let fault = stream.enter().read(Iova::new(LARGE.0), &mut [0]).unwrap_err();
    assert_eq!((fault.kind, agent.pinned_and_charged()), (FaultKind::NotPresent, (0, 0)));
    helper.kill();
}

/// Pages that are shown in part: the first from its middle, the last up to its middle.
#[test]
fn a_granule_of_half_a_page_maps_half_pages() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(3));
    let ioas = client.ioas_alloc().unwrap();
    let device = client.device_create(FormatId::AmdV1Granule2K, Iommu::Shared).unwrap();
    let hwpt = client.device_attach(device, ioas).unwrap();
    map(&mut client, ioas, memory.slice(0x800, 0x2000), at(0x1_0000)).unwrap();
    map(&mut client, ioas, memory.slice(0x1000, 0x800), at(0x1_2800)).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    let mut stream = walking.stream().unwrap();
    let mut bytes = [0; 0x2000];
    stream.enter().read(Iova::new(0x1_0000), &mut bytes).unwrap();
    assert_eq!(bytes[..], Memory::bytes(0x800, 0x2000));
    stream.enter().read(Iova::new(0x1_2800), &mut bytes[..0x800]).unwrap();
    assert_eq!(bytes[..0x800], Memory::bytes(0x1000, 0x800));
    for outside in [0xffff, 0x1_2000, 0x1_27ff, 0x1_3000] {
        let fault = stream.enter().read(Iova::new(outside), &mut [0]).unwrap_err();
        assert_eq!(fault.kind, FaultKind::NotPresent, "{outside:#x}");
    }
    assert_eq!(
        agent.pinned_and_charged().0,
        0x4000,
        "pages are pinned whole: three of one map, one of the other"
    );
    let other = client.device_create(FormatId::AmdV1, Iommu::Shared).unwrap();
    assert_eq!(errno(client.device_attach(other, ioas)), Errno::ADDRINUSE);
    client.unmap(ioas, range(0x1_0000, 0x3000)).unwrap();
    client.device_attach(other, ioas).unwrap();
}
