//! IOAS_ALLOW_IOVAS and IOAS_IOVA_RANGES: arrays in payloads and memfds, and every way they are refused.

use std::os::fd::AsFd;

use ioasd_client::calls::Placement;
use ioasd_client::connection::Connection;
use ioasd_client::ids::IoasId;
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::wire::command::Command;
use ioasd_client::wire::record::{IovaBounds, load_all, store_all};
use ioasd_client::wire::uapi::{IoasAllowIovas, IoasIovaRanges};
use rustix::fs::{SealFlags, fcntl_add_seals};
use rustix::io::Errno;

use crate::fixture::{Agent, errno};
use crate::memory::{Memory, at, client_with_domain, empty_memfd, map, read_at, write_at};
use crate::raw::{Answer, call_with};

const MAX: u64 = u64::MAX;

/// Whose ranges, which, and how they are refused.
type Case = (IoasId, &'static [(u64, u64)], Errno);

fn bounds(all: &[(u64, u64)]) -> Vec<IovaBounds> {
    let bounds = |(start, last): &(u64, u64)| IovaBounds { start: Iova::new(*start), last: Iova::new(*last) };
    all.iter().map(bounds).collect()
}

fn allow(client: &mut Connection, ioas: IoasId, ranges: &[(u64, u64)]) -> Option<Errno> {
    let num_iovas = u32::try_from(ranges.len()).unwrap();
    let command = IoasAllowIovas { ioas_id: ioas, num_iovas, ..IoasAllowIovas::default() };
    call_with(client, &command, &store_all(&bounds(ranges)), &[]).refusal()
}

fn ranges(client: &mut Connection, ioas: IoasId, room: u32) -> (Answer, IoasIovaRanges, Vec<IovaBounds>) {
    let command = IoasIovaRanges { ioas_id: ioas, num_iovas: room, ..IoasIovaRanges::default() };
    let answer = call_with(client, &command, &[], &[]);
    let (told, array) = (IoasIovaRanges::load(&answer.body), load_all(&answer.payload));
    (answer, told, array)
}

#[test]
fn automatic_placement_keeps_to_the_allowed_ranges_and_fixed_placement_does_not() {
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(4));
    let ioas = client.ioas_alloc().unwrap();
    assert_eq!(allow(&mut client, ioas, &[(0x8000, 0x8fff), (0x4_0000, 0x4_1fff)]), None);
    let mut any = |length| map(&mut client, ioas, memory.slice(0, length), Placement::Any);
    assert_eq!(any(0x1000).unwrap(), 0x8000);
    assert_eq!(any(0x1000).unwrap(), 0x4_0000);
    assert_eq!(errno(any(0x2000)), Errno::NOSPC);
    assert_eq!(map(&mut client, ioas, memory.slice(0, 0x1000), at(0x1000)).unwrap(), 0x1000);
    assert_eq!(allow(&mut client, ioas, &[]), None, "no ranges, no restriction");
    assert_eq!(map(&mut client, ioas, memory.slice(0, 0x2000), Placement::Any).unwrap(), 0x2000);
}

#[test]
fn a_refused_list_leaves_the_old_one_and_every_rule_has_its_errno() {
    let agent = Agent::start();
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(1));
    assert_eq!(allow(&mut client, ioas, &[(0x8000, 0x8fff)]), None);
    let cases: [Case; 8] = [
        (IoasId::new(77), &[(5, 5)], Errno::NOENT),
        (IoasId::new(hwpt.get()), &[], Errno::NOENT),
        (ioas, &[(5, 5)], Errno::INVAL),
        (ioas, &[(5, 4)], Errno::INVAL),
        (ioas, &[(0, 0xfff), (0xfff, 0x1fff)], Errno::INVAL),
        (ioas, &[(0, 0xfff), (0x1000, 0x1fff), (0, 1)], Errno::INVAL),
        (ioas, &[(0, MAX)], Errno::ADDRINUSE),
        (ioas, &[(0, 0xfff), (1 << 48, MAX)], Errno::ADDRINUSE),
    ];
    for (ioas, list, errno) in cases {
        assert_eq!(allow(&mut client, ioas, list), Some(errno), "{list:x?}");
    }
    assert_eq!(map(&mut client, ioas, memory.whole(), Placement::Any).unwrap(), 0x8000, "the old list");
    assert_eq!(allow(&mut client, ioas, &[(0x1000, 0x1fff), (0x2000, 0x2fff)]), None, "touching is fine");
}

#[test]
fn an_array_that_is_not_there_is_a_fault_and_reserved_fields_come_before_everything() {
    let agent = Agent::start();
    let (mut client, whole) = (agent.connect(), store_all(&bounds(&[(0, 1), (2, 3)])));
    let ioas_id = client.ioas_alloc().unwrap();
    let command = IoasAllowIovas { ioas_id, num_iovas: 2, ..IoasAllowIovas::default() };
    let mut refused =
        |command: IoasAllowIovas, payload: &[u8]| call_with(&mut client, &command, payload, &[]).refusal();
    let offset = |offset| ByteLen::new(offset);
    assert_eq!(
        refused(IoasAllowIovas { reserved: 1, ioas_id: IoasId::new(77), ..command }, &[]),
        Some(Errno::OPNOTSUPP)
    );
    assert_eq!(refused(command, &whole[..31]), Some(Errno::FAULT));
    assert_eq!(refused(IoasAllowIovas { allowed_iovas: offset(1), ..command }, &whole), Some(Errno::FAULT));
    assert_eq!(refused(IoasAllowIovas { allowed_iovas: offset(MAX), ..command }, &whole), Some(Errno::FAULT));
    assert_eq!(refused(IoasAllowIovas { num_iovas: u32::MAX, ..command }, &whole), Some(Errno::NOMEM));
    assert_eq!(refused(IoasAllowIovas { num_iovas: 1, allowed_iovas: offset(16), ..command }, &whole), None);
    assert_eq!(refused(command, &whole), None);
}

