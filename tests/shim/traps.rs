//! What an implementation of iommufd easily gets wrong, one test each, with mock hardware to look at tables and pins.

use std::fs::File;

use libc::{EADDRINUSE, EFAULT, EINVAL, ENOENT};

use crate::device::{
    ALLOW_IOVAS, CHANGE_PROCESS, COPY, FIXED, HWPT_ALLOC, IOVA_RANGES, MAP, READABLE, Struct, WRITEABLE,
    destroy, ioas_alloc, map_file, memory, open, shared, unmap,
};
use crate::mock::{PAGE, check_map, check_refs, create_access, id, map, mock_domain, pin, test, unpin};
use crate::processes::exit_code;
use crate::program::{Part, play_with_mock};

pub(crate) const PARTS: &[Part] = &[
    ("trap one pin", one_pin),
    ("trap cache", cache),
    ("trap partial", partial),
    ("trap allowed", allowed),
    ("trap unmap order", unmap_order),
    ("trap alignment", alignment),
    ("trap rollback", rollback),
    ("trap hwpts", hwpts),
    ("trap sub-page", sub_page),
    ("trap gone", gone),
    ("trap present", present),
    ("trap huge pages", huge_pages),
    ("trap short of memory", short_of_memory),
    ("trap other payer", other_payer),
];

/// Where mock domains begin.
const APERTURE: u64 = 0x100_0000;

/// Memory of the program that others may share.
fn buffer(pages: u64) -> (&'static mut [u8], File) {
    let file = memory(pages * PAGE);
    (shared(Some(&file), pages * PAGE), file)
}

/// IOAS_MAP at `iova`.
fn map_at(device: &File, ioas: u32, memory: &[u8], iova: u64) -> Result<(), i32> {
    let map = Struct::new(40).u32(4, FIXED | READABLE | WRITEABLE).u32(8, ioas);
    let map = map.u64(16, memory.as_ptr().expose_provenance() as u64).u64(24, memory.len() as u64);
    map.u64(32, iova).call(device, MAP)
}

/// IOAS_COPY wherever there is room.
fn copy(device: &File, from: u32, iova: u64, length: u64, to: u32) -> Result<u64, i32> {
    let mut copy = Struct::new(40).u32(4, READABLE | WRITEABLE).u32(8, to).u32(12, from);
    copy = copy.u64(16, length).u64(32, iova);
    copy.call(device, COPY)?;
    Ok(copy.get_u64(24))
}

/// HWPT_ALLOC on a mock device.
fn hwpt_alloc(device: &File, idev: u32, ioas: u32) -> Result<u32, i32> {
    let mut alloc = Struct::new(48).u32(8, idev).u32(12, ioas);
    alloc.call(device, HWPT_ALLOC)?;
    Ok(alloc.get_u32(16))
}

/// ACCESS_RW.
fn rw(device: &File, access: u32, iova: u64, bytes: &mut [u8], flags: u32) -> Result<(), i32> {
    let command = test(8, access).u64(16, iova).u64(24, bytes.len() as u64).u32(40, flags);
    command.pointer(32, bytes).call(device, crate::device::TEST)
}

fn iova_alignment(device: &File, ioas: u32) -> u64 {
    let mut ranges = [[0_u64; 2]; 8];
    let mut command = Struct::new(32).u32(4, ioas).u32(8, 8).pointer(16, &mut ranges);
    command.call(device, IOVA_RANGES).unwrap();
    command.get_u64(24)
}

/// Asserts how often each page of `memory` is pinned.
#[track_caller]
fn assert_refs(device: &File, memory: &[u8], refs: &[u32]) {
    for (page, refs) in memory.chunks(4096).zip(refs) {
        assert_eq!(check_refs(device, page, *refs), Ok(()), "{refs} pins expected of {refs:?}");
    }
}

#[test]
fn a_page_is_pinned_once_for_all_who_use_it() {
    play_with_mock("trap one pin");
}

