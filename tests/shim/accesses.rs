//! Every kind of memory under accesses: pins and bytes of any range, across areas, with and without a table, from the
//! process itself and from its children.

use std::fs::File;
use std::os::fd::OwnedFd;

use libc::{EBADE, EFAULT, EINVAL, ENOENT, EPERM};

use crate::device::{FIXED, MAP, READABLE, Struct, TEST, WRITEABLE, ioas_alloc, open, unmap};
use crate::kinds::{HUGE, Kind, Memory, ORDINARY};
use crate::mock::{PAGE, check_refs, create_access, id, mock_domain, pin, test, unpin};
use crate::processes::{exit_code, fork};
use crate::program::{Part, play_with_mock};

pub(crate) const PARTS: &[Part] = &[
    ("accesses bytes", bytes),
    ("accesses pins", pins),
    ("accesses rights", rights),
    ("accesses gaps", gaps),
    ("accesses children", children),
    ("accesses many", many),
];

/// Where memory is mapped.
const START: u64 = 0x100_0000;

/// ACCESS_RW: flags for a write, and for the way through pinned pages.
pub(crate) const WRITE: u32 = 1;
pub(crate) const SLOW: u32 = 4;

pub(crate) fn rw(
    device: &File,
    access: &OwnedFd,
    iova: u64,
    bytes: &mut [u8],
    flags: u32,
) -> Result<(), i32> {
    let command = test(8, id(access)).u64(16, iova).u64(24, bytes.len() as u64).u32(40, flags);
    command.pointer(32, bytes).call(device, TEST)
}

pub(crate) fn map_with(device: &File, ioas: u32, memory: &[u8], iova: u64, rights: u32) -> Result<(), i32> {
    let map = Struct::new(40).u32(4, FIXED | rights).u32(8, ioas);
    let map = map.u64(16, memory.as_ptr().expose_provenance() as u64).u64(24, memory.len() as u64);
    map.u64(32, iova).call(device, MAP)
}

fn map_at(device: &File, ioas: u32, memory: &[u8], iova: u64) {
    map_with(device, ioas, memory, iova, READABLE | WRITEABLE).unwrap();
}

fn kinds() -> impl Iterator<Item = (Kind, Memory)> {
    ORDINARY.into_iter().chain(HUGE).filter_map(|kind| Some((kind, kind.memory(8)?)))
}

#[test]
fn bytes_of_any_range_move_both_ways() {
    play_with_mock("accesses bytes");
}

fn bytes() {
    for (kind, mut memory) in kinds() {
        for tables in [0, 1, 2] {
            let (device, ioas) = space(tables);
            map_at(&device, ioas, &memory[..12288], START);
            map_at(&device, ioas, &memory[12288..8 * 4096], START + 12288);
            let accesses = [0, 1].map(|needs| create_access(&device, ioas, needs).unwrap());
            for (start, length) in
                [(0, 1), (5, 4090), (4095, 2), (4096, 4096), (100, 20000), (12287, 2), (0, 8 * 4096)]
            {
                for (access, flags) in accesses.iter().zip([0, SLOW]).chain(accesses.iter().zip([SLOW, 0])) {
                    let what = format!("{kind:?} {tables} {start} {length} {flags}");
                    let mut read = vec![0; length];
                    rw(&device, access, START + start as u64, &mut read, flags).expect(&what);
                    assert!(read == memory[start..start + length], "{what}: other bytes");
                    read.iter_mut().for_each(|byte| *byte ^= 0x5a);
                    rw(&device, access, START + start as u64, &mut read, flags | WRITE).expect(&what);
                    assert!(read == memory[start..start + length], "{what}: not written");
                }
            }
            assert_eq!(unmap(&device, ioas, 0, u64::MAX), Ok(8 * PAGE));
        }
        memory.fill(0);
    }
}

/// An address space with so many tables.
fn space(tables: usize) -> (File, u32) {
    let device = open();
    let ioas = ioas_alloc(&device).unwrap();
    for table in 0..tables {
        let (_, _, idev) = mock_domain(&device, ioas).unwrap();
        if table > 0 {
            Struct::new(48).u32(8, idev).u32(12, ioas).call(&device, crate::device::HWPT_ALLOC).unwrap();
        }
    }
    (device, ioas)
}

#[test]
fn pins_are_of_the_pages_that_are_there() {
    play_with_mock("accesses pins");
}

