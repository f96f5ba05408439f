//! Every kind of memory in no table, one, two, and one with huge leaves: placement, entries, pins, copies.

use std::fs::File;
use std::os::fd::AsRawFd;

use libc::{EEXIST, EINVAL, ENOENT};

use crate::accesses::{WRITE, rw};
use crate::device::{
    ALLOW_IOVAS, COPY, FIXED, HWPT_ALLOC, MAP, MAP_FILE, READABLE, Struct, WRITEABLE, destroy, ioas_alloc,
    open, unmap,
};
use crate::kinds::{HUGE, Kind, Memory, ORDINARY};
use crate::mock::{PAGE, check_map, check_refs, create_access, map, mock_domain, test};
use crate::program::{Part, play_with_mock};

pub(crate) const PARTS: &[Part] = &[
    ("tables ordinary", ordinary),
    ("tables huge", huge),
    ("tables short", short_of_memory),
    ("tables replaced", replaced),
    ("tables cleared", cleared),
    ("tables of files", of_files),
];

/// Where mock domains begin.
const START: u64 = 0x100_0000;

/// Tables over an address space.
#[derive(Clone, Copy, Debug)]
enum Tables {
    None,
    One,
    Two,
    /// One with leaves of a page or 1 MiB, made for a device.
    HugeLeaves,
}

const TABLES: [Tables; 4] = [Tables::None, Tables::One, Tables::Two, Tables::HugeLeaves];

/// An address space with tables.
pub(crate) struct Space {
    pub(crate) device: File,
    pub(crate) ioas: u32,
    pub(crate) hwpts: Vec<u32>,
    /// What addresses have to be multiples of.
    step: usize,
}

impl Space {
    fn new(tables: Tables) -> Self {
        let device = open();
        let ioas = ioas_alloc(&device).unwrap();
        let mut hwpts = Vec::new();
        match tables {
            Tables::None => allow_mock_addresses(&device, ioas),
            Tables::One => hwpts.push(mock_domain(&device, ioas).unwrap().1),
            Tables::Two => {
                let (_, first, idev) = mock_domain(&device, ioas).unwrap();
                hwpts.extend([first, hwpt_alloc(&device, idev, ioas, 0)]);
                mock_domain(&device, hwpts[1]).unwrap();
            }
            Tables::HugeLeaves => {
                let other = ioas_alloc(&device).unwrap();
                let (_, _, idev) = mock_domain(&device, other).unwrap();
                hwpts.push(hwpt_alloc(&device, idev, ioas, 1));
                mock_domain(&device, hwpts[0]).unwrap();
            }
        }
        let step = match tables {
            Tables::None => 1,
            Tables::One | Tables::Two => 2048,
            Tables::HugeLeaves => 4096,
        };
        Self { device, ioas, hwpts, step }
    }

    /// Asserts that tables show `memory` at `iova`, and that each page of it is pinned by the objects it should be.
    #[track_caller]
    pub(crate) fn assert_shows(&self, iova: u64, memory: &[u8]) {
        for hwpt in &self.hwpts {
            assert_eq!(check_map(&self.device, *hwpt, iova, memory), Ok(()), "{iova:#x}");
        }
    }

    #[track_caller]
    fn assert_pins(&self, kind: Kind, memory: &[u8], pins: u32) {
        if !kind.is_huge() {
            let pins = if self.hwpts.is_empty() { 0 } else { pins };
            assert_eq!(check_refs(&self.device, memory, pins), Ok(()), "{pins} pins");
        }
    }

    fn map_at(&self, memory: &[u8], iova: u64) -> Result<(), i32> {
        let map = Struct::new(40).u32(4, FIXED | READABLE | WRITEABLE).u32(8, self.ioas);
        let map = map.u64(16, memory.as_ptr().expose_provenance() as u64).u64(24, memory.len() as u64);
        map.u64(32, iova).call(&self.device, MAP)
    }

    fn copy(&self, iova: u64, length: usize, to: Option<u64>) -> Result<u64, i32> {
        let flags = READABLE | WRITEABLE | to.map_or(0, |_| FIXED);
        let copy = Struct::new(40).u32(4, flags).u32(8, self.ioas).u32(12, self.ioas);
        let mut copy = copy.u64(16, length as u64).u64(24, to.unwrap_or(0)).u64(32, iova);
        copy.call(&self.device, COPY)?;
        Ok(copy.get_u64(24))
    }

    #[track_caller]
    fn unmap(&self, iova: u64, length: usize) {
        assert_eq!(unmap(&self.device, self.ioas, iova, length as u64), Ok(length as u64), "{iova:#x}");
    }
}

/// Makes addresses that are chosen for us suit a mock device.
fn allow_mock_addresses(device: &File, ioas: u32) {
    let mut aperture = [[START, 0x7fff_ffff]];
    let mut allow = Struct::new(24).u32(4, ioas).u32(8, 1).pointer(16, &mut aperture);
    allow.call(device, ALLOW_IOVAS).unwrap();
}

