//! Dirty tracking: what a mock device has written, by bitmap.

use std::fs::File;

use libc::{EFAULT, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP, EOVERFLOW};

use crate::device::{
    FIXED, HWPT_ALLOC, MAP, READABLE, Struct, TEST, WRITEABLE, destroy, ioas_alloc, memory, open, shared,
    unmap,
};
use crate::kinds;
use crate::program::{Part, play_with_mock};

pub(crate) const PARTS: &[Part] = &[
    ("dirty abilities", abilities),
    ("dirty devices", devices),
    ("dirty bitmaps", bitmaps),
    ("dirty huge pages", huge_pages),
    ("dirty leaves", leaves),
    ("dirty rules", rules),
    ("dirty calls", calls),
];

const GET_HW_INFO: u32 = 0x3b8a;
const SET_TRACKING: u32 = 0x3b8b;
const GET_BITMAP: u32 = 0x3b8c;

const PAGE: u64 = 4096;
/// Where mock domains begin.
const START: u64 = 0x100_0000;

const DIRTY_TRACKING: u32 = 2;
const NO_CLEAR: u32 = 1;
/// Tables of a mock domain.
const DEFAULT: u32 = 0;
const HUGE: u32 = 1;
/// MOCK_DOMAIN_FLAGS: the device leaves no marks.
const NO_DIRTY: u32 = 1;

/// A mock device with these flags: the HWPT that serves it, and the device.
fn mock_device(device: &File, target: u32, flags: u32) -> Result<(u32, u32), i32> {
    let mut command = Struct::new(72).u32(4, 12).u32(8, target).u32(28, flags);
    command.call(device, TEST)?;
    Ok((command.get_u32(20), command.get_u32(24)))
}

fn hwpt_alloc(device: &File, idev: u32, ioas: u32, flags: u32, table: u32) -> Result<u32, i32> {
    let mut data = [0_u32, table];
    let alloc = Struct::new(48).u32(4, flags).u32(8, idev).u32(12, ioas).u32(24, 0xdead).u32(28, 8);
    let mut alloc = alloc.pointer(32, &mut data);
    alloc.call(device, HWPT_ALLOC)?;
    Ok(alloc.get_u32(16))
}

fn map_at(device: &File, ioas: u32, memory: &[u8], iova: u64) -> Result<(), i32> {
    let map = Struct::new(40).u32(4, READABLE | WRITEABLE | FIXED).u32(8, ioas).u64(32, iova);
    let map = map.u64(16, memory.as_ptr().expose_provenance() as u64).u64(24, memory.len() as u64);
    map.clone().call(device, MAP)
}

fn set_tracking(device: &File, hwpt: u32, flags: u32) -> Result<(), i32> {
    Struct::new(16).u32(4, flags).u32(8, hwpt).call(device, SET_TRACKING)
}

/// What a bitmap is about.
#[derive(Clone, Copy, Debug)]
struct Query {
    hwpt: u32,
    iova: u64,
    length: u64,
    page_size: u64,
}

impl Query {
    fn bytes(self) -> usize {
        usize::try_from((self.length / self.page_size).div_ceil(8)).unwrap()
    }

    /// DIRTY; tells how many bits were set.
    fn write(self, device: &File, bits: &mut [u8]) -> Result<u64, i32> {
        let mut command =
            Struct::new(72).u32(4, 13).u32(8, self.hwpt).u64(24, self.iova).u64(32, self.length);
        command = command.u64(40, self.page_size).pointer(48, bits);
        command.call(device, TEST)?;
        Ok(command.get_u64(56))
    }

    fn ask_struct(self, flags: u32) -> Struct {
        let ask = Struct::new(48).u32(4, self.hwpt).u32(8, flags).u64(16, self.iova);
        ask.u64(24, self.length).u64(32, self.page_size)
    }

    /// GET_DIRTY_BITMAP into `bits`.
    fn ask(self, device: &File, flags: u32, bits: &mut [u8]) -> Result<(), i32> {
        self.ask_struct(flags).pointer(40, bits).call(device, GET_BITMAP)
    }
}

/// Every other run of `unit` bits set, all else clear.
fn stripes(query: Query, unit: u64) -> Vec<u8> {
    let mut bits = vec![0; query.bytes()];
    for bit in (0..query.length / query.page_size).filter(|bit| (bit / unit).is_multiple_of(2)) {
        bits[usize::try_from(bit / 8).unwrap()] |= 1 << (bit % 8);
    }
    bits
}

