//! Memory: MAP_FILE, COPY, UNMAP.

use std::os::fd::AsRawFd;

use libc::{EBADF, EINVAL, ENOENT, EOPNOTSUPP, EOVERFLOW};

use crate::device::{
    COPY, FIXED, MAP_FILE, READABLE, Struct, WRITEABLE, ioas_alloc, map_file, map_file_struct, memory, open,
    unmap,
};
use crate::program::{Part, play};

pub(crate) const PARTS: &[Part] = &[("maps", maps), ("copies", copies), ("unmaps", unmaps)];

#[test]
fn a_file_is_mapped_by_its_descriptor() {
    play("maps");
}

fn maps() {
    let (device, file) = (open(), memory(0x4000));
    let ioas = ioas_alloc(&device).unwrap();
    let mut map = map_file_struct(ioas, file.as_raw_fd(), 0x4000);
    assert_eq!(map.call(&device, MAP_FILE), Ok(()));
    assert_eq!(map.get_u32(12), file.as_raw_fd().cast_unsigned(), "the descriptor is as it was");
    let again = map_file(&device, ioas, &file, 0x2000).unwrap();
    assert_ne!(again, map.get_u64(32));
    for closed in [-1, 9999] {
        let mut map = map_file_struct(ioas, closed, 0x1000);
        assert_eq!(map.call(&device, MAP_FILE), Err(EBADF));
        assert_eq!(map.clone().u32(4, 0).call(&device, MAP_FILE), Err(EINVAL), "comes before");
        assert_eq!(map.clone().u32(4, 1 << 9).call(&device, MAP_FILE), Err(EOPNOTSUPP), "comes before");
        assert_eq!(map.u32(8, 77).call(&device, MAP_FILE), Err(ENOENT), "comes before");
    }
    assert_eq!(unmap(&device, ioas, 0, u64::MAX), Ok(0x6000));
}

#[test]
fn a_copy_shows_the_same_pages_elsewhere() {
    play("copies");
}

fn copies() {
    let (device, file) = (open(), memory(0x4000));
    let (source, target) = (ioas_alloc(&device).unwrap(), ioas_alloc(&device).unwrap());
    let iova = map_file(&device, source, &file, 0x4000).unwrap();
    let copy = |flags: u32, length: u64, from: u64| {
        let mut copy = Struct::new(40).u32(4, flags).u32(8, target).u32(12, source);
        copy = copy.u64(16, length).u64(24, 0x7000).u64(32, from);
        copy.call(&device, COPY).map(|()| copy.get_u64(24))
    };
    assert_eq!(copy(FIXED | READABLE, 0x2000, iova + 0x1000), Ok(0x7000));
    let anywhere = copy(READABLE | WRITEABLE, 0x1000, iova).unwrap();
    assert_ne!(anywhere, 0x7000);
    assert_eq!(copy(FIXED | READABLE, 0x5000, iova), Err(ENOENT), "a gap");
    assert_eq!(copy(0, 0x1000, iova), Err(EINVAL));
    assert_eq!(copy(READABLE, u64::MAX, iova), Err(EOVERFLOW));
    assert_eq!(unmap(&device, source, iova, 0x4000), Ok(0x4000));
    assert_eq!(unmap(&device, target, 0, u64::MAX), Ok(0x3000));
}

#[test]
fn an_unmap_tells_how_much() {
    play("unmaps");
}

fn unmaps() {
    let (device, file) = (open(), memory(0x4000));
    let ioas = ioas_alloc(&device).unwrap();
    assert_eq!(unmap(&device, ioas, 0, u64::MAX), Ok(0));
    assert_eq!(unmap(&device, ioas, 0x1000, 0x1000), Err(ENOENT));
    assert_eq!(unmap(&device, ioas, 0x1000, 0), Err(EINVAL));
    assert_eq!(unmap(&device, ioas, u64::MAX, 1), Err(EOVERFLOW));
    let iova = map_file(&device, ioas, &file, 0x4000).unwrap();
    assert_eq!(unmap(&device, ioas, iova, 0x1000), Err(ENOENT), "an area is not cut");
    assert_eq!(unmap(&device, ioas, iova & !0xffff, 0x10_0000), Ok(0x4000));
}
