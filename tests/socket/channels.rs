//! Leases and channels: how long a context lives, and who waits for whom.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;

use ioasd_client::connection::Connection;
use ioasd_client::ids::IoasId;
use ioasd_client::lease::Lease;
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::wire::channels::{ChannelOpen, Notice};
use ioasd_client::wire::command::Command as _;
use ioasd_client::wire::frame::Tag;
use ioasd_client::wire::uapi::{IoasAlloc, IoasUnmap};
use rustix::io::Errno;

use crate::fixture::{Agent, errno, eventually};
use crate::memory::{Bystander, Memory, at, client_with_domain, map};
use crate::raw::{call_argument, next_answer, post, refusal, request_of};
use crate::walking::open;

fn contexts(agent: &Agent) -> usize {
    agent.snapshot().contexts.len()
}

/// A copy of a descriptor.
fn copy(fd: &impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}

#[test]
fn channels_share_the_objects_of_their_context() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let mut second = client.open_channel().unwrap();
    let mut third = second.channel.open_channel().unwrap().channel;
    assert_eq!(second.credits, 64);
    let ioas = client.ioas_alloc().unwrap();
    assert_eq!(second.channel.ioas_alloc().unwrap(), IoasId::new(2));
    third.destroy(ioas).unwrap();
    assert_eq!(errno(client.destroy(ioas)), Errno::NOENT);
    assert_eq!(contexts(&agent), 1);
}

#[test]
fn the_context_ends_with_its_last_lease_whatever_channels_are_left() {
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(4));
    let mut channel = client.open_channel().unwrap().channel;
    map(&mut channel, ioas, memory.whole(), at(0x1000)).unwrap();
    let lease = client.into_lease();
    let dup = copy(&lease);
    drop(lease);
    channel.ioas_alloc().unwrap();
    assert_eq!(agent.pinned_and_charged(), (0x4000, 0x4000));
    drop(dup);
    agent.assert_clean();
    assert!(channel.ioas_alloc().is_err(), "a channel outlived its context");
}

#[test]
fn a_channel_that_closes_ends_nothing_but_itself() {
    let agent = Agent::with(|start| start.settings.channels = 2);
    let (mut client, ioas, _) = client_with_domain(&agent);
    for _ in 0..20 {
        let mut channels = [(); 2].map(|()| client.open_channel().unwrap().channel);
        let refused = client.open_channel().unwrap_err();
        assert_eq!((refused.errno(), refused.code()), (Errno::MFILE, Some("too-many-channels")));
        assert_eq!(errno(channels[0].destroy(ioas)), Errno::BUSY);
        drop(channels);
        assert!(eventually(|| client.open_channel().is_ok()), "closed channels still count");
        assert!(eventually(|| client.open_channel().map(drop).is_ok()));
        thread::yield_now();
    }
    assert_eq!(contexts(&agent), 1);
}

#[test]
fn a_forked_copy_of_the_lease_keeps_the_context_and_dies_with_its_process() {
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(4));
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    let mut child = Command::new("sleep").arg("1000").stdin(Stdio::from(copy(&client))).spawn().unwrap();
    drop(client);
    let mut bystander = Bystander::new(&agent);
    bystander.goes_on();
    assert_eq!((contexts(&agent), agent.pinned_and_charged()), (2, (0x4000, 0x4000)));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(eventually(|| contexts(&agent) == 1));
    assert!(eventually(|| agent.pinned_and_charged() == (0, 0)));
}

#[test]
fn threads_share_a_lease_and_each_gets_a_channel() {
    const THREADS: usize = 8;
    const TURNS: usize = 25;
    let agent = Agent::start();
    let lease = Lease::connect(&agent.socket()).unwrap();
    let open_one = || {
        let mut channel = lease.open_channel().unwrap();
        let ioas = channel.ioas_alloc().unwrap();
        channel.destroy(ioas).unwrap();
    };
    thread::scope(|scope| {
        (0..THREADS).for_each(|_| drop(scope.spawn(|| (0..TURNS).for_each(|_| open_one()))));
    });
    assert_eq!(contexts(&agent), 1);
}

