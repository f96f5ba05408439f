//! Agents in processes of their own, under limits that bind: what they may hold, what they refuse, and what they say.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]

mod agent;
mod group;

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use ioasd_client::calls::{FileSlice, Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::error::CallError;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::IoasId;
use ioasd_client::units::{ByteLen, PAGE_SIZE, Permission};
use parking_lot::Mutex;
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::agent::{Agent, Lock};
use crate::group::Group;

/// The kernel counts long-term pins by user, over all its processes: agents under a limit run one at a time.
static LIMITED: Mutex<()> = Mutex::new(());

fn memory(pages: u64) -> OwnedFd {
    let file = memfd_create("client", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&file, pages * PAGE_SIZE).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, pages * PAGE_SIZE).unwrap();
    file
}

fn whole(file: &OwnedFd, pages: u64) -> FileSlice<'_> {
    FileSlice { file: file.as_fd(), offset: ByteLen::new(0), length: ByteLen::new(pages * PAGE_SIZE) }
}

/// A client with an address space that a device is attached to, so that a map pins.
fn client(agent: &Agent) -> (Connection, IoasId) {
    let mut client = Connection::connect(&agent.socket()).unwrap();
    let ioas = client.ioas_alloc().unwrap();
    let device = client.device_create(FormatId::AmdV1, Iommu::Own).unwrap();
    client.device_attach(device, ioas).unwrap();
    (client, ioas)
}

fn map(client: &mut Connection, ioas: IoasId, file: &OwnedFd, pages: u64) -> Result<(), CallError> {
    client.map_file(ioas, whole(file, pages), Permission::ReadWrite, Placement::Any).map(drop)
}

