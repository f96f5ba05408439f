//! Pages of a vIOMMU that a program maps through its open device.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

use libc::{
    EBUSY, EFAULT, EINVAL, ENODEV, ENXIO, EPERM, MAP_FAILED, MAP_FIXED, MAP_PRIVATE, MAP_SHARED,
    MAP_SHARED_VALIDATE, PROT_EXEC, PROT_READ, PROT_WRITE,
};

use crate::device::{Struct, VIOMMU_ALLOC, destroy, ioas_alloc, page_before_nothing, shared};
use crate::nesting::{bed, made, viommu, viommu_struct};
use crate::processes::{exit_code, fork};
use crate::program::{Part, play_with_mock};

pub(crate) const PARTS: &[Part] =
    &[("viommu data", data), ("viommu pages", pages), ("viommu busy", busy), ("mapping others", others)];

const PAGE: usize = 4096;
const WORD: u32 = 0x1234_5678;

/// A struct of VIOMMU_ALLOC with so many bytes of data.
fn with_data(idev: u32, parent: u32, data: &mut [u32], bytes: u32) -> Struct {
    viommu_struct(idev, parent).u32(24, bytes).pointer(32, data)
}

/// A vIOMMU with pages: its id, their offset and length.
fn with_pages(device: &File, idev: u32, parent: u32) -> (u32, i64, usize) {
    let mut data = [WORD, 0, 0, 0, 0, 0];
    let id = made(device, with_data(idev, parent, &mut data, 24), VIOMMU_ALLOC, 20).unwrap();
    assert_eq!((data[0], data[1], data[3], data[5]), (WORD, WORD, 0, 0));
    (id, data[2].into(), data[4] as usize)
}

fn try_map(
    fd: &impl AsRawFd,
    (protection, flags): (i32, i32),
    (offset, length): (i64, usize),
) -> Result<*mut u32, i32> {
    map_at(null_mut(), fd, (protection, flags), (offset, length))
}

fn map_at(
    start: *mut libc::c_void,
    fd: &impl AsRawFd,
    (protection, flags): (i32, i32),
    (offset, length): (i64, usize),
) -> Result<*mut u32, i32> {
    // SAFETY: a new mapping, where the kernel likes it or where nobody uses what was there.
    let mapped = unsafe { libc::mmap(start, length, protection, flags, fd.as_raw_fd(), offset) };
    if mapped == MAP_FAILED {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap());
    }
    Ok(mapped.cast())
}

fn unmapped(start: *mut u32, length: usize) {
    // SAFETY: the mapping is ours, and not used again.
    assert_eq!(unsafe { libc::munmap(start.cast(), length) }, 0);
}

#[test]
fn a_viommu_takes_data_and_tells_what_it_made_of_them() {
    play_with_mock("viommu data");
}

fn data() {
    let bed = bed();
    let (device, idev, parent) = (&bed.device, bed.idev, bed.parent);
    let mut data = [WORD, 0, 7, 7, 7, 7, 7];
    for (alloc, errno) in [
        (with_data(idev, parent, &mut data, 7), EINVAL),
        (with_data(idev, parent, &mut data, 25), EINVAL),
        (with_data(idev, parent, &mut data, u32::MAX), EINVAL),
        (with_data(idev, parent, &mut data, 24).u64(32, 8), EFAULT),
        (with_data(idev, parent, &mut data, 24).u32(16, 77), libc::ENOENT),
    ] {
        assert_eq!(made(device, alloc, VIOMMU_ALLOC, 20), Err(errno));
    }
    assert_eq!(data, [WORD, 0, 7, 7, 7, 7, 7], "what failed tells nothing");
    let short = made(device, with_data(idev, parent, &mut data, 8), VIOMMU_ALLOC, 20).unwrap();
    assert_eq!(data, [WORD, WORD, 7, 7, 7, 7, 7], "no more than there is room for");
    assert_eq!(destroy(device, short), Ok(()));
    let next = ioas_alloc(device).unwrap();
    let constant = page_before_nothing();
    // SAFETY: the page is ours; nothing refers to it.
    unsafe { constant.cast::<u32>().write(WORD) };
    // SAFETY: the page is ours.
    assert_eq!(unsafe { libc::mprotect(constant.cast(), PAGE, PROT_READ) }, 0);
    let unwritable = viommu_struct(idev, parent).u32(24, 24).u64(32, constant.expose_provenance() as u64);
    assert_eq!(made(device, unwritable, VIOMMU_ALLOC, 20), Err(EFAULT));
    assert_eq!(viommu(device, idev, parent), Ok(next + 1), "what could not be told is not there");
}

#[test]
fn the_pages_of_a_viommu_are_mapped_exactly_or_not_at_all() {
    play_with_mock("viommu pages");
}

