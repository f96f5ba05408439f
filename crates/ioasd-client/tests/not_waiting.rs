//! Pipelines, leases and notice channels against an agent that is slow, silent, or no agent at all.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test helper is a failed test")]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ioasd_client::connection::Connection;
use ioasd_client::error::{CallError, ProtocolError};
use ioasd_client::ids::{AccessId, IoasId, ObjectId};
use ioasd_client::lease::Lease;
use ioasd_client::notices::NoticeChannel;
use ioasd_client::pipeline::{Arrived, Pipeline};
use ioasd_client::units::{Iova, IovaRange};
use ioasd_client::wire::channels::{ChannelOpen, Notice};
use ioasd_client::wire::command::{Argument, Command, encode};
use ioasd_client::wire::frame::{Echo, FrameError, Reply, Request, Tag};
use ioasd_client::wire::uapi::{Destroy, IoasAlloc, IoasUnmap};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
    recv, sendmsg, socketpair,
};

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

fn pipeline(credits: usize) -> (Pipeline, OwnedFd) {
    let (client, agent) = pair();
    (Pipeline::new(Connection::from_fd(client), credits), agent)
}

fn send(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
}

/// Takes a request, and tells what it repeats.
fn take(agent: &OwnedFd) -> Echo {
    let mut bytes = [0; 4096];
    let (length, _) = recv(agent, &mut bytes, RecvFlags::empty()).unwrap();
    Request::decode(&bytes[..length]).unwrap().echo
}

fn answer<C: Command>(agent: &OwnedFd, echo: Echo, value: &C) {
    send(agent, &Reply::done(echo, &encode(value), &[]).encode().unwrap(), &[]);
}

fn allocated(id: u32) -> IoasAlloc {
    IoasAlloc { flags: 0, out_ioas_id: IoasId::new(id) }
}

fn wrong_request(result: Result<impl std::fmt::Debug, CallError>) -> u64 {
    match result.unwrap_err() {
        CallError::Protocol(ProtocolError::OtherRequest { tag, .. }) => tag,
        other => panic!("not an answer to another request: {other:?}"),
    }
}

#[test]
fn answers_in_another_order_find_their_requests() {
    let (mut pipeline, agent) = pipeline(8);
    let tags = [(); 3].map(|()| pipeline.send(&IoasAlloc::default(), &[], &[]).unwrap());
    let echoes = [(); 3].map(|()| take(&agent));
    assert_eq!(echoes.map(|echo| echo.tag), tags);
    for (index, id) in [(2, 30), (0, 10), (1, 20)] {
        answer(&agent, echoes[index], &allocated(id));
    }
    let mut found = Vec::new();
    while let Some(arrived) = pipeline.try_receive().unwrap() {
        let tag = arrived.tag;
        found.push((tag, arrived.answer::<IoasAlloc>().unwrap().value.out_ioas_id.get()));
    }
    assert_eq!(found, [(tags[2], 30), (tags[0], 10), (tags[1], 20)]);
    assert!(pipeline.into_connection().is_ok());
}

#[test]
fn without_credit_or_room_nothing_is_sent_and_nobody_waits() {
    let (mut credited, agent) = pipeline(2);
    let mut alloc = || credited.send(&IoasAlloc::default(), &[], &[]);
    let (first, _) = (alloc().unwrap(), alloc().unwrap());
    let refused = alloc().unwrap_err();
    assert!(matches!(refused, CallError::NotNow { .. }), "{refused:?}");
    assert_eq!(refused.errno(), Errno::AGAIN);
    answer(&agent, Echo { command: IoasAlloc::NUMBER, tag: first }, &allocated(1));
    assert!(credited.try_receive().unwrap().is_some());
    assert!(credited.try_receive().unwrap().is_none());
    credited.send(&IoasAlloc::default(), &[], &[]).unwrap();
    let credited = credited.into_connection().unwrap_err();
    assert_eq!(credited.in_flight(), 2);

    let (mut stuck, agent) = pipeline(usize::MAX);
    let full = (0..100_000).find_map(|_| stuck.send(&IoasAlloc::default(), &[], &[]).err()).unwrap();
    assert!(matches!(full, CallError::NotNow { .. }), "{full:?}");
    let sent = stuck.in_flight();
    for _ in 0..sent {
        take(&agent);
    }
    stuck.send(&IoasAlloc::default(), &[], &[]).unwrap();
    assert_eq!(take(&agent).tag, Tag(sent as u64 + 1), "a tag was used up by what was not sent");
}

#[test]
fn what_was_not_asked_is_no_answer() {
    let (mut client, agent) = pipeline(8);
    let tag = client.send(&IoasAlloc::default(), &[], &[]).unwrap();
    let echo = Echo { command: IoasAlloc::NUMBER, tag };
    answer(&agent, Echo { tag: Tag(9), ..echo }, &allocated(1));
    assert_eq!(wrong_request(client.try_receive()), 9);
    answer(&agent, Echo { command: IoasUnmap::NUMBER, ..echo }, &IoasUnmap::default());
    assert_eq!(wrong_request(client.try_receive()), tag.0);
    answer(&agent, echo, &allocated(1));
    answer(&agent, echo, &allocated(1));
    let arrived = client.receive().unwrap();
    assert_eq!(wrong_request(arrived.answer::<IoasUnmap>()), tag.0);
    assert_eq!(wrong_request(client.receive()), tag.0, "an answer came twice");
    drop(agent);
    let closed = client.try_receive().unwrap_err();
    assert!(matches!(closed, CallError::Protocol(ProtocolError::Closed)), "{closed:?}");
}