fn pins() {
    for (kind, memory) in kinds() {
        for tables in [0, 1, 2] {
            let (device, ioas) = space(tables);
            map_at(&device, ioas, &memory[..4 * 4096], START);
            map_at(&device, ioas, &memory[4 * 4096..8 * 4096], START + 4 * PAGE);
            let access = create_access(&device, ioas, 1).unwrap();
            let mut items = Vec::new();
            for (first, pages) in [(0, 1), (1, 3), (3, 2), (0, 8), (7, 1)] {
                let there = &memory[first * 4096..];
                let (iova, length) = (START + first as u64 * PAGE, pages * PAGE);
                items.push(pin(&device, &access, iova, length, Some(there)).unwrap());
                let part = pin(&device, &access, iova, length - 100, Some(there)).unwrap();
                unpin(&device, &access, part).unwrap();
                let within = pin(&device, &access, iova, 10, Some(there)).unwrap();
                unpin(&device, &access, within).unwrap();
                let other = &memory[(first + 1) % 8 * 4096..];
                assert_eq!(pin(&device, &access, iova, PAGE, Some(other)), Err(EBADE), "{kind:?}");
            }
            if !kind.is_huge() {
                assert_eq!(check_refs(&device, &memory[..8 * 4096], 1), Ok(()), "{kind:?} {tables}");
            }
            assert_eq!(unmap(&device, ioas, START, 4 * PAGE), Ok(4 * PAGE), "{kind:?}: it lets go");
            let left: Vec<bool> = items.iter().map(|item| unpin(&device, &access, *item).is_ok()).collect();
            assert_eq!(left, [false, false, false, false, true], "{kind:?}");
            let refs = u32::from(tables > 0);
            if !kind.is_huge() {
                assert_eq!(check_refs(&device, &memory[..4 * 4096], 0), Ok(()), "{kind:?} {tables}");
                assert_eq!(
                    check_refs(&device, &memory[4 * 4096..8 * 4096], refs),
                    Ok(()),
                    "{kind:?} {tables}"
                );
            }
        }
    }
}

#[test]
fn rights_are_those_of_the_area_and_of_the_memory() {
    play_with_mock("accesses rights");
}

fn rights() {
    for (kind, memory) in kinds() {
        let (device, ioas) = space(1);
        let user = create_access(&device, ioas, 1).unwrap();
        let write_pin =
            |iova| pin(&device, &user, iova, PAGE, None).map(|item| unpin(&device, &user, item).unwrap());
        let read_pin = |iova: u64| test(7, id(&user)).u64(24, iova).u64(32, PAGE).call(&device, TEST);
        let (read_only, write_only) = (START, START + PAGE);
        map_with(&device, ioas, &memory[..4096], read_only, READABLE).unwrap();
        map_with(&device, ioas, &memory[..4096], write_only, WRITEABLE).unwrap();
        assert_eq!([write_pin(read_only), write_pin(write_only)], [Err(EPERM), Ok(())], "{kind:?}");
        assert_eq!([read_pin(read_only), read_pin(write_only)], [Ok(()), Err(EPERM)], "{kind:?}");
        let mut byte = [9];
        let mut try_both = |iova| [0, WRITE].map(|flags| rw(&device, &user, iova, &mut byte, flags));
        assert_eq!(try_both(read_only), [Ok(()), Err(EPERM)], "{kind:?}");
        assert_eq!(try_both(write_only), [Err(EPERM), Ok(())], "{kind:?}");
        let copy = |rights: u32, from: u64, to: u64| {
            let copy = Struct::new(40).u32(4, FIXED | rights).u32(8, ioas).u32(12, ioas);
            copy.u64(16, PAGE).u64(24, to).u64(32, from).call(&device, crate::device::COPY)
        };
        assert_eq!(copy(WRITEABLE, read_only, START + 2 * PAGE), Err(EPERM), "{kind:?}: never writable");
        assert_eq!(copy(READABLE | WRITEABLE, write_only, START + 2 * PAGE), Ok(()), "{kind:?}: wider");
        assert_eq!(write_pin(START + 2 * PAGE), Ok(()));
        protect(&memory, libc::PROT_READ);
        assert_eq!(map_with(&device, ioas, &memory, START << 2, WRITEABLE), Err(EFAULT), "{kind:?}");
        map_with(&device, ioas, &memory, START << 2, READABLE)
            .unwrap_or_else(|errno| panic!("{kind:?}: {errno}"));
        assert_eq!(rw(&device, &user, START << 2, &mut byte, 0), Ok(()), "{kind:?}");
        protect(&memory, libc::PROT_NONE);
        assert_eq!(map_with(&device, ioas, &memory, START << 3, READABLE), Err(EFAULT), "{kind:?}");
    }
}

fn protect(memory: &Memory, rights: i32) {
    let start = memory.as_ptr().cast_mut().cast();
    // SAFETY: only the device uses the memory from now on.
    assert_eq!(unsafe { libc::mprotect(start, memory.len(), rights) }, 0);
}

#[test]
fn what_comes_before_a_gap_is_moved_and_nothing_stays_pinned() {
    play_with_mock("accesses gaps");
}

