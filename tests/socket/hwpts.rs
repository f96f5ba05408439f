//! HWPT_ALLOC and DEVICE_REPLACE: domains made by hand, what they may be, and moving devices between them.

use std::os::fd::AsFd;

use ioasd_client::calls::Iommu;
use ioasd_client::connection::Connection;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::{DeviceId, HwptId, IoasId, ObjectId};
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::wire::command::Command;
use ioasd_client::wire::own::{DeviceAttach, DeviceReplace, HWPT_DATA_SOFTWARE};
use ioasd_client::wire::record::{TableChoice, store_all};
use ioasd_client::wire::uapi::{HWPT_FAULT_ID_VALID, HWPT_NEST_PARENT, HWPT_PASID, HwptAlloc};
use rustix::io::Errno;

use crate::fixture::{Agent, errno};
use crate::memory::{Memory, at, attach_new, empty_memfd, map, write_at};
use crate::raw::call_with;

fn alloc(client: &mut Connection, command: HwptAlloc, data: &[u8]) -> Result<HwptId, Errno> {
    let answer = call_with(client, &command, data, &[]);
    answer.refusal().map_or_else(|| Ok(HwptAlloc::load(&answer.body).out_hwpt_id), Err)
}

fn plain(device: DeviceId, ioas: IoasId) -> HwptAlloc {
    HwptAlloc { dev_id: device, pt_id: ioas.into(), ..HwptAlloc::default() }
}

fn chosen(device: DeviceId, ioas: IoasId, choice: TableChoice) -> (HwptAlloc, Vec<u8>) {
    let data = store_all(&[choice]);
    let data_len = u32::try_from(data.len()).unwrap();
    (HwptAlloc { data_type: HWPT_DATA_SOFTWARE, data_len, ..plain(device, ioas) }, data)
}

fn attach(client: &mut Connection, device_id: DeviceId, pt_id: impl Into<ObjectId>) -> Result<HwptId, Errno> {
    let command = DeviceAttach { flags: 0, device_id, pt_id: pt_id.into() };
    let answer = call_with(client, &command, &[], &[]);
    answer.refusal().map_or_else(|| Ok(HwptId::new(DeviceAttach::load(&answer.body).pt_id.get())), Err)
}

fn replace(
    client: &mut Connection,
    device_id: DeviceId,
    pt_id: impl Into<ObjectId>,
) -> Result<HwptId, Errno> {
    let command = DeviceReplace { flags: 0, device_id, pt_id: pt_id.into() };
    let answer = call_with(client, &command, &[], &[]);
    answer.refusal().map_or_else(|| Ok(HwptId::new(DeviceReplace::load(&answer.body).pt_id.get())), Err)
}

fn device(client: &mut Connection, iommu: Iommu) -> DeviceId {
    client.device_create(FormatId::AmdV1, iommu).unwrap()
}

#[test]
fn hwpt_alloc_checks_in_the_order_of_the_kernel() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    let device = device(&mut client, Iommu::Shared);
    let hwpt = alloc(&mut client, plain(device, ioas), &[]).unwrap();
    let (nobody, good) = (DeviceId::new(77), plain(device, ioas));
    let of_hwpt = HwptAlloc { pt_id: hwpt.into(), ..good };
    let cases = [
        (HwptAlloc { reserved: 1, data_len: 1, dev_id: nobody, ..good }, Errno::OPNOTSUPP),
        (HwptAlloc { data_len: 1, dev_id: nobody, ..good }, Errno::INVAL),
        (HwptAlloc { data_type: 1, dev_id: nobody, ..good }, Errno::INVAL),
        (HwptAlloc { dev_id: nobody, pt_id: ObjectId::new(78), ..good }, Errno::NOENT),
        (HwptAlloc { dev_id: DeviceId::new(ioas.get()), ..good }, Errno::NOENT),
        (HwptAlloc { pt_id: ObjectId::new(78), flags: 16, ..good }, Errno::INVAL),
        (HwptAlloc { pt_id: device.into(), flags: 16, ..good }, Errno::INVAL),
        (HwptAlloc { flags: 16, ..good }, Errno::OPNOTSUPP),
        (HwptAlloc { flags: HWPT_NEST_PARENT, ..good }, Errno::OPNOTSUPP),
        (HwptAlloc { flags: HWPT_FAULT_ID_VALID | HWPT_NEST_PARENT, ..good }, Errno::OPNOTSUPP),
        (HwptAlloc { flags: HWPT_PASID, ..good }, Errno::OPNOTSUPP),
        (HwptAlloc { flags: HWPT_NEST_PARENT, data_type: 1, data_len: 1, ..of_hwpt }, Errno::OPNOTSUPP),
        (of_hwpt, Errno::OPNOTSUPP),
        (HwptAlloc { flags: HWPT_PASID, data_type: 1, data_len: 1, ..of_hwpt }, Errno::INVAL),
        (HwptAlloc { data_type: 3, data_len: 8, ..good }, Errno::OPNOTSUPP),
        (HwptAlloc { data_type: HWPT_DATA_SOFTWARE, data_len: 31, ..good }, Errno::INVAL),
        (HwptAlloc { data_type: HWPT_DATA_SOFTWARE, data_len: 32, ..good }, Errno::FAULT),
    ];
    for (command, errno) in cases {
        assert_eq!(alloc(&mut client, command, &[0; 31]), Err(errno), "{command:?}");
    }
    let unlooked = HwptAlloc { reserved2: 1, fault_id: ObjectId::new(5), ..good };
    alloc(&mut client, unlooked, &[]).unwrap();
    assert_eq!(agent.snapshot().domains.len(), 2, "a refused call leaves a domain");
}

