//! Rights: what a tenant may map, how it is held, what its frames are, and mock hardware; what a refusal says, and that it
//! says the same to the client, in the journal and where it is foretold.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use ioasd::actors::messages::questions::{PayerOf, PayerReport};
use ioasd::actors::mock_hardware::Hardware;
use ioasd::actors::policy::Rule;
use ioasd::actors::rights::{Right, Rights};
use ioasd::error::Coded;
use ioasd::storage::among::Among;
use ioasd::storage::ledger::limits::Limit;
use ioasd::storage::source::{FrameSetting, SourceKind, Strength, StrengthSetting};
use ioasd_client::connection::Connection;
use ioasd_client::error::CallError;
use ioasd_client::ids::IoasId;
use ioasd_client::units::{ByteLen, Iova, UserAddr};
use ioasd_client::wire::mock::{OP_ADD_RESERVED, TestCmd};
use ioasd_client::wire::uapi::IoasMap;
use rustix::fs::{MemfdFlags, Mode, OFlags, ftruncate, memfd_create, open, unlink};
use rustix::io::Errno;

use crate::accounts::{journal, vms};
use crate::fixture::Agent;
use crate::memory::{Memory, at, client_with_domain, map, slice};
use crate::raw::refusal;

/// An agent to whose every client these rights belong, with mock hardware.
fn agent(rights: Rights) -> Agent {
    Agent::with(|start| {
        vms(start, Limit::NONE, rights);
        start.settings.hardware = Hardware::Mock;
    })
}

fn only<T: ioasd::storage::among::Worded>(some: &[T]) -> Among<T> {
    some.iter().copied().collect()
}

/// What a client is told, with its code.
fn told(refused: &CallError) -> (Errno, &str, &str) {
    let CallError::Refused { errno, code, text, .. } = refused else { panic!("{refused:?}") };
    (*errno, code.as_str(), text.as_str())
}

/// What the owner of the first context foretells of a map.
fn foretold(agent: &Agent, source: Option<SourceKind>, strength: Option<Strength>) -> PayerReport {
    let stats = Arc::clone(&agent.snapshot().contexts[0].stats);
    let ask = async { stats.payer.ask(PayerOf { source, strength }).await };
    actix_rt::System::new().block_on(ask).unwrap()
}

fn who() -> String {
    format!("host, tenant vms, user {}, context 1", rustix::process::getuid().as_raw())
}

/// A file of a tmpfs with a path, if this host has one where it may be.
fn file_with_a_path() -> Option<OwnedFd> {
    let path = format!("/dev/shm/ioasd-test-{}", std::process::id());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = open(&path, flags, Mode::RUSR | Mode::WUSR).ok()?;
    unlink(&path).unwrap();
    let is_tmpfs = rustix::fs::fstatfs(&file).unwrap().f_type == 0x0102_1994;
    ftruncate(&file, 0x1000).unwrap();
    is_tmpfs.then_some(file)
}

fn of_huge_pages() -> Option<OwnedFd> {
    let file = memfd_create("huge", MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB).ok()?;
    ftruncate(&file, 0x20_0000).ok()?;
    Some(file)
}

/// IOAS_MAP of a page of this process.
fn map_own_memory(client: &mut Connection, ioas: IoasId) -> Option<Errno> {
    let memory = [0_u8; 0x2000];
    let map = IoasMap {
        flags: 7,
        ioas_id: ioas,
        user_va: UserAddr::new((memory.as_ptr().addr() as u64).next_multiple_of(0x1000)),
        length: ByteLen::new(0x1000),
        iova: Iova::new(0x50_0000),
        ..IoasMap::default()
    };
    refusal(client, &map, &[])
}

#[test]
fn who_may_map_memfds_alone_is_refused_all_else_with_one_text_for_everybody() {
    let agent = agent(Rights { sources: only(&[SourceKind::Memfd]), ..Rights::default() });
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(1));
    map(&mut client, ioas, memory.whole(), at(0x10_0000)).unwrap();
    for (file, kind, what) in [
        (file_with_a_path(), SourceKind::File, "a file of a tmpfs, which is of source file"),
        (of_huge_pages(), SourceKind::Hugetlb, "huge pages, which is of source hugetlb"),
    ] {
        let Some(file) = file else {
            ioasd::skip!("who_may_map_memfds_alone_is_refused_all_else: no {what} here");
            continue;
        };
        let refused = map(&mut client, ioas, slice(file.as_fd(), 0, 0x1000), at(0x20_0000)).unwrap_err();
        let text = format!("{} may not map {what}: its tenant has sources = [\"memfd\"], in {PLACE}", who());
        assert_eq!(told(&refused), (Errno::PERM, "source-denied", text.as_str()));
        assert_eq!(journal(&agent, "refused").last(), Some(&text));
        let foretold = foretold(&agent, Some(kind), None).allowed.unwrap_err();
        assert_eq!(
            (foretold.errno(), foretold.code(), foretold.to_string()),
            (Errno::PERM, "source-denied", text)
        );
    }
    assert_eq!(map_own_memory(&mut client, ioas), Some(Errno::PERM));
    assert!(journal(&agent, "refused").last().unwrap().contains("private memory of a process"));
    assert!(foretold(&agent, Some(SourceKind::Memfd), None).allowed.is_ok());
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let mut other = agent.connect();
    let without_domain = other.ioas_alloc().unwrap();
    map(&mut other, without_domain, slice(null.as_fd(), 0, 0x1000), at(0)).unwrap();
    assert_eq!(agent.pinned_and_charged(), (0x1000, 0x1000));
}