/// HWPT_ALLOC of a mock table of this kind.
fn hwpt_alloc(device: &File, idev: u32, ioas: u32, kind: u32) -> u32 {
    let mut data = [0_u32, kind];
    let alloc = Struct::new(48).u32(8, idev).u32(12, ioas).u32(24, 0xdead).u32(28, 8);
    let mut alloc = alloc.pointer(32, &mut data);
    alloc.call(device, HWPT_ALLOC).unwrap();
    alloc.get_u32(16)
}

#[test]
fn every_part_of_ordinary_memory_is_shown_by_every_table() {
    play_with_mock("tables ordinary");
}

fn ordinary() {
    for kind in ORDINARY {
        let memory = kind.memory(6).unwrap();
        for tables in TABLES {
            every_part(tables, kind, &memory, &[0, 1, 2047, 2048, 4096, 10240, 22528, 24576]);
        }
    }
}

#[test]
fn every_part_of_huge_memory_is_shown_by_every_table() {
    play_with_mock("tables huge");
}

fn huge() {
    for kind in HUGE {
        let Some(memory) = kind.memory(1024) else { continue };
        let all = memory.len();
        let cuts = [0, 2048, 1 << 20, 2 << 20, (2 << 20) + 4096, all - 2048, all];
        TABLES.iter().for_each(|tables| every_part(*tables, kind, &memory, &cuts));
    }
}

/// Maps what lies between every two of `cuts`, at an address it does not choose and at one it does, and copies it.
fn every_part(tables: Tables, kind: Kind, memory: &Memory, cuts: &[usize]) {
    let space = Space::new(tables);
    for (at, start) in cuts.iter().enumerate() {
        for end in &cuts[at + 1..] {
            let part = &memory[*start..*end];
            if [*start, part.len()].iter().all(|number| number % space.step == 0) {
                part_of(&space, kind, memory, *start..*end);
            } else {
                assert_eq!(
                    map(&space.device, space.ioas, part),
                    Err(EINVAL),
                    "{tables:?} {kind:?} {start} to {end}"
                );
            }
        }
    }
    assert_eq!(unmap(&space.device, space.ioas, 0, u64::MAX), Ok(0));
    space.assert_pins(kind, memory, 0);
}

fn part_of(space: &Space, kind: Kind, memory: &Memory, range: std::ops::Range<usize>) {
    let part = &memory[range.clone()];
    let pages = &memory[range.start & !4095..range.end.next_multiple_of(4096).min(memory.len())];
    let chosen = map(&space.device, space.ioas, part).unwrap();
    let into_page = range.start as u64 % PAGE;
    assert_eq!(chosen & into_page, into_page, "{chosen:#x}");
    space.assert_shows(chosen, part);
    space.assert_pins(kind, pages, 1);
    assert_eq!(space.map_at(part, chosen), Err(EEXIST));
    let given = 0x4000_0000 + chosen % PAGE;
    space.map_at(part, given).unwrap();
    space.assert_shows(given, part);
    space.assert_pins(kind, pages, 2);
    let copied = space.copy(given, part.len(), None).unwrap();
    space.assert_shows(copied, part);
    let placed = space.copy(chosen, part.len(), Some(given + 0x1000_0000)).unwrap();
    space.assert_shows(placed, part);
    space.assert_pins(kind, pages, 2);
    space.unmap(given, part.len());
    space.assert_shows(copied, part);
    space.assert_pins(kind, pages, 2);
    for iova in [copied, chosen] {
        space.unmap(iova, part.len());
        space.assert_shows(placed, part);
    }
    space.assert_pins(kind, pages, 1);
    space.unmap(placed, part.len());
    space.assert_pins(kind, pages, 0);
    assert_eq!(unmap(&space.device, space.ioas, placed, part.len() as u64), Err(ENOENT));
}

#[test]
fn batches_of_any_length_give_the_same_tables() {
    play_with_mock("tables short");
}

/// Batches of one run, two, and as many as there may be, over several areas of memory that is in order and out of it.
fn short_of_memory() {
    for limit in [16, 32, 65536] {
        test(9, 0).u32(16, limit).call(&open(), crate::device::TEST).unwrap();
        for kind in [Kind::Private, Kind::Memfd, Kind::PrivateHuge, Kind::SharedHuge] {
            let Some(memory) = kind.memory(40) else { continue };
            for tables in [Tables::One, Tables::Two] {
                let space = Space::new(tables);
                let first = map(&space.device, space.ioas, &memory[2048..30 * 4096]).unwrap();
                let second = map(&space.device, space.ioas, &memory[..40 * 4096]).unwrap();
                let late = mock_domain(&space.device, space.ioas).unwrap().0;
                space.assert_shows(first, &memory[2048..30 * 4096]);
                space.assert_shows(second, &memory[..40 * 4096]);
                destroy(&space.device, late).unwrap();
                let inside = space.copy(second + 5 * PAGE, 7 * 4096, None).unwrap();
                space.unmap(second, 40 * 4096);
                space.assert_shows(inside, &memory[5 * 4096..12 * 4096]);
            }
        }
    }
}