fn pages() {
    let bed = bed();
    let device = &bed.device;
    let (_, offset, length) = with_pages(device, bed.idev, bed.parent);
    assert_eq!((offset, length), (4096, 2 * PAGE));
    let (second, behind, _) = with_pages(device, bed.idev, bed.parent);
    assert_eq!(behind, 3 * 4096);
    let (rw, region) = (PROT_READ | PROT_WRITE, (offset, length));
    for (way, place, errno) in [
        ((rw, MAP_SHARED), (0, length), ENXIO),
        ((rw, MAP_SHARED), (offset, PAGE), ENXIO),
        ((rw, MAP_SHARED), (offset, 2 * length), ENXIO),
        ((rw, MAP_SHARED), (offset + 4096, PAGE), ENXIO),
        ((rw, MAP_SHARED), (7 * 4096, length), ENXIO),
        ((rw, MAP_SHARED), (offset + 1, length), EINVAL),
        ((rw, MAP_SHARED), (offset, 0), EINVAL),
        ((rw, MAP_PRIVATE), region, EINVAL),
        ((rw, MAP_PRIVATE), (0, length), EINVAL),
        ((PROT_READ | PROT_EXEC, MAP_SHARED), region, EPERM),
        ((PROT_READ | PROT_EXEC, MAP_SHARED), (0, length), EPERM),
    ] {
        assert_eq!(try_map(device, way, place), Err(errno), "{way:?} {place:?}");
    }
    let first = try_map(device, (rw, MAP_SHARED), region).unwrap();
    let again = try_map(device, (PROT_READ, MAP_SHARED_VALIDATE), (offset, length - 9)).unwrap();
    // SAFETY: both mappings are ours and have two pages.
    unsafe {
        assert_eq!([first.read(), first.add(1).read(), again.read()], [WORD, 0, WORD]);
        first.add(2047).write_volatile(9);
        assert_eq!(again.add(2047).read_volatile(), 9, "the same memory");
    }
    let place = shared(None, 2 * 4096).as_mut_ptr();
    let fixed = map_at(place.cast(), device, (rw, MAP_SHARED | MAP_FIXED), region).unwrap();
    assert_eq!(fixed.addr(), place.addr());
    // SAFETY: the region is mapped there.
    assert_eq!(unsafe { fixed.add(2047).read_volatile() }, 9);
    [first, again, fixed].into_iter().for_each(|mapping| unmapped(mapping, length));
    assert_eq!(destroy(device, second), Ok(()));
    assert_eq!(try_map(device, (rw, MAP_SHARED), (behind, length)), Err(ENXIO), "it went with its viommu");
    assert_eq!(with_pages(device, bed.idev, bed.parent).1, behind, "the lowest free offset");
}

#[test]
fn a_viommu_is_busy_while_its_pages_are_mapped_anywhere() {
    play_with_mock("viommu busy");
}

fn busy() {
    let bed = bed();
    let device = &bed.device;
    let (id, offset, length) = with_pages(device, bed.idev, bed.parent);
    for protection in [PROT_READ, PROT_READ | PROT_WRITE] {
        let mapping = try_map(device, (protection, MAP_SHARED), (offset, length)).unwrap();
        assert_eq!(destroy(device, id), Err(EBUSY));
        // SAFETY: the second page is ours, and not used again.
        assert_eq!(unsafe { libc::munmap(mapping.wrapping_byte_add(PAGE).cast(), PAGE) }, 0);
        assert_eq!(destroy(device, id), Err(EBUSY), "half of it is left");
        unmapped(mapping, PAGE);
    }
    let mapping = try_map(device, (PROT_READ, MAP_SHARED), (offset, length)).unwrap();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let child = fork(|| {
        // SAFETY: the child has no other use for it.
        assert_eq!(unsafe { libc::close(writer.as_raw_fd()) }, 0);
        rustix::io::read(&reader, &mut [0]).map_or(1, |_| 0)
    });
    unmapped(mapping, length);
    assert_eq!(destroy(device, id), Err(EBUSY), "a child has it");
    drop(writer);
    assert_eq!(exit_code(child), 0);
    assert_eq!(destroy(device, id), Ok(()));
    let (last, offset, length) = with_pages(device, bed.idev, bed.parent);
    try_map(device, (PROT_READ, MAP_SHARED), (offset, length)).unwrap();
    assert_eq!(destroy(device, last), Err(EBUSY), "the end of the program takes both down");
}

#[test]
fn what_is_no_device_is_mapped_as_ever() {
    play_with_mock("mapping others");
}

fn others() {
    let (reader, _writer) = rustix::pipe::pipe().unwrap();
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let way = (PROT_READ, MAP_SHARED);
    assert_eq!(try_map(&socket, way, (4096, PAGE)), Err(ENODEV));
    assert_eq!(try_map(&reader, way, (4096, PAGE)), Err(ENODEV));
    assert_eq!(try_map(&File::open("/dev/null").unwrap(), way, (0, PAGE)), Err(ENODEV));
    let anonymous = (PROT_READ, MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let device = crate::device::open();
    assert_eq!(try_map(&device, way, (4096, PAGE)), Err(ENXIO));
    let mapping = try_map(&device, anonymous, (0, PAGE)).unwrap();
    unmapped(mapping, PAGE);
}
