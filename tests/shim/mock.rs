//! Mock hardware: the test command, which compares tables and pins with the program's memory.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{
    EADDRINUSE, EBADE, EBADFD, EBUSY, EDEADLK, EFAULT, EINVAL, EIO, ENOENT, ENOMEM, ENOTTY, EOPNOTSUPP,
};

use crate::device::{
    ALLOW_IOVAS, FIXED, HWPT_ALLOC, MAP, READABLE, Struct, TEST, WRITEABLE, destroy, ioas_alloc, map_file,
    memory, open, page_before_nothing, shared, unmap,
};
use crate::program::{Part, play_with_mock, played, playing, run};

pub(crate) const PARTS: &[Part] = &[
    ("mock devices", devices),
    ("mock map", mapped),
    ("mock refs", refs),
    ("mock huge refs", huge_refs),
    ("mock pins", pins),
    ("mock moves", moves),
    ("mock numbered areas", numbered),
    ("mock notices", notices),
    ("mock last close", last_close),
    ("no mock", no_mock),
];

pub(crate) const PAGE: u64 = 4096;

/// A struct of the test command.
pub(crate) fn test(op: u32, id: u32) -> Struct {
    Struct::new(72).u32(4, op).u32(8, id)
}

/// Makes a mock device on `target`: the test object, the HWPT, the device.
pub(crate) fn mock_domain(device: &File, target: u32) -> Result<(u32, u32, u32), i32> {
    let mut command = test(2, target);
    command.call(device, TEST)?;
    Ok((command.get_u32(16), command.get_u32(20), command.get_u32(24)))
}

pub(crate) fn check_map(device: &File, hwpt: u32, iova: u64, memory: &[u8]) -> Result<(), i32> {
    let address = memory.as_ptr().expose_provenance() as u64;
    test(3, hwpt).u64(16, iova).u64(24, memory.len() as u64).u64(32, address).call(device, TEST)
}

pub(crate) fn check_refs(device: &File, memory: &[u8], refs: u32) -> Result<(), i32> {
    let address = memory.as_ptr().expose_provenance() as u64;
    test(4, 0).u64(16, memory.len() as u64).u64(24, address).u32(32, refs).call(device, TEST)
}

pub(crate) fn create_access(device: &File, ioas: u32, flags: u32) -> Result<OwnedFd, i32> {
    let mut command = test(5, ioas).u32(20, flags);
    command.call(device, TEST)?;
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(command.get_u32(16).cast_signed()) })
}

/// ACCESS_PAGES; tells the item.
pub(crate) fn pin(
    device: &File,
    access: &OwnedFd,
    iova: u64,
    length: u64,
    at: Option<&[u8]>,
) -> Result<u32, i32> {
    let address = at.map_or(0, |memory| memory.as_ptr().expose_provenance() as u64);
    let mut command = test(7, id(access)).u32(16, 1).u64(24, iova).u64(32, length).u64(40, address);
    command.call(device, TEST)?;
    assert_eq!(command.get_u32(8), id(access), "the descriptor is as it was");
    Ok(command.get_u32(20))
}

pub(crate) fn unpin(device: &File, access: &OwnedFd, item: u32) -> Result<(), i32> {
    test(6, id(access)).u32(16, item).call(device, TEST)
}

pub(crate) fn id(access: &OwnedFd) -> u32 {
    access.as_raw_fd().cast_unsigned()
}

/// IOAS_MAP wherever there is room.
pub(crate) fn map(device: &File, ioas: u32, memory: &[u8]) -> Result<u64, i32> {
    let mut map = Struct::new(40).u32(4, READABLE | WRITEABLE).u32(8, ioas);
    map = map.u64(16, memory.as_ptr().expose_provenance() as u64).u64(24, memory.len() as u64);
    map.call(device, MAP)?;
    Ok(map.get_u64(32))
}