/// The first bit of every other run.
fn heads(query: Query, unit: u64) -> (Vec<u8>, u64) {
    let mut bits = vec![0; query.bytes()];
    let pages = (0..query.length / query.page_size).step_by(usize::try_from(2 * unit).unwrap());
    let count = pages.clone().count() as u64;
    pages.for_each(|bit| bits[usize::try_from(bit / 8).unwrap()] |= 1 << (bit % 8));
    (bits, count)
}

/// Writes to every other leaf and finds that, into a bitmap that begins at `offset` in its memory.
fn check_stripes(device: &File, query: Query, leaf: u64, offset: usize) {
    let (unit, len) = (leaf / query.page_size, query.bytes());
    let (mut marks, count) = heads(query, unit);
    assert_eq!(query.write(device, &mut marks), Ok(count));
    let mut room = vec![0; offset + len + 1];
    let (striped, clean) = (stripes(query, unit), vec![0; len]);
    for (flags, expected) in [(NO_CLEAR, &striped), (0, &striped), (0, &clean)] {
        room.fill(0);
        query.ask(device, flags, &mut room[offset..offset + len]).unwrap();
        assert!(room[offset..offset + len] == expected[..], "{query:?} at {offset}, flags {flags}");
        assert!(
            room[..offset].iter().chain(&room[offset + len..]).all(|byte| *byte == 0),
            "beside the bitmap"
        );
    }
}

#[test]
fn a_device_tells_whether_it_leaves_marks_and_what_it_is() {
    play_with_mock("dirty abilities");
}

fn abilities() {
    let device = open();
    let ioas = ioas_alloc(&device).unwrap();
    for (flags, capabilities, pasids) in [(0, 9, 0), (NO_DIRTY, 8, 0), (4, 9, 20)] {
        let (_, idev) = mock_device(&device, ioas, flags).unwrap();
        let mut data = [7_u32; 3];
        let mut info = Struct::new(40).u32(8, idev).u32(12, 12).pointer(16, &mut data);
        info.call(&device, GET_HW_INFO).unwrap();
        assert_eq!((info.get_u32(12), info.get_u32(24)), (8, 0xfeed_beef));
        assert_eq!((info.get_u32(28), info.get_u64(32)), (pasids, capabilities));
        assert_eq!(data, [0, 0xdead_beef, 0]);
        let typed = |wanted| info.clone().u32(4, 1).u32(24, wanted).call(&device, GET_HW_INFO);
        assert_eq!([typed(0), typed(0xfeed_beef), typed(1)], [Ok(()), Ok(()), Err(EOPNOTSUPP)]);
    }
}

#[test]
fn only_devices_that_leave_marks_use_tables_that_have_them() {
    play_with_mock("dirty devices");
}

fn devices() {
    let device = open();
    let ioas = ioas_alloc(&device).unwrap();
    let (auto, idev) = mock_device(&device, ioas, 0).unwrap();
    let (same, without) = mock_device(&device, ioas, NO_DIRTY).unwrap();
    assert_eq!(same, auto, "what is made automatically has no marks");
    assert_eq!(hwpt_alloc(&device, without, ioas, DIRTY_TRACKING, DEFAULT), Err(EOPNOTSUPP));
    assert_eq!(hwpt_alloc(&device, idev, ioas, 16, DEFAULT), Err(EOPNOTSUPP));
    let all = hwpt_alloc(&device, idev, ioas, 1 | DIRTY_TRACKING | 8, DEFAULT).unwrap();
    let parent = hwpt_alloc(&device, without, ioas, 1, DEFAULT).unwrap();
    assert_eq!(mock_device(&device, all, NO_DIRTY), Err(EINVAL));
    let (hwpt, _) = mock_device(&device, all, 0).unwrap();
    assert_eq!(hwpt, all);
    let tracking = [auto, parent, all, ioas, 99].map(|id| set_tracking(&device, id, 1));
    assert_eq!(tracking, [Err(EOPNOTSUPP), Err(EOPNOTSUPP), Ok(()), Err(ENOENT), Err(ENOENT)]);
    assert_eq!(
        [2, 3, 0, 1].map(|flags| set_tracking(&device, all, flags).err().unwrap_or(0)),
        [EOPNOTSUPP, EOPNOTSUPP, 0, 0]
    );
    assert_eq!(destroy(&device, parent), Ok(()));
}

#[test]
fn every_other_page_is_found_dirty_in_bitmaps_of_any_length_and_alignment() {
    play_with_mock("dirty bitmaps");
}