#[track_caller]
fn assert_over_memlock(refused: &CallError, strength: &str) {
    let CallError::Refused { errno, code, text, .. } = refused else { panic!("{refused}") };
    assert_eq!((*errno, code.as_str()), (Errno::NOMEM, "source-over-memlock"), "{text}");
    for part in
        ["RLIMIT_MEMLOCK of the agent is 1048576 bytes", "2097152 more are needed", strength, "CAP_IPC_LOCK"]
    {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

/// Both strengths that the kernel counts. 256 pages may be locked; 16 are held, 512 more are refused, 100 go.
#[test]
fn pins_are_refused_at_the_limit_of_the_agent_and_leave_nothing_behind() {
    let _alone = LIMITED.lock();
    for strength in ["longterm", "locked"] {
        let Some(agent) = Agent::start("pins_are_refused_at_the_limit", strength, Lock::Kibibytes(1024))
        else {
            continue;
        };
        let (mut client, ioas) = client(&agent);
        map(&mut client, ioas, &memory(16), 16).unwrap();
        assert_eq!(agent.held(strength), 16 * PAGE_SIZE);
        assert_over_memlock(&map(&mut client, ioas, &memory(512), 512).unwrap_err(), strength);
        assert_eq!(agent.held(strength), 16 * PAGE_SIZE);
        map(&mut client, ioas, &memory(100), 100).unwrap();
        assert_eq!(agent.held(strength), 116 * PAGE_SIZE);
        assert_eq!(agent.kernel(strength), 116 * PAGE_SIZE, "the kernel counts otherwise");
        drop(client);
        agent.ends_with_nothing();
    }
}

#[test]
fn an_agent_that_may_lock_anything_holds_what_is_over_the_limit() {
    if !rustix::process::geteuid().is_root() {
        ioasd::skip!("an_agent_that_may_lock_anything: not root, so the limit binds");
        return;
    }
    for strength in ["longterm", "locked"] {
        let Some(agent) = Agent::start("an_agent_that_may_lock_anything", strength, Lock::Anything) else {
            continue;
        };
        let (mut client, ioas) = client(&agent);
        map(&mut client, ioas, &memory(4096), 4096).unwrap();
        assert_eq!((agent.held(strength), agent.kernel(strength)), (4096 * PAGE_SIZE, 4096 * PAGE_SIZE));
        drop(client);
        agent.ends_with_nothing();
    }
}

/// 256 pages may be locked: sources get what holds all of them, and say what that is.
#[test]
fn auto_gives_each_source_the_first_strength_that_holds_all_of_it() {
    let _alone = LIMITED.lock();
    let Some(agent) = Agent::start("auto_gives_each_source", "auto", Lock::Kibibytes(1024)) else { return };
    if agent.has_swap() {
        ioasd::skip!("auto_gives_each_source: the host has swap, so nothing falls to resident");
        return;
    }
    let (mut client, ioas) = client(&agent);
    for pages in [200, 250, 4096] {
        map(&mut client, ioas, &memory(pages), pages).unwrap();
    }
    assert_eq!(agent.pinned("resident"), 4096 * PAGE_SIZE);
    assert_eq!(agent.pinned("longterm") + agent.pinned("locked"), 450 * PAGE_SIZE);
    drop(client);
    agent.ends_with_nothing();
}

#[test]
fn a_map_for_writing_of_a_file_that_cannot_be_written_is_eperm() {
    let _alone = LIMITED.lock();
    let Some(agent) = Agent::start("a_map_for_writing", "auto", Lock::Anything) else { return };
    let (mut client, ioas) = client(&agent);
    let file = memory(4);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    let read_only = OwnedFd::from(std::fs::File::open(path).unwrap());
    let sealed = memory(4);
    fcntl_add_seals(&sealed, SealFlags::FUTURE_WRITE).unwrap();
    for file in [&read_only, &sealed] {
        let refused = map(&mut client, ioas, file, 4).unwrap_err();
        let CallError::Refused { errno, .. } = refused else { panic!("{refused}") };
        assert_eq!(errno, Errno::PERM);
        client.map_file(ioas, whole(file, 4), Permission::Read, Placement::Any).unwrap();
    }
    assert_eq!(agent.pinned("longterm"), 0, "what cannot be written is not pinned as if for writing");
    drop(client);
    agent.ends_with_nothing();
}

#[test]
fn an_agent_that_cannot_do_what_it_is_told_does_not_start() {
    let said = Agent::refuses_to_start(
        "physical frames",
        "strength = \"resident\"\nframes = \"physical\"\n",
        Lock::Anything,
    );
    assert!(said.contains("physical frames need long-term pins"), "{said}");
    let said = Agent::refuses_to_start("no locks", "strength = \"locked\"\n", Lock::Kibibytes(0));
    assert!(said.contains("strength locked is set but not possible"), "{said}");
}

/// The pages that the agent allocates for a client count in the agent's own control group. When that is full the kernel kills the
/// agent: the client is hung up on, and what the file had is given back with it.
#[test]
fn an_agent_that_fills_its_own_control_group_is_killed_and_its_group_gets_all_back() {
    const MAX: u64 = 64 << 20;
    let name = "an_agent_that_fills_its_own_control_group_is_killed_and_its_group_gets_all_back";
    let group = match Group::new("agent", MAX) {
        Ok(group) => group,
        Err(why) => {
            ioasd::skip!("{name}: {why}");
            return;
        }
    };
    let engine = "strength = \"resident\"\n[limits]\nfirst_touch_bytes_per_context = \"1GiB\"\n";
    let mut agent = Agent::in_group(group.folder(), engine);
    let idle = group.usage();
    let (mut client, ioas) = client(&agent);
    let file = memfd_create("holes", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 4 * MAX).unwrap();
    map(&mut client, ioas, &file, 4096).unwrap();
    // The kernel counts in batches for each CPU, and the agent itself may use less than at first: half tells enough.
    let touched = group.usage().saturating_sub(idle);
    assert!(
        touched >= 2048 * PAGE_SIZE,
        "only {touched} bytes of first touch are charged to the agent's group"
    );
    let hung_up = map(&mut client, ioas, &file, 4 * MAX / PAGE_SIZE).unwrap_err();
    assert!(!matches!(hung_up, CallError::Refused { .. }), "{hung_up}");
    assert_eq!(agent.ended_by(), Some(Signal::KILL.as_raw()), "the kernel did not kill it");
    drop(file);
    let deadline = Instant::now() + Duration::from_secs(20);
    while group.usage() > idle {
        assert!(Instant::now() < deadline, "the group has {} bytes still, {idle} at first", group.usage());
        std::thread::sleep(Duration::from_millis(5));
    }
}
