//! Accounts and policy: what binds clients together, what a refusal says, and who is not served.

use ioasd::actors::engine::EngineSettings;
use ioasd::actors::policy::Rule;
use ioasd::actors::rights::{Right, Rights};
use ioasd::storage::ledger::holder::TenantName;
use ioasd::storage::ledger::limits::{Limit, Limits, TenantLimits};
use ioasd::storage::ledger::resource::Resource;
use rustix::io::Errno;

use crate::fixture::{Agent, errno};
use crate::memory::{Memory, at, client_with_domain, map};
use crate::rights::PLACE;

/// Everybody of this user is tenant vms, which may have `pinned` bytes.
pub(crate) fn vms(start: &mut EngineSettings, pinned: Limit, rights: Rights) {
    let tenant = Limits::NONE.with(Resource::Pinned, pinned);
    let limits = TenantLimits { tenant, ..start.limits.unnamed };
    start.limits.named.insert(TenantName::named("vms"), limits);
    let uids = vec![rustix::process::getuid().as_raw()];
    start.rules = vec![Rule { name: "vms".to_owned(), uids, rights, place: PLACE.into(), ..Rule::default() }];
}

/// The texts of the events of a kind.
pub(crate) fn journal(agent: &Agent, kind: &str) -> Vec<String> {
    let events = agent.registry().journal().since(0, 1000).events;
    let those = events.into_iter().filter(|event| event.what.kind.name() == kind);
    those.map(|event| event.what.text).collect()
}

#[test]
fn a_refusal_is_one_text_for_the_client_and_the_journal_and_a_soft_limit_is_told_of() {
    let agent = Agent::with(|start| vms(start, Limit { soft: 0x2000, hard: 0x4000 }, Rights::default()));
    let ((mut client, ioas, _), memory) = (client_with_domain(&agent), Memory::new(3));
    map(&mut client, ioas, memory.whole(), at(0x10_0000)).unwrap();
    let uid = rustix::process::getuid().as_raw();
    let crossed = "host, tenant vms has more bytes of pins than its soft limit of 8192";
    assert_eq!(journal(&agent, "soft-limit"), [crossed]);
    let refused = map(&mut client, ioas, memory.whole(), at(0x20_0000)).unwrap_err();
    assert_eq!(refused.errno(), Errno::NOMEM);
    let text = format!(
        "host, tenant vms, user {uid}, context 1 needs 12288 bytes of pins more, but its tenant has 12288 of the 16384 it \
         may have: unmap something, or raise the limit pinned of the tenant"
    );
    assert!(refused.to_string().contains(&text), "{refused}");
    assert!(journal(&agent, "refused").iter().any(|told| told.contains(&text)));
    assert_eq!(agent.pinned_and_charged(), (0x3000, 0x3000));
}

#[test]
fn who_may_not_connect_is_told_so_and_who_may_not_export_goes_on_otherwise() {
    let rights = Rights { connect: Right::Denied, ..Rights::default() };
    let agent = Agent::with(|start| vms(start, Limit::NONE, rights));
    let refused = agent.connect().ioas_alloc().unwrap_err();
    let uid = rustix::process::getuid().as_raw();
    let text = format!(
        "host, tenant vms, user {uid} may not open a context: its tenant has connect = false, in {PLACE}"
    );
    assert_eq!(refused.errno(), Errno::ACCESS);
    assert!(refused.to_string().contains(&text), "{refused}");
    assert_eq!(journal(&agent, "denied"), [text]);
    assert!(agent.snapshot().contexts.is_empty());

    let rights = Rights { export: Right::Denied, ..Rights::default() };
    let agent = Agent::with(|start| vms(start, Limit::NONE, rights));
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(1));
    assert_eq!(errno(client.domain_export(hwpt)), Errno::ACCESS);
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
}

#[test]
fn a_process_without_a_named_tenant_belongs_to_its_control_group() {
    let agent = Agent::start();
    let _client = client_with_domain(&agent);
    let shown = agent.snapshot().contexts[0].stats.tenant.clone();
    let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    match shown {
        TenantName::Cgroup(path) => assert!(cgroup.contains(&*path), "{path} is not in {cgroup}"),
        other => ioasd::skip!(
            "a_process_without_a_named_tenant_belongs_to_its_control_group: {other} is all the kernel tells"
        ),
    }
}