fn bitmaps() {
    for length in [2 * PAGE, 32 * PAGE, 33 * PAGE, 4 << 20, 64 << 20] {
        for table in [DEFAULT, HUGE] {
            let (device, file) = (open(), memory(length));
            let own = shared(Some(&file), length);
            let ioas = ioas_alloc(&device).unwrap();
            let (_, idev) = mock_device(&device, ioas, 0).unwrap();
            let mapped = map_at(&device, ioas, own, START);
            if mapped == Err(ENOMEM) && length > 4 << 20 {
                ioasd::skip!("bitmaps: {length} bytes are more than this user may lock");
                return;
            }
            mapped.unwrap();
            let hwpt = hwpt_alloc(&device, idev, ioas, DIRTY_TRACKING, table).unwrap();
            set_tracking(&device, hwpt, 1).unwrap();
            let query = Query { hwpt, iova: START, length, page_size: PAGE };
            for offset in [0, 8, 0xff1, 2048] {
                check_stripes(&device, query, PAGE, offset);
            }
            destroy(&device, hwpt).unwrap();
        }
    }
}

#[test]
fn a_huge_leaf_is_dirty_as_a_whole() {
    play_with_mock("dirty huge pages");
}

fn huge_pages() {
    for (kind, pages) in kinds::HUGE.into_iter().flat_map(|kind| [(kind, 512), (kind, 2048)]) {
        let Some(own) = kind.memory(pages) else { continue };
        let (device, length) = (open(), own.len() as u64);
        let ioas = ioas_alloc(&device).unwrap();
        let (_, idev) = mock_device(&device, ioas, 0).unwrap();
        map_at(&device, ioas, &own, START).unwrap();
        let hwpt = hwpt_alloc(&device, idev, ioas, DIRTY_TRACKING, HUGE).unwrap();
        set_tracking(&device, hwpt, 1).unwrap();
        assert_eq!(leaf(&device, hwpt), 1 << 20, "{kind:?}");
        for page_size in [2048, PAGE, 1 << 20] {
            let query = Query { hwpt, iova: START, length, page_size };
            check_stripes(&device, query, 1 << 20, 0);
            check_stripes(&device, query, 1 << 20, 0xff1);
        }
    }
}

/// Bytes of the first leaf, by what is dirty when its first byte is.
fn leaf(device: &File, hwpt: u32) -> u64 {
    let query = Query { hwpt, iova: START, length: 1 << 20, page_size: PAGE };
    let mut bits = vec![0; query.bytes()];
    bits[0] = 1;
    query.write(device, &mut bits).unwrap();
    bits.fill(0);
    query.ask(device, 0, &mut bits).unwrap();
    PAGE * bits.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>()
}

#[test]
fn bits_are_added_and_pages_that_are_not_mapped_have_none() {
    play_with_mock("dirty leaves");
}

fn leaves() {
    let (device, file) = (open(), memory(8 * PAGE));
    let own = shared(Some(&file), 8 * PAGE);
    let ioas = ioas_alloc(&device).unwrap();
    let (_, idev) = mock_device(&device, ioas, 0).unwrap();
    map_at(&device, ioas, &own[..0x4000], START).unwrap();
    map_at(&device, ioas, &own[0x4000..], START + 8 * PAGE).unwrap();
    let hwpt = hwpt_alloc(&device, idev, ioas, DIRTY_TRACKING, DEFAULT).unwrap();
    let query = Query { hwpt, iova: START, length: 16 * PAGE, page_size: PAGE };
    assert_eq!(query.write(&device, &mut [1, 0]), Err(EINVAL), "nothing is tracked yet");
    set_tracking(&device, hwpt, 1).unwrap();
    assert_eq!(query.write(&device, &mut [0x81, 0x81]), Ok(4), "counted although not mapped");
    let mut bits = [0x10, 0x40];
    query.ask(&device, NO_CLEAR, &mut bits).unwrap();
    assert_eq!(bits, [0x11, 0x41]);
    let coarse = Query { page_size: 8 * PAGE, ..query };
    bits = [0; 2];
    coarse.ask(&device, NO_CLEAR, &mut bits[..1]).unwrap();
    assert_eq!(bits, [3, 0]);
    set_tracking(&device, hwpt, 0).unwrap();
    query.ask(&device, NO_CLEAR, &mut bits).unwrap();
    assert_eq!(bits, [3, 1], "what is dirty can be read when nothing is tracked any more");
    set_tracking(&device, hwpt, 1).unwrap();
    bits = [0; 2];
    query.ask(&device, 0, &mut bits).unwrap();
    assert_eq!(bits, [0; 2], "tracking begins with everything clean");
    query.write(&device, &mut [1, 0]).unwrap();
    unmap(&device, ioas, START, 4 * PAGE).unwrap();
    map_at(&device, ioas, &own[..0x4000], START).unwrap();
    query.ask(&device, 0, &mut bits).unwrap();
    assert_eq!(bits, [0; 2], "an unmap forgets");
}

