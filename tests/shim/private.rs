//! Private memory: pinned by its process when that is due, reached by its bytes, and gone with its process unless pinned.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::Command;

use ioasd::actors::mock_hardware::Hardware;
use ioasd::storage::source::{ProcessSetting, Strength};
use libc::{EFAULT, EINVAL, EIO};

use crate::accesses::{SLOW, WRITE, map_with, rw};
use crate::device::{ALLOW_IOVAS, MAP, READABLE, Struct, WRITEABLE, ioas_alloc, open, shared, unmap};
use crate::fixture::{Agent, eventually};
use crate::kinds::on_disk;
use crate::mock::{PAGE, check_map, check_refs, create_access, map, mock_domain, pin, unpin};
use crate::processes::{exit_code, fork};
use crate::program::{Part, play_with_mock, played, playing, shimmed};

pub(crate) const PARTS: &[Part] = &[
    ("private pinned", pinned),
    ("private later", pinned_later),
    ("private replaced", replaced),
    ("private holes", holes),
    ("private unshared", unshared),
    ("private constant", constant),
    ("private of a disk", of_a_disk),
    ("private moved", moved),
    ("private given back", given_back),
    ("private forks", forks),
    ("private of the dead", of_the_dead),
    ("private exec", after_exec),
    ("private many", many),
    ("private waits", waits),
    ("private refused", refused),
];

/// Private memory of the program, every page of it different.
fn private(pages: u64) -> &'static mut [u8] {
    let length = usize::try_from(pages * PAGE).unwrap();
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping where the kernel likes it.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, kind, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    // SAFETY: the mapping is ours and stays.
    let memory: &mut [u8] = unsafe { std::slice::from_raw_parts_mut(start.cast(), length) };
    for (number, page) in memory.chunks_mut(4096).enumerate() {
        page.fill(u8::try_from(number % 251).unwrap());
    }
    memory
}

/// Closes a descriptor of a child, whose value is the parent's.
fn close(file: &impl std::os::fd::AsRawFd) {
    // SAFETY: the child does not use it again, and ends without dropping it.
    assert_eq!(unsafe { libc::close(file.as_raw_fd()) }, 0);
}

/// An address space with a mock device.
fn with_domain(device: &File) -> (u32, u32) {
    let ioas = ioas_alloc(device).unwrap();
    (ioas, mock_domain(device, ioas).unwrap().1)
}

/// An address space in which automatic addresses suit a mock device.
fn without_domain(device: &File) -> u32 {
    let ioas = ioas_alloc(device).unwrap();
    let mut aperture = [[0x100_0000_u64, 0x7fff_ffff]];
    let mut allow = Struct::new(24).u32(4, ioas).u32(8, 1).pointer(16, &mut aperture);
    allow.call(device, ALLOW_IOVAS).unwrap();
    ioas
}

/// ACCESS_RW: from an address of the address space.
fn read(device: &File, access: &OwnedFd, iova: u64, length: usize) -> Result<Vec<u8>, i32> {
    let mut bytes = vec![0; length];
    rw(device, access, iova, &mut bytes, 0)?;
    Ok(bytes)
}

/// ACCESS_RW: to an address of the address space.
fn write(device: &File, access: &OwnedFd, iova: u64, bytes: &[u8]) -> Result<(), i32> {
    rw(device, access, iova, &mut bytes.to_vec(), WRITE)
}

/// As [`read`], through what is pinned.
fn read_pinned(device: &File, access: &OwnedFd, iova: u64, length: usize) -> Result<Vec<u8>, i32> {
    let mut bytes = vec![0; length];
    rw(device, access, iova, &mut bytes, SLOW)?;
    Ok(bytes)
}

fn agent_with(setting: ProcessSetting) -> Agent {
    Agent::with(|settings| {
        settings.settings.hardware = Hardware::Mock;
        settings.pins.process_memory = setting;
    })
}

#[test]
fn private_memory_is_pinned_as_what_it_is() {
    play_with_mock("private pinned");
}