fn one_pin() {
    let device = open();
    let (own, _file) = buffer(4);
    let ioas = ioas_alloc(&device).unwrap();
    let (first, _, idev) = mock_domain(&device, ioas).unwrap();
    let manual = hwpt_alloc(&device, idev, ioas).unwrap();
    let (second, of_second, _) = mock_domain(&device, manual).unwrap();
    assert_eq!(of_second, manual);
    let iova = map(&device, ioas, own).unwrap();
    let other = ioas_alloc(&device).unwrap();
    let copied = copy(&device, ioas, iova + PAGE, 2 * PAGE, other).unwrap();
    let access = create_access(&device, other, 1).unwrap();
    let item = pin(&device, &access, copied, 2 * PAGE, Some(&own[4096..12288])).unwrap();
    let again = pin(&device, &access, copied + PAGE, PAGE, None).unwrap();
    assert_refs(&device, own, &[1, 1, 1, 1]);
    assert_eq!(destroy(&device, first), Ok(()));
    assert_refs(&device, own, &[1, 1, 1, 1]);
    assert_eq!(destroy(&device, second), Ok(()));
    assert_eq!(destroy(&device, manual), Ok(()));
    assert_refs(&device, own, &[0, 1, 1, 0]);
    unpin(&device, &access, item).unwrap();
    assert_refs(&device, own, &[0, 0, 1, 0]);
    assert_eq!(unmap(&device, ioas, iova, 4 * PAGE), Ok(4 * PAGE), "the copy keeps the pages");
    assert_refs(&device, own, &[0, 0, 1, 0]);
    unpin(&device, &access, again).unwrap();
    assert_refs(&device, own, &[0, 0, 0, 0]);
}

#[test]
fn what_an_access_pins_outlives_the_domain_and_the_other_way_round() {
    play_with_mock("trap cache");
}

fn cache() {
    let device = open();
    let (own, _file) = buffer(4);
    own.fill(7);
    let ioas = ioas_alloc(&device).unwrap();
    let iova = map_at(&device, ioas, own, APERTURE).map(|()| APERTURE).unwrap();
    let access = create_access(&device, ioas, 1).unwrap();
    let (stdev, hwpt, _) = mock_domain(&device, ioas).unwrap();
    let item = pin(&device, &access, iova + PAGE, 2 * PAGE, Some(&own[4096..12288])).unwrap();
    destroy(&device, stdev).unwrap();
    assert_eq!(destroy(&device, hwpt), Err(ENOENT));
    assert_refs(&device, own, &[0, 1, 1, 0]);
    let (_, hwpt, _) = mock_domain(&device, ioas).unwrap();
    assert_eq!(check_map(&device, hwpt, iova, own), Ok(()), "the new table has frames of cache and memory");
    unpin(&device, &access, item).unwrap();
    assert_refs(&device, own, &[1, 1, 1, 1]);
    let item = pin(&device, &access, iova, 4 * PAGE, Some(own)).unwrap();
    unpin(&device, &access, item).unwrap();
    assert_eq!(check_map(&device, hwpt, iova, own), Ok(()));
    assert_eq!(unmap(&device, ioas, 0, u64::MAX), Ok(4 * PAGE));
    assert_refs(&device, own, &[0, 0, 0, 0]);
}

#[test]
fn a_page_stays_pinned_in_the_middle_of_a_run_that_goes() {
    play_with_mock("trap partial");
}

fn partial() {
    let device = open();
    let (own, _file) = buffer(16);
    let ioas = ioas_alloc(&device).unwrap();
    let (_, hwpt, _) = mock_domain(&device, ioas).unwrap();
    let iova = map(&device, ioas, own).unwrap();
    let part = copy(&device, ioas, iova + 5 * PAGE, 3 * PAGE, ioas).unwrap();
    let access = create_access(&device, ioas, 1).unwrap();
    pin(&device, &access, part + PAGE, PAGE, Some(&own[6 * 4096..7 * 4096])).unwrap();
    assert_eq!(unmap(&device, ioas, iova, 16 * PAGE), Ok(16 * PAGE));
    let mut refs = [0; 16];
    refs[5..8].fill(1);
    assert_refs(&device, own, &refs);
    assert_eq!(check_map(&device, hwpt, part, &own[5 * 4096..8 * 4096]), Ok(()));
    assert_eq!(check_map(&device, hwpt, iova, &own[..4096]), Err(EINVAL));
    drop(access);
    assert_eq!(unmap(&device, ioas, part, 3 * PAGE), Ok(3 * PAGE));
    assert_refs(&device, own, &[0; 16]);
}

