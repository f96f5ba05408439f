//! IOAS_MAP_FILES and IOAS_UNMAP_RANGES: many ranges in one message, each with its own outcome.

use std::os::fd::{AsFd, BorrowedFd};

use ioasd_client::calls::lists::FileRange;
use ioasd_client::calls::rules::Usable;
use ioasd_client::calls::{LargePages, Placement, RlimitMode};
use ioasd_client::connection::Connection;
use ioasd_client::ids::IoasId;
use ioasd_client::units::{ByteLen, Iova, IovaRange, Permission};
use ioasd_client::wire::command::Command;
use ioasd_client::wire::own::{ARRAY_IN_MEMFD, IoasMapFiles, IoasUnmapRanges};
use ioasd_client::wire::record::{MapRange, Record, UnmapRange, load_all, store_all};
use ioasd_client::wire::uapi::{MAP_FIXED_IOVA as FIXED, MAP_READABLE as R, MAP_WRITEABLE as W};
use rustix::io::Errno;

use crate::fixture::Agent;
use crate::memory::{Memory, at, client_with_domain, empty_memfd, map, range, read_at, write_at};
use crate::raw::{Answer, call_with};

const MAX: u64 = u64::MAX;
const P: u64 = 0x1000;

fn map_range(flags: u32, fd: u32, start: u64, length: u64, iova: u64) -> MapRange {
    let (start, length, iova) = (ByteLen::new(start), ByteLen::new(length), Iova::new(iova));
    MapRange { flags, fd, start, length, iova, ..MapRange::default() }
}

fn unmap_range(iova: u64, length: u64) -> UnmapRange {
    UnmapRange { iova: Iova::new(iova), length: ByteLen::new(length), ..UnmapRange::default() }
}

fn maps<R: Record>(ioas: IoasId, records: &[R]) -> IoasMapFiles {
    let num_ranges = u32::try_from(records.len()).unwrap();
    IoasMapFiles { ioas_id: ioas, num_ranges, ..IoasMapFiles::default() }
}

fn unmaps(ioas: IoasId, records: &[UnmapRange]) -> IoasUnmapRanges {
    let IoasMapFiles { ioas_id, num_ranges, .. } = maps(ioas, records);
    IoasUnmapRanges { ioas_id, num_ranges, ..IoasUnmapRanges::default() }
}

/// Maps; tells how many went well, and the records.
fn map_all(
    client: &mut Connection,
    ioas: IoasId,
    records: &[MapRange],
    files: &[BorrowedFd<'_>],
) -> (u32, Vec<MapRange>) {
    let answer = call_with(client, &maps(ioas, records), &store_all(records), files);
    assert_eq!(answer.refusal(), None);
    (IoasMapFiles::load(&answer.body).out_done, load_all(&answer.payload))
}

fn unmap_all(client: &mut Connection, ioas: IoasId, records: &[UnmapRange]) -> (u32, Vec<UnmapRange>) {
    let answer = call_with(client, &unmaps(ioas, records), &store_all(records), &[]);
    assert_eq!(answer.refusal(), None);
    (IoasUnmapRanges::load(&answer.body).out_done, load_all(&answer.payload))
}

fn errnos(records: impl IntoIterator<Item = u32>) -> Vec<Option<Errno>> {
    let errno = |errno: u32| (errno != 0).then(|| Errno::from_raw_os_error(i32::try_from(errno).unwrap()));
    records.into_iter().map(errno).collect()
}

#[test]
fn each_range_has_its_own_outcome_and_those_that_fail_leave_the_others() {
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(8));
    let (holey, cases) = (
        empty_memfd("holey", 2),
        [
            (map_range(FIXED | R, 0, 0, P, 0x1_0000), None),
            (map_range(16, 0, 0, MAX, MAX), Some(Errno::OPNOTSUPP)),
            (MapRange { reserved: 1, ..map_range(R, 0, 0, MAX, MAX) }, Some(Errno::OPNOTSUPP)),
            (map_range(R, 9, 0, MAX, 0), Some(Errno::OVERFLOW)),
            (map_range(FIXED, 9, 0, P, 0), Some(Errno::INVAL)),
            (map_range(R, 9, 0, 0, 0), Some(Errno::INVAL)),
            (map_range(R, 9, MAX, 2, 0), Some(Errno::OVERFLOW)),
            (map_range(R, 2, 0, P, 0), Some(Errno::BADF)),
            (map_range(FIXED | R, 0, P, P, 0x1_0000), Some(Errno::EXIST)),
            (map_range(FIXED | R | W, 0, P, 2 * P, 0x2_0000), None),
            (map_range(FIXED | R, 1, 0, P, 0x3_0000), Some(Errno::NOMEM)),
            (map_range(FIXED | R, 0, 1, P, 0x3_0000), Some(Errno::INVAL)),
            (map_range(FIXED | R, 0, 3 * P, P, 0x3_0000), None),
        ],
    );
    let records: Vec<MapRange> = cases.iter().map(|(record, _)| *record).collect();
    let (done, told) = map_all(&mut client, ioas, &records, &[memory.as_fd(), holey.as_fd()]);
    assert_eq!(errnos(told.iter().map(|record| record.errno)), cases.map(|(_, errno)| errno));
    assert_eq!(done, 3);
    for (told, asked) in told.iter().zip(&records) {
        assert_eq!(MapRange { errno: 0, ..*told }, *asked, "nothing but the outcome changed");
    }
    assert_eq!(agent.pinned_and_charged(), (4 * P, 4 * P));
    let access = client.access_create(ioas, ioasd_client::calls::AccessKind::Bytes).unwrap();
    let mut bytes = vec![0; 64];
    client.access_read(access, Iova::new(0x2_1000), &mut bytes).unwrap();
    assert_eq!(bytes, Memory::bytes(2 * P, 64));
}

