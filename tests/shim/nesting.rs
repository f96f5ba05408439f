//! What is nested in a HWPT of mock hardware: nested HWPTs, PASIDs, vIOMMUs and vDEVICEs, and what is cached of them.

use std::fs::File;

use libc::{E2BIG, EBUSY, EEXIST, EFAULT, EINVAL, EIO, ENOENT, ENOMEM, EOPNOTSUPP, EOVERFLOW};

use crate::device::{
    HW_QUEUE_ALLOC, HWPT_ALLOC, INVALIDATE, Struct, TEST, VDEVICE_ALLOC, VIOMMU_ALLOC, destroy, ioas_alloc,
    map_file, map_file_struct, memory, open, unmap,
};
use crate::mock::{mock_domain, test};
use crate::program::{Part, play_with_mock};

pub(crate) const PARTS: &[Part] = &[
    ("nested hwpts", nested_hwpts),
    ("invalidate", invalidate),
    ("pasids", pasids),
    ("the pasid trap", trap),
    ("viommus", viommus),
    ("vdevices", vdevices),
    ("device caches", device_caches),
    ("hw queues", hw_queues),
];

/// HWPT_ALLOC flags.
pub(crate) const NEST_PARENT: u32 = 1;
pub(crate) const PASID: u32 = 8;

/// A struct of HWPT_ALLOC without data.
pub(crate) fn hwpt_struct(device: u32, target: u32, flags: u32) -> Struct {
    Struct::new(48).u32(4, flags).u32(8, device).u32(12, target)
}

pub(crate) fn made(device: &File, mut alloc: Struct, command: u32, id: usize) -> Result<u32, i32> {
    alloc.call(device, command)?;
    Ok(alloc.get_u32(id))
}

pub(crate) fn hwpt(device: &File, idev: u32, target: u32, flags: u32) -> Result<u32, i32> {
    made(device, hwpt_struct(idev, target, flags), HWPT_ALLOC, 16)
}

/// A nested HWPT whose cache begins with 0xa5a5a5a5.
pub(crate) fn nested(device: &File, idev: u32, target: u32, flags: u32) -> Result<u32, i32> {
    let mut data = [0xa5a5_a5a5_u32];
    let alloc = hwpt_struct(idev, target, flags).u32(24, 0xdead).u32(28, 4).pointer(32, &mut data);
    made(device, alloc, HWPT_ALLOC, 16)
}

pub(crate) fn viommu_struct(idev: u32, parent: u32) -> Struct {
    Struct::new(40).u32(8, 0xdead_beef).u32(12, idev).u32(16, parent)
}

pub(crate) fn viommu(device: &File, idev: u32, parent: u32) -> Result<u32, i32> {
    made(device, viommu_struct(idev, parent), VIOMMU_ALLOC, 20)
}

pub(crate) fn vdevice(device: &File, viommu: u32, idev: u32, virt_id: u64) -> Result<u32, i32> {
    let alloc = Struct::new(24).u32(4, viommu).u32(8, idev).u64(16, virt_id);
    made(device, alloc, VDEVICE_ALLOC, 12)
}

pub(crate) fn replace(device: &File, stdev: u32, target: u32) -> Result<(), i32> {
    test(10, stdev).u32(16, target).call(device, TEST)
}

fn iotlb(device: &File, hwpt: u32, word: u32, value: u32) -> Result<(), i32> {
    test(14, hwpt).u32(16, word).u32(20, value).call(device, TEST)
}

fn cache(device: &File, idev: u32, word: u32, value: u32) -> Result<(), i32> {
    test(16, idev).u32(16, word).u32(20, value).call(device, TEST)
}

/// HWPT_INVALIDATE with entries of so many bytes; tells how many were carried out as well.
fn invalidated(
    device: &File,
    target: u32,
    entries: &mut [u32],
    (length, count): (u32, u32),
) -> (Result<(), i32>, u32) {
    let mut command = Struct::new(32).u32(4, target).u32(16, 0xdead_beef).u32(20, length).u32(24, count);
    command = command.pointer(8, entries);
    let outcome = command.call(device, INVALIDATE);
    (outcome, command.get_u32(24))
}

