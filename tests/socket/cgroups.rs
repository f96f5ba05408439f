//! Memory control groups: the kernel charges memory to the group of whoever touches it first, and pins do not move that. A
//! client that wants more than its group may have is killed by the kernel, whatever it has pinned; then nothing of it is held,
//! and its group gets all back.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use ioasd_client::calls::Iommu;
use ioasd_client::connection::Connection;
use ioasd_client::units::PAGE_SIZE;
use rustix::process::Signal;

use crate::fixture::{Agent, eventually};
use crate::group::Group;
use crate::helper::{GROUP, Helper, own_socket, ready};
use crate::memory::{Bystander, Memory, at, attach_new, map};

/// What a client has pinned when its group gets full.
const PINNED: u64 = 8 << 20;

/// What its group may have.
const MAX: u64 = 48 << 20;

#[test]
fn a_client_that_its_group_kills_leaves_no_pin_and_its_group_gets_all_back() {
    let group = match Group::new("client", MAX) {
        Ok(group) => group,
        Err(why) => {
            ioasd::skip!("a_client_that_its_group_kills_leaves_no_pin_and_its_group_gets_all_back: {why}");
            return;
        }
    };
    let agent = Agent::start();
    let mut bystander = Bystander::new(&agent);
    let others = agent.pinned_and_charged().0;
    let (input, go_on) = std::io::pipe().unwrap();
    let client = Helper::in_group("glutton", &agent.socket(), group.folder(), OwnedFd::from(input));
    assert_eq!(agent.pinned_and_charged(), (others + PINNED, others + PINNED));
    let full = group.usage();
    assert!((PINNED..=MAX).contains(&full), "the group has {full} bytes");
    drop(go_on);
    assert_eq!(client.ended_by(), Some(Signal::KILL.as_raw()), "the kernel did not kill it");
    assert!(
        eventually(|| agent.pinned_and_charged() == (others, others)),
        "a pin of the dead client is left"
    );
    assert!(
        eventually(|| group.usage() + PINNED / 2 <= full),
        "its group still has {} of {full} bytes",
        group.usage()
    );
    bystander.goes_on();
}

/// What such a client does: maps and pins, says so, and when it is told to go on it wants more than there is.
pub(crate) fn play_glutton() {
    let group = PathBuf::from(std::env::var_os(GROUP).unwrap());
    fs::write(group.join("cgroup.procs"), std::process::id().to_string()).unwrap();
    let mut client = Connection::connect(&own_socket()).unwrap();
    let ioas = client.ioas_alloc().unwrap();
    attach_new(&mut client, ioas, Iommu::Shared);
    let memory = Memory::new(PINNED / PAGE_SIZE);
    map(&mut client, ioas, memory.whole(), at(0x10_0000)).unwrap();
    ready();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    let more: Vec<Memory> = (0..).map(|_| Memory::new(256)).take(1024).collect();
    panic!("{} MiB were there", more.len());
}