fn pinned() {
    let (device, memory) = (open(), private(64));
    let (ioas, hwpt) = with_domain(&device);
    let iova = map(&device, ioas, memory).unwrap();
    assert_eq!(check_map(&device, hwpt, iova, memory), Ok(()));
    assert_eq!(check_map(&device, hwpt, iova, &memory[4096..]), Err(EINVAL), "another page");
    assert_eq!(check_map(&device, hwpt, iova, private(1)), Err(EINVAL), "other memory");
    assert_eq!([check_refs(&device, memory, 1), check_refs(&device, memory, 0)], [Ok(()), Err(EIO)]);
    let again = map(&device, ioas, &memory[2048..6144]).unwrap();
    assert_eq!(check_map(&device, hwpt, again, &memory[2048..6144]), Ok(()), "from the middle of a page");
    assert_eq!(check_refs(&device, &memory[..8192], 2), Ok(()), "two maps are two pins");
    assert_eq!(unmap(&device, ioas, again, PAGE), Ok(PAGE), "an access needs whole pages");
    let access = create_access(&device, ioas, 1).unwrap();
    assert_eq!(read(&device, &access, iova + 4000, 200), Ok([vec![0; 96], vec![1; 104]].concat()));
    write(&device, &access, iova + 8190, &[0xee; 5000]).unwrap();
    assert!(memory[8190..13190].iter().all(|byte| *byte == 0xee) && memory[13190] == 3);
    let item = pin(&device, &access, iova, 4 * PAGE, Some(memory)).unwrap();
    unpin(&device, &access, item).unwrap();
    assert_eq!(unmap(&device, ioas, 0, u64::MAX), Ok(64 * PAGE));
    assert_eq!(check_refs(&device, memory, 0), Ok(()));
}

#[test]
fn what_is_mapped_without_a_domain_is_pinned_when_one_comes() {
    play_with_mock("private later");
}

fn pinned_later() {
    let (device, memory) = (open(), private(16));
    let ioas = without_domain(&device);
    let iova = map(&device, ioas, memory).unwrap();
    assert_eq!(check_refs(&device, memory, 0), Ok(()));
    let access = create_access(&device, ioas, 1).unwrap();
    assert_eq!(read(&device, &access, iova + PAGE, 4), Ok(vec![1; 4]));
    memory[4096] = 77;
    assert_eq!(read(&device, &access, iova + PAGE, 2), Ok(vec![77, 1]), "nothing was copied");
    let item = pin(&device, &access, iova + PAGE, 2 * PAGE, Some(&memory[4096..])).unwrap();
    assert_eq!(check_refs(&device, &memory[4096..3 * 4096], 1), Ok(()));
    let (_, hwpt, _) = mock_domain(&device, ioas).unwrap();
    assert_eq!(check_map(&device, hwpt, iova, memory), Ok(()));
    assert_eq!(check_refs(&device, memory, 1), Ok(()), "no page is pinned twice");
    unpin(&device, &access, item).unwrap();
    assert_eq!(check_refs(&device, memory, 1), Ok(()));
}

#[test]
fn a_pin_outlives_the_mapping_of_its_process() {
    play_with_mock("private replaced");
}