/// A mock device with PASIDs, and a HWPT that others can be nested in.
pub(crate) struct Bed {
    pub(crate) device: File,
    pub(crate) ioas: u32,
    pub(crate) stdev: u32,
    pub(crate) idev: u32,
    pub(crate) parent: u32,
}

pub(crate) fn bed() -> Bed {
    let device = open();
    let ioas = ioas_alloc(&device).unwrap();
    let mut command = test(12, ioas).u32(28, 4);
    command.call(&device, TEST).unwrap();
    let (stdev, idev) = (command.get_u32(16), command.get_u32(24));
    let parent = hwpt(&device, idev, ioas, NEST_PARENT).unwrap();
    Bed { device, ioas, stdev, idev, parent }
}

#[test]
fn hwpts_are_nested_in_those_made_for_it_alone() {
    play_with_mock("nested hwpts");
}

fn nested_hwpts() {
    let Bed { device, ioas, stdev, idev, parent } = bed();
    let plain = hwpt(&device, idev, ioas, 0).unwrap();
    let (_, auto, _) = mock_domain(&device, ioas).unwrap();
    assert_eq!(hwpt(&device, idev, ioas, 16), Err(EOPNOTSUPP), "an unknown flag");
    for no_parent in [plain, auto] {
        assert_eq!(nested(&device, idev, no_parent, 0), Err(EINVAL));
    }
    assert_eq!([nested(&device, 77, parent, 0), nested(&device, idev, 77, 0)], [Err(ENOENT), Err(EINVAL)]);
    assert_eq!(nested(&device, idev, parent, NEST_PARENT), Err(EOPNOTSUPP));
    assert_eq!(hwpt(&device, idev, parent, 0), Err(EOPNOTSUPP), "without data");
    let mut data = [0_u32; 3];
    let alloc = hwpt_struct(idev, parent, 0).u32(24, 0xdead).u32(28, 4).pointer(32, &mut data);
    for (alloc, errno) in [
        (alloc.clone().u32(24, 2), EOPNOTSUPP),
        (alloc.clone().u32(24, 0), EINVAL),
        (alloc.clone().u32(28, 12), EINVAL),
        (alloc.clone().u32(28, 3), EINVAL),
        (alloc.clone().u64(32, 8), EFAULT),
        (alloc.clone().u32(20, 1), EOPNOTSUPP),
    ] {
        assert_eq!(made(&device, alloc, HWPT_ALLOC, 16), Err(errno));
    }
    let first = nested(&device, idev, parent, 0).unwrap();
    let second = nested(&device, idev, parent, 0).unwrap();
    assert_eq!(nested(&device, idev, first, 0), Err(EINVAL), "nested in a nested one");
    assert_eq!(destroy(&device, parent), Err(EBUSY));
    assert_eq!([replace(&device, stdev, first), replace(&device, stdev, second)], [Ok(()); 2]);
    assert_eq!([destroy(&device, first), destroy(&device, second)], [Ok(()), Err(EBUSY)]);
    assert_eq!([replace(&device, stdev, ioas), destroy(&device, second)], [Ok(()); 2]);
    assert_eq!(destroy(&device, parent), Ok(()));
}

#[test]
fn what_a_nested_hwpt_has_cached_is_dropped_entry_by_entry() {
    play_with_mock("invalidate");
}

