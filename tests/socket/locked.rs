//! Unprivileged processes under RLIMIT_MEMLOCK: what one user has locked counts together, whichever process and context it is in;
//! who is refused is told in full; what a dead process had is there for others.

use ioasd::actors::engine::EngineSettings;
use ioasd::storage::source::{Strength, StrengthSetting};
use ioasd_client::calls::Iommu;
use ioasd_client::connection::Connection;
use ioasd_client::units::PAGE_SIZE;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

use crate::accounts::journal;
use crate::fixture::{Agent, eventually};
use crate::helper::{Helper, NOBODY, own_pages, own_socket, say, stay};
use crate::memory::{Memory, at, attach_new, map};

/// Pages that each of the processes may lock.
const LIMIT: u64 = 8;

fn locked(settings: &mut EngineSettings) {
    settings.pins.strength = StrengthSetting::Exactly(Strength::Locked);
}

/// Whether `said` is that `pages` more were refused of `used`, and nothing else was.
#[track_caller]
fn assert_refused(agent: &Agent, said: &[String], (user, used, pages): (u32, u64, u64)) {
    let refused = said.last().unwrap();
    let bytes = [pages, used, LIMIT].map(|pages| pages * PAGE_SIZE);
    let text = format!(
        ", user {user}, context {} needs {} bytes of locked memory more, but its user has {} of the {} it may have: unmap \
         something, or raise RLIMIT_MEMLOCK of the process that maps",
        agent.snapshot().contexts.last().unwrap().number.get(),
        bytes[0],
        bytes[1],
        bytes[2]
    );
    assert!(refused.contains(&text), "{text:?} is not in {refused:?}");
    let told = journal(agent, "refused");
    assert!(refused.contains(told.last().unwrap()), "the journal says {told:?}");
}

#[test]
fn what_a_user_has_locked_counts_together_over_processes_and_each_user_by_itself() {
    let name = "what_a_user_has_locked_counts_together_over_processes_and_each_user_by_itself";
    if getrlimit(Resource::Memlock).current.is_some_and(|bytes| bytes < 64 * PAGE_SIZE) {
        ioasd::skip!("{name}: needs 64 pages that may be locked");
        return;
    }
    let agent = Agent::with(locked);
    agent.open_to_everybody();
    let (user, other) = if geteuid().is_root() {
        (Some(NOBODY), Some(NOBODY - 1))
    } else {
        ioasd::skip!("{name}, of two users: needs root");
        (None, None)
    };
    let uid = user.unwrap_or_else(|| geteuid().as_raw());
    let locker = |user, pages| Helper::with_pages("locker", &agent.socket(), user, pages);
    let first = locker(user, "6");
    assert_eq!((first.said(), agent.charged_to(uid)), (&["6 pages".to_owned()][..], 6));
    let second = locker(user, "2,1");
    assert_eq!((second.said()[0].as_str(), agent.charged_to(uid)), ("2 pages", 8));
    assert_refused(&agent, second.said(), (uid, 8, 1));
    if let Some(other) = other {
        let third = locker(Some(other), "8,1");
        assert_eq!((third.said()[0].as_str(), agent.charged_to(other)), ("8 pages", 8));
        assert_refused(&agent, third.said(), (other, 8, 1));
    }
    first.kill();
    assert!(eventually(|| agent.charged_to(uid) == 2), "what a dead process had stays charged");
    let fourth = locker(user, "6,1");
    assert_eq!((fourth.said()[0].as_str(), agent.charged_to(uid)), ("6 pages", 8));
    assert_refused(&agent, fourth.said(), (uid, 8, 1));
}

/// What such a process does: maps so many pages at a time, and stays.
pub(crate) fn play_locker() {
    let limit = getrlimit(Resource::Memlock);
    setrlimit(Resource::Memlock, Rlimit { current: Some(LIMIT * PAGE_SIZE), ..limit }).unwrap();
    let mut client = Connection::connect(&own_socket()).unwrap();
    let ioas = client.ioas_alloc().unwrap();
    attach_new(&mut client, ioas, Iommu::Shared);
    for (turn, pages) in (1..).zip(own_pages()) {
        match map(&mut client, ioas, Memory::new(pages).whole(), at(turn << 20)) {
            Ok(_) => say(&format_args!("{pages} pages")),
            Err(error) => say(&error),
        }
    }
    stay();
}
