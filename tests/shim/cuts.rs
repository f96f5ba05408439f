//! UNMAP_DMA of parts: the first type of VFIO container cuts what was mapped, the second one unmaps whole mappings only.

use std::fs::File;
use std::ops::Range;

use libc::{EADDRINUSE, EINVAL, ENOENT};

use crate::device::{COPY, FIXED, READABLE, Struct, WRITEABLE, destroy, memory, shared};
use crate::kinds;
use crate::mock::{PAGE, check_map, check_refs, create_access, map, mock_domain, pin, unpin};
use crate::program::{Part, play_with_mock};
use crate::vfio::{MAP_DMA, SET_IOMMU, UNMAP_DMA, container, map_dma, number, unmap_dma};

pub(crate) const PARTS: &[Part] = &[
    ("cuts of a file", of_a_file),
    ("cuts of no file", of_no_file),
    ("cuts of huge pages", of_huge_pages),
    ("cuts held", held),
    ("cuts without domain", without_domain),
    ("cuts refused", refused),
];

/// Where the addresses of a mock device begin.
const START: u64 = 0x100_0000;

/// What UNMAP_DMA can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cuts = 1,
    Whole = 3,
}

fn container_of(kind: Kind) -> (File, u32) {
    let (device, ioas) = container();
    assert_eq!(number(&device, SET_IOMMU, kind as usize), Ok(0));
    (device, ioas)
}

/// The pages of `own`, all mapped from START on, of which `gone` were unmapped.
fn assert_left(device: &File, hwpt: u32, own: &[u8], gone: &Range<usize>) {
    for part in [0..gone.start, gone.end..own.len()] {
        let iova = START + part.start as u64;
        if !part.is_empty() {
            assert_eq!(
                check_map(device, hwpt, iova, &own[part.clone()]),
                Ok(()),
                "{part:?} of all but {gone:?}"
            );
            assert_eq!(check_refs(device, &own[part], 1), Ok(()), "one pin a page");
        }
    }
    if !gone.is_empty() {
        let iova = START + gone.start as u64;
        assert_eq!(check_map(device, hwpt, iova, &own[gone.clone()]), Err(EINVAL), "{gone:?} is gone");
        assert_eq!(check_refs(device, &own[gone.clone()], 0), Ok(()), "{gone:?} is not pinned");
    }
}

/// Every part in pages of `step` bytes, of memory that is mapped anew each time.
fn every_part(own: &[u8], step: usize, kind: Kind) -> Result<(), i32> {
    let (device, ioas) = container_of(kind);
    let (_, hwpt, _) = mock_domain(&device, ioas).unwrap();
    let all = own.len();
    for start in (0..all).step_by(step) {
        for end in (start + step..=all).step_by(step) {
            map_dma(3, own, START).call(&device, MAP_DMA)?;
            assert_left(&device, hwpt, own, &(0..0));
            let (part, length) = (start..end, (end - start) as u64);
            let unmapped = unmap_dma(&device, 0, START + start as u64, length);
            if kind == Kind::Cuts || part == (0..all) {
                assert_eq!(unmapped, Ok(length), "{part:?}");
                assert_left(&device, hwpt, own, &part);
                assert_eq!(unmap_dma(&device, 2, 0, 0), Ok(all as u64 - length));
            } else {
                assert_eq!(unmapped, Err(ENOENT), "{part:?}");
                assert_left(&device, hwpt, own, &(0..0));
                assert_eq!(unmap_dma(&device, 0, START, all as u64), Ok(all as u64));
            }
            assert_eq!(check_refs(&device, own, 0), Ok(()));
        }
    }
    Ok(())
}

fn both_kinds(own: &[u8], step: usize) -> Result<(), i32> {
    [Kind::Cuts, Kind::Whole].into_iter().try_for_each(|kind| every_part(own, step, kind))
}

#[test]
fn type_1_unmaps_every_part_of_a_file_and_type_1_version_2_only_all_of_it() {
    play_with_mock("cuts of a file");
}

fn of_a_file() {
    both_kinds(shared(Some(&memory(6 * PAGE)), 6 * PAGE), 4096).unwrap();
}

#[test]
fn parts_of_every_kind_of_memory_are_unmapped() {
    play_with_mock("cuts of no file");
}

fn of_no_file() {
    for kind in kinds::ORDINARY {
        let memory = kind.memory(4).unwrap();
        both_kinds(&memory, 4096).unwrap_or_else(|errno| panic!("{kind:?}: {errno}"));
    }
}

#[test]
fn parts_of_huge_pages_are_unmapped() {
    play_with_mock("cuts of huge pages");
}

fn of_huge_pages() {
    for kind in kinds::HUGE {
        let Some(memory) = kind.memory(1024) else { continue };
        both_kinds(&memory, 1 << 20).unwrap_or_else(|errno| panic!("{kind:?}: {errno}"));
    }
}

