//! Many requests at once, answers that nobody reads, and neighbours that must not notice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ioasd_client::connection::Connection;
use ioasd_client::ids::{AccessId, IoasId};
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::wire::frame::Tag;
use ioasd_client::wire::own::AccessUnpin;
use ioasd_client::wire::uapi::{IoasAlloc, IoasUnmap};
use rustix::io::Errno;

use crate::fixture::{Agent, eventually};
use crate::memory::{Bystander, Memory, at, client_with_domain, map};
use crate::raw::{next_answer, post, request_of};
use crate::walking::open;

const CREDITS: usize = 5;

fn unmap_all(ioas_id: IoasId) -> IoasUnmap {
    IoasUnmap { ioas_id, iova: Iova::new(0), length: ByteLen::new(u64::MAX) }
}

#[track_caller]
fn assert_next(client: &Connection, tag: u64, refused: Option<Errno>) {
    let answer = next_answer(client);
    assert_eq!((answer.echo.tag, answer.refusal()), (Tag(tag), refused));
}

#[test]
fn requests_beyond_the_credits_are_refused_at_once_and_the_rest_is_answered_in_order() {
    let agent = Agent::with(|start| start.settings.credits = CREDITS);
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(1));
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    let walking = open(client.domain_export(hwpt).unwrap());
    let mut stream = walking.stream().unwrap();
    let burst = stream.enter();
    post(&client, &request_of(100, &unmap_all(ioas)), &[]).unwrap();
    (0..8).for_each(|tag| post(&client, &request_of(tag, &IoasAlloc::default()), &[]).unwrap());
    for tag in 5..8 {
        assert_next(&client, tag, Some(Errno::AGAIN));
    }
    // Of the eight, five wait behind the one that runs.
    assert_eq!(agent.snapshot().contexts[0].stats.requests.get(), 6);
    let unpin = AccessUnpin { access_id: AccessId::new(9), length: ByteLen::new(1), ..Default::default() };
    post(&client, &request_of(200, &unpin), &[]).unwrap();
    assert_next(&client, 200, Some(Errno::NOENT));
    drop(burst);
    assert_next(&client, 100, None);
    (0..5).for_each(|tag| assert_next(&client, tag, None));
    post(&client, &request_of(300, &IoasAlloc::default()), &[]).unwrap();
    assert_next(&client, 300, None);
    let counts = agent.snapshot().requests;
    let over = counts.iter().find(|count| count.result == "out-of-credit").expect("they are counted");
    assert_eq!((over.command, over.count), ("unread", 3));
    assert!(eventually(|| agent.snapshot().contexts[0].stats.requests.get() == 0));
}

/// Posts until the agent has hung up.
fn flood_until_hung_up(client: &Connection, request: &[u8]) -> bool {
    eventually(|| {
        loop {
            match post(client, request, &[]) {
                Ok(()) => {}
                Err(Errno::AGAIN) => return false,
                Err(Errno::PIPE | Errno::CONNRESET) => return true,
                Err(other) => panic!("cannot send: {other}"),
            }
        }
    })
}

#[test]
fn who_floods_the_agent_and_reads_no_answers_is_hung_up_on_and_taken_down() {
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(8));
    let mut bystanders = [(); 4].map(|()| Bystander::new(&agent));
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    assert!(flood_until_hung_up(&client, &request_of(1, &IoasAlloc::default())));
    bystanders.iter_mut().for_each(Bystander::goes_on);
    assert!(eventually(|| agent.snapshot().contexts.len() == bystanders.len()), "its context is still there");
    assert!(eventually(|| agent.pinned_and_charged() == (0, 0)));
    bystanders.iter_mut().for_each(Bystander::goes_on);
    drop(client);
}

#[test]
fn requests_without_credit_pile_up_no_more_than_others() {
    let agent = Agent::start();
    let (client, mut bystander) = (agent.connect(), Bystander::new(&agent));
    let unpin = AccessUnpin { access_id: AccessId::new(9), length: ByteLen::new(1), ..Default::default() };
    assert!(flood_until_hung_up(&client, &request_of(1, &unpin)));
    bystander.goes_on();
}

#[test]
fn a_client_that_only_does_not_read_keeps_its_context_and_disturbs_nobody() {
    let agent = Agent::start();
    let ((client, ..), mut bystanders) =
        (client_with_domain(&agent), [(); 4].map(|()| Bystander::new(&agent)));
    (0..40).for_each(|tag| post(&client, &request_of(tag, &IoasAlloc::default()), &[]).unwrap());
    bystanders.iter_mut().for_each(Bystander::goes_on);
    (0..40).for_each(|tag| assert_next(&client, tag, None));
}

/// Keeps more requests under way than there are credits, without a pause, until told to stop.
fn never_pause(client: &Connection, enough: &AtomicBool) {
    const UNDER_WAY: u64 = 100;
    let request = request_of(1, &IoasAlloc { flags: 1, ..Default::default() });
    (0..UNDER_WAY).for_each(|_| post(client, &request, &[]).unwrap());
    while !enough.load(Ordering::Relaxed) {
        let refused = next_answer(client).refusal();
        assert!(matches!(refused, Some(Errno::OPNOTSUPP | Errno::AGAIN)), "{refused:?}");
        post(client, &request, &[]).unwrap();
    }
}

#[test]
fn a_client_that_never_pauses_leaves_turns_to_others_of_its_arbiter() {
    let agent = Agent::with(|start| start.arbiters = 1);
    let (busy, mut bystander) = (agent.connect(), Bystander::new(&agent));
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| never_pause(&busy, &enough));
        (0..50).for_each(|_| bystander.goes_on());
        enough.store(true, Ordering::Relaxed);
    });
}