#[test]
fn without_mock_hardware_there_is_no_test_command() {
    crate::program::play("no mock");
}

fn no_mock() {
    let device = open();
    assert_eq!(mock_domain(&device, 1), Err(ENOTTY));
    assert_eq!(Struct::new(8).call(&device, TEST), Err(ENOTTY), "too small");
    for command in [TEST, TEST - 1] {
        assert_eq!(crate::device::raw(device.as_raw_fd(), command, std::ptr::null_mut()), Err(ENOTTY));
    }
}

#[test]
fn mock_devices_share_a_domain_and_go_with_their_test_object() {
    play_with_mock("mock devices");
}

fn devices() {
    let device = open();
    let ioas = ioas_alloc(&device).unwrap();
    let (stdev, hwpt, idev) = mock_domain(&device, ioas).unwrap();
    let (other, same, _) = mock_domain(&device, ioas).unwrap();
    assert_eq!(same, hwpt, "one domain serves all");
    assert_eq!([destroy(&device, idev), destroy(&device, hwpt), destroy(&device, ioas)], [Err(EBUSY); 3]);
    let second = ioas_alloc(&device).unwrap();
    let mut replace = test(10, other).u32(16, second);
    replace.call(&device, TEST).unwrap();
    assert_ne!(replace.get_u32(16), hwpt);
    assert_eq!(test(10, other).u32(16, 77).call(&device, TEST), Err(ENOENT));
    assert_eq!(mock_domain(&device, 77), Err(ENOENT));
    assert_eq!(mock_domain(&device, stdev), Err(EINVAL));
    assert_eq!(test(12, ioas).u32(28, 2).call(&device, TEST), Err(EINVAL), "an unknown flag");
    let mut data = [0_u32, 1];
    let mut alloc =
        Struct::new(48).u32(8, idev).u32(12, ioas).u32(24, 0xdead).u32(28, 8).pointer(32, &mut data);
    alloc.call(&device, HWPT_ALLOC).unwrap();
    let huge = alloc.get_u32(16);
    assert_eq!(mock_domain(&device, huge).map(|(_, hwpt, _)| hwpt), Ok(huge));
    assert_eq!(alloc.clone().u32(28, 12).call(&device, HWPT_ALLOC), Err(EINVAL));
    assert_eq!(alloc.clone().u32(24, 2).call(&device, HWPT_ALLOC), Err(EOPNOTSUPP));
    assert_eq!(alloc.u64(32, 8).call(&device, HWPT_ALLOC), Err(EFAULT));
    assert_eq!([destroy(&device, stdev), destroy(&device, other)], [Ok(()); 2]);
    assert_eq!(destroy(&device, hwpt), Err(ENOENT), "it went with the last device");
    let reserved =
        |start: u64, length: u64| test(1, second).u64(16, start).u64(24, length).call(&device, TEST);
    assert_eq!(
        [reserved(0x1000, 0x1000), reserved(0, 0), reserved(0x1000, 1)],
        [Ok(()), Err(EINVAL), Ok(())]
    );
    assert_eq!(test(99, ioas).call(&device, TEST), Err(EOPNOTSUPP));
    assert_eq!(Struct::new(67).call(&device, TEST), Err(EINVAL), "too small");
    for (command, errno) in [(TEST, EFAULT), (TEST - 1, EFAULT), (TEST + 1, ENOTTY)] {
        let bad = crate::device::raw(device.as_raw_fd(), command, std::ptr::null_mut());
        assert_eq!(bad, Err(errno), "{command:#x}: the table ends with the test command");
    }
    assert_eq!(Struct::new(8).call(&device, TEST - 1), Err(ENOTTY));
    assert_eq!(test(9, 0).u32(16, 11).call(&device, TEST), Err(EINVAL));
    assert_eq!(test(9, 0).u32(16, 16).call(&device, TEST), Ok(()));
}

#[test]
fn a_check_of_the_table_tells_the_programs_memory_from_other() {
    play_with_mock("mock map");
}