fn replaced() {
    let (device, memory) = (open(), private(8));
    let (ioas, _) = with_domain(&device);
    let iova = map(&device, ioas, memory).unwrap();
    let access = create_access(&device, ioas, 0).unwrap();
    let (start, length) = (memory.as_mut_ptr(), memory.len());
    let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the memory is ours, and what lay there is not used again.
    let new = unsafe { libc::mmap(start.cast(), length, rights, kind | libc::MAP_FIXED, -1, 0) };
    assert_eq!(new.cast(), start);
    assert_eq!(memory[4096], 0, "the program sees new memory");
    let pinned = |iova, length| read_pinned(&device, &access, iova, length);
    assert_eq!(pinned(iova + PAGE, 3), Ok(vec![1; 3]), "a device sees what was pinned");
    assert_eq!(read(&device, &access, iova + PAGE, 3), Ok(vec![0; 3]), "the process what it has there");
    rw(&device, &access, iova + PAGE, &mut [9; 3], WRITE | SLOW).unwrap();
    assert_eq!(pinned(iova + PAGE, 3), Ok(vec![9; 3]));
    assert_eq!(memory[4096], 0);
    write(&device, &access, iova + PAGE, &[8; 3]).unwrap();
    assert_eq!(memory[4096], 8);
    assert_eq!(pinned(iova + PAGE, 3), Ok(vec![9; 3]));
    let second = map(&device, ioas, memory).unwrap();
    assert_eq!(pinned(second + PAGE, 3), Ok(vec![8; 3]));
    // SAFETY: nothing uses the memory any more.
    assert_eq!(unsafe { libc::munmap(start.cast(), length) }, 0);
    assert_eq!(pinned(second + PAGE, 3), Ok(vec![8; 3]));
    assert_eq!(read(&device, &access, second + PAGE, 3), Err(EFAULT), "there is nothing any more");
}

#[test]
fn memory_that_is_not_there_is_a_fault_when_it_is_pinned() {
    play_with_mock("private holes");
}

fn holes() {
    let (device, memory) = (open(), private(8));
    let (ioas, _) = with_domain(&device);
    let hole = memory[5 * 4096..].as_mut_ptr();
    // SAFETY: the page is ours and not used.
    assert_eq!(unsafe { libc::munmap(hole.cast(), 4096) }, 0);
    assert_eq!(map(&device, ioas, memory), Err(EFAULT));
    assert_eq!(check_refs(&device, &memory[..5 * 4096], 0), Ok(()), "nothing stays pinned");
    assert!(map(&device, ioas, &memory[..5 * 4096]).is_ok());
    let lazy = without_domain(&device);
    assert!(map(&device, lazy, memory).is_ok(), "nobody looks");
    assert_eq!(mock_domain(&device, lazy).err(), Some(EFAULT));
    let nowhere = Struct::new(40).u32(4, READABLE).u32(8, ioas).u64(16, 0x7000).u64(24, PAGE);
    assert_eq!(nowhere.clone().call(&device, MAP), Err(EFAULT));
}

#[test]
fn a_pin_for_reading_breaks_copy_on_write() {
    play_with_mock("private unshared");
}

fn unshared() {
    let (device, file) = (open(), File::open("/proc/self/exe").unwrap());
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    // SAFETY: a new mapping where the kernel likes it.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_PRIVATE, fd, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    // SAFETY: the mapping is ours and stays.
    let memory: &mut [u8] = unsafe { std::slice::from_raw_parts_mut(start.cast(), 4096) };
    let (ioas, hwpt) = with_domain(&device);
    let address = memory.as_ptr().expose_provenance() as u64;
    let mut read_only = Struct::new(40).u32(4, READABLE).u32(8, ioas).u64(16, address).u64(24, PAGE);
    read_only.call(&device, MAP).unwrap();
    let iova = read_only.get_u64(32);
    assert_eq!(check_map(&device, hwpt, iova, memory), Ok(()));
    let user = create_access(&device, ioas, 0).unwrap();
    assert_eq!(read(&device, &user, iova, 4), Ok(b"\x7fELF".to_vec()));
    memory[1] = b'e';
    assert_eq!(check_map(&device, hwpt, iova, memory), Ok(()));
    assert_eq!(read(&device, &user, iova, 4), Ok(b"\x7feLF".to_vec()), "the page is the one that was pinned");
    assert_eq!(write(&device, &user, iova, b"x").err(), Some(libc::EPERM));
}

#[test]
fn what_nobody_may_write_is_copied_and_says_so() {
    let agent = agent_with(ProcessSetting::Auto);
    let mut program = shimmed(playing("private constant"), &agent.socket());
    let child =
        program.stdout(std::process::Stdio::piped()).stdin(std::process::Stdio::piped()).spawn().unwrap();
    assert!(eventually(|| agent.snapshot().pages.len() == 1), "the program has not mapped");
    let pages = agent.snapshot().pages;
    assert_eq!(pages[0].stats.strength, Strength::Copy);
    played(&child.wait_with_output().unwrap());
    agent.assert_clean();
}

