//! Who pays: the process that maps, whoever opened the context or attaches devices; or the one that IOAS_CHANGE_PROCESS
//! names.

use std::os::fd::AsFd;
use std::sync::Arc;

use ioasd::actors::engine::EngineSettings;
use ioasd::actors::messages::questions::PayerOf;
use ioasd::storage::source::{Strength, StrengthSetting};
use ioasd_client::calls::Iommu;
use ioasd_client::connection::Connection;
use ioasd_client::ids::IoasId;
use ioasd_client::units::PAGE_SIZE;
use ioasd_client::wire::uapi::IoasChangeProcess;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

use crate::fixture::{Agent, errno};
use crate::helper::{Helper, NOBODY};
use crate::memory::{Memory, at, attach_new, client_with_domain, map, range};
use crate::raw::refusal;

#[test]
fn without_mappings_and_for_oneself_it_is_nothing() {
    let agent = Agent::start();
    let mut client = agent.connect();
    client.change_process().unwrap();
    let (mut client, ioas, _) = client_with_domain(&agent);
    let memory = Memory::new(3);
    map(&mut client, ioas, memory.whole(), at(0)).unwrap();
    let before = (agent.pinned_and_charged(), agent.ledger_sum());
    client.change_process().unwrap();
    assert_eq!((agent.pinned_and_charged(), agent.ledger_sum()), before);
    assert_eq!(refusal(&mut client, &IoasChangeProcess { reserved: 1 }, &[]), Some(Errno::OPNOTSUPP));
}

#[test]
fn the_sender_pays_from_now_on_for_every_pages_object_once() {
    if !geteuid().is_root() {
        ioasd::skip!("the_sender_pays_from_now_on_for_every_pages_object_once: needs root");
        return;
    }
    let agent = Agent::start();
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(5));
    map(&mut client, ioas, memory.whole(), at(0)).unwrap();
    let copy = ((ioas, range(0, 2 * PAGE_SIZE)), (ioas, at(0x10_0000)));
    client.copy(copy.0, copy.1, ioasd_client::units::Permission::Read).unwrap();
    map(&mut client, ioas, memory.slice(0, PAGE_SIZE), at(0x20_0000)).unwrap();
    assert_eq!((agent.charged_to(0), agent.charged_to(NOBODY)), (6, 0));
    Helper::nobody_with("payer", client.as_fd().try_clone_to_owned().unwrap());
    assert_eq!((agent.charged_to(0), agent.charged_to(NOBODY)), (0, 6));
    assert!(agent.snapshot().pages.iter().all(|entry| entry.stats.account.get().as_raw() == NOBODY));
    client.unmap_all(ioas).unwrap();
    assert_eq!((agent.charged_to(0), agent.charged_to(NOBODY)), (0, 0));
}

#[test]
fn the_process_that_maps_pays_not_the_one_that_attaches_later() {
    if !geteuid().is_root() {
        ioasd::skip!("the_process_that_maps_pays_not_the_one_that_attaches_later: needs root");
        return;
    }
    let agent = Agent::start();
    let (mut client, memory) = (agent.connect(), Memory::new(2));
    let ioas = client.ioas_alloc().unwrap();
    Helper::nobody_with("mapper", client.as_fd().try_clone_to_owned().unwrap());
    map(&mut client, ioas, memory.whole(), at(0x10_0000)).unwrap();
    assert_eq!((agent.charged_to(0), agent.charged_to(NOBODY)), (0, 0), "nothing is pinned yet");
    attach_new(&mut client, ioas, Iommu::Shared);
    assert_eq!((agent.charged_to(0), agent.charged_to(NOBODY)), (2, 4), "also when the process has ended");
}

