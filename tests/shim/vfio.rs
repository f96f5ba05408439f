//! The VFIO container calls over an address space.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::ptr::without_provenance_mut;

use libc::{EFAULT, EINVAL, ENODEV, ENOENT, ENOTTY, EOPNOTSUPP};

use crate::device::{Struct, destroy, ioas_alloc, memory, open, raw, shared};
use crate::program::{Part, play, play_with_mock};

pub(crate) const PARTS: &[Part] = &[
    ("vfio ioas", compat_ioas),
    ("vfio numbers", numbers),
    ("vfio dma", dma),
    ("vfio nothing", nothing_allowed),
    ("vfio info", info),
    ("vfio mock", of_a_mock_device),
];

const VFIO_IOAS: u32 = 0x3b88;
const GET_API_VERSION: u32 = 0x3b64;
const CHECK_EXTENSION: u32 = 0x3b65;
pub(crate) const SET_IOMMU: u32 = 0x3b66;
const GET_INFO: u32 = 0x3b70;
pub(crate) const MAP_DMA: u32 = 0x3b71;
pub(crate) const UNMAP_DMA: u32 = 0x3b72;

fn vfio_ioas(device: &File, op: u16, ioas: u32) -> Result<u32, i32> {
    let mut call = Struct::new(12).u32(4, ioas).u16(8, op);
    call.call(device, VFIO_IOAS)?;
    Ok(call.get_u32(4))
}

/// A call that takes a number.
pub(crate) fn number(device: &File, call: u32, argument: usize) -> Result<i32, i32> {
    raw(device.as_raw_fd(), call, without_provenance_mut(argument))
}

/// A device, and the address space that its container stands for.
pub(crate) fn container() -> (File, u32) {
    let device = open();
    let ioas = ioas_alloc(&device).unwrap();
    vfio_ioas(&device, 1, ioas).unwrap();
    (device, ioas)
}

#[test]
fn the_container_stands_for_an_address_space_until_that_ends() {
    play("vfio ioas");
}

fn compat_ioas() {
    let device = open();
    assert_eq!(vfio_ioas(&device, 0, 0), Err(ENODEV));
    assert_eq!(vfio_ioas(&device, 1, 7), Err(ENOENT));
    let ioas = ioas_alloc(&device).unwrap();
    assert_eq!(vfio_ioas(&device, 1, ioas), Ok(ioas));
    assert_eq!(vfio_ioas(&device, 0, 0), Ok(ioas));
    assert_eq!(vfio_ioas(&device, 3, 0), Err(EOPNOTSUPP));
    assert_eq!(Struct::new(12).u16(10, 1).call(&device, VFIO_IOAS), Err(EOPNOTSUPP));
    vfio_ioas(&device, 2, 0).unwrap();
    assert_eq!(vfio_ioas(&device, 0, 0), Err(ENODEV));
    vfio_ioas(&device, 1, ioas).unwrap();
    destroy(&device, ioas).unwrap();
    assert_eq!(vfio_ioas(&device, 0, 0), Err(ENODEV));
}

#[test]
fn numbers_are_taken_and_returned() {
    play("vfio numbers");
}

fn numbers() {
    let device = OpenOptions::new().read(true).write(true).open("/dev/vfio/vfio").unwrap();
    assert_eq!(number(&device, GET_API_VERSION, 0), Ok(0));
    assert_eq!(number(&device, SET_IOMMU, 1), Err(ENODEV));
    assert_eq!(number(&device, CHECK_EXTENSION, 4), Err(ENODEV));
    let ioas = ioas_alloc(&device).unwrap();
    vfio_ioas(&device, 1, ioas).unwrap();
    let extensions = [1, 3, 9, 4, 6, 8, 10, 77].map(|extension| number(&device, CHECK_EXTENSION, extension));
    assert_eq!(extensions, [Ok(1), Ok(1), Ok(1), Ok(1), Ok(0), Ok(0), Ok(0), Ok(0)]);
    assert_eq!([3, 3, 1].map(|kind| number(&device, SET_IOMMU, kind)), [Ok(0); 3]);
    assert_eq!([2, 8].map(|kind| number(&device, SET_IOMMU, kind)), [Err(EINVAL); 2]);
    assert_eq!(number(&device, 0x3b75, 0), Err(ENOTTY));
}