fn constant() {
    static CONSTANT: [u8; 8192] = [0x33; 8192];
    let device = open();
    let (ioas, _) = with_domain(&device);
    let address = CONSTANT.as_ptr().expose_provenance() as u64 & !0xfff;
    let mut map = Struct::new(40).u32(4, READABLE).u32(8, ioas).u64(16, address).u64(24, 2 * PAGE);
    map.call(&device, MAP).unwrap();
    let access = create_access(&device, ioas, 0).unwrap();
    assert_eq!(read(&device, &access, map.get_u64(32) + PAGE, 8), Ok(vec![0x33; 8]));
    let writable = Struct::new(40).u32(4, READABLE | 2).u32(8, ioas).u64(16, address).u64(24, PAGE);
    assert_eq!(writable.clone().call(&device, MAP), Err(EFAULT), "it may not be written");
    wait_for_the_end();
}

#[test]
fn memory_that_moves_is_where_it_was_for_devices_and_gone_for_later_pins() {
    play_with_mock("private moved");
}

fn moved() {
    let (device, memory) = (open(), private(8));
    let ((ioas, _), lazy) = (with_domain(&device), without_domain(&device));
    let (iova, later) = (map(&device, ioas, memory).unwrap(), map(&device, lazy, memory).unwrap());
    let access = create_access(&device, ioas, 0).unwrap();
    let (start, length) = (memory.as_mut_ptr().cast(), memory.len());
    let elsewhere: *mut u8 = private(8).as_mut_ptr();
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    // SAFETY: both mappings are ours; the old one is not used again, and of the new one nothing is kept.
    let new = unsafe { libc::mremap(start, length, length, flags, elsewhere) };
    assert_eq!(new.cast(), elsewhere);
    // SAFETY: the mapping is ours and stays.
    let memory: &mut [u8] = unsafe { std::slice::from_raw_parts_mut(new.cast(), length) };
    memory[4096..4099].fill(0x77);
    assert_eq!(read_pinned(&device, &access, iova + PAGE, 3), Ok(vec![0x77; 3]), "the pages are the same");
    assert_eq!(read(&device, &access, iova + PAGE, 3), Err(EFAULT), "the address is not");
    let user = create_access(&device, lazy, 1).unwrap();
    assert_eq!(pin(&device, &user, later, PAGE, None), Err(EFAULT), "nothing is there to be pinned");
    assert_eq!(read_pinned(&device, &user, later, 3), Err(EFAULT));
    assert_eq!(mock_domain(&device, lazy).err(), Some(EFAULT));
    assert_eq!(unmap(&device, ioas, iova, 8 * PAGE), Ok(8 * PAGE));
}

#[test]
fn memory_that_was_given_back_stays_with_devices_and_is_new_for_later_pins() {
    play_with_mock("private given back");
}

fn given_back() {
    for advice in [libc::MADV_DONTNEED, libc::MADV_FREE] {
        let (device, memory) = (open(), private(4));
        let ((ioas, _), lazy) = (with_domain(&device), without_domain(&device));
        let (iova, later) = (map(&device, ioas, memory).unwrap(), map(&device, lazy, memory).unwrap());
        // SAFETY: the memory is ours, and reads as zeros or as it was.
        assert_eq!(unsafe { libc::madvise(memory.as_mut_ptr().cast(), memory.len(), advice) }, 0);
        let access = create_access(&device, ioas, 0).unwrap();
        assert_eq!(read_pinned(&device, &access, iova + PAGE, 3), Ok(vec![1; 3]), "advice {advice}");
        memory[4096..4099].fill(0x66);
        let user = create_access(&device, lazy, 1).unwrap();
        let item = pin(&device, &user, later + PAGE, PAGE, None).unwrap();
        assert_eq!(read_pinned(&device, &user, later + PAGE, 3), Ok(vec![0x66; 3]), "advice {advice}");
        unpin(&device, &user, item).unwrap();
    }
}

