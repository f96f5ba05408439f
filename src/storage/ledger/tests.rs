use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::limits::{Limits, TenantLimits};
use super::*;
use crate::error::{Coded, Errno};

const PINNED: Resource = Resource::Pinned;

fn pins(bytes: u64) -> [(Resource, u64); 2] {
    [(PINNED, bytes), (Resource::Locked, bytes)]
}

fn vms() -> TenantName {
    TenantName::named("vms")
}

/// Limits for pins, soft and hard: of the host, of tenant vms, of its users and contexts.
fn limits(host: u64, tenant: (u64, u64), user: u64, context: u64) -> TreeLimits {
    let hard = |hard| Limits::NONE.with(PINNED, Limit::hard(hard));
    let soft = Limits::NONE.with(PINNED, Limit { soft: tenant.0, hard: tenant.1 });
    let tenant = TenantLimits { tenant: soft, user: hard(user), context: hard(context) };
    TreeLimits { host: hard(host), named: [(vms(), tenant)].into(), ..TreeLimits::default() }
}

fn used(ledger: &Ledger) -> Vec<(String, u64)> {
    let reports = ledger.snapshot().into_iter();
    reports.map(|report| (report.holder.to_string(), report.figure(PINNED).used)).collect()
}

#[test]
fn a_charge_counts_all_the_way_up_and_is_gone_with_its_context() {
    let ledger = Ledger::with(limits(1000, (1000, 1000), 1000, 1000), Arc::new(|_| ()));
    let account = ledger.account(&vms(), 7, 3);
    let other = ledger.account(&TenantName::of_cgroup("/a"), 7, 4);
    account.node().take(&pins(100)).unwrap();
    other.node().take(&pins(10)).unwrap();
    let expected = [
        ("host", 110),
        ("host, tenant vms", 100),
        ("host, tenant vms, user 7", 100),
        ("host, tenant vms, user 7, context 3", 100),
        ("host, cgroup /a", 10),
        ("host, cgroup /a, user 7", 10),
        ("host, cgroup /a, user 7, context 4", 10),
    ];
    assert_eq!(used(&ledger), expected.map(|(holder, used)| (holder.to_owned(), used)));
    let numbers: Vec<_> = ledger.snapshot().iter().map(|report| (report.number, report.parent)).collect();
    assert!(
        numbers.iter().all(|(number, parent)| parent.is_none_or(|parent| parent < *number)),
        "{numbers:?}"
    );
    ledger.check();
    drop((account, other));
    assert_eq!(used(&ledger), [("host".to_owned(), 0), ("host, tenant vms".to_owned(), 0)]);
    ledger.check();
}

#[test]
fn a_refusal_names_who_asked_and_whose_limit_it_is_and_leaves_no_trace() {
    for (set, level, figures) in [
        (limits(99, (200, 200), 200, 200), "host", "90 of the 99"),
        (limits(200, (200, 99), 200, 200), "tenant", "90 of the 99"),
        (limits(200, (200, 200), 99, 200), "user", "90 of the 99"),
        (limits(200, (200, 200), 200, 99), "context", "90 of the 99"),
    ] {
        let ledger = Ledger::with(set, Arc::new(|_| ()));
        let account = ledger.account(&vms(), 1000, 7);
        account.node().take(&pins(90)).unwrap();
        assert!(account.node().would_take(&pins(9)).is_ok());
        let expected = account.node().would_take(&pins(10)).unwrap_err();
        let refused = account.node().take(&pins(10)).unwrap_err();
        assert_eq!(
            (refused.errno(), refused.code(), &refused),
            (Errno::NOMEM, "over-account-limit", &expected)
        );
        assert_eq!(
            refused.to_string(),
            format!(
                "host, tenant vms, user 1000, context 7 needs 10 bytes of pins more, but its {level} has {figures} it may \
             have: unmap something, or raise the limit pinned of the {level}"
            )
        );
        assert!(used(&ledger).iter().all(|(_, used)| *used == 90));
        let refusals = ledger.snapshot().into_iter().map(|report| report.figure(PINNED).refusals);
        assert_eq!(refusals.sum::<u64>(), 1, "it counts where the limit is, and a question does not count");
        ledger.check();
    }
}

#[test]
fn a_soft_limit_refuses_nothing_and_is_told_of_once_each_time_it_is_passed() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let tell: Tell = Arc::new(move |crossing| tell.lock().push(crossing.to_string()));
    let ledger = Ledger::with(limits(120, (50, 200), 200, 200), tell);
    let node = Arc::clone(ledger.account(&vms(), 1, 1).node());
    let text = "host, tenant vms has more bytes of pins than its soft limit of 50";
    node.take(&pins(50)).unwrap();
    assert!(told.lock().is_empty());
    node.take(&pins(1)).unwrap();
    node.take(&pins(1)).unwrap();
    assert_eq!(*told.lock(), [text]);
    node.give_back(&pins(10));
    assert!(node.take(&pins(80)).is_err(), "the host refuses");
    assert_eq!(told.lock().len(), 1, "what was refused has passed nothing");
    node.take_anyway(&pins(20));
    assert_eq!(*told.lock(), [text, text]);
    ledger.limit(limits(120, (60, 200), 200, 200));
    ledger.limit(limits(120, (61, 200), 200, 200));
    ledger.limit(limits(120, (10, 200), 200, 200));
    assert_eq!(told.lock().len(), 2, "it was above all the time");
}