#[test]
fn allowed_ranges_bind_who_does_not_choose_an_address() {
    play_with_mock("trap allowed");
}

fn allowed() {
    let device = open();
    let (own, _file) = buffer(4);
    let ioas = ioas_alloc(&device).unwrap();
    let allow = |ranges: &mut [[u64; 2]]| {
        let count = u32::try_from(ranges.len()).unwrap();
        Struct::new(24).u32(4, ioas).u32(8, count).pointer(16, ranges).call(&device, ALLOW_IOVAS)
    };
    assert_eq!(allow(&mut [[0x40_0000, 0x40_0000]]), Err(EINVAL), "a range of one byte");
    assert_eq!(allow(&mut [[0x40_0000, 0x40_3fff], [0x50_0000, 0x50_0fff]]), Ok(()));
    assert_eq!(map_at(&device, ioas, own, 0x9000_0000), Ok(()), "a given address is not bound");
    assert_eq!(map(&device, ioas, own), Ok(0x40_0000));
    assert_eq!(map(&device, ioas, &own[..4096]), Ok(0x50_0000));
    assert_eq!(map(&device, ioas, &own[..4096]), Err(libc::ENOSPC));
    assert_eq!(allow(&mut []), Ok(()));
    assert!(map(&device, ioas, own).unwrap() >= PAGE, "never the first page");
    assert_eq!(map_at(&device, ioas, &own[..4096], 0), Ok(()), "unless it is asked for");
}

#[test]
fn an_unmap_that_meets_part_of_an_area_has_done_what_came_before() {
    play_with_mock("trap unmap order");
}

fn unmap_order() {
    let device = open();
    let (own, _file) = buffer(8);
    let ioas = ioas_alloc(&device).unwrap();
    map_at(&device, ioas, &own[..4096], APERTURE).unwrap();
    map_at(&device, ioas, &own[4096..], APERTURE + PAGE).unwrap();
    assert_eq!(unmap(&device, ioas, APERTURE + 2 * PAGE, PAGE), Err(ENOENT), "from the middle of an area");
    assert_eq!(unmap(&device, ioas, APERTURE, 3 * PAGE), Err(ENOENT), "to the middle of an area");
    assert_eq!(unmap(&device, ioas, APERTURE, PAGE), Err(ENOENT), "the first area went");
    assert_eq!(unmap(&device, ioas, APERTURE, 100 * PAGE), Ok(7 * PAGE));
    assert_eq!(unmap(&device, ioas, 0, u64::MAX), Ok(0), "everything of nothing");
}

#[test]
fn alignment_follows_who_is_attached() {
    play_with_mock("trap alignment");
}

fn alignment() {
    let device = open();
    let (own, _file) = buffer(4);
    let ioas = ioas_alloc(&device).unwrap();
    assert_eq!(iova_alignment(&device, ioas), 1);
    assert_eq!(map_at(&device, ioas, &own[1..100], APERTURE + 1), Ok(()), "any byte");
    assert_eq!(mock_domain(&device, ioas).err(), Some(EADDRINUSE));
    assert_eq!(create_access(&device, ioas, 1).err(), Some(EADDRINUSE));
    let copying = create_access(&device, ioas, 0).unwrap();
    assert_eq!(iova_alignment(&device, ioas), 1);
    assert_eq!(unmap(&device, ioas, APERTURE + 1, 99), Ok(99));
    let (stdev, _, _) = mock_domain(&device, ioas).unwrap();
    assert_eq!(iova_alignment(&device, ioas), 2048);
    assert_eq!(
        map_at(&device, ioas, &own[1..2049], APERTURE),
        Err(EINVAL),
        "an offset that no entry can have"
    );
    assert_eq!(map_at(&device, ioas, &own[2048..4096], APERTURE + 2048), Ok(()));
    assert_eq!(create_access(&device, ioas, 1).err(), Some(EADDRINUSE), "half a page for one that pins");
    assert_eq!(unmap(&device, ioas, APERTURE + 2048, 2048), Ok(2048));
    let pinning = create_access(&device, ioas, 1).unwrap();
    assert_eq!(iova_alignment(&device, ioas), 4096);
    drop(pinning);
    assert_eq!(iova_alignment(&device, ioas), 2048);
    destroy(&device, stdev).unwrap();
    drop(copying);
    assert_eq!(iova_alignment(&device, ioas), 1);
}

