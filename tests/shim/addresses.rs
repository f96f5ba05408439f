//! Objects and addresses: IOAS_ALLOC, DESTROY, IOVA_RANGES, ALLOW_IOVAS.

use libc::{EFAULT, EINVAL, EMSGSIZE, ENOENT, EOPNOTSUPP};

use crate::device::{
    ALLOW_IOVAS, FIXED, IOAS_ALLOC, IOVA_RANGES, MAP_FILE, Struct, destroy, ioas_alloc, map_file,
    map_file_struct, memory, open, page_before_nothing,
};
use crate::program::{Part, play};

pub(crate) const PARTS: &[Part] = &[("objects", objects), ("ranges", ranges), ("allowed", allowed)];

#[test]
fn objects_have_the_lowest_free_id() {
    play("objects");
}

fn objects() {
    let device = open();
    assert_eq!([ioas_alloc(&device), ioas_alloc(&device), ioas_alloc(&device)], [Ok(1), Ok(2), Ok(3)]);
    assert_eq!(destroy(&device, 2), Ok(()));
    assert_eq!(destroy(&device, 2), Err(ENOENT));
    assert_eq!(ioas_alloc(&device), Ok(2));
    assert_eq!(Struct::new(12).u32(4, 1).call(&device, IOAS_ALLOC), Err(EOPNOTSUPP));
    let other = open();
    assert_eq!(destroy(&other, 1), Err(ENOENT), "another open is another namespace");
    assert_eq!(ioas_alloc(&other), Ok(1));
}

#[test]
fn the_free_ranges_are_written_where_the_program_wants_them() {
    play("ranges");
}

fn ranges() {
    let device = open();
    let ioas = ioas_alloc(&device).unwrap();
    let mut query = Struct::new(32).u32(4, ioas);
    assert_eq!(query.call(&device, IOVA_RANGES), Err(EMSGSIZE));
    assert_eq!((query.get_u32(8), query.get_u64(24)), (1, 1), "the answer is written nevertheless");
    let mut room = [7_u64; 4];
    let mut query = Struct::new(32).u32(4, ioas).u32(8, 2).pointer(16, &mut room);
    let pointer = query.get_u64(16);
    assert_eq!(query.call(&device, IOVA_RANGES), Ok(()));
    assert_eq!((query.get_u32(8), query.get_u64(16), room), (1, pointer, [0, u64::MAX, 7, 7]));
    let mut unwritable = Struct::new(32).u32(4, ioas).u32(8, 1).u64(16, 8);
    assert_eq!(unwritable.call(&device, IOVA_RANGES), Err(EFAULT));
    assert_eq!(unwritable.get_u32(8), 1, "nothing is written then");
    assert_eq!(Struct::new(32).u32(4, 77).call(&device, IOVA_RANGES), Err(ENOENT));
    assert_eq!(Struct::new(32).u32(4, ioas).u32(12, 1).call(&device, IOVA_RANGES), Err(EOPNOTSUPP));
}

#[test]
fn the_allowed_ranges_are_read_from_the_program() {
    play("allowed");
}

fn allowed() {
    let device = open();
    let ioas = ioas_alloc(&device).unwrap();
    let allow = |ranges: &mut [[u64; 2]]| {
        let count = u32::try_from(ranges.len()).unwrap();
        Struct::new(24).u32(4, ioas).u32(8, count).pointer(16, ranges).call(&device, ALLOW_IOVAS)
    };
    assert_eq!(allow(&mut [[0x10_0000, 0x1f_ffff], [0x40_0000, 0x4f_ffff]]), Ok(()));
    assert_eq!(allow(&mut [[5, 5]]), Err(EINVAL), "a range of one byte");
    assert_eq!(allow(&mut [[0, 9], [9, 10]]), Err(EINVAL), "ranges that meet");
    let file = memory(0x1000);
    let iova = map_file(&device, ioas, &file, 0x1000).unwrap();
    assert!((0x10_0000..0x1f_f000).contains(&iova), "{iova:#x}");
    let mut fixed = map_file_struct(ioas, std::os::fd::AsRawFd::as_raw_fd(&file), 0x1000);
    fixed = fixed.clone().u32(4, fixed.get_u32(4) | FIXED).u64(32, 0x9000);
    assert_eq!(fixed.call(&device, MAP_FILE), Ok(()), "a fixed map ignores them");
    let nothing = Struct::new(24).u32(4, ioas).u32(8, 1).u64(16, 8);
    assert_eq!(nothing.clone().call(&device, ALLOW_IOVAS), Err(EFAULT));
    assert_eq!(nothing.clone().u32(12, 1).call(&device, ALLOW_IOVAS), Err(EOPNOTSUPP), "comes before");
    assert_eq!(nothing.u32(4, 77).call(&device, ALLOW_IOVAS), Err(ENOENT), "comes before");
    let end = page_before_nothing().wrapping_add(4096 - 16).expose_provenance() as u64;
    let half = Struct::new(24).u32(4, ioas).u32(8, 2).u64(16, end);
    assert_eq!(half.clone().call(&device, ALLOW_IOVAS), Err(EFAULT), "the second cannot be read");
    assert_ne!(half.u32(8, 1).call(&device, ALLOW_IOVAS), Err(EFAULT), "the first can");
    assert_eq!(allow(&mut []), Ok(()));
}