fn invalidate() {
    let Bed { device, ioas, idev, parent, .. } = bed();
    let hwpt = nested(&device, idev, parent, 0).unwrap();
    assert!((0..4).all(|word| iotlb(&device, hwpt, word, 0xa5a5_a5a5).is_ok()));
    assert_eq!([iotlb(&device, hwpt, 4, 0xa5a5_a5a5), iotlb(&device, hwpt, 0, 0)], [Err(EINVAL); 2]);
    assert_eq!(iotlb(&device, parent, 0, 0), Err(ENOENT));
    let run = |entries: &mut [u32], shape| invalidated(&device, hwpt, entries, shape);
    assert_eq!(run(&mut [0, 3], (8, 1)), (Ok(()), 1));
    assert_eq!([iotlb(&device, hwpt, 3, 0), iotlb(&device, hwpt, 2, 0xa5a5_a5a5)], [Ok(()); 2]);
    assert_eq!(run(&mut [0, 0, 0, 4, 0, 1], (8, 3)), (Err(EINVAL), 1), "it stops at the first error");
    assert_eq!([iotlb(&device, hwpt, 0, 0), iotlb(&device, hwpt, 1, 0xa5a5_a5a5)], [Ok(()); 2]);
    assert_eq!(run(&mut [2, 0], (8, 1)), (Err(EOPNOTSUPP), 0));
    assert_eq!(run(&mut [0; 4], (12, 1)), (Err(EINVAL), 0));
    assert_eq!(run(&mut [0; 4], (4, 1)), (Err(EINVAL), 0));
    assert_eq!([run(&mut [0; 2], (0, 1)), run(&mut [0; 2], (4097, 1))], [(Err(EINVAL), 0); 2]);
    assert_eq!(run(&mut [0; 2], (8, (1 << 19) + 1)), (Err(EINVAL), 0));
    assert_eq!(run(&mut [], (0, 0)), (Ok(()), 0), "a question whether the type is known");
    assert_eq!(run(&mut vec![0; 2 * 20_000], (8, 20_000)), (Ok(()), 20_000));
    assert_eq!(run(&mut [1, 0], (8, 1)), (Ok(()), 1));
    assert!((0..4).all(|word| iotlb(&device, hwpt, word, 0).is_ok()));
    let good = Struct::new(32).u32(4, hwpt).u32(16, 0xdead_beef).u32(20, 8).u32(24, 1).u64(8, 16);
    for (mut command, errno) in [
        (good.clone(), EFAULT),
        (good.clone().u64(8, 0), EINVAL),
        (good.clone().u32(28, 1), EOPNOTSUPP),
        (good.clone().u32(4, 77), ENOENT),
        (good.clone().u32(4, ioas), EINVAL),
        (good.clone().u32(4, parent), EINVAL),
        (good.clone().u32(16, 1), EINVAL),
        (good.clone().u32(16, 1).u32(24, 0), EINVAL),
    ] {
        assert_eq!(command.call(&device, INVALIDATE), Err(errno));
        assert_eq!(command.get_u32(24), 0, "nothing was carried out");
    }
}

fn pasid_call(device: &File, op: u32, stdev: u32, (pasid, target): (u32, u32)) -> Result<(), i32> {
    test(op, stdev).u32(16, pasid).u32(20, target).call(device, TEST)
}

#[test]
fn pasids_take_hwpts_made_for_them_on_the_whole_device() {
    play_with_mock("pasids");
}

