//! Devices of every format: each gets tables it can walk, and shares them only with its like.

use ioasd_client::calls::Iommu;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::{DeviceId, HwptId};
use ioasd_client::units::Iova;
use ioasd_client::walker::FaultKind;

use crate::fixture::Agent;
use crate::memory::{Memory, at, map, range};
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