#[test]
fn files_of_a_file_system_are_only_read_by_devices() {
    play_with_mock("private of a disk");
}

/// Shared with the file system, so that nobody may hold it for writing.
fn of_a_disk() {
    let (device, length) = (open(), 4 * 4096);
    let file = on_disk(length);
    for rights in [libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE] {
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        // SAFETY: a new mapping where the kernel likes it.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, rights, libc::MAP_SHARED, fd, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        // SAFETY: the mapping is ours and stays.
        let memory: &[u8] = unsafe { std::slice::from_raw_parts(start.cast(), length) };
        let (ioas, hwpt) = with_domain(&device);
        assert_eq!(map_with(&device, ioas, memory, 0x100_0000, READABLE), Ok(()), "rights {rights}");
        assert_eq!(check_map(&device, hwpt, 0x100_0000, memory), Ok(()));
        let access = create_access(&device, ioas, 1).unwrap();
        assert_eq!(read(&device, &access, 0x100_0005, 9000), Ok(vec![0xf1; 9000]));
        assert_eq!(read_pinned(&device, &access, 0x100_0005, 9000), Ok(vec![0xf1; 9000]));
        let writable = map_with(&device, ioas, memory, 0x200_0000, READABLE | WRITEABLE);
        assert_eq!(writable, Err(EFAULT), "rights {rights}: it may not be held for writing");
    }
}

/// Until whoever started the program has no more use for it.
fn wait_for_the_end() {
    let ended = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
    assert_eq!(ended.ok(), Some(0));
}

#[test]
fn each_process_pins_its_own_memory() {
    play_with_mock("private forks");
}

fn forks() {
    let (device, memory) = (open(), private(4));
    let (ioas, hwpt) = with_domain(&device);
    let iova = map(&device, ioas, memory).unwrap();
    let lazy = without_domain(&device);
    let (end, wait) = std::io::pipe().unwrap();
    let (told, mut tell) = std::io::pipe().unwrap();
    let child = fork(|| {
        close(&wait);
        memory.fill(0xcc);
        let differs = check_map(&device, hwpt, iova, memory) == Err(EINVAL);
        let own = map(&device, ioas, memory).is_ok_and(|own| check_map(&device, hwpt, own, memory) == Ok(()));
        let later = map(&device, lazy, memory).unwrap_or(0);
        std::io::Write::write_all(&mut tell, &later.to_ne_bytes()).unwrap();
        let ended = std::io::Read::read(&mut &end, &mut [0]);
        i32::from(!(differs && own && ended.is_ok()))
    });
    let mut address = [0; 8];
    std::io::Read::read_exact(&mut &told, &mut address).unwrap();
    let later = u64::from_ne_bytes(address);
    let access = create_access(&device, lazy, 1).unwrap();
    assert_eq!(read(&device, &access, later + 100, 5000), Ok(vec![0xcc; 5000]), "the child waits elsewhere");
    let (_, hwpt, _) = mock_domain(&device, lazy).unwrap();
    assert_eq!(check_map(&device, hwpt, later, memory), Err(EINVAL), "it is not the parent's");
    drop(wait);
    assert_eq!(exit_code(child), 0);
    assert_eq!(
        read(&device, &access, later, 5000),
        Ok(vec![0xcc; 5000]),
        "pinned, although its process has ended"
    );
    assert_eq!(memory[0], 0);
}

#[test]
fn memory_of_a_dead_process_is_there_only_if_it_was_pinned() {
    play_with_mock("private of the dead");
}