fn mapped() {
    let (device, file) = (open(), memory(8 * PAGE));
    let (own, other) = (shared(Some(&file), 8 * PAGE), shared(Some(&memory(8 * PAGE)), 8 * PAGE));
    let ioas = ioas_alloc(&device).unwrap();
    let (_, hwpt, _) = mock_domain(&device, ioas).unwrap();
    for iova in [map(&device, ioas, own).unwrap(), map_file(&device, ioas, &file, 8 * PAGE).unwrap()] {
        assert_eq!(check_map(&device, hwpt, iova, own), Ok(()));
        assert_eq!(check_map(&device, hwpt, iova + 2048, &own[2048..4096]), Ok(()), "half a page");
        assert_eq!(check_map(&device, hwpt, iova, other), Err(EINVAL), "another file");
        assert_eq!(check_map(&device, hwpt, iova, &own[4096..]), Err(EINVAL), "another page");
        assert_eq!(check_map(&device, hwpt, iova + 64 * PAGE, &own[..4096]), Err(EINVAL), "nothing there");
        assert_eq!(check_map(&device, hwpt, iova + 1, own), Err(EINVAL), "not aligned");
    }
    assert_eq!(check_map(&device, 77, 0x100_0000, own), Err(ENOENT));
    assert_eq!(check_map(&device, hwpt, 0x100_0000, &vec![0; 8192][..2048]).err(), Some(EINVAL), "private");
    // SAFETY: nothing is read through it, but by those who know better.
    let nowhere: &[u8] = unsafe { std::slice::from_raw_parts(std::ptr::without_provenance(4096), 4096) };
    for iova in [0x100_0000, 0x7000_0000] {
        assert_eq!(check_map(&device, hwpt, iova, nowhere), Err(EFAULT), "memory is looked at first");
    }
    let part = map(&device, ioas, &own[2048..6144]).unwrap();
    assert_eq!(check_map(&device, hwpt, part, &own[2048..6144]), Ok(()), "from the middle of a page");
    // SAFETY: the pages are ours and stay; the second is not looked at.
    let private: &[u8] = unsafe { std::slice::from_raw_parts(page_before_nothing(), 8192) };
    assert_eq!(map(&device, ioas, private), Err(EFAULT), "half of it cannot be used");
    let lazy = ioas_alloc(&device).unwrap();
    let mut aperture = [[0x100_0000_u64, 0x7fff_ffff]];
    let allow = Struct::new(24).u32(4, lazy).u32(8, 1).pointer(16, &mut aperture);
    allow.clone().call(&device, ALLOW_IOVAS).unwrap();
    assert!(map(&device, lazy, private).is_ok(), "nothing is pinned, so nothing is looked at");
    assert_eq!(mock_domain(&device, lazy), Err(EFAULT));
    let anonymous = shared(None, 4 * PAGE);
    match map(&device, ioas, anonymous) {
        Ok(iova) => assert_eq!(check_map(&device, hwpt, iova, anonymous), Ok(())),
        Err(errno) => {
            assert_eq!(errno, EFAULT);
            ioasd::skip!("mapped: shared memory without a file takes the privilege to open map_files");
        }
    }
}

#[test]
fn a_check_of_pins_counts_pages_objects_and_closing_is_over() {
    play_with_mock("mock refs");
}