fn pasids() {
    let Bed { device, ioas, stdev, idev, parent } = bed();
    let call = |op, on, target| pasid_call(&device, op, on, (100, target));
    let (attach, change, detach, check) = (18, 19, 20, 21);
    let domain = hwpt(&device, idev, ioas, PASID).unwrap();
    let nest = nested(&device, idev, parent, PASID).unwrap();
    assert_eq!(call(detach, stdev, 0), Ok(()), "nothing is attached");
    assert_eq!([replace(&device, stdev, parent), call(attach, stdev, domain)], [Ok(()), Err(EINVAL)]);
    assert_eq!([replace(&device, stdev, domain), call(attach, stdev, nest)], [Ok(()); 2]);
    assert_eq!(replace(&device, stdev, parent), Err(EINVAL), "a PASID is attached");
    assert_eq!(replace(&device, stdev, ioas), Err(EINVAL), "its own domain takes no PASIDs");
    assert_eq!([call(check, stdev, nest), call(check, stdev, domain)], [Ok(()), Err(EINVAL)]);
    assert_eq!([call(check, stdev, 0), call(check, stdev, 77)], [Err(EINVAL), Err(ENOENT)]);
    assert_eq!(call(attach, stdev, domain), Err(EBUSY));
    assert_eq!(destroy(&device, nest), Err(EBUSY));
    assert_eq!([call(change, stdev, domain), call(change, stdev, domain)], [Ok(()); 2]);
    assert_eq!([call(change, stdev, parent), call(change, stdev, ioas)], [Err(EINVAL); 2]);
    assert_eq!([call(change, stdev, 77), call(check, stdev, domain)], [Err(ENOENT), Ok(())]);
    assert_eq!([call(detach, stdev, 0), call(check, stdev, 0), destroy(&device, nest)], [Ok(()); 3]);
    assert_eq!([call(change, stdev, domain), call(attach, stdev, ioas)], [Err(EINVAL); 2]);
    assert_eq!(call(attach, stdev, parent), Err(EINVAL));
    assert_eq!(call(attach, 77, domain), Err(ENOENT));
    assert_eq!(pasid_call(&device, attach, stdev, (1 << 20, domain)), Err(EINVAL));
    let (without, ..) = mock_domain(&device, domain).unwrap();
    assert_eq!(call(attach, without, domain), Err(EINVAL), "a device without PASIDs");
    assert_eq!(call(attach, stdev, domain), Ok(()));
    assert_eq!([destroy(&device, stdev), destroy(&device, without)], [Ok(()); 2]);
    assert_eq!([destroy(&device, domain), destroy(&device, parent), destroy(&device, ioas)], [Ok(()); 3]);
}

#[test]
fn the_mock_hardware_fails_one_pasid_every_second_time() {
    play_with_mock("the pasid trap");
}

fn trap() {
    let Bed { device, ioas, stdev, idev, .. } = bed();
    let call = |op, target| pasid_call(&device, op, stdev, (1024, target));
    let (first, second) =
        (hwpt(&device, idev, ioas, PASID).unwrap(), hwpt(&device, idev, ioas, PASID).unwrap());
    replace(&device, stdev, first).unwrap();
    assert_eq!(call(18, first), Ok(()));
    assert_eq!([call(19, second), call(21, first)], [Err(ENOMEM), Ok(())], "it stays where it was");
    assert_eq!([call(19, second), call(21, second)], [Ok(()); 2]);
    assert_eq!([call(20, 0), call(18, first)], [Ok(()); 2], "a detach takes the trap away");
}

#[test]
fn viommus_belong_to_a_parent_and_their_hwpts_to_known_devices() {
    play_with_mock("viommus");
}

fn viommus() {
    let Bed { device, ioas, stdev, idev, parent } = bed();
    let plain = hwpt(&device, idev, ioas, 0).unwrap();
    let good = viommu_struct(idev, parent);
    for (alloc, errno) in [
        (good.clone().u32(4, 1), EOPNOTSUPP),
        (good.clone().u32(8, 0), EOPNOTSUPP),
        (good.clone().u32(8, 7).u32(16, 77), EOPNOTSUPP),
        (good.clone().u32(8, 7).u32(12, 77), ENOENT),
        (good.clone().u32(16, 77), ENOENT),
        (good.clone().u32(16, ioas), ENOENT),
        (good.clone().u32(16, plain), EINVAL),
    ] {
        assert_eq!(made(&device, alloc, VIOMMU_ALLOC, 20), Err(errno));
    }
    let viommu = viommu(&device, idev, parent).unwrap();
    assert_eq!(destroy(&device, parent), Err(EBUSY));
    assert_eq!(hwpt(&device, idev, viommu, 0), Err(EOPNOTSUPP));
    assert_eq!(nested(&device, idev, viommu, NEST_PARENT), Err(EOPNOTSUPP));
    let nest = nested(&device, idev, viommu, 0).unwrap();
    assert_eq!(destroy(&device, viommu), Err(EBUSY));
    assert_eq!(replace(&device, stdev, nest), Err(ENOENT), "the viommu does not know the device");
    let vdevice = vdevice(&device, viommu, idev, 0x99).unwrap();
    assert_eq!(replace(&device, stdev, nest), Ok(()));
    assert_eq!(destroy(&device, vdevice), Ok(()));
    assert_eq!([replace(&device, stdev, parent), destroy(&device, nest)], [Ok(()); 2]);
    assert_eq!([destroy(&device, viommu), replace(&device, stdev, ioas)], [Ok(()); 2]);
    assert_eq!(destroy(&device, parent), Ok(()));
}