fn gaps() {
    for (kind, mut memory) in kinds() {
        for tables in [0, 1] {
            let (device, ioas) = space(tables);
            map_at(&device, ioas, &memory[..8192], START);
            map_at(&device, ioas, &memory[8192..16384], START + 3 * PAGE);
            let access = create_access(&device, ioas, 1).unwrap();
            for flags in [0, SLOW] {
                memory.fill(7);
                let mut read = [1; 3 * 4096];
                assert_eq!(rw(&device, &access, START, &mut read, flags), Err(ENOENT), "{kind:?}");
                assert!(read[..8192] == [7; 8192] && read[8192..] == [1; 4096], "{kind:?} {tables} {flags}");
                let mut new = [8; 3 * 4096];
                assert_eq!(rw(&device, &access, START + 1, &mut new, flags | WRITE), Err(ENOENT), "{kind:?}");
                assert!(memory[0] == 7 && memory[1..8192] == [8; 8191] && memory[8192] == 7, "{kind:?}");
            }
            let there = check_refs(&device, &memory[..4 * 4096], u32::try_from(tables).unwrap());
            assert!(kind.is_huge() || there == Ok(()), "{kind:?}");
            assert_eq!(pin(&device, &access, START, 3 * PAGE, None), Err(ENOENT), "{kind:?}");
            let there = check_refs(&device, &memory[..4 * 4096], u32::try_from(tables).unwrap());
            assert!(kind.is_huge() || there == Ok(()), "{kind:?}");
            let page = memory[..4096].as_ptr().expose_provenance() as u64;
            let half =
                Struct::new(40).u32(4, FIXED | READABLE).u32(8, ioas).u64(16, page + 2048).u64(24, 4096);
            let misaligned = half.u64(32, START + 8 * PAGE).call(&device, MAP);
            assert_eq!(misaligned, Err(EINVAL), "{kind:?}: an access that pins needs whole pages");
        }
    }
}

#[test]
fn children_use_what_their_parent_mapped_and_their_end_ends_nothing() {
    play_with_mock("accesses children");
}

fn children() {
    for (kind, mut memory) in kinds() {
        for tables in [0, 1] {
            let (device, ioas) = space(tables);
            memory.fill(3);
            map_at(&device, ioas, &memory[..16384], START);
            let access = create_access(&device, ioas, 1).unwrap();
            let child = fork(|| {
                let mut read = [0; 9000];
                let reads = rw(&device, &access, START + 7, &mut read, 0) == Ok(()) && read == [3; 9000];
                let slow = rw(&device, &access, START + 7, &mut read[..10], SLOW) == Ok(());
                let writes = rw(&device, &access, START, &mut [5; 6000], WRITE) == Ok(());
                let pinned = pin(&device, &access, START, 4 * PAGE, None).is_ok();
                i32::from(!reads) + i32::from(!slow) * 2 + i32::from(!writes) * 4 + i32::from(!pinned) * 8
            });
            assert_eq!(exit_code(child), 0, "{kind:?} {tables}");
            assert!(
                memory[..6000] == [5; 6000] && memory[6000] == 3,
                "{kind:?} {tables}: the parent's bytes"
            );
            let refs = check_refs(&device, &memory[..16384], 1);
            assert!(kind.is_huge() || refs == Ok(()), "{kind:?} {tables}: the pin is the access's");
            memory[0] = 99;
            let mut byte = [0];
            rw(&device, &access, START, &mut byte, SLOW).unwrap();
            assert_eq!(byte, [99], "{kind:?}: a fork takes no page away from its pins");
        }
    }
}

#[test]
fn bytes_of_many_kinds_move_in_one_call() {
    play_with_mock("accesses many");
}

/// Areas of all kinds side by side, one of a file by its descriptor and one of a child among them.
fn many() {
    let (device, ioas) = space(0);
    let memories: Vec<(Kind, Memory)> = kinds().collect();
    let mut wanted = Vec::new();
    let mut at = START;
    for (number, (_, memory)) in memories.iter().enumerate() {
        map_at(&device, ioas, &memory[4096..3 * 4096], at);
        wanted.extend_from_slice(&memory[4096..3 * 4096]);
        at += 2 * PAGE;
        let file = crate::device::memory(PAGE);
        let map = crate::device::map_file_struct(ioas, std::os::fd::AsRawFd::as_raw_fd(&file), PAGE);
        map.u32(4, FIXED | READABLE | WRITEABLE).u64(32, at).call(&device, crate::device::MAP_FILE).unwrap();
        wanted.extend([0x5a; 4096]);
        at += PAGE;
        assert!(number < 16);
    }
    let access = create_access(&device, ioas, 0).unwrap();
    for flags in [0, SLOW] {
        let mut read = vec![0; wanted.len() - 7];
        rw(&device, &access, START + 7, &mut read, flags).unwrap();
        assert!(read == wanted[7..]);
        read.iter_mut().for_each(|byte| *byte ^= 1);
        rw(&device, &access, START + 7, &mut read, flags | WRITE).unwrap();
        wanted[7..].copy_from_slice(&read);
    }
    let (_, first) = &memories[0];
    assert!(first[4096..3 * 4096][7..] == wanted[7..8192]);
    let mut unreadable = test(8, id(&access)).u64(16, START).u64(24, PAGE).u64(32, 8).u32(40, WRITE);
    assert_eq!(unreadable.call(&device, TEST), Err(EFAULT));
}
