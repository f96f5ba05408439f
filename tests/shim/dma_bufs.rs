//! Memory of mock devices: made, mapped, taken back, and given again.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{EBADF, EINVAL, ENODEV, ENOENT, EOPNOTSUPP, EPERM};

use crate::device::{
    CHANGE_PROCESS, COPY, FIXED, MAP_FILE, READABLE, Struct, TEST, WRITEABLE, destroy, ioas_alloc,
    map_file_struct, memory, open, raw, unmap,
};
use crate::mock::{PAGE, create_access, id, mock_domain, pin, test};
use crate::program::{Part, play_with_mock};
use crate::vfio::{SET_IOMMU, container, number, unmap_dma};

pub(crate) const PARTS: &[Part] = &[
    ("dma-buf made", made),
    ("dma-buf mapped", mapped),
    ("dma-buf revoked", revoked),
    ("dma-buf shared", shared_by_contexts),
    ("dma-buf cut", cut),
    ("dma-buf outlives", outlives),
];

const START: u64 = 0x100_0000;

/// DMABUF_GET.
fn buffer(device: &File, length: u32, flags: i32) -> Result<OwnedFd, i32> {
    let mut command = test(22, 0).u32(16, length).u32(20, flags.cast_unsigned());
    let fd = raw(device.as_raw_fd(), TEST, command.bytes().as_mut_ptr().cast())?;
    assert!(fd > 2, "{fd} is the number of the descriptor");
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// DMABUF_REVOKE.
fn give(device: &File, fd: i32, revoked: u32) -> Result<(), i32> {
    test(23, 0).u32(16, fd.cast_unsigned()).u32(20, revoked).call(device, TEST)
}

fn map_at(
    device: &File,
    ioas: u32,
    buffer: &OwnedFd,
    (start, length): (u64, u64),
    iova: u64,
) -> Result<(), i32> {
    let map = map_file_struct(ioas, buffer.as_raw_fd(), length).u32(4, FIXED | READABLE | WRITEABLE);
    map.u64(16, start).u64(32, iova).call(device, MAP_FILE)
}

/// Whether a domain maps something at an address: what is there is no memory of the program, so marking it dirty tells.
fn is_mapped(device: &File, hwpt: u32, iova: u64) -> bool {
    let mut bits = [1_u8];
    let mark = test(13, hwpt).u64(24, iova).u64(32, PAGE).u64(40, PAGE).pointer(48, &mut bits);
    mark.clone().call(device, TEST).unwrap();
    let mut seen = [0_u8];
    let get = Struct::new(48).u32(4, hwpt).u64(16, iova).u64(24, PAGE).u64(32, PAGE).pointer(40, &mut seen);
    get.clone().call(device, 0x3b8c).unwrap();
    seen[0] == 1
}

/// An address space with a mock device, and a HWPT of it that records what is written.
fn recording(device: &File, ioas: u32) -> u32 {
    let (_, _, idev) = mock_domain(device, ioas).unwrap();
    another(device, ioas, idev)
}

fn another(device: &File, ioas: u32, idev: u32) -> u32 {
    let mut alloc = Struct::new(48).u32(4, 2).u32(8, idev).u32(12, ioas);
    alloc.call(device, crate::device::HWPT_ALLOC).unwrap();
    let hwpt = alloc.get_u32(16);
    Struct::new(16).u32(4, 1).u32(8, hwpt).call(device, 0x3b8b).unwrap();
    hwpt
}

#[test]
fn memory_of_a_device_is_made_as_a_descriptor() {
    play_with_mock("dma-buf made");
}

fn made() {
    let device = open();
    for length in [0, 512 * 4096 + 1, u32::MAX] {
        assert_eq!(buffer(&device, length, 0).err(), Some(EINVAL), "{length}");
    }
    for (flags, on_exec) in [(libc::O_CLOEXEC, libc::FD_CLOEXEC), (libc::O_RDWR, 0)] {
        let fd = buffer(&device, 1, flags).unwrap();
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) }, on_exec);
    }
    assert!(buffer(&device, 512 * 4096, 0).is_ok());
    assert_eq!(give(&device, -1, 1), Err(EBADF));
    assert_eq!(give(&device, 777, 1), Err(EBADF));
    for other in [memory(PAGE).into(), OwnedFd::from(open())] {
        assert_eq!(give(&device, other.as_raw_fd(), 1), Err(EINVAL));
    }
}

