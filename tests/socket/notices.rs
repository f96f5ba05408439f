//! Notices: users that let go, refuse, are silent, die, or send nonsense.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

use ioasd_client::calls::{AccessKind, PinIntent};
use ioasd_client::connection::Connection;
use ioasd_client::error::{CallError, ProtocolError};
use ioasd_client::ids::{AccessId, IoasId};
use ioasd_client::notices::NoticeChannel;
use ioasd_client::pipeline::Pipeline;
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::wire::channels::Notice;
use ioasd_client::wire::command::Command as _;
use ioasd_client::wire::frame::{Echo, Reply, Tag};
use ioasd_client::wire::own::AccessUnpin;
use ioasd_client::wire::uapi::IoasUnmap;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::fixture::{Agent, errno, eventually};
use crate::memory::{Bystander, Memory, at, map, range};
use crate::raw::{next_answer, post, request, request_of};

/// A client with an access that has pinned four pages at 0x10000.
struct Holder {
    agent: Agent,
    client: Connection,
    ioas: IoasId,
    access: AccessId,
    notices: NoticeChannel,
}

fn holder() -> Holder {
    let (agent, memory) = (Agent::start(), Memory::new(4));
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    map(&mut client, ioas, memory.whole(), at(0x1_0000)).unwrap();
    let (access, notices) = client.access_create_with_notices(ioas, AccessKind::Pinning).unwrap();
    client.access_pin(access, range(0x1_0000, 0x4000), PinIntent::Write).unwrap();
    Holder { agent, client, ioas, access, notices }
}

#[test]
fn an_access_that_lets_go_lets_the_unmap_succeed() {
    let Holder { agent, mut client, ioas, access, mut notices } = holder();
    let mut its_channel = client.open_channel().unwrap().channel;
    thread::scope(|scope| {
        scope.spawn(|| {
            let notice = notices.receive().unwrap();
            assert_eq!((notice.access, notice.range), (access, range(0x1_0000, 0x4000)));
            its_channel.access_unpin(access, notice.range).unwrap();
            notices.acknowledge(&notice).unwrap();
        });
        assert_eq!(client.unmap(ioas, range(0x1_0000, 0x4000)).unwrap().get(), 0x4000);
    });
    assert_eq!(agent.pinned_and_charged(), (0, 0));
    assert!(notices.try_receive().unwrap().is_none(), "a notice too many");
}

#[test]
fn one_thread_lets_go_while_its_own_unmap_waits() {
    let Holder { agent: _agent, client, ioas, access, mut notices } = holder();
    let mut pipeline = Pipeline::new(client, 64);
    let unmap = IoasUnmap { ioas_id: ioas, iova: Iova::new(0), length: ByteLen::new(u64::MAX) };
    let unmapping = pipeline.send(&unmap, &[], &[]).unwrap();
    poll(&mut [PollFd::new(&notices, PollFlags::IN)], None).unwrap();
    let notice = notices.try_receive().unwrap().unwrap();
    let (iova, length) = (notice.range.start(), notice.range.length());
    let unpin = AccessUnpin { access_id: access, iova, length, ..AccessUnpin::default() };
    let unpinning = pipeline.send(&unpin, &[], &[]).unwrap();
    let first = pipeline.receive().unwrap();
    assert_eq!(first.tag, unpinning, "an unpin queued behind an unmap");
    first.answer::<AccessUnpin>().unwrap();
    notices.acknowledge(&notice).unwrap();
    let second = pipeline.receive().unwrap();
    assert_eq!(second.tag, unmapping);
    assert_eq!(second.answer::<IoasUnmap>().unwrap().value.length.get(), 0x4000);
}

