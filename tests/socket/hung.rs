//! Walkers that do not leave: stopped, or walking on inside a burst without end, under each policy.

use std::os::fd::OwnedFd;
use std::time::Duration;

use ioasd::actors::journal::Kind;
use ioasd::actors::retirement::{HungPolicy, HungSettings};
use ioasd_client::calls::Iommu;
use ioasd_client::connection::Connection;
use ioasd_client::error::CallError;
use ioasd_client::ids::{DeviceId, IoasId};
use rustix::io::{Errno, dup};
use rustix::process::Signal;

use crate::fixture::{Agent, errno, eventually};
use crate::helper::Helper;
use crate::memory::{Memory, at, attach_new, map, range};

/// Long enough that a burst of an honest walker ends before it, short enough to be waited for.
const DEADLINE: Duration = Duration::from_millis(200);

fn agent(policy: HungPolicy) -> Agent {
    let alarm_after = DEADLINE / 2;
    Agent::with(|settings| settings.walkers = HungSettings { alarm_after, policy, deadline: DEADLINE })
}

/// A client with four pages mapped at 0x10000 into a domain of one device.
struct Mapped {
    client: Connection,
    ioas: IoasId,
    device: DeviceId,
    memory: Memory,
    channel: OwnedFd,
}

fn mapped(agent: &Agent) -> Mapped {
    let (mut client, memory) = (agent.connect(), Memory::new(4));
    let ioas = client.ioas_alloc().unwrap();
    let (device, hwpt) = attach_new(&mut client, ioas, Iommu::Shared);
    map(&mut client, ioas, memory.whole(), at(0x1_0000)).unwrap();
    let channel = client.domain_export(hwpt).unwrap();
    Mapped { client, ioas, device, memory, channel }
}

/// Asserts that a request was given up on because of this walker.
#[track_caller]
fn assert_names<T>(result: Result<T, CallError>, walker: &Helper) {
    let Err(CallError::Refused { errno, code, text, .. }) = result else { panic!("it was not refused") };
    assert_eq!((errno, &*code), (Errno::TIMEDOUT, "walker-hung"), "{text}");
    assert!(text.contains(&format!("process {}", walker.pid().as_raw_pid())), "{text}");
}

fn kinds(agent: &Agent) -> Vec<Kind> {
    let events = agent.registry().journal().since(0, usize::MAX).events;
    events.into_iter().map(|event| event.what.kind).filter(|kind| *kind != Kind::Opened).collect()
}

#[test]
fn an_unmap_that_fails_names_the_walker_keeps_its_range_and_ends_on_its_own() {
    let agent = agent(HungPolicy::Fail);
    let Mapped { mut client, ioas, memory, channel, .. } = mapped(&agent);
    let walker = Helper::walker_in_burst(channel);
    walker.stop();
    assert_names(client.unmap(ioas, range(0x1_0000, 0x4000)), &walker);
    let [rest] = &agent.registry().operations()[..] else { panic!("what goes on is not listed") };
    let trouble = rest.stats.subject().trouble.unwrap();
    assert!(
        rest.stats.is_answered() && trouble.contains(&format!("process {}", walker.pid().as_raw_pid())),
        "{trouble}"
    );
    let retiring = agent.snapshot().pages[0].stats.retiring.get().get();
    assert_eq!((agent.pinned_and_charged(), retiring), ((0x4000, 0x4000), 0x4000));

    assert_eq!(errno(map(&mut client, ioas, memory.slice(0, 0x1000), at(0x1_1000))), Errno::EXIST);
    map(&mut client, ioas, memory.slice(0, 0x1000), at(0x9_0000)).unwrap();
    assert_names(client.unmap(ioas, range(0x9_0000, 0x1000)), &walker);

    walker.resume();
    walker.kill();
    assert!(eventually(|| agent.pinned_and_charged() == (0, 0)), "what retired was not let go of");
    map(&mut client, ioas, memory.slice(0, 0x1000), at(0x1_1000)).unwrap();
    assert_eq!(client.unmap_all(ioas).unwrap().get(), 0x1000);
    let late = [Kind::WalkersLate, Kind::Refused, Kind::WalkersLeft];
    assert!(late.iter().all(|kind| kinds(&agent).contains(kind)), "{:?}", kinds(&agent));
    let told = agent.registry().journal().told();
    assert!(told.iter().any(|(kind, times)| *kind == Kind::WalkersLate && *times > 0), "{told:?}");
}