fn of_the_dead() {
    let device = open();
    for memory in [private(4), shared(None, 4 * PAGE)] {
        let (ioas, lazy) = (with_domain(&device).0, without_domain(&device));
        let child = fork(|| {
            memory.fill(0xdd);
            let first = map(&device, ioas, memory).map_or(1, |_| 0);
            first + map(&device, lazy, memory).map_or(2, |_| 0)
        });
        assert_eq!(exit_code(child), 0);
        let access = create_access(&device, ioas, 0).unwrap();
        let user = create_access(&device, lazy, 0).unwrap();
        assert_eq!(read(&device, &access, 0x100_0000, 9), Ok(vec![0xdd; 9]));
        assert_eq!(read(&device, &user, 0x100_0000, 9), Err(EFAULT));
        assert_eq!(mock_domain(&device, lazy).err(), Some(EFAULT));
        mock_domain(&device, ioas).unwrap();
    }
}

#[test]
fn a_program_that_runs_another_takes_its_memory_along() {
    play_with_mock("private exec");
}

fn after_exec() {
    let (device, memory) = (open(), private(4));
    let lazy = without_domain(&device);
    let (end, wait) = std::io::pipe().unwrap();
    let (told, tell) = std::io::pipe().unwrap();
    let child = fork(|| {
        close(&wait);
        if map(&device, lazy, memory).is_err() {
            return 1;
        }
        let mut cat = Command::new("sh");
        cat.args(["-c", "echo there; exec cat"]).env_remove("LD_PRELOAD").stdin(end).stdout(tell);
        drop(std::os::unix::process::CommandExt::exec(&mut cat));
        2
    });
    std::io::Read::read_exact(&mut &told, &mut [0; 6]).unwrap();
    assert_eq!(mock_domain(&device, lazy).err(), Some(EFAULT));
    drop(wait);
    assert_eq!(exit_code(child), 0);
}

#[test]
fn many_small_maps_leave_no_descriptors() {
    play_with_mock("private many");
}

fn many() {
    let (device, memory) = (open(), private(64));
    let (ioas, _) = with_domain(&device);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    map(&device, ioas, memory).unwrap();
    let before = descriptors();
    for _ in 0..4 {
        let maps: Vec<u64> = memory.chunks(4096).map(|page| map(&device, ioas, page).unwrap()).collect();
        assert_eq!(check_refs(&device, memory, 2), Ok(()));
        for iova in maps {
            assert_eq!(unmap(&device, ioas, iova, PAGE), Ok(PAGE));
        }
    }
    assert!(eventually(|| descriptors() <= before), "rings are left");
}

#[test]
fn a_program_that_is_killed_leaves_no_pins() {
    let agent = agent_with(ProcessSetting::Pin);
    let mut program = shimmed(playing("private waits"), &agent.socket());
    let mut child =
        program.stdout(std::process::Stdio::null()).stdin(std::process::Stdio::piped()).spawn().unwrap();
    assert!(eventually(|| agent.pinned_and_charged().0 == 16 * PAGE), "the program has not mapped");
    child.kill().unwrap();
    child.wait().unwrap();
    agent.assert_clean();
}

fn waits() {
    let (device, memory) = (open(), private(16));
    let (ioas, _) = with_domain(&device);
    map(&device, ioas, memory).unwrap();
    wait_for_the_end();
}

#[test]
fn an_agent_may_refuse_or_only_copy() {
    let agent = agent_with(ProcessSetting::Refuse);
    played(&shimmed(playing("private refused"), &agent.socket()).output().unwrap());
    agent.assert_clean();
    let agent = agent_with(ProcessSetting::Copy);
    let mut program = shimmed(playing("private waits"), &agent.socket());
    let child =
        program.stdout(std::process::Stdio::piped()).stdin(std::process::Stdio::piped()).spawn().unwrap();
    assert!(eventually(|| agent.pinned_and_charged().0 == 16 * PAGE), "the program has not mapped");
    assert_eq!(agent.snapshot().pages[0].stats.strength, Strength::Copy);
    played(&child.wait_with_output().unwrap());
    agent.assert_clean();
}

fn refused() {
    let device = open();
    let (ioas, _) = with_domain(&device);
    assert_eq!(map(&device, ioas, private(1)), Err(EFAULT));
}