fn refs() {
    let (device, file) = (open(), memory(4 * PAGE));
    let own = shared(Some(&file), 4 * PAGE);
    let ioas = ioas_alloc(&device).unwrap();
    let lazy = ioas_alloc(&device).unwrap();
    let low = map(&device, lazy, own).unwrap();
    assert_eq!(check_refs(&device, own, 0), Ok(()), "nothing is pinned yet");
    assert_eq!(mock_domain(&device, lazy), Err(EADDRINUSE), "{low:#x} is not in the aperture");
    mock_domain(&device, ioas).unwrap();
    let iova = map(&device, ioas, own).unwrap();
    assert_eq!([check_refs(&device, own, 1), check_refs(&device, own, 0)], [Ok(()), Err(EIO)]);
    let copy = Struct::new(40).u32(4, READABLE).u32(8, ioas).u32(12, ioas).u64(16, PAGE).u64(32, iova);
    copy.clone().call(&device, crate::device::COPY).unwrap();
    assert_eq!(check_refs(&device, own, 1), Ok(()), "a copy pins nothing");
    map(&device, ioas, &own[..4096]).unwrap();
    assert_eq!([check_refs(&device, &own[..4096], 2), check_refs(&device, &own[4096..], 1)], [Ok(()); 2]);
    assert_eq!(check_refs(&device, &own[1..4097], 1), Err(EINVAL));
    for _ in 0..5 {
        let device = open();
        let ioas = ioas_alloc(&device).unwrap();
        mock_domain(&device, ioas).unwrap();
        map(&device, ioas, own).unwrap();
        drop(device);
        assert_eq!(check_refs(&open(), &own[4096..], 1), Ok(()), "the close is over");
    }
    drop(device);
    assert_eq!(check_refs(&open(), own, 0), Ok(()));
}

#[test]
fn pins_of_huge_pages_are_not_counted() {
    play_with_mock("mock huge refs");
}

fn huge_refs() {
    for kind in crate::kinds::HUGE {
        let Some(memory) = kind.memory(1) else { continue };
        let device = open();
        let ioas = ioas_alloc(&device).unwrap();
        mock_domain(&device, ioas).unwrap();
        map(&device, ioas, &memory).unwrap();
        assert_eq!([0, 1, 7].map(|refs| check_refs(&device, &memory[..8192], refs)), [Ok(()); 3], "{kind:?}");
    }
}

#[test]
fn accesses_pin_what_the_program_has_there() {
    play_with_mock("mock pins");
}

fn pins() {
    let (device, file) = (open(), memory(4 * PAGE));
    let own = shared(Some(&file), 4 * PAGE);
    let ioas = ioas_alloc(&device).unwrap();
    let iova = map(&device, ioas, own).unwrap();
    let access = create_access(&device, ioas, 1).unwrap();
    assert_eq!(pin(&device, &access, iova, 4 * PAGE, Some(own)), Ok(0));
    assert_eq!(pin(&device, &access, iova + PAGE, PAGE, Some(&own[4096..])), Ok(1));
    assert_eq!(check_refs(&device, own, 1), Ok(()));
    assert_eq!(pin(&device, &access, iova, PAGE, Some(&own[4096..])), Err(EBADE), "other memory");
    assert_eq!([unpin(&device, &access, 0), unpin(&device, &access, 0)], [Ok(()), Err(ENOENT)]);
    assert_eq!([check_refs(&device, &own[..4096], 0), check_refs(&device, &own[4096..8192], 1)], [Ok(()); 2]);
    assert_eq!(pin(&device, &access, iova, 17 << 20, None), Err(ENOMEM));
    assert_eq!(pin(&device, &access, iova + 4 * PAGE, PAGE, None), Err(ENOENT));
    let none = file.try_clone().unwrap().into();
    assert_eq!(pin(&device, &none, iova, PAGE, None), Err(EBADFD));
    assert_eq!(destroy(&device, ioas), Err(EBUSY));
    let copying = create_access(&device, ioas, 0).unwrap();
    assert_eq!(
        [pin(&device, &copying, iova, PAGE, None), pin(&device, &copying, iova, 0, None)],
        [Err(EOPNOTSUPP); 2]
    );
    assert_eq!(create_access(&device, ioas, 2).err(), Some(EOPNOTSUPP));
    let other = ioas_alloc(&device).unwrap();
    assert_eq!(test(11, id(&access)).u32(16, other).call(&device, TEST), Ok(()));
    assert_eq!(check_refs(&device, own, 0), Ok(()), "it has let go of everything");
    assert_eq!(pin(&device, &access, iova, PAGE, None), Err(ENOENT));
    assert_eq!(destroy(&device, other), Err(EBUSY));
    drop((access, copying));
    assert_eq!([destroy(&device, other), destroy(&device, ioas)], [Ok(()); 2], "the close is over");
}