#[test]
fn a_walker_that_loops_and_is_late_finds_its_memory_as_it_was_until_it_ends() {
    let agent = agent(HungPolicy::Fail);
    let Mapped { mut client, ioas, memory, channel, .. } = mapped(&agent);
    let walker = Helper::looping_walker(channel);
    assert_names(client.unmap_all(ioas), &walker);
    assert_eq!(errno(client.unmap_all(ioas)), Errno::BUSY, "it retires");
    map(&mut client, ioas, memory.whole(), at(0x80_0000)).unwrap();
    assert_names(client.unmap(ioas, range(0x80_0000, 0x4000)), &walker);
    walker.kill();
    assert!(eventually(|| agent.pinned_and_charged() == (0, 0)));
}

#[test]
fn a_detach_a_replace_and_a_destroy_that_fail_are_done_nevertheless() {
    let agent = agent(HungPolicy::Fail);
    let Mapped { mut client, ioas, device, channel, .. } = mapped(&agent);
    let walker = Helper::walker_in_burst(channel);
    assert_names(client.device_detach(device), &walker);
    let hwpt = client.device_attach(device, ioas).unwrap();
    let second = Helper::walker_in_burst(client.domain_export(hwpt).unwrap());
    let other = client.ioas_alloc().unwrap();
    assert_names(client.device_replace(device, other), &second);
    assert_eq!(agent.pinned_and_charged(), (0x4000, 0x4000), "the address space still maps it");
    let by_hand = client.hwpt_alloc(device, ioas, None).unwrap();
    let third = Helper::walker_in_burst(client.domain_export(by_hand).unwrap());
    assert_names(client.destroy(by_hand), &third);
    assert_eq!(errno(client.destroy(by_hand)), Errno::NOENT);
    assert_eq!(errno(client.destroy(ioas)), Errno::BUSY, "domains that end still show it");
    for walker in [walker, second, third] {
        walker.kill();
    }
    assert!(eventually(|| client.destroy(ioas).is_ok()), "the domains did not end");
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

#[test]
fn a_client_that_leaves_meanwhile_is_taken_down_when_the_walker_has_left() {
    let agent = agent(HungPolicy::Fail);
    let Mapped { mut client, ioas, channel, .. } = mapped(&agent);
    let walker = Helper::walker_in_burst(channel);
    assert_names(client.unmap_all(ioas), &walker);
    drop(client);
    assert!(eventually(|| kinds(&agent).contains(&Kind::WalkersLate)));
    assert_eq!(agent.pinned_and_charged(), (0x4000, 0x4000));
    walker.kill();
    agent.assert_clean();
}

#[test]
fn a_walker_that_does_not_leave_is_killed_whether_it_loops_or_is_stopped() {
    let agent = agent(HungPolicy::Kill);
    let Mapped { mut client, ioas, memory, channel, .. } = mapped(&agent);
    let kept = dup(&channel).unwrap();
    let (looping, stopped) =
        (Helper::looping_walker(dup(&channel).unwrap()), Helper::walker_in_burst(channel));
    stopped.stop();
    assert_eq!(client.unmap_all(ioas).unwrap().get(), 0x4000);
    for killed in [looping, stopped] {
        assert_eq!(killed.ended_by(), Some(Signal::KILL.as_raw()));
    }
    assert_eq!((agent.pinned_and_charged(), kinds(&agent).contains(&Kind::WalkerKilled)), ((0, 0), true));
    map(&mut client, ioas, memory.whole(), at(0x1_0000)).unwrap();
    let honest = Helper::walker_in_burst(kept);
    honest.kill();
    client.unmap_all(ioas).unwrap();
}

#[test]
fn the_end_of_its_process_ends_the_wait_for_a_walker_whose_channel_others_hold() {
    let agent = Agent::start();
    let Mapped { mut client, ioas, channel, .. } = mapped(&agent);
    let kept = dup(&channel).unwrap();
    let walker = Helper::walker_in_burst(channel);
    walker.stop();
    walker.kill();
    assert_eq!(client.unmap_all(ioas).unwrap().get(), 0x4000);
    drop(kept);
}