#[test]
fn the_data_choose_the_aperture_and_the_sizes_of_leaves() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(4));
    let ioas = client.ioas_alloc().unwrap();
    let device = device(&mut client, Iommu::Shared);
    let aperture =
        TableChoice { start: Iova::new(0x10_0000), last: Iova::new(0x1f_ffff), ..TableChoice::default() };
    map(&mut client, ioas, memory.whole(), at(0x1f_f000)).unwrap();
    let mut try_to = |choice: TableChoice, behind: &[u8]| {
        let (command, mut data) = chosen(device, ioas, choice);
        data.extend_from_slice(behind);
        let data_len = u32::try_from(data.len()).unwrap();
        alloc(&mut client, HwptAlloc { data_len, ..command }, &data)
    };
    assert_eq!(try_to(aperture, &[]), Err(Errno::ADDRINUSE), "an area reaches over the end");
    assert_eq!(try_to(TableChoice { flags: 1, ..aperture }, &[]), Err(Errno::OPNOTSUPP));
    assert_eq!(try_to(TableChoice { reserved: 1, ..aperture }, &[]), Err(Errno::OPNOTSUPP));
    assert_eq!(try_to(TableChoice { last: Iova::new(0), ..aperture }, &[]), Err(Errno::INVAL), "backwards");
    assert_eq!(try_to(TableChoice { last: Iova::new(u64::MAX), ..aperture }, &[]), Err(Errno::INVAL));
    assert_eq!(try_to(TableChoice { page_sizes: 1 << 13 | 1, ..aperture }, &[]), Err(Errno::INVAL));
    assert_eq!(try_to(TableChoice { page_sizes: 1 << 21, ..aperture }, &[]), Err(Errno::INVAL));
    assert_eq!(try_to(TableChoice::default(), &[0, 0, 1]), Err(Errno::TOOBIG));
    assert!(try_to(TableChoice { page_sizes: 1 << 12, ..TableChoice::default() }, &[0; 9]).is_ok());
    client.unmap_all(ioas).unwrap();
    let (command, data) = chosen(device, ioas, aperture);
    alloc(&mut client, command, &data).unwrap();
    assert_eq!(
        errno(map(&mut client, ioas, memory.whole(), at(0xf_f000))),
        Errno::INVAL,
        "below the aperture"
    );
    map(&mut client, ioas, memory.whole(), at(0x10_0000)).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0x4000, 0x4000));
}

#[test]
fn a_hwpt_made_by_hand_is_filled_at_once_stays_and_is_never_chosen() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(4));
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, memory.whole(), at(0)).unwrap();
    let (first, second) = (device(&mut client, Iommu::Shared), device(&mut client, Iommu::Shared));
    let hwpt = alloc(&mut client, plain(first, ioas), &[]).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0x4000, 0x4000));
    assert_eq!(attach(&mut client, first, hwpt), Ok(hwpt));
    assert_ne!(attach(&mut client, second, ioas).unwrap(), hwpt, "an attach to the ioas makes its own");
    assert_eq!(errno(client.destroy(hwpt)), Errno::BUSY);
    assert_eq!(errno(client.destroy(ioas)), Errno::BUSY);
    client.device_detach(second).unwrap();
    client.device_detach(first).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0x4000, 0x4000), "the one made by hand stays");
    assert_eq!(errno(client.destroy(ioas)), Errno::BUSY);
    client.destroy(hwpt).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0, 0));
    client.destroy(ioas).unwrap();
}

#[test]
fn a_hwpt_serves_the_devices_it_was_made_for_alone() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    let (shared, own, other) = (
        device(&mut client, Iommu::Shared),
        device(&mut client, Iommu::Own),
        device(&mut client, Iommu::Own),
    );
    let of_shared = alloc(&mut client, plain(shared, ioas), &[]).unwrap();
    let of_own = alloc(&mut client, plain(own, ioas), &[]).unwrap();
    assert_eq!(attach(&mut client, own, of_shared), Err(Errno::INVAL));
    assert_eq!(attach(&mut client, shared, of_own), Err(Errno::INVAL));
    assert_eq!(attach(&mut client, other, of_own), Err(Errno::INVAL));
    assert_eq!(attach(&mut client, own, of_own), Ok(of_own));
    assert_eq!(attach(&mut client, own, of_own), Err(Errno::BUSY));
    assert_eq!(attach(&mut client, other, ObjectId::new(77)), Err(Errno::NOENT));
    assert_eq!(attach(&mut client, other, own), Err(Errno::INVAL), "a device is nothing to attach to");
    let vtd = client.device_create(FormatId::VtdSs, Iommu::Shared).unwrap();
    assert_eq!(attach(&mut client, vtd, of_shared), Err(Errno::INVAL), "another format");
    client.device_detach(own).unwrap();
    client.destroy(own).unwrap();
    let namesake = device(&mut client, Iommu::Own);
    assert_eq!(namesake, own);
    assert_eq!(
        attach(&mut client, namesake, of_own),
        Err(Errno::INVAL),
        "an id given again is another device"
    );
}