#[test]
fn queries_are_checked_in_the_kernel_s_order() {
    play_with_mock("dirty rules");
}

fn rules() {
    let (device, file) = (open(), memory(8 * PAGE));
    let own = shared(Some(&file), 8 * PAGE);
    let ioas = ioas_alloc(&device).unwrap();
    let (auto, idev) = mock_device(&device, ioas, 0).unwrap();
    map_at(&device, ioas, own, START).unwrap();
    let hwpt = hwpt_alloc(&device, idev, ioas, DIRTY_TRACKING, DEFAULT).unwrap();
    let query = Query { hwpt, iova: START, length: 8 * PAGE, page_size: PAGE };
    let mut bits = [0; 1];
    let mut ask = |query: Query, flags| query.ask(&device, flags, &mut bits).err().unwrap_or(0);
    assert_eq!(ask(Query { hwpt: 99, ..query }, 2), EOPNOTSUPP, "flags come first");
    assert_eq!(ask(Query { hwpt: ioas, length: 0, ..query }, 0), ENOENT);
    assert_eq!(ask(Query { length: 0, page_size: 0, ..query }, 0), EINVAL);
    assert_eq!(ask(Query { iova: u64::MAX - 2047, length: PAGE, ..query }, 0), EOVERFLOW);
    assert_eq!(ask(Query { iova: START + 1, ..query }, 0), EINVAL);
    assert_eq!(ask(Query { page_size: 0, ..query }, 0), EINVAL);
    assert_eq!(ask(Query { length: 7 * PAGE, page_size: 2 * PAGE, ..query }, 0), EINVAL);
    assert_eq!(ask(Query { hwpt: auto, page_size: 0, ..query }, 0), EINVAL);
    assert_eq!(ask(Query { hwpt: auto, ..query }, 0), EOPNOTSUPP);
    assert_eq!(ask(query, 0), 0);
    assert_eq!(query.ask_struct(0).u32(12, 1).call(&device, GET_BITMAP), Err(EOPNOTSUPP));
    assert_eq!(query.ask_struct(0).u64(40, 8).call(&device, GET_BITMAP), Ok(()), "as in the kernel");
    set_tracking(&device, hwpt, 1).unwrap();
    let write = |query: Query| query.write(&device, &mut [1]).err().unwrap_or(0);
    assert_eq!(write(Query { page_size: 0, ..query }), EINVAL);
    assert_eq!(write(Query { length: 0, ..query }), EINVAL);
    assert_eq!(write(Query { iova: START + 2048, ..query }), EINVAL);
    assert_eq!(write(Query { length: PAGE << 28, hwpt: 99, ..query }), EOVERFLOW);
    assert_eq!(write(Query { hwpt: 99, ..query }), ENOENT);
    assert_eq!(write(Query { hwpt: auto, ..query }), EINVAL);
    let at = |address| {
        let command = Struct::new(72).u32(4, 13).u32(8, hwpt).u64(24, START).u64(32, PAGE).u64(40, PAGE);
        command.u64(48, address).call(&device, TEST)
    };
    assert_eq!([at(0), at(8)], [Err(EINVAL), Err(EFAULT)]);
}

#[test]
fn many_calls_are_answered_alike() {
    play_with_mock("dirty calls");
}

fn calls() {
    let (device, file) = (open(), memory(2 * PAGE));
    let own = shared(Some(&file), 2 * PAGE);
    let ioas = ioas_alloc(&device).unwrap();
    let (_, idev) = mock_device(&device, ioas, 0).unwrap();
    map_at(&device, ioas, own, START).unwrap();
    let hwpt = hwpt_alloc(&device, idev, ioas, DIRTY_TRACKING, DEFAULT).unwrap();
    set_tracking(&device, hwpt, 1).unwrap();
    let query = Query { hwpt, iova: START, length: 2 * PAGE, page_size: PAGE };
    for round in 0..1000_u32 {
        let mark = if round.is_multiple_of(3) { 2 } else { 1 };
        assert_eq!(query.write(&device, &mut [mark]), Ok(1));
        let mut bits = [0];
        query.ask(&device, 0, &mut bits).unwrap();
        assert_eq!(bits, [mark]);
    }
}