#[test]
fn a_map_that_fails_in_the_middle_leaves_no_pin_and_no_entry() {
    play_with_mock("trap rollback");
}

fn rollback() {
    let device = open();
    let file = memory(4 * PAGE);
    let own: &[u8] = shared(Some(&file), 8 * PAGE);
    let ioas = ioas_alloc(&device).unwrap();
    let (_, auto, idev) = mock_domain(&device, ioas).unwrap();
    let manual = hwpt_alloc(&device, idev, ioas).unwrap();
    mock_domain(&device, manual).unwrap();
    test(9, 0).u32(16, 16).call(&device, crate::device::TEST).unwrap();
    assert_eq!(map_at(&device, ioas, own, APERTURE), Err(EFAULT), "the file ends in the middle");
    assert_refs(&device, &own[..4 * 4096], &[0; 4]);
    for hwpt in [auto, manual] {
        assert_eq!(check_map(&device, hwpt, APERTURE, &own[..4096]), Err(EINVAL));
    }
    assert_eq!(map_at(&device, ioas, &own[..4 * 4096], APERTURE), Ok(()), "the addresses are free again");
    assert_refs(&device, &own[..4 * 4096], &[1; 4]);
    test(9, 0).u32(16, 65536).call(&device, crate::device::TEST).unwrap();
}

#[test]
fn a_table_that_was_asked_for_is_never_chosen_by_itself() {
    play_with_mock("trap hwpts");
}

fn hwpts() {
    let device = open();
    let ioas = ioas_alloc(&device).unwrap();
    let (stdev, auto, idev) = mock_domain(&device, ioas).unwrap();
    let manual = hwpt_alloc(&device, idev, ioas).unwrap();
    let (other, chosen, _) = mock_domain(&device, ioas).unwrap();
    assert_eq!(chosen, auto);
    let mut replace = test(10, stdev).u32(16, manual);
    replace.call(&device, crate::device::TEST).unwrap();
    assert_eq!(replace.get_u32(16), manual);
    assert_eq!(destroy(&device, manual), Err(libc::EBUSY));
    destroy(&device, other).unwrap();
    assert_eq!(destroy(&device, auto), Err(ENOENT), "it went with its last device");
    let (_, chosen, _) = mock_domain(&device, ioas).unwrap();
    assert_ne!(chosen, manual);
    destroy(&device, stdev).unwrap();
    assert_eq!(destroy(&device, manual), Ok(()), "it stayed without a device");
}

#[test]
fn every_part_of_a_buffer_can_be_mapped_at_half_a_page() {
    play_with_mock("trap sub-page");
}

/// Every part of four pages that begins and ends at half a page, before and after a device is attached.
fn sub_page() {
    let device = open();
    let (own, _file) = buffer(4);
    let (lazy, ioas) = (ioas_alloc(&device).unwrap(), ioas_alloc(&device).unwrap());
    let (_, hwpt, _) = mock_domain(&device, ioas).unwrap();
    for (start, end) in (0..8).flat_map(|start| (start + 1..=8).map(move |end| (start, end))) {
        let part = &own[start * 2048..end * 2048];
        let iova = map(&device, ioas, part).unwrap();
        assert_eq!(check_map(&device, hwpt, iova, part), Ok(()), "{start} to {end}");
        let refs: Vec<u32> = (0..4).map(|page| u32::from(start < 2 * page + 2 && end > 2 * page)).collect();
        assert_refs(&device, own, &refs);
        let copied = copy(&device, ioas, iova, part.len() as u64, lazy).unwrap();
        unmap(&device, ioas, iova, part.len() as u64).unwrap();
        assert_refs(&device, own, &[0; 4]);
        unmap(&device, lazy, copied, part.len() as u64).unwrap();
        map_at(&device, lazy, part, APERTURE + 2048).unwrap();
        let (stdev, late, _) = mock_domain(&device, lazy).unwrap();
        assert_eq!(check_map(&device, late, APERTURE + 2048, part), Ok(()), "{start} to {end}, late");
        assert_refs(&device, own, &refs);
        unmap(&device, lazy, APERTURE + 2048, part.len() as u64).unwrap();
        destroy(&device, stdev).unwrap();
    }
}