/// The first message of a process that the agent cannot know yet is a MAP of memory that is locked.
#[test]
fn the_first_message_of_a_forked_process_maps_within_the_limit_of_the_opener() {
    let locked = |settings: &mut EngineSettings| {
        settings.pins.strength = StrengthSetting::Exactly(Strength::Locked);
    };
    let name = "the_first_message_of_a_forked_process_maps_within_the_limit_of_the_opener";
    if getrlimit(Resource::Memlock).current.is_some_and(|bytes| bytes < 64 * PAGE_SIZE) {
        ioasd::skip!("{name}: needs 64 pages that may be locked");
        return;
    }
    let agent = Agent::with(locked);
    let (mut client, _, _) = client_with_domain(&agent);
    let uid = rustix::process::geteuid().as_raw();
    Helper::same_user_with("first-map", client.as_fd().try_clone_to_owned().unwrap());
    assert_eq!(agent.charged_to(uid), 4);
    client.unmap_all(IoasId::new(1)).unwrap();
    assert_eq!(agent.charged_to(uid), 0);
    if !geteuid().is_root() {
        ioasd::skip!("{name}, by another user: needs root");
        return;
    }
    let (client, _, _) = client_with_domain(&agent);
    Helper::nobody_with("refused-map", client.as_fd().try_clone_to_owned().unwrap());
    assert_eq!((agent.charged_to(0), agent.charged_to(NOBODY)), (0, 0));
}

/// The process that mapped last has reached its own limit: what is foretold is what it was told.
#[test]
fn what_the_limit_of_a_process_refuses_is_foretold() {
    let name = "what_the_limit_of_a_process_refuses_is_foretold";
    if getrlimit(Resource::Memlock).current.is_some_and(|bytes| bytes < 64 * PAGE_SIZE) {
        ioasd::skip!("{name}: needs 64 pages that may be locked");
        return;
    }
    let agent = Agent::with(|settings| {
        settings.pins.strength = StrengthSetting::Exactly(Strength::Locked);
    });
    let (client, _, _) = client_with_domain(&agent);
    let play = if geteuid().is_root() { Helper::nobody_with } else { Helper::same_user_with };
    let said = play("limited-map", client.as_fd().try_clone_to_owned().unwrap());
    let stats = Arc::clone(&agent.snapshot().contexts[0].stats);
    let ask = async { stats.payer.ask(PayerOf::default()).await };
    let report = actix_rt::System::new().block_on(ask).unwrap();
    assert_eq!(report.strength, Strength::Locked);
    let outlook = report.payer.outlook(6, Strength::Locked);
    let locked = outlook.locked.unwrap();
    assert_eq!((locked.used.get(), locked.limit.0, locked.needed, locked.binds()), (4, 8, 6, true));
    let refused = outlook.charged.unwrap_err().to_string();
    assert!(said.contains(&refused), "{refused:?} was foretold, told was {said}");
    assert!(report.payer.outlook(4, Strength::Locked).charged.is_ok());
    assert!(report.payer.outlook(6, Strength::Resident).charged.is_ok(), "nothing is locked then");
}

/// What a process does that may lock 8 pages. It is known for certain from its second message on.
pub(crate) fn play_limited_map(mut client: Connection) {
    let limit = getrlimit(Resource::Memlock);
    setrlimit(Resource::Memlock, Rlimit { current: Some(8 * PAGE_SIZE), ..limit }).unwrap();
    client.ioas_alloc().unwrap();
    map(&mut client, IoasId::new(1), Memory::new(4).whole(), at(0)).unwrap();
    println!("{}", map(&mut client, IoasId::new(1), Memory::new(6).whole(), at(0x10_0000)).unwrap_err());
}

/// What a process of the opener's user does.
pub(crate) fn play_first_map(mut client: Connection) {
    map(&mut client, IoasId::new(1), Memory::new(4).whole(), at(0)).unwrap();
}

/// What a process does for whose user nobody is known.
pub(crate) fn play_refused_map(mut client: Connection) {
    let refused = map(&mut client, IoasId::new(1), Memory::new(4).whole(), at(0));
    assert_eq!(errno(refused), Errno::NOMEM);
}

/// What the process that maps does in address space 1. It is known for certain from its second message on.
pub(crate) fn play_mapper(mut client: Connection) {
    client.iova_ranges(IoasId::new(1)).unwrap();
    map(&mut client, IoasId::new(1), Memory::new(4).whole(), at(0)).unwrap();
}

/// What the process that comes to pay does.
pub(crate) fn play_payer(mut client: Connection) {
    client.change_process().unwrap();
}
