//! The end of an agent as a process: what SIGTERM and SIGINT do, and what a second one does.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]

#[path = "agent_process/mod.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod agent_process;

use std::os::fd::{AsFd, OwnedFd};

use ioasd_client::calls::{ExportChannel, FileSlice, Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::formats::FormatId;
use ioasd_client::units::{ByteLen, Iova, Permission};
use ioasd_client::walker::Walker;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::Signal;

use agent_process::{Agent, wait_until};

/// An agent whose contexts may take `drain` to leave and `close` to be taken down.
fn start(drain: &str, close: &str) -> Agent {
    Agent::start(&format!("drain_timeout = {drain:?}\nclose_timeout = {close:?}\n"), "")
}

/// Sends a signal and waits until the agent has begun to stop.
fn begin_to_stop(agent: &Agent, signal: Signal) {
    agent.signal(signal);
    wait_until("the agent is not ready any more", || agent.status("/readyz") == Some(503));
    assert_eq!(agent.status("/livez"), Some(200));
    wait_until("nobody is accepted", || Connection::connect(&agent.path("ioasd.sock")).is_err());
}

fn memory() -> OwnedFd {
    let file = memfd_create("drain-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    assert_eq!(rustix::io::pwrite(&file, &[7; 0x4000], 0), Ok(0x4000));
    fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    file
}

/// Maps four pages into a new table; gives the export channel of its domain.
fn map_and_export(client: &mut Connection) -> OwnedFd {
    let ioas = client.ioas_alloc().unwrap();
    let device = client.device_create(FormatId::AmdV1, Iommu::Own).unwrap();
    let hwpt = client.device_attach(device, ioas).unwrap();
    let file = memory();
    let slice = FileSlice { file: file.as_fd(), offset: ByteLen::new(0), length: ByteLen::new(0x4000) };
    client.map_file(ioas, slice, Permission::ReadWrite, Placement::Fixed(Iova::new(0x1000))).unwrap();
    client.domain_export(hwpt).unwrap()
}

#[test]
fn contexts_may_leave_on_their_own_and_work_until_then() {
    let mut agent = start("1h", "1h");
    let mut client = agent.connect();
    drop(map_and_export(&mut client));
    begin_to_stop(&agent, Signal::TERM);
    client.ioas_alloc().unwrap();
    drop(client);
    let (code, log) = agent.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("the grace is over") && log.contains("Empty"), "{log}");
    assert!(!agent.path("ioasd.sock").exists());
}

#[test]
fn a_second_signal_skips_the_grace_and_those_left_are_hung_up_on() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let mut agent = start("1h", "1h");
        let mut client = agent.connect();
        drop(map_and_export(&mut client));
        begin_to_stop(&agent, first);
        client.ioas_alloc().unwrap();
        agent.signal(second);
        let (code, log) = agent.ended();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("Hurried") && log.contains("every context is taken down"), "{log}");
        assert!(client.ioas_alloc().is_err(), "it was hung up on");
    }
}

#[test]
fn when_the_grace_is_over_those_left_are_hung_up_on() {
    let mut agent = start("50ms", "1h");
    let mut client = agent.connect();
    drop(map_and_export(&mut client));
    agent.signal(Signal::TERM);
    let (code, log) = agent.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("Late"), "{log}");
    assert!(client.ioas_alloc().is_err());
}

#[test]
fn a_walker_that_never_leaves_does_not_keep_the_agent_but_is_its_exit_code() {
    let mut agent = start("0s", "200ms");
    let mut client = agent.connect();
    let walker = Walker::attach(ExportChannel::from_fd(map_and_export(&mut client))).unwrap();
    let mut stream = walker.stream().unwrap();
    let burst = stream.enter();
    agent.signal(Signal::TERM);
    let (code, log) = agent.ended();
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains("contexts cannot be taken down"), "{log}");
    assert!(log.contains("0x4000 bytes were still pinned at the end"), "{log}");
    drop(burst);
}