#[test]
fn accesses_move_bytes_of_any_length() {
    play_with_mock("mock moves");
}

fn moves() {
    let length = 1 << 20;
    let (device, file) = (open(), memory(length));
    let ioas = ioas_alloc(&device).unwrap();
    let iova = map_file(&device, ioas, &file, length).unwrap();
    let access = create_access(&device, ioas, 0).unwrap();
    let rw = |flags: u32, iova: u64, bytes: &mut [u8]| {
        let command = test(8, id(&access)).u64(16, iova).u64(24, bytes.len() as u64).u32(40, flags);
        command.pointer(32, bytes).call(&device, TEST)
    };
    let mut data: Vec<u8> = (0..=255).cycle().take(usize::try_from(length).unwrap() - 9).collect();
    assert_eq!(rw(1, iova + 5, &mut data), Ok(()));
    let mut back = vec![0; data.len()];
    assert_eq!(rw(4, iova + 5, &mut back), Ok(()));
    assert!(back == data, "other bytes came back");
    let mut whole = vec![0; usize::try_from(length).unwrap()];
    rustix::io::pread(&file, &mut whole, 0).unwrap();
    assert!(whole[5..whole.len() - 4] == data[..], "the file has other bytes");
    assert_eq!(rw(0, iova, &mut []), Err(EINVAL));
    assert_eq!(rw(2, iova, &mut [0]), Err(EOPNOTSUPP));
    assert_eq!(rw(0, iova + length - 1, &mut [0; 2]), Err(ENOENT));
    assert_eq!(rw(0, iova, &mut vec![0; (16 << 20) + 1]), Err(ENOMEM));
    for flags in [0, 1] {
        let nowhere = test(8, id(&access)).u64(16, iova).u64(24, 64).u64(32, 8).u32(40, flags);
        assert_eq!(nowhere.clone().call(&device, TEST), Err(EFAULT));
        assert_eq!(nowhere.u32(8, 999).call(&device, TEST), Err(EBADFD));
    }
}

#[test]
fn an_address_can_be_told_by_the_number_of_its_area() {
    play_with_mock("mock numbered areas");
}