#[test]
fn what_an_access_holds_is_not_cut() {
    play_with_mock("cuts held");
}

fn held() {
    let own = shared(Some(&memory(8 * PAGE)), 8 * PAGE);
    let (device, ioas) = container_of(Kind::Cuts);
    let (_, hwpt, _) = mock_domain(&device, ioas).unwrap();
    map_dma(3, own, START).call(&device, MAP_DMA).unwrap();
    let access = create_access(&device, ioas, 1).unwrap();
    let item = pin(&device, &access, START, PAGE, Some(&own[..4096])).unwrap();
    let mut unmap = Struct::new(24).u64(8, START + 2 * PAGE).u64(16, PAGE);
    assert_eq!(unmap.call(&device, UNMAP_DMA), Err(EINVAL));
    assert_eq!(unmap.get_u64(16), PAGE, "nothing is told when a cut is refused");
    assert_left(&device, hwpt, own, &(0..0));
    unpin(&device, &access, item).unwrap();
    assert_eq!(unmap_dma(&device, 0, START + 2 * PAGE, PAGE), Ok(PAGE));
    assert_left(&device, hwpt, own, &(0x2000..0x3000));
    pin(&device, &access, START + PAGE, PAGE, Some(&own[0x1000..0x2000])).unwrap();
    assert_eq!(unmap_dma(&device, 0, START + 4 * PAGE, 2 * PAGE), Ok(2 * PAGE), "another area");
    assert_eq!(unmap_dma(&device, 0, START, 8 * PAGE), Ok(5 * PAGE), "the access lets go of whole areas");
    assert_eq!(check_refs(&device, own, 0), Ok(()));
}

#[test]
fn what_was_cut_without_a_domain_is_shown_in_parts_by_the_first() {
    play_with_mock("cuts without domain");
}

fn without_domain() {
    let own = shared(Some(&memory(8 * PAGE)), 8 * PAGE);
    let (device, ioas) = container_of(Kind::Cuts);
    map_dma(3, own, START).call(&device, MAP_DMA).unwrap();
    assert_eq!(unmap_dma(&device, 0, START + 3 * PAGE, 2 * PAGE), Ok(2 * PAGE));
    assert_eq!(check_refs(&device, own, 0), Ok(()), "nothing is pinned yet");
    let (stdev, hwpt, _) = mock_domain(&device, ioas).unwrap();
    assert_left(&device, hwpt, own, &(0x3000..0x5000));
    map_dma(3, &own[0x3000..0x5000], START + 3 * PAGE).call(&device, MAP_DMA).unwrap();
    let copy = Struct::new(40).u32(4, FIXED | READABLE | WRITEABLE).u32(8, ioas).u32(12, ioas);
    copy.u64(16, 8 * PAGE).u64(24, 2 * START).u64(32, START).call(&device, COPY).unwrap();
    assert_eq!(check_map(&device, hwpt, 2 * START, own), Ok(()), "a copy over cuts");
    assert_eq!(unmap_dma(&device, 0, START + PAGE, 5 * PAGE), Ok(5 * PAGE), "over three areas");
    assert_eq!(check_refs(&device, own, 1), Ok(()), "the copy goes on holding all");
    destroy(&device, stdev).unwrap();
    assert_eq!(check_refs(&device, own, 0), Ok(()));
    assert_eq!(unmap_dma(&device, 2, 0, 0), Ok(11 * PAGE));
}

#[test]
fn cuts_are_of_pages_and_type_1_comes_before_what_is_mapped() {
    play_with_mock("cuts refused");
}

fn refused() {
    let own = shared(Some(&memory(4 * PAGE)), 4 * PAGE);
    let (device, ioas) = container_of(Kind::Cuts);
    mock_domain(&device, ioas).unwrap();
    map_dma(3, own, START).call(&device, MAP_DMA).unwrap();
    for (start, length) in [(0x1000, 0x1800), (0x800, 0x1800), (0x800, 0x800)] {
        assert_eq!(unmap_dma(&device, 0, START + start, length), Err(EINVAL), "{start:#x} {length:#x}");
    }
    assert_eq!(unmap_dma(&device, 0, START + 0x1000, 0x1000), Ok(0x1000), "none of it was cut meanwhile");
    let (later, ioas) = container();
    mock_domain(&later, ioas).unwrap();
    map_dma(1, own, START).call(&later, MAP_DMA).unwrap();
    assert_eq!([1, 3].map(|kind| number(&later, SET_IOMMU, kind)), [Err(EINVAL), Ok(0)]);
    let (small, ioas) = container();
    map(&small, ioas, &own[..2048]).unwrap();
    assert_eq!(number(&small, SET_IOMMU, 1), Err(EADDRINUSE), "an area that is no whole page");
}
