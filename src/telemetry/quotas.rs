//! Tenants and quotas on `/metrics`: one look at the tree of accounts, whose sums add up.
//!
//! Limits are shown where there are any, for the host, tenants and users; contexts are too many and too short-lived for series.
//! Of tenants and users, those that have most pinned are shown.
//!
//! Imports allowed: `storage::{ledger, source}`, the catalogue.

use std::collections::BTreeMap;

use metrics::{Label, counter, gauge};

use super::catalogue;
use crate::storage::ledger::Ledger;
use crate::storage::ledger::counter::Figure;
use crate::storage::ledger::holder::Level;
use crate::storage::ledger::report::NodeReport;
use crate::storage::ledger::resource::Resource;
use crate::storage::source::Strength;

/// Records the tree, with `cap` tenants and `cap` users at most.
pub(super) fn record(ledger: &Ledger, cap: usize) {
    let mut reports = ledger.snapshot();
    reports.sort_by_key(|report| std::cmp::Reverse(report.figure(Resource::Pinned).used));
    let level = |level: Level| reports.iter().filter(move |report| report.holder.level() == level);
    record_tenants(level(Level::Tenant), cap);
    for report in level(Level::Host).chain(level(Level::Tenant).take(cap)).chain(level(Level::User).take(cap))
    {
        record_quotas(report);
    }
}

/// What every tenant is charged, those beyond the cap as one.
fn record_tenants<'a>(tenants: impl Iterator<Item = &'a NodeReport>, cap: usize) {
    let (mut others, mut folded) = (BTreeMap::<&str, u64>::new(), 0_u64);
    for (place, report) in tenants.enumerate() {
        for strength in Strength::ALL {
            let used = report.figure(Resource::of(strength)).used;
            if place < cap {
                let tenant = Label::new("tenant", tenant(report));
                gauge!(catalogue::TENANT_CHARGED.name, vec![tenant, Label::new("strength", strength.name())])
                    .set(used as f64);
            } else {
                *others.entry(strength.name()).or_default() += used;
            }
        }
        folded += u64::from(place >= cap);
    }
    for (strength, used) in others {
        let labels = vec![Label::new("tenant", "(others)"), Label::new("strength", strength)];
        gauge!(catalogue::TENANT_CHARGED.name, labels).set(used as f64);
    }
    gauge!(catalogue::TENANTS_FOLDED.name).set(folded as f64);
}

fn tenant(report: &NodeReport) -> String {
    report.holder.tenant().map(|tenant| tenant.label().to_owned()).unwrap_or_default()
}

/// The counters of one account that have a limit.
fn record_quotas(report: &NodeReport) {
    for resource in Resource::ALL {
        let figure = report.figure(resource);
        let Figure { used, limit, crossings, refusals } = figure;
        let limits =
            [("soft", limit.soft), ("hard", limit.hard)].into_iter().filter(|(_, limit)| *limit != u64::MAX);
        for (kind, limit) in limits {
            let labels =
                labels(report, resource).into_iter().chain([Label::new("kind", kind)]).collect::<Vec<_>>();
            gauge!(catalogue::QUOTA_LIMIT.name, labels).set(limit as f64);
            gauge!(catalogue::QUOTA_USED.name, self::labels(report, resource)).set(used as f64);
            counter!(catalogue::QUOTA_CROSSINGS.name, self::labels(report, resource)).absolute(crossings);
            counter!(catalogue::QUOTA_REFUSALS.name, self::labels(report, resource)).absolute(refusals);
        }
    }
}

fn labels(report: &NodeReport, resource: Resource) -> Vec<Label> {
    let user = report.holder.uid().map(|uid| uid.to_string()).unwrap_or_default();
    vec![
        Label::new("level", report.holder.level().name()),
        Label::new("tenant", tenant(report)),
        Label::new("user", user),
        Label::new("resource", resource.name()),
    ]
}