#[test]
fn dma_is_mapped_and_unmapped_at_given_addresses() {
    play_with_mock("vfio dma");
}

pub(crate) fn map_dma(flags: u32, memory: &[u8], iova: u64) -> Struct {
    let map = Struct::new(32).u32(4, flags).u64(8, memory.as_ptr().expose_provenance() as u64);
    map.u64(16, iova).u64(24, memory.len() as u64)
}

pub(crate) fn unmap_dma(device: &File, flags: u32, iova: u64, length: u64) -> Result<u64, i32> {
    let mut unmap = Struct::new(24).u32(4, flags).u64(8, iova).u64(16, length);
    unmap.call(device, UNMAP_DMA)?;
    Ok(unmap.get_u64(16))
}

fn dma() {
    let file = memory(0x4000);
    let own = shared(Some(&file), 0x4000);
    let empty = open();
    assert_eq!(map_dma(4, own, 0).call(&empty, MAP_DMA), Err(EINVAL), "comes before");
    assert_eq!(map_dma(3, own, 0).call(&empty, MAP_DMA), Err(ENODEV));
    let (device, ioas) = container();
    let mut mock = Struct::new(72).u32(4, 2).u32(8, ioas);
    mock.call(&device, crate::device::TEST).unwrap();
    assert_eq!(map_dma(3, own, 0x100_0000).call(&device, MAP_DMA), Ok(()));
    assert_eq!(map_dma(3, own, 0x100_0000).call(&device, MAP_DMA), Err(libc::EEXIST));
    assert_eq!(map_dma(3, own, 0x100_0000).u32(0, 31).call(&device, MAP_DMA), Err(EINVAL));
    assert_eq!(raw(device.as_raw_fd(), MAP_DMA, std::ptr::null_mut()), Err(EFAULT));
    assert_eq!(map_dma(1, &own[..4096], 0x200_0000).call(&device, MAP_DMA), Ok(()));
    assert_eq!(unmap_dma(&device, 0, 0x100_0000, 0x4000), Ok(0x4000));
    assert_eq!(unmap_dma(&device, 0, 0x100_0000, 0x4000), Ok(0), "nothing is no error");
    assert_eq!(unmap_dma(&device, 0, 0x100_0000, 0), Err(EINVAL));
    assert_eq!(unmap_dma(&device, 2, 0x100_0000, 0x4000), Err(EINVAL));
    assert_eq!([unmap_dma(&device, 2, 0, 0), unmap_dma(&device, 2, 0, 0)], [Ok(0x1000), Ok(0)]);
    assert_eq!(unmap_dma(&device, 1, 0, 0), Err(EINVAL));
}

#[test]
fn what_nobody_may_use_is_mapped_as_long_as_there_is_no_domain() {
    play_with_mock("vfio nothing");
}

fn nothing_allowed() {
    let (device, ioas) = container();
    let own = shared(Some(&memory(0x4000)), 0x4000);
    assert_eq!(map_dma(0, own, 0x100_0000).call(&device, MAP_DMA), Ok(()));
    assert_eq!(map_dma(0, own, 0x100_0000).call(&device, MAP_DMA), Err(libc::EEXIST));
    let access = crate::mock::create_access(&device, ioas, 1).unwrap();
    assert_eq!(crate::mock::pin(&device, &access, 0x100_0000, 0x1000, None), Err(libc::EPERM));
    drop(access);
    assert_eq!(crate::mock::mock_domain(&device, ioas), Err(EINVAL), "no table maps that");
    assert_eq!(unmap_dma(&device, 0, 0x100_0000, 0x4000), Ok(0x4000));
    crate::mock::mock_domain(&device, ioas).unwrap();
    assert_eq!(map_dma(0, own, 0x100_0000).call(&device, MAP_DMA), Err(EINVAL));
    assert_eq!(map_dma(3, own, 0x100_0000).call(&device, MAP_DMA), Ok(()), "nothing was left");
}