/// Where the rights of these tests are written.
pub(crate) const PLACE: &str = "[[tenant]] vms, a test";

#[test]
fn memory_is_held_at_the_strongest_strength_that_is_possible_and_allowed() {
    let strengths = only(&[Strength::Locked, Strength::Resident, Strength::Copy]);
    let agent = agent(Rights { strengths, ..Rights::default() });
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(1));
    map(&mut client, ioas, memory.whole(), at(0x10_0000)).unwrap();
    let held = agent.snapshot().pages[0].stats.strength;
    assert!(strengths.has(held), "{held:?} is not allowed");
    assert_eq!(foretold(&agent, Some(SourceKind::Memfd), None).strength, held);
    let longterm = foretold(&agent, None, Some(Strength::Longterm)).allowed.unwrap_err();
    assert_eq!(longterm.code(), "strength-denied");
}

#[test]
fn what_no_allowed_strength_can_hold_is_refused_and_another_policy_counts_for_what_is_asked_then() {
    let strengths = only(&[Strength::Locked, Strength::Copy]);
    let agent = Agent::with(|start| {
        vms(start, Limit::NONE, Rights { strengths, ..Rights::default() });
        start.pins.strength = StrengthSetting::Exactly(Strength::Resident);
    });
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(1));
    let refused = map(&mut client, ioas, memory.whole(), at(0x10_0000)).unwrap_err();
    let text = format!(
        "{} may not map memory that can be held at strength resident: its tenant has strengths = [\"locked\", \"copy\"], in {PLACE}",
        who()
    );
    assert_eq!(told(&refused), (Errno::PERM, "strength-denied", text.as_str()));
    let foretold = foretold(&agent, None, None).allowed.unwrap_err();
    assert_eq!(foretold.to_string(), text);
    agent.policy().replace(Vec::new());
    map(&mut client, ioas, memory.whole(), at(0x10_0000)).unwrap();
    agent.policy().replace(vec![Rule {
        name: "vms".to_owned(),
        rights: Rights { sources: only(&[]), ..Rights::default() },
        ..Rule::default()
    }]);
    assert_eq!(map(&mut client, ioas, memory.whole(), at(0x20_0000)).unwrap_err().errno(), Errno::PERM);
    assert_eq!(agent.pinned_and_charged(), (0x1000, 0x1000), "what is mapped stays");
    assert_eq!(client.unmap_all(ioas).unwrap().get(), 0x1000);
}

#[test]
fn frames_and_mock_hardware_are_rights_of_their_own() {
    let frames = only(&[FrameSetting::Physical]);
    let agent = agent(Rights { frames, mock: Right::Denied, ..Rights::default() });
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(1));
    let refused = map(&mut client, ioas, memory.whole(), at(0x10_0000)).unwrap_err();
    let text = format!(
        "{} may not map memory whose frames are logical: its tenant has frames = [\"physical\"], in {PLACE}",
        who()
    );
    assert_eq!(told(&refused), (Errno::PERM, "frames-denied", text.as_str()));
    let reserve = TestCmd { op: OP_ADD_RESERVED, id: ioas.get(), ..TestCmd::default() };
    assert_eq!(refusal(&mut client, &reserve, &[]), Some(Errno::PERM));
    let text = format!("{} may not use mock hardware: its tenant has mock = false, in {PLACE}", who());
    assert_eq!(journal(&agent, "refused").last(), Some(&text));
    assert_eq!(agent.pinned_and_charged(), (0, 0));
}

/// This process does not pin for the agent: its memory can only be copied, and is where that is allowed.
#[test]
fn private_memory_of_a_process_is_held_as_far_as_it_can_and_may() {
    let strengths = |strengths: &[Strength]| Rights { strengths: only(strengths), ..Rights::default() };
    let agent = agent(strengths(&[Strength::Longterm, Strength::Locked]));
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    // From its second message on a process is known for certain.
    client.iova_ranges(ioas).unwrap();
    assert_eq!(map_own_memory(&mut client, ioas), Some(Errno::PERM));
    let text = journal(&agent, "refused").pop().unwrap();
    assert!(text.contains("may not map memory that can be held at strength copy: its tenant has"), "{text}");
    agent.policy().replace(Vec::new());
    assert_eq!(map_own_memory(&mut client, ioas), None);
    assert_eq!(agent.snapshot().pages[0].stats.strength, Strength::Copy);
}