#[test]
fn a_vdevice_ends_with_its_device_and_its_id_is_not_given_again() {
    play_with_mock("vdevices");
}

fn vdevices() {
    let Bed { device, ioas, stdev, idev, parent } = bed();
    let viommu = viommu(&device, idev, parent).unwrap();
    let (_, _, other) = mock_domain(&device, ioas).unwrap();
    let alloc = |viommu, idev, virt_id| vdevice(&device, viommu, idev, virt_id);
    assert_eq!([alloc(77, idev, 1), alloc(viommu, 77, 1), alloc(parent, idev, 1)], [Err(ENOENT); 3]);
    let first = alloc(viommu, idev, 0x99).unwrap();
    assert_eq!([alloc(viommu, idev, 0x88), alloc(viommu, other, 0x99)], [Err(EEXIST); 2]);
    assert_eq!(destroy(&device, viommu), Err(EBUSY));
    assert_eq!([destroy(&device, first), alloc(viommu, idev, 0x88).map(drop)], [Ok(()); 2]);
    let last = alloc(viommu, other, u64::MAX).unwrap();
    assert_eq!(destroy(&device, last), Ok(()));
    assert_eq!(destroy(&device, stdev), Ok(()));
    assert_eq!(destroy(&device, first), Err(ENOENT), "it went with its device");
    let ids: Vec<u32> = (0..4).map(|_| ioas_alloc(&device).unwrap()).collect();
    assert!(!ids.contains(&first), "{first} is in {ids:?}");
    assert_eq!(destroy(&device, viommu), Ok(()));
}

#[test]
fn a_viommu_drops_what_its_devices_have_cached() {
    play_with_mock("device caches");
}

fn device_caches() {
    let Bed { device, idev, parent, .. } = bed();
    let viommu = viommu(&device, idev, parent).unwrap();
    vdevice(&device, viommu, idev, 0x99).unwrap();
    let run = |entries: &mut [u32], shape| invalidated(&device, viommu, entries, shape);
    assert!((0..4).all(|word| cache(&device, idev, word, 0xba_ddad).is_ok()));
    assert_eq!([cache(&device, idev, 4, 0), cache(&device, idev, 0, 0)], [Err(EINVAL); 2]);
    assert_eq!(cache(&device, 77, 0, 0), Err(ENOENT));
    assert_eq!(run(&mut [0, 0x99, 1], (12, 1)), (Ok(()), 1));
    assert_eq!([cache(&device, idev, 1, 0), cache(&device, idev, 0, 0xba_ddad)], [Ok(()); 2]);
    assert_eq!(run(&mut [0, 0x99, 0, 2, 0x99, 2], (12, 2)), (Err(EOPNOTSUPP), 1));
    assert_eq!(run(&mut [0, 0x99, 4], (12, 1)), (Err(EINVAL), 0));
    assert_eq!(run(&mut [0, 0x98, 2], (12, 1)), (Err(EINVAL), 0), "no such device");
    assert_eq!(run(&mut [0, 0x99, 2, 7], (16, 1)), (Err(E2BIG), 0));
    assert_eq!(run(&mut [0, 0x99, 2, 0], (16, 1)), (Ok(()), 1));
    assert_eq!([cache(&device, idev, 2, 0), cache(&device, idev, 3, 0xba_ddad)], [Ok(()); 2]);
    assert_eq!(run(&mut [1, 0x99], (8, 1)), (Ok(()), 1), "what is missing is zero");
    assert!((0..4).all(|word| cache(&device, idev, word, 0).is_ok()));
    assert_eq!(run(&mut [], (0, 0)), (Ok(()), 0));
}