#[test]
fn the_chain_of_capabilities_is_written_as_far_as_it_fits() {
    play("vfio info");
}

fn info() {
    let (device, _) = container();
    let total = 24 + 16 + 16 + 16;
    let ask = |room: u32, bytes: u32| {
        let mut info = Struct::new(bytes).u32(0, room);
        info.call(&device, GET_INFO).map(|()| info)
    };
    let whole = ask(total, total + 8).unwrap();
    assert_eq!([0, 4, 16].map(|at| whole.get_u32(at)), [total, 3, 24]);
    assert_eq!(whole.get_u64(8), !4095, "any size from a page on, without a domain");
    assert_eq!([24, 28, 32].map(|at| whole.get_u32(at)), [3 | 1 << 16, 40, u32::MAX]);
    assert_eq!([40, 44, 48].map(|at| whole.get_u32(at)), [1 | 1 << 16, 0, 1]);
    assert_eq!([56, 64, 72].map(|at| whole.get_u64(at)), [0, u64::MAX, 0], "nothing behind is touched");
    let short = ask(16, total).unwrap();
    assert_eq!([0, 4, 16, 24].map(|at| short.get_u32(at)), [total, 3, 0, 0]);
    let part = ask(total - 1, total).unwrap();
    assert_eq!([0, 16, 24, 40].map(|at| part.get_u32(at)), [total, 0, 3 | 1 << 16, 0]);
    assert_eq!(ask(15, total).err(), Some(EINVAL));
    assert_eq!(raw(open().as_raw_fd(), GET_INFO, std::ptr::null_mut()), Err(EFAULT));
}

#[test]
fn a_device_tells_its_pages_and_addresses_and_does_not_enforce_coherency() {
    play_with_mock("vfio mock");
}

fn of_a_mock_device() {
    let (device, ioas) = container();
    assert_eq!(number(&device, CHECK_EXTENSION, 4), Ok(1), "every HWPT does, there is none");
    assert_eq!(number(&device, SET_IOMMU, 1), Ok(0));
    crate::mock::mock_domain(&device, ioas).unwrap();
    assert_eq!(
        [1, 3, 9, 4].map(|extension| number(&device, CHECK_EXTENSION, extension)),
        [Ok(1), Ok(1), Ok(1), Ok(0)]
    );
    let mut info = Struct::new(72);
    info.call(&device, GET_INFO).unwrap();
    assert_eq!([0, 4, 16, 48].map(|at| info.get_u32(at)), [72, 3, 24, 1]);
    assert_eq!(info.get_u64(8), (1 << 37) - (1 << 12), "sizes from a page on");
    assert_eq!([56, 64].map(|at| info.get_u64(at)), [0x100_0000, 0x7fff_ffff]);
    for hole in 0..300 {
        let reserve = crate::mock::test(1, ioas).u64(16, 0x200_0000 + hole * 0x2000).u64(24, 0x1000);
        reserve.clone().call(&device, crate::device::TEST).unwrap();
    }
    let mut many = Struct::new(56 + 301 * 16);
    many.call(&device, GET_INFO).unwrap();
    assert_eq!([0, 16, 48].map(|at| many.get_u32(at)), [56 + 301 * 16, 24, 301]);
    assert_eq!([56, 56 + 300 * 16].map(|at| many.get_u64(at)), [0x100_0000, 0x225_7000]);
    let mut few = Struct::new(56 + 301 * 16).u32(0, 56 + 300 * 16);
    few.call(&device, GET_INFO).unwrap();
    assert_eq!([0, 16, 24, 40, 56].map(|at| few.get_u32(at)), [56 + 301 * 16, 0, 3 | 1 << 16, 0, 0]);
}