#[test]
fn limits_that_change_bind_accounts_that_are_there_and_those_that_come() {
    let ledger = Ledger::with(limits(1000, (1000, 1000), 1000, 10), Arc::new(|_| ()));
    let old = ledger.account(&vms(), 1, 1);
    assert!(old.node().take(&pins(20)).is_err());
    ledger.limit(limits(1000, (1000, 1000), 1000, 20));
    old.node().take(&pins(20)).unwrap();
    ledger.limit(limits(1000, (1000, 1000), 1000, 15));
    assert_eq!(old.node().used(PINNED), 20, "nothing is taken away");
    assert!(old.node().take(&pins(1)).is_err());
    assert!(ledger.account(&vms(), 1, 2).node().take(&pins(16)).is_err());
    ledger.limit(TreeLimits::default());
    old.node().take(&pins(1_000_000)).unwrap();
    assert_eq!(used(&ledger).len(), 4, "a tenant without a name any more is there as long as it is used");
}

#[test]
fn what_moves_within_a_tenant_does_not_need_room_there() {
    let ledger = Ledger::with(limits(100, (100, 100), 100, 100), Arc::new(|_| ()));
    let (from, to) = (ledger.account(&vms(), 1, 1), ledger.account(&vms(), 2, 1));
    from.node().take(&pins(80)).unwrap();
    to.node().take_below(Some(from.node()), &pins(80)).unwrap();
    from.node().give_back_below(Some(to.node()), &pins(80));
    assert_eq!((ledger.charged_to(1).get(), from.node().used(PINNED), to.node().used(PINNED)), (0, 0, 80));
    ledger.check();
    assert!(to.node().take_below(Some(to.node()), &pins(1000)).is_ok(), "nothing moves to oneself");
}

/// Whether an account uses no more than the greatest limit it ever had below. What has none may be above for a moment,
/// until the host refuses.
fn within(node: &Node) -> bool {
    let most = match (node.holder().tenant(), node.holder().level()) {
        (None, _) | (Some(TenantName::Named(_)), Level::Tenant) => 300,
        (Some(TenantName::Named(_)), Level::User) => 100,
        (Some(TenantName::Named(_)), _) => 90,
        (Some(_), _) => u64::MAX,
    };
    node.used(PINNED) <= most
}

/// Says that somebody has come to an end, however.
struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Each charges at random, up to what the limits allow, and gives everything back.
fn charge_at_random(ledger: &Ledger, tenant: &TenantName, seed: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let accounts =
        [1, 2].map(|context| ledger.account(tenant, 1000 + (seed % 2) as u32, 10 * seed + context));
    let (mut mine, mut refused) = ([0, 0], 0);
    for _ in 0..10_000 {
        let which = rng.usize(0..2);
        let (node, bytes) = (accounts[which].node(), rng.u64(1..40));
        if mine[which] > 0 && rng.bool() {
            let bytes = bytes.min(mine[which]);
            node.give_back(&pins(bytes));
            mine[which] -= bytes;
        } else if node.take(&pins(bytes)).is_ok() {
            mine[which] += bytes;
        } else {
            refused += 1;
        }
        assert!(node.path().all(within), "seed {seed}: more is used than any limit there ever was");
    }
    for (account, bytes) in accounts.iter().zip(mine) {
        account.node().give_back(&pins(bytes));
    }
    refused
}

#[test]
fn concurrent_charges_never_pass_a_limit_and_lose_nothing_while_limits_change() {
    let set = [limits(300, (20, 150), 100, 60), limits(200, (100, 300), 40, 90)];
    let ledger = Ledger::with(set[0].clone(), Arc::new(|_| ()));
    let (over, left) = (AtomicBool::new(false), AtomicUsize::new(6));
    let tenants = [vms(), TenantName::of_cgroup("/a")];
    std::thread::scope(|scope| {
        for seed in 0..6 {
            let (ledger, tenants, left) = (&ledger, &tenants, &left);
            scope.spawn(move || {
                let _leaving = Leaving(left);
                let refused = charge_at_random(ledger, &tenants[seed % 2], seed as u64);
                assert!(refused > 0, "seed {seed}: no limit was ever met");
            });
        }
        for turn in (0..).take_while(|_| left.load(Ordering::Relaxed) > 0) {
            ledger.limit(set[turn % 2].clone());
            let sums = ledger.snapshot();
            over.fetch_or(sums.iter().any(|report| !adds_up(report, &sums)), Ordering::Relaxed);
        }
    });
    assert!(!over.into_inner(), "a report does not add up");
    assert_eq!(ledger.sum_charged(), Charged::new(0));
    ledger.check();
}

fn adds_up(report: &NodeReport, all: &[NodeReport]) -> bool {
    let below = |other: &&NodeReport| other.parent == Some(report.number);
    let sum: u64 = all.iter().filter(below).map(|other| other.figure(PINNED).used).sum();
    report.holder.level() == Level::Context || report.figure(PINNED).used == sum
}