#[test]
fn memory_of_a_device_is_mapped_for_devices_alone() {
    play_with_mock("dma-buf mapped");
}

fn mapped() {
    let device = open();
    let ioas = ioas_alloc(&device).unwrap();
    let fd = buffer(&device, 4 * 4096, 0).unwrap();
    for (range, errno) in
        [((0, 5 * PAGE), EINVAL), ((PAGE, 4 * PAGE), EINVAL), ((4 * PAGE, 1), EINVAL), ((0, 0), EINVAL)]
    {
        assert_eq!(map_at(&device, ioas, &fd, range, START), Err(errno), "{range:?}");
    }
    assert_eq!(map_at(&device, ioas, &fd, (PAGE, 2 * PAGE), START), Ok(()));
    let hwpt = recording(&device, ioas);
    assert_eq!(map_at(&device, ioas, &fd, (0, 4 * PAGE), START + 16 * PAGE), Ok(()));
    let seen = [0, 1, 2, 16, 19, 20].map(|page| is_mapped(&device, hwpt, START + page * PAGE));
    assert_eq!(seen, [true, true, false, true, true, false]);
    let access = create_access(&device, ioas, 1).unwrap();
    assert_eq!(pin(&device, &access, START, PAGE, None), Err(EINVAL));
    for flags in [0, 1, 4] {
        let mut bytes = [0_u8; 8];
        let rw = test(8, id(&access)).u64(16, START).u64(24, 8).pointer(32, &mut bytes).u32(40, flags);
        assert_eq!(rw.clone().call(&device, TEST), Err(EINVAL));
    }
    let other = ioas_alloc(&device).unwrap();
    let copy = Struct::new(40).u32(4, FIXED | READABLE).u32(8, other).u32(12, ioas).u64(16, PAGE);
    assert_eq!(copy.u64(24, 0x5000).u64(32, START + PAGE).call(&device, COPY), Ok(()));
    let rights = create_access(&device, other, 1).unwrap();
    assert_eq!(pin(&device, &rights, 0x5000, PAGE, None), Err(EPERM), "rights come before");
    assert_eq!(Struct::new(8).call(&device, CHANGE_PROCESS), Err(EINVAL));
    assert_eq!(unmap(&device, ioas, START, 2 * PAGE), Ok(2 * PAGE));
    assert!(!is_mapped(&device, hwpt, START));
}

#[test]
fn what_is_taken_back_leaves_every_domain_and_stays_in_the_way() {
    play_with_mock("dma-buf revoked");
}