#[test]
fn a_table_that_comes_late_or_in_place_of_another_shows_the_same() {
    play_with_mock("tables replaced");
}

fn replaced() {
    for kind in ORDINARY.into_iter().chain(HUGE) {
        let Some(memory) = kind.memory(8) else { continue };
        let space = Space::new(Tables::None);
        let (device, ioas) = (&space.device, space.ioas);
        let iova = map(device, ioas, &memory[2048..]).unwrap();
        let (stdev, hwpt, idev) = mock_domain(device, ioas).unwrap();
        assert_eq!(check_map(device, hwpt, iova, &memory[2048..]), Ok(()), "{kind:?}");
        let manual = hwpt_alloc(device, idev, ioas, 0);
        let mut replace = test(10, stdev).u32(16, manual);
        replace.call(device, crate::device::TEST).unwrap();
        assert_eq!(check_map(device, manual, iova, &memory[2048..]), Ok(()), "{kind:?}");
        assert_eq!(check_map(device, hwpt, iova, &memory[2048..]), Err(ENOENT), "it went with its device");
        let other = ioas_alloc(device).unwrap();
        let mut replace = test(10, stdev).u32(16, other);
        replace.call(device, crate::device::TEST).unwrap();
        assert_eq!(
            check_map(device, replace.get_u32(16), START, &memory[..4096]),
            Err(EINVAL),
            "nothing there"
        );
        destroy(device, manual).unwrap();
        if !kind.is_huge() {
            assert_eq!(check_refs(device, &memory, 0), Ok(()), "no table is left");
        }
    }
}

#[test]
fn one_unmap_takes_many_areas_of_all_kinds() {
    play_with_mock("tables cleared");
}

fn cleared() {
    let memories: Vec<Memory> = ORDINARY.into_iter().filter_map(|kind| kind.memory(16)).collect();
    for tables in TABLES {
        let space = Space::new(tables);
        for (number, page) in memories.iter().flat_map(|memory| memory.chunks(4096)).enumerate() {
            space.map_at(page, START + 2 * PAGE * number as u64).unwrap();
        }
        assert_eq!(
            unmap(&space.device, space.ioas, START, 64 * PAGE - 1),
            Ok(32 * PAGE),
            "as far as it reaches"
        );
        assert_eq!(unmap(&space.device, space.ioas, 0, u64::MAX), Ok(32 * PAGE));
        memories.iter().for_each(|memory| assert_eq!(check_refs(&space.device, memory, 0), Ok(())));
    }
}

#[test]
fn every_part_of_a_file_is_shown_by_every_table_and_reached() {
    play_with_mock("tables of files");
}

fn of_files() {
    for kind in [Kind::Memfd, Kind::HugeMemfd] {
        let Some(mut memory) = kind.memory(6) else { continue };
        for tables in TABLES {
            let space = Space::new(tables);
            for (start, end) in
                [(0, 24576), (2048, 6144), (4096, 8192), (10240, 24576), (1, 4098), (4096, 4099)]
            {
                part_of_a_file(&space, &mut memory, start..end);
            }
        }
    }
}

fn part_of_a_file(space: &Space, memory: &mut Memory, range: std::ops::Range<usize>) {
    let (start, length) = (range.start as u64, range.len() as u64);
    let map = Struct::new(40).u32(4, READABLE | WRITEABLE).u32(8, space.ioas);
    let mut map = map.u32(12, memory.file().as_raw_fd().cast_unsigned()).u64(16, start).u64(24, length);
    let mapped = map.call(&space.device, MAP_FILE);
    if [range.start, range.len()].iter().any(|number| number % space.step != 0) {
        assert_eq!(mapped, Err(EINVAL), "{range:?}");
        return;
    }
    assert_eq!(mapped, Ok(()), "{range:?}");
    let iova = map.get_u64(32);
    space.assert_shows(iova, &memory[range.clone()]);
    let access = create_access(&space.device, space.ioas, 0).unwrap();
    let mut bytes: Vec<u8> = memory[range.clone()].iter().map(|byte| byte ^ 0x33).collect();
    rw(&space.device, &access, iova, &mut bytes, WRITE).unwrap();
    assert!(memory[range.clone()] == bytes[..], "{range:?} was not written");
    memory[range.clone()].fill(7);
    rw(&space.device, &access, iova, &mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 7), "{range:?} was not read");
    space.unmap(iova, range.len());
}