#[test]
fn ranges_are_mapped_in_the_order_of_the_array() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(4));
    let ioas = client.ioas_alloc().unwrap();
    let (any, fixed) = (map_range(R, 0, 0, P, 0), map_range(FIXED | R, 0, 0, P, 2 * P));
    let (done, told) = map_all(&mut client, ioas, &[any, fixed, any, fixed], &[memory.as_fd()]);
    let iovas: Vec<u64> = told.iter().map(|record| record.iova.get()).collect();
    assert_eq!((done, iovas), (3, vec![P, 2 * P, 3 * P, 2 * P]));
    assert_eq!(errnos([told[3].errno]), [Some(Errno::EXIST)]);
}

#[test]
fn unmaps_tell_what_each_of_them_removed() {
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(4));
    for iova in [0x1_0000, 0x2_0000, 0x3_0000, 0x4_0000] {
        map(&mut client, ioas, memory.whole(), at(iova)).unwrap();
    }
    let cases = [
        (unmap_range(0x2_0000, 4 * P), None, 4 * P),
        (unmap_range(0x2_0000, 4 * P), Some(Errno::BUSY), 4 * P),
        (unmap_range(0x1_0000, P), Some(Errno::NOENT), P),
        (unmap_range(MAX, 1), Some(Errno::OVERFLOW), 1),
        (unmap_range(0x1_0000, 0), Some(Errno::INVAL), 0),
        (UnmapRange { reserved: 1, ..unmap_range(0x1_0000, 4 * P) }, Some(Errno::OPNOTSUPP), 4 * P),
        (unmap_range(0x3_0000, 0x1_4000), None, 8 * P),
    ];
    let records: Vec<UnmapRange> = cases.iter().map(|(record, ..)| *record).collect();
    let (done, told) = unmap_all(&mut client, ioas, &records);
    assert_eq!(errnos(told.iter().map(|record| record.errno)), cases.map(|(_, errno, _)| errno));
    let lengths: Vec<u64> = told.iter().map(|record| record.length.get()).collect();
    assert_eq!((done, lengths), (2, cases.map(|(.., length)| length).to_vec()));
    assert_eq!(agent.pinned_and_charged(), (4 * P, 4 * P), "one area is left");
    let (done, told) = unmap_all(&mut client, ioas, &[unmap_range(0, MAX)]);
    assert_eq!((done, told[0].length.get()), (1, 4 * P));
    map(&mut client, ioas, memory.whole(), at(0x2_0000)).unwrap();
}

#[test]
fn thousands_of_ranges_come_and_go_in_memfds() {
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(4));
    let records: Vec<MapRange> = (0..5000).map(|at| map_range(R, 0, at % 4 * P, P, 0)).collect();
    let (file, offset) = (empty_memfd("array", 60), 0x128);
    write_at(&file, offset, &store_all(&records));
    let command =
        IoasMapFiles { flags: ARRAY_IN_MEMFD, ranges: ByteLen::new(offset), ..maps(ioas, &records) };
    let answer = call_with(&mut client, &command, &[], &[memory.as_fd(), file.as_fd()]);
    assert_eq!((answer.refusal(), answer.payload.len()), (None, 0));
    assert_eq!(IoasMapFiles::load(&answer.body).out_done, 5000);
    let told: Vec<MapRange> = load_all(&read_at(&file, offset, records.len() * MapRange::BYTES));
    assert!(told.iter().all(|record| record.errno == 0 && record.iova.get() >= P));
    assert_eq!(agent.pinned_and_charged(), (5000 * P, 5000 * P));
    let gone: Vec<UnmapRange> = told.iter().map(|record| unmap_range(record.iova.get(), P)).collect();
    write_at(&file, 0, &store_all(&gone));
    let command = IoasUnmapRanges { flags: ARRAY_IN_MEMFD, ..unmaps(ioas, &gone) };
    let answer = call_with(&mut client, &command, &[], &[file.as_fd()]);
    assert_eq!((answer.refusal(), IoasUnmapRanges::load(&answer.body).out_done), (None, 5000));
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

