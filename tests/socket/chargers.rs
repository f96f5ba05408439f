//! Many chargers at one hard limit: it is never passed, not even while a charge is on its way back; no page is lost; and
//! accounts, pages objects and the sum agree afterwards.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ioasd::actors::policy::Rule;
use ioasd::storage::ledger::holder::TenantName;
use ioasd::storage::ledger::limits::{Limit, Limits, TenantLimits};
use ioasd::storage::ledger::resource::Resource;
use ioasd_client::calls::Iommu;
use ioasd_client::connection::Connection;
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::fixture::{Agent, eventually};
use crate::helper::{Helper, NOBODY, own_socket};
use crate::memory::{Memory, at, attach_new, client_with_domain, map, range};

/// What the tenant of everybody may have pinned.
const LIMIT: u64 = 0x8000;

/// How often each charger maps.
const ROUNDS: usize = 40;

/// An agent with one tenant, which everybody belongs to, under that limit.
fn agent() -> Agent {
    Agent::with(|start| {
        let tenant = Limits::NONE.with(Resource::Pinned, Limit::hard(LIMIT));
        let limits = TenantLimits { tenant, ..start.limits.unnamed };
        start.limits.named.insert(TenantName::named("all"), limits);
        start.rules = vec![Rule { name: "all".to_owned(), ..Rule::default() }];
    })
}

/// Looks at the account of the tenant for as long as `work` takes, and once more; tells the most that it had.
fn watched(agent: &Agent, work: impl FnOnce()) -> u64 {
    let (tenant, done) = (agent.account_of_tenant("all"), AtomicBool::new(false));
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            loop {
                let last = done.load(Ordering::Acquire);
                most = most.max(tenant.used(Resource::Pinned));
                if last {
                    return most;
                }
            }
        });
        work();
        done.store(true, Ordering::Release);
        watch.join().unwrap()
    })
}

/// Maps, pins and lets go again and again; tells how often it was refused.
fn charge_and_let_go(client: &mut Connection, pages: u64) -> usize {
    let (memory, mut refused) = (Memory::new(pages), 0);
    let ioas = client.ioas_alloc().unwrap();
    let (_, _) = attach_new(client, ioas, Iommu::Shared);
    for _ in 0..ROUNDS {
        match map(client, ioas, memory.whole(), at(0x10_0000)) {
            Ok(_) => {
                assert_eq!(client.unmap(ioas, range(0x10_0000, pages << 12)).unwrap().get(), pages << 12);
            }
            Err(error) => {
                assert_eq!(error.errno(), Errno::NOMEM, "{error}");
                refused += 1;
            }
        }
    }
    refused
}

#[test]
fn a_limit_is_never_passed_however_many_threads_charge() {
    let agent = agent();
    let most = watched(&agent, || {
        thread::scope(|scope| {
            for pages in [3, 4, 5, 4, 8, 9] {
                let agent = &agent;
                scope.spawn(move || {
                    let refused = charge_and_let_go(&mut agent.connect(), pages);
                    assert!(pages << 12 <= LIMIT || refused == ROUNDS, "{pages} pages never fit");
                });
            }
        });
    });
    assert!(most <= LIMIT, "the tenant had {most} bytes");
    let tenant = agent.account_of_tenant("all");
    assert!(eventually(|| tenant.used(Resource::Pinned) == 0), "pages were lost");
}

/// A refused map of a client that holds much: nothing of it is ever seen in its account.
#[test]
fn what_is_refused_is_never_charged() {
    let agent = agent();
    let ((mut client, ioas, _), held, more) = (client_with_domain(&agent), Memory::new(6), Memory::new(3));
    map(&mut client, ioas, held.whole(), at(0x10_0000)).unwrap();
    let most = watched(&agent, || {
        for _ in 0..ROUNDS {
            assert_eq!(
                map(&mut client, ioas, more.whole(), at(0x20_0000)).unwrap_err().errno(),
                Errno::NOMEM
            );
        }
    });
    assert_eq!((most, agent.pinned_and_charged()), (0x6000, (0x6000, 0x6000)));
}

#[test]
fn processes_of_several_users_race_for_the_limit_of_their_tenant() {
    let agent = agent();
    let users: &[Option<u32>] = if geteuid().is_root() {
        &[Some(NOBODY), Some(NOBODY), Some(NOBODY - 1), None]
    } else {
        ioasd::skip!(
            "processes_of_several_users_race_for_the_limit_of_their_tenant: of one user, others need root"
        );
        &[None; 4]
    };
    agent.open_to_everybody();
    let most = watched(&agent, || {
        thread::scope(|scope| {
            for user in users {
                let socket = agent.socket();
                scope.spawn(move || Helper::other_user("charger", &socket, *user));
            }
        });
    });
    assert!(most <= LIMIT, "the tenant had {most} bytes");
    let tenant = agent.account_of_tenant("all");
    assert!(eventually(|| tenant.used(Resource::Pinned) == 0), "pages were lost");
    agent.ledger().check();
}

/// What one of the processes does.
pub(crate) fn play_charger() {
    let mut client = Connection::connect(&own_socket()).unwrap();
    charge_and_let_go(&mut client, 4);
}
