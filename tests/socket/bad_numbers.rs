//! The edges of 64 bits, and which of several errors bites first.

use std::os::fd::AsFd;

use ioasd_client::connection::Connection;
use ioasd_client::ids::IoasId;
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::wire::uapi::{
    IoasCopy, IoasMapFile, IoasUnmap, MAP_FIXED_IOVA as FIXED, MAP_READABLE as R, MAP_WRITEABLE as W,
};
use rustix::io::Errno;

use crate::fixture::Agent;
use crate::memory::{Bystander, Memory, at, client_with_domain, map};
use crate::raw::refusal;

const MAX: u64 = u64::MAX;
const NO_IOAS: u32 = 77;
const UNKNOWN: u32 = 8;

/// A MAP_FILE: flags, address space, start, length, iova, files, and how it is refused.
type MapCase = (u32, u32, u64, u64, u64, usize, Option<Errno>);

fn run_map(
    client: &mut Connection,
    memory: &Memory,
    (flags, ioas, start, length, iova, files, _): MapCase,
) -> Option<Errno> {
    let command = IoasMapFile {
        flags,
        ioas_id: IoasId::new(ioas),
        fd: 0,
        start: ByteLen::new(start),
        length: ByteLen::new(length),
        iova: Iova::new(iova),
    };
    refusal(client, &command, &vec![memory.as_fd(); files])
}

fn assert_maps(agent: &Agent, client: &mut Connection, ioas: IoasId, cases: &[MapCase]) {
    let (memory, mut bystander) = (Memory::new(4), Bystander::new(agent));
    for case in cases {
        let refused = run_map(client, &memory, *case);
        assert_eq!(refused, case.6, "{case:x?}");
        if refused.is_none() {
            client.unmap_all(ioas).unwrap();
        }
        bystander.goes_on();
    }
}

#[test]
fn map_file_checks_in_the_order_of_the_kernel() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    let id = ioas.get();
    let cases: [MapCase; 28] = [
        (UNKNOWN, NO_IOAS, MAX, MAX, MAX, 0, Some(Errno::OPNOTSUPP)),
        (0, NO_IOAS, MAX, MAX, 0, 0, Some(Errno::OVERFLOW)),
        (0, NO_IOAS, 0, 0, MAX, 0, Some(Errno::OVERFLOW)),
        (R, id, 0, 0x1000, MAX, 1, Some(Errno::OVERFLOW)),
        (FIXED, NO_IOAS, MAX, 0, 0, 0, Some(Errno::INVAL)),
        (R, NO_IOAS, MAX, 0, 0, 0, Some(Errno::NOENT)),
        (R, id, MAX, 0, 0, 0, Some(Errno::INVAL)),
        (R, id, MAX, 2, 0, 0, Some(Errno::OVERFLOW)),
        (R, id, 3, MAX - 1, 0, 0, Some(Errno::OVERFLOW)),
        (R, id, 0, 0x1000, 0, 0, Some(Errno::BADF)),
        (R, id, 0, 0x1000, 0, 2, Some(Errno::BADF)),
        (R, id, 0, 0x1000, 0, 4, Some(Errno::BADF)),
        (R, id, 0, 0x1000, 0, 5, Some(Errno::TOOMANYREFS)),
        (FIXED | R, id, 0, 0x1000, MAX - 1, 0, Some(Errno::BADF)),
        (FIXED | R, id, 0, 0x1000, MAX - 1, 1, Some(Errno::OVERFLOW)),
        (FIXED | R, id, 0, 0x1000, MAX - 0xffe, 1, Some(Errno::OVERFLOW)),
        (FIXED | R, id, 0, MAX - 1, 3, 1, Some(Errno::OVERFLOW)),
        (FIXED | R, id, 0, 2, MAX - 1, 1, None),
        (FIXED | R, id, 0, 0x1000, MAX - 0xfff, 1, None),
        (FIXED | R, id, MAX, 1, 0, 1, None),
        (FIXED | R, id, 2, MAX - 1, 2, 1, None),
        (FIXED | R | W, id, 0, MAX - 1, 0, 1, None),
        (R, id, 0, MAX - 1, 0, 1, Some(Errno::OVERFLOW)),
        (R, id, 0, MAX / 2, 0, 1, Some(Errno::OVERFLOW)),
        (R, id, 0, MAX / 2 - 1, 0, 1, None),
        (R, id, 0, 1 << 62, 0, 1, None),
        (R, id, MAX, 1, 0, 1, None),
        (R, id, 0, 1, MAX - 1, 1, None),
    ];
    assert_maps(&agent, &mut client, ioas, &cases);
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

#[test]
fn with_a_domain_alignment_bites_first_and_the_aperture_before_other_areas() {
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(1));
    let id = ioas.get();
    let end = 1_u64 << 48;
    let last_page = MAX - 0xfff;
    let cases: [MapCase; 13] = [
        (FIXED | R, id, 1, 0x800, MAX - 1, 1, Some(Errno::INVAL)),
        (FIXED | R, id, 1, 0x1000, 0x800, 1, Some(Errno::INVAL)),
        (FIXED | R, id, 1, 0x2000, last_page, 1, Some(Errno::OVERFLOW)),
        (FIXED | R, id, 1, 0x1000, last_page, 1, Some(Errno::INVAL)),
        (FIXED | R, id, 0, 0x1000, end, 1, Some(Errno::INVAL)),
        (FIXED | R, id, 0, 0x2000, end - 0x1000, 1, Some(Errno::INVAL)),
        (FIXED | R, id, 0, 0x1000, end - 0x1000, 1, None),
        (FIXED | R, id, 1, 0x1000, 0, 1, Some(Errno::INVAL)),
        (FIXED | R, id, 0, 0x1000, 0, 1, None),
        (R, id, 0, 1 << 50, 0, 1, Some(Errno::NOSPC)),
        (R, id, 0x4000, 0x1000, 0, 1, Some(Errno::INVAL)),
        (R, id, 0x3000, 0x2000, 0, 1, Some(Errno::INVAL)),
        (R, id, MAX - 0xfff, 0x1000, 0, 1, Some(Errno::INVAL)),
    ];
    let before = agent.snapshot().domains[0].stats.table.get();
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    let occupied = (FIXED | R, id, 1, 0x1000, 0x1000, 1, Some(Errno::EXIST));
    assert_eq!(run_map(&mut client, &memory, occupied), occupied.6, "who is there counts before the offset");
    client.unmap_all(ioas).unwrap();
    assert_maps(&agent, &mut client, ioas, &cases);
    assert_eq!(agent.snapshot().domains[0].stats.table.get(), before, "tables are left behind");
}