fn numbered() {
    const BY_AREA: u32 = 0x1_0000;
    let (device, file) = (open(), memory(4 * PAGE));
    let own = shared(Some(&file), 4 * PAGE);
    own[5000..5003].copy_from_slice(b"abc");
    let ioas = ioas_alloc(&device).unwrap();
    let at = |iova: u64, memory: &[u8]| {
        let map = Struct::new(40).u32(4, FIXED | READABLE | WRITEABLE).u32(8, ioas).u64(32, iova);
        let address = memory.as_ptr().expose_provenance() as u64;
        map.u64(16, address).u64(24, memory.len() as u64).call(&device, MAP).unwrap();
    };
    at(0x2000, own);
    at(0x1000, &own[..4096]);
    let access = create_access(&device, ioas, 1).unwrap();
    let mut back = [0; 3];
    let read = |named: u64, back: &mut [u8]| {
        let command = test(8, id(&access)).u64(16, named).u64(24, back.len() as u64).u32(40, BY_AREA);
        command.pointer(32, back).call(&device, TEST)
    };
    assert_eq!((read(1 | 5000 << 32, &mut back), &back), (Ok(()), b"abc"));
    assert_eq!([read(2, &mut back), read((5 * PAGE) << 32, &mut back)], [Err(ENOENT); 2]);
    let mut whole = vec![0; 100_000];
    at(0x10_0000, shared(Some(&memory(26 * PAGE)), 26 * PAGE));
    assert_eq!(read(2, &mut whole), Ok(()), "in several pieces");
    assert!(whole.iter().all(|byte| *byte == 0x5a));
    let pages = |named: u64, memory: &[u8]| {
        let command = test(7, id(&access)).u32(16, BY_AREA).u64(24, named).u64(32, PAGE);
        command.u64(40, memory.as_ptr().expose_provenance() as u64).call(&device, TEST)
    };
    assert_eq!([pages(1 | 4096 << 32, &own[4096..]), pages(1 | 4096 << 32, own)], [Ok(()), Err(EBADE)]);
    let copy = Struct::new(40).u32(4, READABLE | BY_AREA).u32(8, ioas).u32(12, ioas).u64(16, PAGE);
    let mut copied = copy.clone().u64(32, 1 | 4096 << 32);
    copied.call(&device, crate::device::COPY).unwrap();
    assert_eq!(copied.get_u64(32), 1 | 4096 << 32, "what was asked comes back");
    let seen = test(8, id(&access)).u64(16, copied.get_u64(24) + 904).u64(24, 3).pointer(32, &mut back);
    assert_eq!((seen.clone().call(&device, TEST), &back), (Ok(()), b"abc"));
    assert_eq!(copy.u64(32, 9).call(&device, crate::device::COPY), Err(ENOENT));
}

#[test]
fn an_unmap_has_accesses_let_go() {
    play_with_mock("mock notices");
}

fn notices() {
    let (device, file) = (open(), memory(4 * PAGE));
    let own = shared(Some(&file), 4 * PAGE);
    let ioas = ioas_alloc(&device).unwrap();
    let (first, second) = (map(&device, ioas, own).unwrap(), map(&device, ioas, &own[..4096]).unwrap());
    let access = create_access(&device, ioas, 1).unwrap();
    let items = [pin(&device, &access, first, PAGE, None), pin(&device, &access, second, PAGE, None)];
    assert_eq!(items, [Ok(0), Ok(1)]);
    assert_eq!(unmap(&device, ioas, first, 4 * PAGE), Ok(4 * PAGE));
    assert_eq!(unpin(&device, &access, 0), Err(ENOENT), "it was let go of");
    assert_eq!(unpin(&device, &access, 1), Ok(()));
    assert_ne!(unmap(&device, ioas, second, PAGE), Err(EDEADLK));
}

#[test]
fn the_last_close_of_an_access_counts_also_in_another_process() {
    play_with_mock("mock last close");
}

fn last_close() {
    let (device, file) = (open(), memory(2 * PAGE));
    let own = shared(Some(&file), 2 * PAGE);
    let ioas = ioas_alloc(&device).unwrap();
    let iova = map(&device, ioas, own).unwrap();
    let access = create_access(&device, ioas, 1).unwrap();
    pin(&device, &access, iova, PAGE, Some(own)).unwrap();
    // SAFETY: the child uses what was made for it, and ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let pinned = pin(&device, &access, iova + PAGE, PAGE, Some(&own[4096..]));
        // SAFETY: the end of the child.
        unsafe { libc::_exit(i32::from(pinned != Ok(1))) };
    }
    assert_eq!(crate::processes::exit_code(child), 0);
    assert_eq!(check_refs(&device, own, 1), Ok(()), "the exit of a child lets nothing go");
    drop(device);
    assert_eq!(check_refs(&open(), own, 1), Ok(()), "an access keeps its context");
    drop(access);
    let clean = crate::fixture::eventually(|| check_refs(&open(), own, 0).is_ok());
    assert!(clean, "the last close lets everything go");
}

#[test]
fn run_with_mock_has_mock_hardware() {
    played(&run(&["--mock"], &playing("mock map")));
    played(&run(&[], &playing("no mock")));
}