#[test]
fn the_memory_of_a_hardware_queue_cannot_be_unmapped() {
    play_with_mock("hw queues");
}

fn hw_queues() {
    const PAGE: u64 = 4096;
    let Bed { device, ioas, idev, parent, .. } = bed();
    let viommu = viommu(&device, idev, parent).unwrap();
    let start = 0x100_0000;
    let queue = |index: u32, iova: u64, length: u64| {
        let alloc = Struct::new(40).u32(8, viommu).u32(12, 0xdead_beef).u32(16, index);
        alloc.u64(24, iova).u64(32, length)
    };
    let make = |alloc: Struct| made(&device, alloc, HW_QUEUE_ALLOC, 20);
    assert_eq!(make(queue(0, start, PAGE)), Err(ENOENT), "nothing is mapped");
    let file = memory(4 * PAGE);
    let at = |iova: u64, from: u64, flags: u32| {
        let map = map_file_struct(ioas, std::os::fd::AsRawFd::as_raw_fd(&file), PAGE);
        map.u32(4, 1 | flags).u64(16, from).u64(32, iova).call(&device, crate::device::MAP_FILE)
    };
    let scattered = [at(start, 0, 6), at(start + PAGE, 2 * PAGE, 6), at(start + 2 * PAGE, PAGE, 2)];
    assert_eq!(scattered, [Ok(()); 3]);
    for (alloc, errno) in [
        (queue(0, start, PAGE).u32(4, 1), EOPNOTSUPP),
        (queue(0, start, PAGE).u32(12, 0), EOPNOTSUPP),
        (queue(0, start, PAGE).u32(12, 7), EOPNOTSUPP),
        (queue(0, start, 0).u32(8, 77), EINVAL),
        (queue(0, u64::MAX, PAGE).u32(8, 77), EOVERFLOW),
        (queue(0, start, PAGE).u32(8, 77), ENOENT),
        (queue(0, start, 4 * PAGE), libc::EPERM),
        (queue(0, start, 2 * PAGE), EFAULT),
        (queue(2, start, PAGE), EINVAL),
        (queue(1, start, PAGE), EIO),
    ] {
        assert_eq!(make(alloc), Err(errno));
    }
    assert_eq!(unmap(&device, ioas, start + 2 * PAGE, PAGE), Ok(PAGE), "what failed holds nothing");
    let first = make(queue(0, start, PAGE)).unwrap();
    assert_eq!(make(queue(0, start, PAGE)), Err(EEXIST));
    assert_eq!(unmap(&device, ioas, start, PAGE), Err(EBUSY));
    assert_eq!(unmap(&device, ioas, start + PAGE, PAGE), Ok(PAGE), "it is not of the queue");
    let second = make(queue(1, start + PAGE / 2, PAGE / 2)).unwrap();
    assert_eq!([destroy(&device, first), destroy(&device, viommu)], [Err(EBUSY); 2]);
    assert_eq!([destroy(&device, second), unmap(&device, ioas, start, PAGE).map(drop)], [Ok(()), Err(EBUSY)]);
    assert_eq!([destroy(&device, first), unmap(&device, ioas, start, PAGE).map(drop)], [Ok(()); 2]);
    let iova = map_file(&device, ioas, &file, 4 * PAGE).unwrap();
    assert!(make(queue(0, iova, 4 * PAGE)).is_ok(), "closing takes it down");
}