fn revoked() {
    let device = open();
    let (ioas, other) = (ioas_alloc(&device).unwrap(), ioas_alloc(&device).unwrap());
    let fd = buffer(&device, 4 * 4096, 0).unwrap();
    let (_, _, idev) = mock_domain(&device, ioas).unwrap();
    let (first, elsewhere) = (another(&device, ioas, idev), recording(&device, other));
    map_at(&device, ioas, &fd, (0, 4 * PAGE), START).unwrap();
    let copy =
        Struct::new(40).u32(4, FIXED | WRITEABLE | READABLE).u32(12, ioas).u64(16, PAGE).u64(32, START);
    copy.clone().u32(8, other).u64(24, START).call(&device, COPY).unwrap();
    let mapped = |page: u64| [first, elsewhere].map(|hwpt| is_mapped(&device, hwpt, START + page * PAGE));
    assert_eq!([mapped(0), mapped(3)], [[true, true], [true, false]]);
    assert_eq!(give(&device, fd.as_raw_fd(), 1), Ok(()));
    assert_eq!([mapped(0), mapped(3)], [[false; 2]; 2], "it has left when the call is over");
    assert_eq!(map_at(&device, ioas, &fd, (0, PAGE), START + 8 * PAGE), Err(ENODEV));
    assert_eq!(map_at(&device, ioas, &fd, (0, 5 * PAGE), START), Err(EINVAL), "the length comes before");
    let file = memory(PAGE);
    let in_the_way = map_at(&device, ioas, &file.try_clone().unwrap().into(), (0, PAGE), START);
    assert_eq!(in_the_way, Err(libc::EEXIST));
    let late = another(&device, ioas, idev);
    copy.clone().u32(8, other).u64(24, START + 32 * PAGE).call(&device, COPY).unwrap();
    assert!(!is_mapped(&device, late, START) && !is_mapped(&device, elsewhere, START + 32 * PAGE));
    let access = create_access(&device, ioas, 1).unwrap();
    assert_eq!(pin(&device, &access, START, PAGE, None), Err(EINVAL));
    assert_eq!([give(&device, fd.as_raw_fd(), 1), give(&device, fd.as_raw_fd(), 0)], [Ok(()); 2]);
    assert_eq!([mapped(0), mapped(3)], [[false; 2]; 2], "it does not come back");
    assert_eq!(map_at(&device, ioas, &fd, (0, PAGE), START + 8 * PAGE), Ok(()));
    assert_eq!([first, late].map(|hwpt| is_mapped(&device, hwpt, START + 8 * PAGE)), [true; 2]);
    assert_eq!(give(&device, fd.as_raw_fd(), 0), Ok(()));
    assert!(!is_mapped(&device, late, START + 8 * PAGE), "both directions withdraw");
    assert_eq!(unmap(&device, ioas, START, 2 * PAGE), Err(ENOENT), "areas are not split");
    assert_eq!(unmap(&device, ioas, START, 4 * PAGE), Ok(4 * PAGE));
    assert_eq!(map_at(&device, ioas, &file.into(), (0, PAGE), START), Ok(()));
    assert_eq!(unmap(&device, ioas, 0, u64::MAX), Ok(2 * PAGE));
    assert_eq!([destroy(&device, first), destroy(&device, late)], [Ok(()); 2]);
}

#[test]
fn memory_of_a_device_is_the_same_in_every_context() {
    play_with_mock("dma-buf shared");
}

fn shared_by_contexts() {
    let (device, other) = (open(), open());
    let fd = buffer(&device, 4096, 0).unwrap();
    let copy = fd.try_clone().unwrap();
    let (ioas, there) = (ioas_alloc(&device).unwrap(), ioas_alloc(&other).unwrap());
    let hwpts = [recording(&device, ioas), recording(&other, there)];
    map_at(&device, ioas, &fd, (0, PAGE), START).unwrap();
    map_at(&other, there, &copy, (0, PAGE), START).unwrap();
    let seen = || [is_mapped(&device, hwpts[0], START), is_mapped(&other, hwpts[1], START)];
    assert_eq!(seen(), [true; 2]);
    assert_eq!(give(&other, copy.as_raw_fd(), 1), Ok(()));
    assert_eq!(seen(), [false; 2]);
}

#[test]
fn memory_of_a_device_is_not_cut() {
    play_with_mock("dma-buf cut");
}

fn cut() {
    let (device, ioas) = container();
    assert_eq!(number(&device, SET_IOMMU, 1), Ok(0));
    let fd = buffer(&device, 4 * 4096, 0).unwrap();
    map_at(&device, ioas, &fd, (0, 4 * PAGE), START).unwrap();
    assert_eq!(unmap_dma(&device, 0, START, PAGE), Err(EOPNOTSUPP));
    assert_eq!(unmap_dma(&device, 0, START, 4 * PAGE), Ok(4 * PAGE));
}

#[test]
fn what_is_mapped_outlives_its_descriptor_and_its_context_not_the_other_way_round() {
    play_with_mock("dma-buf outlives");
}

fn outlives() {
    let device = open();
    let ioas = ioas_alloc(&device).unwrap();
    let hwpt = recording(&device, ioas);
    let fd = buffer(&device, 4096, 0).unwrap();
    map_at(&device, ioas, &fd, (0, PAGE), START).unwrap();
    drop(fd);
    assert!(is_mapped(&device, hwpt, START), "the area keeps it");
    let maker = open();
    let fd = buffer(&maker, 4096, 0).unwrap();
    drop(maker);
    assert_eq!(map_at(&device, ioas, &fd, (0, PAGE), START + PAGE), Ok(()));
    assert_eq!(give(&device, fd.as_raw_fd(), 1), Ok(()));
    assert!(is_mapped(&device, hwpt, START) && !is_mapped(&device, hwpt, START + PAGE));
}