#[test]
fn a_message_that_is_wrong_itself_does_nothing() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(1));
    let ioas = client.ioas_alloc().unwrap();
    let records = [map_range(R, 0, 0, P, 0), map_range(R, 0, 0, P, 0)];
    let (good, payload) = (maps(ioas, &records), store_all(&records));
    let (nobody, file) = (IoasId::new(77), memory.as_fd());
    let in_memfd = IoasMapFiles { flags: ARRAY_IN_MEMFD, ..good };
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    let mut refused = |command: &IoasMapFiles, payload: &[u8], fds: &[BorrowedFd<'_>]| -> Option<Errno> {
        let answer: Answer = call_with(&mut client, command, payload, fds);
        assert_eq!(answer.body.len(), 0);
        answer.refusal()
    };
    let flagged = IoasMapFiles { flags: 2, ioas_id: nobody, ..good };
    assert_eq!(refused(&flagged, &payload, &[file]), Some(Errno::OPNOTSUPP));
    assert_eq!(refused(&IoasMapFiles { reserved: 1, ..flagged }, &payload, &[file]), Some(Errno::OPNOTSUPP));
    assert_eq!(refused(&IoasMapFiles { ioas_id: nobody, ..good }, &[], &[]), Some(Errno::NOENT));
    assert_eq!(refused(&good, &payload[..79], &[file]), Some(Errno::FAULT));
    assert_eq!(
        refused(&IoasMapFiles { num_ranges: u32::MAX, ..good }, &payload, &[file]),
        Some(Errno::NOMEM)
    );
    assert_eq!(refused(&in_memfd, &payload, &[]), Some(Errno::INVAL));
    assert_eq!(refused(&in_memfd, &payload, &[file, pipe.as_fd()]), Some(Errno::INVAL));
    assert_eq!(
        refused(&IoasMapFiles { ranges: ByteLen::new(P - 40), ..in_memfd }, &[], &[file, file]),
        Some(Errno::FAULT)
    );
    let unmap = unmaps(ioas, &[unmap_range(0, MAX)]);
    assert_eq!(
        call_with(&mut client, &unmap, &store_all(&[unmap_range(0, MAX)]), &[file]).refusal(),
        Some(Errno::INVAL)
    );
    assert_eq!(agent.snapshot().ioases[0].stats.areas.get(), 0);
}

#[test]
fn typed_calls_carry_short_lists_in_the_message_and_long_ones_in_a_memfd() {
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(2));
    let any = FileRange {
        file: 0,
        offset: ByteLen::new(P),
        length: ByteLen::new(P),
        permission: Permission::Read,
        placement: Placement::Any,
    };
    for count in [0, 1, 1612, 1613, 4000] {
        let mut ranges = vec![any; count];
        ranges.extend([FileRange { file: 1, ..any }, FileRange { placement: at(0x123), ..any }]);
        let mapped = client.map_files(ioas, &[memory.as_fd()], &ranges).unwrap();
        let (good, bad) = mapped.split_at(count);
        assert_eq!(bad, [Err(Errno::BADF), Err(Errno::INVAL)]);
        assert_eq!(agent.pinned_and_charged().0, P * count as u64);
        let mut gone: Vec<IovaRange> = good.iter().map(|iova| range(iova.unwrap().get(), P)).collect();
        gone.push(range(0x123, 5));
        let unmapped = client.unmap_ranges(ioas, &gone).unwrap();
        let (good, bad) = unmapped.split_at(count);
        assert!(good.iter().all(|bytes| *bytes == Ok(ByteLen::new(P))));
        assert_eq!(bad, [Err(Errno::NOENT)]);
        assert_eq!(agent.pinned_and_charged(), (0, 0));
    }
}

#[test]
fn typed_calls_choose_the_rules_of_an_address_space() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(1));
    let ioas = client.ioas_alloc().unwrap();
    assert_eq!(client.iova_ranges(ioas).unwrap(), Usable { ranges: vec![IovaRange::ALL], alignment: 1 });
    let many: Vec<IovaRange> = (1..6000).map(|at| range(at * 0x2000, P)).collect();
    client.allow_iovas(ioas, &many).unwrap();
    assert_eq!(map(&mut client, ioas, memory.whole(), Placement::Any).unwrap(), 0x2000);
    client.allow_iovas(ioas, &[]).unwrap();
    assert_eq!(map(&mut client, ioas, memory.whole(), Placement::Any).unwrap(), 0x1000);
    assert_eq!(client.large_pages(ioas).unwrap(), LargePages::On);
    client.set_large_pages(ioas, LargePages::Off).unwrap();
    assert_eq!(client.large_pages(ioas).unwrap(), LargePages::Off);
    assert_eq!(client.iova_ranges(ioas).unwrap().alignment, P);
    assert_eq!(client.rlimit_mode().unwrap(), RlimitMode::User);
}