#[test]
fn a_channel_that_waits_for_a_walker_delays_no_other() {
    let agent = Agent::start();
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(4));
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    let mut stream = walking.stream().unwrap();
    let mut other = client.open_channel().unwrap().channel;
    let burst = stream.enter();
    let all = IoasUnmap { ioas_id: ioas, iova: Iova::new(0), length: ByteLen::new(u64::MAX) };
    post(&client, &request_of(1, &all), &[]).unwrap();
    post(&client, &request_of(2, &IoasAlloc::default()), &[]).unwrap();
    for _ in 0..100 {
        let ioas = other.ioas_alloc().unwrap();
        other.destroy(ioas).unwrap();
    }
    drop(burst);
    assert_eq!((next_answer(&client).echo.tag, next_answer(&client).echo.tag), (Tag(1), Tag(2)));
}

#[test]
fn credits_are_those_of_a_channel() {
    let agent = Agent::with(|start| start.settings.credits = 2);
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(1));
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    let mut stream = walking.stream().unwrap();
    let opened = client.open_channel().unwrap();
    assert_eq!(opened.credits, 2);
    let burst = stream.enter();
    let all = IoasUnmap { ioas_id: ioas, iova: Iova::new(0), length: ByteLen::new(u64::MAX) };
    post(&client, &request_of(1, &all), &[]).unwrap();
    (2..5).for_each(|tag| post(&client, &request_of(tag, &IoasAlloc::default()), &[]).unwrap());
    assert_eq!(next_answer(&client).refusal(), Some(Errno::AGAIN));
    post(&opened.channel, &request_of(9, &IoasAlloc::default()), &[]).unwrap();
    assert_eq!(next_answer(&opened.channel).refusal(), None);
    drop(burst);
    (1..4).for_each(|tag| assert_eq!(next_answer(&client).echo.tag, Tag(tag)));
}

#[test]
fn a_context_that_ends_while_its_channels_work_takes_all_of_it_down() {
    let (agent, memory) = (Agent::start(), Memory::new(64));
    for seed in 0..50 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut client, ioas, _) = client_with_domain(&agent);
        let mut channels: Vec<Connection> = (0..4).map(|_| client.open_channel().unwrap().channel).collect();
        for (channel, start) in channels.iter_mut().zip([0x10_0000, 0x20_0000, 0x30_0000, 0x40_0000]) {
            map(channel, ioas, memory.whole(), at(start)).unwrap();
        }
        let all = IoasUnmap { ioas_id: ioas, iova: Iova::new(0), length: ByteLen::new(u64::MAX) };
        for channel in &channels {
            let message =
                if rng.bool() { request_of(1, &all) } else { request_of(1, &ChannelOpen::default()) };
            post(channel, &message, &[]).unwrap();
        }
        drop(client);
        eprintln!("seed {seed}");
        agent.assert_clean();
    }
}

#[test]
fn a_channel_can_be_left_to_another_process_and_dies_with_it_alone() {
    let agent = Agent::with(|start| start.settings.channels = 1);
    let mut client = agent.connect();
    let channel = client.open_channel().unwrap().channel;
    let mut child = Command::new("sleep").arg("1000").stdin(Stdio::from(channel.into_fd())).spawn().unwrap();
    assert_eq!(errno(client.open_channel()), Errno::MFILE);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(eventually(|| client.open_channel().is_ok()));
    assert_eq!(contexts(&agent), 1);
}

#[test]
fn commands_about_channels_keep_the_rules_of_all_commands() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let mut refused = |open: ChannelOpen| refusal(&mut client, &open, &[]);
    assert_eq!(refused(ChannelOpen { flags: 1, ..Default::default() }), Some(Errno::OPNOTSUPP));
    assert_eq!(refused(ChannelOpen { reserved: 1, ..Default::default() }), Some(Errno::OPNOTSUPP));
    let memory = Memory::new(1);
    let surplus = refusal(&mut client, &ChannelOpen::default(), &[memory.as_fd()]);
    assert_eq!(surplus, Some(Errno::INVAL));
    let notice = call_argument(&mut client, Notice::NUMBER, &[32, 0, 0, 0]);
    assert_eq!(notice.refusal(), Some(Errno::NOTTY), "a notice is not for the agent");
}