/// A child that does `act` with what it shares with its parent.
fn child(act: impl FnOnce() -> bool) -> libc::pid_t {
    // SAFETY: the child uses what was made for it, and ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the end of the child.
        unsafe { libc::_exit(i32::from(!act())) };
    }
    child
}

#[test]
fn what_a_process_mapped_is_gone_with_it_unless_it_is_pinned() {
    play_with_mock("trap gone");
}

fn gone() {
    let device = open();
    let (own, _file) = buffer(2);
    own.fill(3);
    let (lazy, pinned) = (ioas_alloc(&device).unwrap(), ioas_alloc(&device).unwrap());
    mock_domain(&device, pinned).unwrap();
    let mapped = child(|| [lazy, pinned].iter().all(|ioas| map_at(&device, *ioas, own, APERTURE).is_ok()));
    assert_eq!(exit_code(mapped), 0);
    let mut read = [0; 64];
    let access = create_access(&device, pinned, 0).unwrap();
    assert_eq!(rw(&device, id(&access), APERTURE + 5, &mut read, 0), Ok(()));
    assert_eq!(read, [3; 64]);
    let access = create_access(&device, lazy, 0).unwrap();
    assert_eq!(rw(&device, id(&access), APERTURE + 5, &mut read, 0), Err(EFAULT), "nobody holds it");
}

#[test]
fn what_a_process_mapped_is_there_while_it_is() {
    play_with_mock("trap present");
}

fn present() {
    let device = open();
    let (own, _file) = buffer(2);
    own.fill(9);
    let ioas = ioas_alloc(&device).unwrap();
    let (mut ready, mut end) = ([0; 2], [0; 2]);
    // SAFETY: the arrays have room for two descriptors each.
    assert_eq!(unsafe { (libc::pipe(ready.as_mut_ptr()), libc::pipe(end.as_mut_ptr())) }, (0, 0));
    let wait = |pipe: [i32; 2]| {
        let mut byte = 0_u8;
        // SAFETY: the byte is ours.
        unsafe { libc::read(pipe[0], (&raw mut byte).cast(), 1) == 1 }
    };
    let tell = |pipe: [i32; 2]| {
        // SAFETY: the byte is a constant.
        unsafe { libc::write(pipe[1], [1_u8].as_ptr().cast(), 1) == 1 }
    };
    let mapped = child(|| map_at(&device, ioas, own, APERTURE).is_ok() && tell(ready) && wait(end));
    assert!(wait(ready));
    let access = create_access(&device, ioas, 1).unwrap();
    for flags in [0, 4] {
        let mut read = [0; 6000];
        assert_eq!(rw(&device, id(&access), APERTURE + 5, &mut read, flags), Ok(()));
        assert_eq!(read, [9; 6000]);
    }
    assert_eq!(pin(&device, &access, APERTURE, 2 * PAGE, Some(own)), Ok(0));
    assert!(tell(end));
    assert_eq!(exit_code(mapped), 0);
}

#[test]
fn memory_of_huge_pages_is_mapped_in_every_part() {
    play_with_mock("trap huge pages");
}

/// Two huge pages of no file that the program has.
pub(crate) fn huge() -> Option<&'static mut [u8]> {
    let (access, length) = (libc::PROT_READ | libc::PROT_WRITE, 4 << 20);
    let kind = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_POPULATE;
    // SAFETY: a new mapping where the kernel likes it.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, kind, -1, 0) };
    // SAFETY: the mapping is ours and stays.
    (start != libc::MAP_FAILED).then(|| unsafe { std::slice::from_raw_parts_mut(start.cast(), length) })
}