#[test]
fn replace_moves_a_device_and_the_automatic_hwpt_it_leaves_vanishes() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(8));
    let (ioas, other) = (client.ioas_alloc().unwrap(), client.ioas_alloc().unwrap());
    map(&mut client, ioas, memory.slice(0, 0x3000), at(0)).unwrap();
    map(&mut client, other, memory.slice(0x3000, 0x5000), at(0)).unwrap();
    let (first, hwpt) = attach_new(&mut client, ioas, Iommu::Shared);
    let (second, _) = attach_new(&mut client, ioas, Iommu::Shared);
    assert_eq!(replace(&mut client, first, ioas), Ok(hwpt), "the same again is nothing");
    let elsewhere = replace(&mut client, first, other).unwrap();
    assert_ne!(elsewhere, hwpt);
    assert_eq!(agent.pinned_and_charged(), (0x8000, 0x8000), "the second device keeps the first domain");
    assert_eq!(replace(&mut client, second, other), Ok(elsewhere), "they share again");
    assert_eq!(agent.pinned_and_charged(), (0x5000, 0x5000));
    assert_eq!(agent.snapshot().domains.len(), 1);
    let by_hand = alloc(&mut client, plain(first, ioas), &[]).unwrap();
    assert_eq!(replace(&mut client, first, by_hand), Ok(by_hand));
    assert_eq!(replace(&mut client, second, by_hand), Ok(by_hand));
    assert_eq!(agent.pinned_and_charged(), (0x3000, 0x3000));
    assert!(replace(&mut client, second, ioas).is_ok_and(|hwpt| hwpt != by_hand), "never chosen");
    client.device_detach(first).unwrap();
    client.destroy(by_hand).unwrap();
}

#[test]
fn a_replace_that_fails_leaves_the_device_where_it_is() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(2));
    let (ioas, other) = (client.ioas_alloc().unwrap(), client.ioas_alloc().unwrap());
    map(&mut client, ioas, memory.whole(), at(0)).unwrap();
    map(&mut client, other, memory.slice(0x10, 0x20), at(0x10)).unwrap();
    let (device, hwpt) = attach_new(&mut client, ioas, Iommu::Own);
    let unattached = client.device_create(FormatId::AmdV1, Iommu::Own).unwrap();
    let of_other = alloc(&mut client, plain(unattached, ioas), &[]).unwrap();
    let before = (agent.pinned_and_charged(), agent.snapshot().domains.len());
    assert_eq!(replace(&mut client, unattached, ioas), Err(Errno::INVAL), "not attached");
    assert_eq!(replace(&mut client, device, other), Err(Errno::ADDRINUSE), "its areas are not aligned");
    assert_eq!(replace(&mut client, device, of_other), Err(Errno::INVAL), "another's");
    assert_eq!(replace(&mut client, device, ObjectId::new(77)), Err(Errno::NOENT));
    assert_eq!(replace(&mut client, device, unattached), Err(Errno::INVAL), "a device");
    assert_eq!(replace(&mut client, DeviceId::new(77), ioas), Err(Errno::NOENT));
    let flagged = DeviceReplace { flags: 1, device_id: DeviceId::new(77), pt_id: ioas.into() };
    assert_eq!(call_with(&mut client, &flagged, &[], &[]).refusal(), Some(Errno::OPNOTSUPP));
    assert_eq!((agent.pinned_and_charged(), agent.snapshot().domains.len()), before);
    assert_eq!(replace(&mut client, device, ioas).unwrap(), hwpt, "it is still there");
}

#[test]
fn data_may_come_in_a_memfd() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    let device = device(&mut client, Iommu::Shared);
    let (command, data) = chosen(device, ioas, TableChoice { page_sizes: 1 << 12, ..TableChoice::default() });
    let file = empty_memfd("data", 1);
    write_at(&file, 0xff0, &data[..16]);
    let command = HwptAlloc { data_uptr: ByteLen::new(0xff0), ..command };
    assert_eq!(call_with(&mut client, &command, &[], &[file.as_fd()]).refusal(), Some(Errno::FAULT));
    write_at(&file, 0xf00, &data);
    let command = HwptAlloc { data_uptr: ByteLen::new(0xf00), ..command };
    assert_eq!(call_with(&mut client, &command, &[], &[file.as_fd()]).refusal(), None);
}