#[test]
fn a_long_list_comes_in_a_memfd_that_is_never_trusted() {
    let agent = Agent::start();
    let ((mut client, ioas_id, _), memory) = (client_with_domain(&agent), Memory::new(1));
    let list: Vec<(u64, u64)> = (1..=9000).map(|at| (at * 0x1_0000, at * 0x1_0000 + 0xfff)).collect();
    let (file, offset) = (empty_memfd("array", 40), 0x123);
    write_at(&file, offset, &store_all(&bounds(&list)));
    let command =
        IoasAllowIovas { ioas_id, num_iovas: 9000, reserved: 0, allowed_iovas: ByteLen::new(offset) };
    let mut send = |command: &IoasAllowIovas, fds: &[_]| call_with(&mut client, command, &[], fds).refusal();
    assert_eq!(send(&command, &[file.as_fd()]), None);
    assert_eq!(send(&IoasAllowIovas { num_iovas: 11_000, ..command }, &[file.as_fd()]), Some(Errno::FAULT));
    assert_eq!(
        send(&IoasAllowIovas { allowed_iovas: ByteLen::new(MAX), ..command }, &[file.as_fd()]),
        Some(Errno::FAULT)
    );
    assert_eq!(send(&command, &[file.as_fd(), file.as_fd()]), Some(Errno::INVAL));
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    assert_eq!(send(&command, &[pipe.as_fd()]), Some(Errno::INVAL));
    assert_eq!(map(&mut client, ioas_id, memory.whole(), Placement::Any).unwrap(), 0x1_0000);
}

#[test]
fn usable_ranges_are_what_nobody_has_reserved_and_too_little_room_is_told_with_the_answer() {
    let agent = Agent::start();
    let (mut client, last) = (agent.connect(), (1_u64 << 48) - 1);
    let ioas = client.ioas_alloc().unwrap();
    let (answer, told, array) = ranges(&mut client, ioas, 5);
    assert_eq!((answer.errno, told.num_iovas, told.out_iova_alignment), (0, 1, 1));
    assert_eq!(array, bounds(&[(0, MAX)]));
    let (mut client, ioas, _) = client_with_domain(&agent);
    let (answer, told, array) = ranges(&mut client, ioas, 1);
    assert_eq!((answer.errno, told.num_iovas, told.out_iova_alignment), (0, 1, 0x1000));
    assert_eq!(array, bounds(&[(0, last)]), "the aperture of the domain");
    let (answer, told, array) = ranges(&mut client, ioas, 0);
    assert_eq!((answer.refusal(), told.num_iovas, array.len()), (Some(Errno::MSGSIZE), 1, 0));
    assert_eq!(told.out_iova_alignment, 0x1000, "the struct is written although the command failed");
    assert_eq!(allow(&mut client, ioas, &[(0x8000, 0x8fff)]), None);
    assert_eq!(ranges(&mut client, ioas, 5).2, bounds(&[(0, last)]), "allowed ranges have no influence");
}

#[test]
fn usable_ranges_are_written_into_a_memfd_as_far_as_it_reaches() {
    let agent = Agent::start();
    let (mut client, file) = (agent.connect(), empty_memfd("array", 1));
    let ioas_id = client.ioas_alloc().unwrap();
    let command = IoasIovaRanges { ioas_id, num_iovas: 3, ..IoasIovaRanges::default() };
    let at = |offset| IoasIovaRanges { allowed_iovas: ByteLen::new(offset), ..command };
    let mut send = |command: &IoasIovaRanges| call_with(&mut client, command, &[], &[file.as_fd()]);
    let answer = send(&at(100));
    assert_eq!((answer.errno, answer.payload.len()), (0, 0));
    assert_eq!(load_all::<IovaBounds>(&read_at(&file, 100, 16)), bounds(&[(0, MAX)]));
    for offset in [0x1000 - 15, 0x1000, MAX] {
        let answer = send(&at(offset));
        assert_eq!((answer.refusal(), answer.body.len()), (Some(Errno::FAULT), 0), "offset {offset:#x}");
    }
    fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
    assert_eq!(send(&at(0)).refusal(), Some(Errno::FAULT), "sealed");
    let refused =
        |command: IoasIovaRanges, client: &mut Connection| call_with(client, &command, &[], &[]).refusal();
    assert_eq!(
        refused(IoasIovaRanges { reserved: 1, ioas_id: IoasId::new(77), ..command }, &mut client),
        Some(Errno::OPNOTSUPP)
    );
    assert_eq!(
        refused(IoasIovaRanges { ioas_id: IoasId::new(77), ..command }, &mut client),
        Some(Errno::NOENT)
    );
}