fn huge_pages() {
    let Some(own) = huge() else {
        ioasd::skip!("memory_of_huge_pages_is_mapped_in_every_part: the host has no huge pages to spare");
        return;
    };
    let device = open();
    let ioas = ioas_alloc(&device).unwrap();
    let (_, hwpt, _) = mock_domain(&device, ioas).unwrap();
    let iova = match map(&device, ioas, own) {
        Err(EFAULT) => {
            ioasd::skip!(
                "memory_of_huge_pages_is_mapped_in_every_part: it takes the privilege to open map_files"
            );
            return;
        }
        mapped => mapped.unwrap(),
    };
    assert_eq!(check_map(&device, hwpt, iova, own), Ok(()));
    assert_refs(&device, own, &[1]);
    assert_eq!(unmap(&device, ioas, iova, 4 << 20), Ok(4 << 20));
    for (start, end) in [(0, 2048), (2048, 6144), ((2 << 20) - 2048, (2 << 20) + 2048), (4096, 4 << 20)] {
        let part = &own[start..end];
        let iova = map(&device, ioas, part).unwrap();
        assert_eq!(check_map(&device, hwpt, iova, part), Ok(()), "{start} to {end}");
        assert_eq!(unmap(&device, ioas, iova, part.len() as u64), Ok(part.len() as u64));
    }
    let iova = map(&device, ioas, own).unwrap();
    let access = create_access(&device, ioas, 1).unwrap();
    assert_eq!(pin(&device, &access, iova + (1 << 20), 2 << 20, Some(&own[1 << 20..3 << 20])), Ok(0));
    own[5] = 77;
    let mut read = [0];
    assert_eq!(rw(&device, id(&access), iova + 5, &mut read, 0), Ok(()));
    assert_eq!(read, [77]);
}

#[test]
fn a_limit_for_temporary_memory_changes_no_result() {
    play_with_mock("trap short of memory");
}

fn short_of_memory() {
    let device = open();
    let (own, _file) = buffer(64);
    let ioas = ioas_alloc(&device).unwrap();
    let mut aperture = [[APERTURE, 0x7fff_ffff]];
    let allow = Struct::new(24).u32(4, ioas).u32(8, 1).pointer(16, &mut aperture);
    allow.clone().call(&device, ALLOW_IOVAS).unwrap();
    for limit in [16, 32, 65536] {
        test(9, 0).u32(16, limit).call(&device, crate::device::TEST).unwrap();
        let iova = map(&device, ioas, own).unwrap();
        let copied = copy(&device, ioas, iova + 3 * PAGE, 50 * PAGE, ioas).unwrap();
        let access = create_access(&device, ioas, 1).unwrap();
        pin(&device, &access, iova + 7 * PAGE, 20 * PAGE, Some(&own[7 * 4096..27 * 4096])).unwrap();
        let (stdev, hwpt, _) = mock_domain(&device, ioas).unwrap();
        assert_eq!(check_map(&device, hwpt, copied, &own[3 * 4096..53 * 4096]), Ok(()), "limit {limit}");
        pin(&device, &access, copied, 50 * PAGE, Some(&own[3 * 4096..53 * 4096])).unwrap();
        destroy(&device, stdev).unwrap();
        assert_refs(
            &device,
            own,
            &std::array::from_fn::<u32, 64, _>(|page| u32::from((3..53).contains(&page))),
        );
        assert_eq!(unmap(&device, ioas, 0, u64::MAX), Ok(114 * PAGE));
        assert_refs(&device, own, &[0; 64]);
    }
}

#[test]
fn another_process_comes_to_pay_for_files_only() {
    play_with_mock("trap other payer");
}

fn other_payer() {
    let device = open();
    let (own, file) = buffer(2);
    let ioas = ioas_alloc(&device).unwrap();
    let change = || Struct::new(8).call(&device, CHANGE_PROCESS);
    assert_eq!(change(), Ok(()), "nothing is mapped");
    let iova = map_file(&device, ioas, &file, 2 * PAGE).unwrap();
    assert_eq!(exit_code(child(|| change() == Ok(()))), 0);
    assert_eq!(change(), Ok(()));
    let memory = map(&device, ioas, own).unwrap();
    assert_eq!(change(), Err(EINVAL), "memory of a process is bound to it");
    assert_eq!(unmap(&device, ioas, memory, 2 * PAGE), Ok(2 * PAGE));
    assert_eq!(change(), Ok(()));
    assert_eq!(unmap(&device, ioas, iova, 2 * PAGE), Ok(2 * PAGE));
}