#[test]
fn refusals_and_commands_without_a_struct_arrive_as_such() {
    let (mut client, agent) = pipeline(8);
    let destroy = Destroy { id: ObjectId::new(3) };
    let tags = [(); 2].map(|()| client.send(&destroy, &[], &[]).unwrap());
    let echo = |tag| Echo { command: Destroy::NUMBER, tag };
    let refusal = Reply::refused(echo(tags[0]), Errno::BUSY, "object-busy", "in use").encode().unwrap();
    send(&agent, &refusal, &[]);
    send(&agent, &Reply::done(echo(tags[1]), &[], &[]).encode().unwrap(), &[]);
    let refused = client.receive().and_then(Arrived::done::<Destroy>).unwrap_err();
    assert_eq!((refused.errno(), refused.code()), (Errno::BUSY, Some("object-busy")));
    client.receive().and_then(Arrived::done::<Destroy>).unwrap();
}

#[test]
fn a_lease_takes_any_channel_and_nothing_else() {
    let (client, agent) = pair();
    let lease = Lease::from_fd(client);
    let echo = Echo { command: ChannelOpen::NUMBER, tag: Tag(0) };
    let opened = Reply::done(echo, &encode(&ChannelOpen::default()), &[]).encode().unwrap();
    let (given, other_end) = pair();
    send(&agent, &opened, &[given.as_fd()]);
    assert!(lease.open_channel().is_ok());
    assert_eq!(take(&agent), echo);
    drop((given, other_end));
    for fds in [0, 2] {
        let (given, _end) = pair();
        send(&agent, &opened, &vec![given.as_fd(); fds]);
        let refused = lease.open_channel().unwrap_err();
        assert!(matches!(refused, CallError::Protocol(ProtocolError::Descriptors { wanted: 1, .. })));
    }
    answer(&agent, Echo { tag: Tag(5), ..echo }, &ChannelOpen::default());
    assert_eq!(wrong_request(lease.open_channel()), 5);
}

fn notice_message(notice: &Notice, tag: u64) -> Vec<u8> {
    let (echo, argument) = (Echo { command: Notice::NUMBER, tag: Tag(tag) }, encode(notice));
    Request { echo, argument: Argument::new(&argument) }.encode().unwrap()
}

#[test]
fn a_notice_is_understood_and_answered_with_its_tag() {
    let (user, agent) = pair();
    let mut notices = NoticeChannel::from_fd(user);
    assert_eq!(notices.try_receive().unwrap(), None);
    let (access_id, last) = (AccessId::new(6), Iova::new(u64::MAX));
    let asked = Notice { access_id, iova: Iova::new(0x1000), last, ..Notice::default() };
    send(&agent, &notice_message(&asked, 77), &[]);
    let notice = notices.receive().unwrap();
    assert_eq!(notice.access, access_id);
    assert_eq!(notice.range, IovaRange::new(Iova::new(0x1000), last).unwrap());
    notices.acknowledge(&notice).unwrap();
    let mut bytes = [0; 64];
    let (length, _) = recv(&agent, &mut bytes, RecvFlags::empty()).unwrap();
    let reply = Reply::decode(&bytes[..length]).unwrap();
    assert_eq!(reply, Reply::done(Echo { command: Notice::NUMBER, tag: Tag(77) }, &[], &[]));
    let answered = (0..100_000).find_map(|_| notices.acknowledge(&notice).err()).unwrap();
    assert!(matches!(answered, CallError::NotNow { .. }), "a full queue made it wait: {answered:?}");
}

#[test]
fn what_is_no_notice_is_a_protocol_error() {
    let (user, agent) = pair();
    let mut notices = NoticeChannel::from_fd(user);
    let backwards = Notice { iova: Iova::new(2), last: Iova::new(1), ..Notice::default() };
    send(&agent, &notice_message(&backwards, 1), &[]);
    let error = notices.try_receive().unwrap_err();
    assert!(
        matches!(error, CallError::Protocol(ProtocolError::Frame(FrameError::Length { .. }))),
        "{error:?}"
    );
    let echo = Echo { command: IoasAlloc::NUMBER, tag: Tag(1) };
    let argument = encode(&IoasAlloc::default());
    send(&agent, &Request { echo, argument: Argument::new(&argument) }.encode().unwrap(), &[]);
    assert_eq!(wrong_request(notices.try_receive()), 1);
    send(&agent, b"x", &[]);
    let error = notices.try_receive().unwrap_err();
    assert!(
        matches!(error, CallError::Protocol(ProtocolError::Frame(FrameError::Short { .. }))),
        "{error:?}"
    );
    send(&agent, &notice_message(&Notice::default(), 1), &[agent.as_fd()]);
    let error = notices.try_receive().unwrap_err();
    assert!(matches!(error, CallError::Protocol(ProtocolError::Descriptors { wanted: 0, .. })), "{error:?}");
    drop(agent);
    assert!(notices.receive().is_err());
}

#[test]
fn every_kind_of_channel_can_move_to_another_thread() {
    const fn send<T: Send>() {}
    send::<Connection>();
    send::<Pipeline>();
    send::<NoticeChannel>();
    const fn share<T: Send + Sync>() {}
    share::<Lease>();
}