#[test]
fn unmap_checks_in_the_order_of_the_kernel() {
    let agent = Agent::start();
    let (mut client, mut bystander) = (agent.connect(), Bystander::new(&agent));
    let id = client.ioas_alloc().unwrap().get();
    let cases = [
        (NO_IOAS, 0, MAX, Some(Errno::NOENT)),
        (NO_IOAS, MAX, 0, Some(Errno::NOENT)),
        (id, 0, MAX, None),
        (id, 1, MAX, Some(Errno::OVERFLOW)),
        (id, MAX, MAX, Some(Errno::OVERFLOW)),
        (id, MAX, 0, Some(Errno::OVERFLOW)),
        (id, MAX, 1, Some(Errno::OVERFLOW)),
        (id, 0, 0, Some(Errno::INVAL)),
        (id, MAX - 1, 0, Some(Errno::INVAL)),
        (id, MAX - 1, 3, Some(Errno::OVERFLOW)),
        (id, 3, MAX - 1, Some(Errno::OVERFLOW)),
        (id, 2, MAX - 1, Some(Errno::NOENT)),
        (id, MAX - 1, 2, Some(Errno::NOENT)),
        (id, 0, MAX - 1, Some(Errno::NOENT)),
    ];
    for (ioas, iova, length, errno) in cases {
        let command =
            IoasUnmap { ioas_id: IoasId::new(ioas), iova: Iova::new(iova), length: ByteLen::new(length) };
        assert_eq!(refusal(&mut client, &command, &[]), errno, "{command:x?}");
        bystander.goes_on();
    }
}

#[test]
fn copy_checks_in_the_order_of_the_kernel() {
    let agent = Agent::start();
    let ((mut client, ioas, _), mut bystander) = (client_with_domain(&agent), Bystander::new(&agent));
    let (memory, id) = (Memory::new(2), ioas.get());
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    // Flags, source, target, length, source iova, target iova.
    let cases = [
        (UNKNOWN, NO_IOAS, NO_IOAS, MAX, MAX, MAX, Some(Errno::OPNOTSUPP)),
        (0, NO_IOAS, NO_IOAS, MAX, 0, 0, Some(Errno::OVERFLOW)),
        (0, NO_IOAS, NO_IOAS, 0, MAX, 0, Some(Errno::OVERFLOW)),
        (0, NO_IOAS, NO_IOAS, 0, 0, MAX, Some(Errno::OVERFLOW)),
        (FIXED, NO_IOAS, NO_IOAS, 0, 0, 0, Some(Errno::INVAL)),
        (R, NO_IOAS, id, 0, MAX - 1, 0, Some(Errno::NOENT)),
        (R, id, NO_IOAS, 0, MAX - 1, 0, Some(Errno::INVAL)),
        (R, id, NO_IOAS, 3, MAX - 1, 0, Some(Errno::OVERFLOW)),
        (R, id, NO_IOAS, 0x1000, 0x4000, 0, Some(Errno::NOENT)),
        (R, id, NO_IOAS, 0x1000, 0x1000, 0, Some(Errno::NOENT)),
        (R, id, id, 0x2001, 0x1000, 0, Some(Errno::NOENT)),
        (R, id, id, MAX - 0x2000, 0x1000, 0, Some(Errno::NOENT)),
        (FIXED | R, id, id, 0x800, 0x1000, 0x8000, Some(Errno::INVAL)),
        (FIXED | R, id, id, 0x1000, 0x1000, 0x8800, Some(Errno::INVAL)),
        (FIXED | R, id, id, 0x2000, 0x1000, MAX - 0xfff, Some(Errno::OVERFLOW)),
        (FIXED | R, id, id, 0x1000, 0x1000, 1 << 48, Some(Errno::INVAL)),
        (FIXED | R, id, id, 0x1000, 0x1800, 0x1000, Some(Errno::EXIST)),
        (FIXED | R, id, id, 0x1000, 0x1800, 0x8000, Some(Errno::INVAL)),
        (FIXED | R, id, id, 0x1000, 0x2000, 0x8000, None),
    ];
    for (flags, source, target, length, src_iova, dst_iova, errno) in cases {
        let command = IoasCopy {
            flags,
            dst_ioas_id: IoasId::new(target),
            src_ioas_id: IoasId::new(source),
            length: ByteLen::new(length),
            dst_iova: Iova::new(dst_iova),
            src_iova: Iova::new(src_iova),
        };
        assert_eq!(refusal(&mut client, &command, &[]), errno, "{command:x?}");
        bystander.goes_on();
    }
    assert_eq!(agent.snapshot().ioases[0].stats.areas.get(), 2);
}