#[test]
fn an_access_that_answers_and_holds_on_is_named() {
    let Holder { agent, mut client, ioas, access, mut notices } = holder();
    let refused = thread::scope(|scope| {
        let answering = scope.spawn(|| {
            for count in 1.. {
                match notices.receive() {
                    Ok(notice) => notices.acknowledge(&notice).unwrap(),
                    Err(_) => return count,
                }
            }
            0
        });
        let refused = client.unmap_all(ioas).unwrap_err();
        client.access_unpin(access, range(0x1_0000, 0x4000)).unwrap();
        client.destroy(access).unwrap();
        assert!(answering.join().unwrap() > 100, "it was asked too seldom");
        refused
    });
    assert_eq!((refused.errno(), refused.code()), (Errno::DEADLK, Some("area-held-by-access")));
    assert!(refused.to_string().contains("access"), "{refused}");
    assert_eq!(client.unmap_all(ioas).unwrap().get(), 0x4000);
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

#[test]
fn an_access_that_never_answers_is_given_up_and_others_go_on() {
    let Holder { agent, mut client, ioas, access, mut notices } = holder();
    let mut bystander = Bystander::new(&agent);
    let (done, when_done) = channel();
    thread::scope(|scope| {
        scope.spawn(|| done.send(client.unmap_all(ioas).unwrap_err()).unwrap());
        let refused = loop {
            bystander.goes_on();
            if let Ok(refused) = when_done.try_recv() {
                break refused;
            }
        };
        assert_eq!((refused.errno(), refused.code()), (Errno::DEADLK, Some("area-held-by-access")));
    });
    let mut late = 0;
    while let Some(notice) = notices.try_receive().unwrap() {
        notices.acknowledge(&notice).unwrap();
        late += 1;
    }
    assert_eq!(late, 3);
    client.access_unpin(access, range(0x1_0000, 0x4000)).unwrap();
    assert_eq!(client.unmap_all(ioas).unwrap().get(), 0x4000, "late answers do harm");
}

#[test]
fn only_those_who_hold_something_there_are_asked() {
    let Holder { agent, mut client, ioas, access, mut notices } = holder();
    let memory = Memory::new(1);
    map(&mut client, ioas, memory.whole(), at(0x10_0000)).unwrap();
    let (_idle, mut to_idle) = client.access_create_with_notices(ioas, AccessKind::Pinning).unwrap();
    let (elsewhere, mut to_elsewhere) = client.access_create_with_notices(ioas, AccessKind::Pinning).unwrap();
    client.access_pin(elsewhere, range(0x10_0000, 0x1000), PinIntent::Read).unwrap();
    let mut its_channel = client.open_channel().unwrap().channel;
    thread::scope(|scope| {
        scope.spawn(|| {
            for asked in 1..=10 {
                let notice = notices.receive().unwrap();
                if asked == 10 {
                    its_channel.access_unpin(access, notice.range).unwrap();
                }
                notices.acknowledge(&notice).unwrap();
            }
        });
        assert_eq!(client.unmap(ioas, range(0x1_0000, 0x4000)).unwrap().get(), 0x4000);
    });
    assert!(to_idle.try_receive().unwrap().is_none(), "who holds nothing is asked");
    assert!(to_elsewhere.try_receive().unwrap().is_none(), "who holds something else is asked");
    client.access_unpin(elsewhere, range(0x10_0000, 0x1000)).unwrap();
    assert_eq!(client.unmap_all(ioas).unwrap().get(), 0x1000);
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

#[test]
fn the_death_of_a_user_drops_what_it_holds_at_once() {
    let Holder { agent, mut client, ioas, access, notices } = holder();
    drop(notices);
    assert!(eventually(|| agent.pinned_and_charged() == (0, 0)));
    assert_eq!(errno(client.access_pin(access, range(0x1_0000, 0x1000), PinIntent::Read)), Errno::NOENT);
    assert_eq!(client.unmap_all(ioas).unwrap().get(), 0x4000);
    client.destroy(access).unwrap();
    client.destroy(ioas).unwrap();
}

#[test]
fn a_user_that_dies_while_an_unmap_waits_for_it_lets_the_unmap_succeed() {
    let Holder { agent, client, ioas, mut notices, .. } = holder();
    let all = IoasUnmap { ioas_id: ioas, iova: Iova::new(0), length: ByteLen::new(u64::MAX) };
    post(&client, &request_of(1, &all), &[]).unwrap();
    let asked = notices.receive().unwrap();
    assert_eq!(asked.range, range(0x1_0000, 0x4000));
    let mut user = Command::new("sleep").arg("1000").stdin(Stdio::from(notices.into_fd())).spawn().unwrap();
    user.kill().unwrap();
    user.wait().unwrap();
    assert_eq!(next_answer(&client).refusal(), None);
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

#[test]
fn a_channel_ends_with_its_access_and_with_its_context() {
    let Holder { agent: _agent, mut client, ioas, access, mut notices } = holder();
    client.access_unpin(access, range(0x1_0000, 0x4000)).unwrap();
    client.destroy(access).unwrap();
    let closed = |notices: &mut NoticeChannel| {
        matches!(notices.receive(), Err(CallError::Protocol(ProtocolError::Closed)))
    };
    assert!(closed(&mut notices));
    let (_, mut second) = client.access_create_with_notices(ioas, AccessKind::Bytes).unwrap();
    drop(client);
    assert!(closed(&mut second));
}

#[test]
fn notices_that_nobody_reads_pile_up_in_a_queue_of_bounded_length_only() {
    const AREAS: u64 = 150;
    let Holder { agent, mut client, ioas, access, mut notices } = holder();
    let (memory, mut bystander) = (Memory::new(1), Bystander::new(&agent));
    let mut channels = Vec::new();
    for area in 0..AREAS {
        let start = 0x10_0000 + area * 0x1000;
        map(&mut client, ioas, memory.whole(), at(start)).unwrap();
        client.access_pin(access, range(start, 0x1000), PinIntent::Read).unwrap();
        channels.push((client.open_channel().unwrap().channel, start));
    }
    for (channel, start) in &channels {
        let unmap = IoasUnmap { ioas_id: ioas, iova: Iova::new(*start), length: ByteLen::new(0x1000) };
        post(channel, &request_of(1, &unmap), &[]).unwrap();
    }
    bystander.goes_on();
    for (channel, start) in &channels {
        assert_eq!(next_answer(channel).refusal(), Some(Errno::DEADLK), "at {start:#x}");
    }
    bystander.goes_on();
    while let Some(notice) = notices.try_receive().unwrap() {
        notices.acknowledge(&notice).unwrap();
    }
    drop(notices);
    assert!(eventually(|| client.unmap_all(ioas).is_ok()));
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

/// What no honest user sends.
fn nonsense() -> Vec<(&'static str, Vec<u8>)> {
    let reply = |command, tag| Reply::done(Echo { command, tag: Tag(tag) }, &[], &[]).encode().unwrap();
    let mut cut = reply(Notice::NUMBER, 1);
    cut.pop();
    vec![
        ("nothing", vec![]),
        ("garbage", b"let go of what?".to_vec()),
        ("a request", request(Notice::NUMBER, 1, &[32, 0, 0, 0])),
        ("half a reply", cut),
        ("tag 0", reply(Notice::NUMBER, 0)),
        ("a tag that was never used", reply(Notice::NUMBER, 1)),
        ("the largest tag", reply(Notice::NUMBER, u64::MAX)),
        ("another command", reply(IoasUnmap::NUMBER, 1)),
        ("64 KiB of zeros", vec![0; 65536]),
    ]
}

#[test]
fn who_sends_nonsense_instead_of_an_answer_counts_as_dead() {
    for (what, message) in nonsense() {
        let Holder { agent, mut client, ioas, notices, .. } = holder();
        let mut bystander = Bystander::new(&agent);
        let user = Connection::from_fd(notices.into_fd());
        post(&user, &message, &[]).unwrap();
        assert!(eventually(|| agent.pinned_and_charged() == (0, 0)), "{what}");
        assert_eq!(client.unmap_all(ioas).unwrap().get(), 0x4000, "{what}");
        bystander.goes_on();
    }
}

#[test]
fn an_answer_with_descriptors_counts_as_nonsense_and_they_are_closed() {
    let Holder { agent, client, notices, .. } = holder();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let user = Connection::from_fd(notices.into_fd());
    let reply = Reply::done(Echo { command: Notice::NUMBER, tag: Tag(1) }, &[], &[]).encode().unwrap();
    post(&user, &reply, &[writer.as_fd()]).unwrap();
    drop(writer);
    assert_eq!(rustix::io::read(&reader, &mut [0; 1]), Ok(0), "the agent keeps a descriptor");
    assert!(eventually(|| agent.pinned_and_charged() == (0, 0)));
    drop(client);
}

#[test]
fn a_flood_of_late_answers_disturbs_nobody() {
    let Holder { agent, client, ioas, access, mut notices } = holder();
    let mut bystander = Bystander::new(&agent);
    let all = IoasUnmap { ioas_id: ioas, iova: Iova::new(0), length: ByteLen::new(u64::MAX) };
    post(&client, &request_of(1, &all), &[]).unwrap();
    let notice = notices.receive().unwrap();
    let unpin = AccessUnpin {
        access_id: access,
        iova: Iova::new(0x1_0000),
        length: ByteLen::new(0x4000),
        ..AccessUnpin::default()
    };
    post(&client, &request_of(2, &unpin), &[]).unwrap();
    assert_eq!(next_answer(&client).echo.tag, Tag(2));
    for turn in 0..20_000 {
        match notices.acknowledge(&notice) {
            Ok(()) | Err(CallError::NotNow { .. }) => {}
            Err(other) => panic!("turn {turn}: {other}"),
        }
        if turn % 1000 == 0 {
            bystander.goes_on();
        }
    }
    assert_eq!(next_answer(&client).refusal(), None);
}
