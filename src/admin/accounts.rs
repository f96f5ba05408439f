//! `/v1/accounts`: the tree of accounts: who uses how much of what, and what binds them.
//!
//! Rows come in the order in which accounts were opened, so that each follows the one above it. What an account above
//! others uses is the sum of what they use, in one answer that holds them all.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the actors' view, storage's ledger.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web};
use ioasd_client::units::PAGE_SIZE;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::json::{Listed, shown};
use super::parameters::NumberPart;
use super::problem::Problem;
use crate::storage::ledger::Ledger;
use crate::storage::ledger::counter::Figure;
use crate::storage::ledger::holder::Level;
use crate::storage::ledger::report::NodeReport;
use crate::storage::ledger::resource::Resource;

/// One account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct AccountRow {
    /// Its number.
    pub(crate) id: u64,
    /// The number of the account above it; `null` for the host.
    pub(crate) parent: Option<u64>,
    /// What it is the account of: `host`, `tenant`, `user` or `context`.
    pub(crate) level: String,
    /// The tenant: its name, the path of its cgroup, or `-` if not even that is known; `null` for the host.
    pub(crate) tenant: Option<String>,
    /// The user, below tenants.
    pub(crate) uid: Option<u32>,
    /// The context, below users.
    pub(crate) context: Option<u64>,
    /// Of a user: bytes that count against the limit for locked memory of whoever maps, over all tenants.
    pub(crate) limited_bytes: Option<u64>,
    /// What is used, by resource: bytes, or numbers of areas, objects and requests.
    pub(crate) counters: BTreeMap<String, CounterRow>,
}

/// One counter of an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct CounterRow {
    /// In use.
    pub(crate) used: u64,
    /// Above it, an event tells so; `null` if there is none.
    pub(crate) soft: Option<u64>,
    /// It is never passed; `null` if there is none.
    pub(crate) hard: Option<u64>,
    /// How often the soft limit was passed.
    pub(crate) crossings: u64,
    /// How often the hard limit refused something.
    pub(crate) refusals: u64,
}

impl From<Figure> for CounterRow {
    fn from(Figure { used, limit, crossings, refusals }: Figure) -> Self {
        let shown = |limit: u64| Some(limit).filter(|limit| *limit != u64::MAX);
        Self { used, soft: shown(limit.soft), hard: shown(limit.hard), crossings, refusals }
    }
}

fn row(report: &NodeReport, ledger: &Ledger) -> AccountRow {
    let holder = &report.holder;
    let counter = |resource: Resource| (resource.name().to_owned(), report.figure(resource).into());
    let user = holder.uid().filter(|_| holder.level() == Level::User);
    AccountRow {
        id: report.number,
        parent: report.parent,
        level: holder.level().name().to_owned(),
        tenant: holder.tenant().map(|tenant| tenant.label().to_owned()),
        uid: holder.uid(),
        context: holder.context(),
        limited_bytes: user.map(|uid| ledger.locked_by(uid).get().saturating_mul(PAGE_SIZE)),
        counters: Resource::ALL.into_iter().map(counter).collect(),
    }
}

/// `after` is the number of the last account known.
pub(super) async fn list(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let part = NumberPart::of(&request)?;
    let ledger = &data.view.ledger;
    let mut rest = ledger.snapshot();
    rest.sort_unstable_by_key(|report| report.number);
    rest.retain(|report| part.after.is_none_or(|after| report.number > after.0));
    let items: Vec<AccountRow> = rest.iter().take(part.limit).map(|report| row(report, ledger)).collect();
    let next = items.last().filter(|_| rest.len() > part.limit).map(|last| last.id.to_string());
    Ok(shown(&Listed { items, next }))
}
