//! `/v1/accounts`: who pays, how much, and for what.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the actors' view, storage's ledger.

use std::collections::{BTreeMap, HashMap};

use actix_web::{HttpRequest, HttpResponse, web};
use ioasd_client::units::PAGE_SIZE;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::json::{Listed, shown};
use super::parameters::NumberPart;
use super::problem::Problem;
use crate::actors::registry::Registry;
use crate::storage::ledger::Account;

/// One account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct AccountRow {
    /// The user.
    pub(crate) uid: u32,
    /// Bytes billed.
    pub(crate) charged_bytes: u64,
    /// The part of them that counts against the limit for locked memory of whoever maps.
    pub(crate) limited_bytes: u64,
    /// Bytes of IO page tables.
    pub(crate) table_bytes: u64,
    /// Bytes pinned now, by what holds them.
    pub(crate) pinned_bytes: BTreeMap<String, u64>,
}

type ByStrength = BTreeMap<String, u64>;

fn pinned_by_user(registry: &Registry) -> HashMap<u32, ByStrength> {
    let mut users: HashMap<u32, ByStrength> = HashMap::new();
    for pages in registry.all_pages() {
        let strengths = users.entry(pages.stats.account.get().as_raw()).or_default();
        *strengths.entry(pages.stats.strength.name().to_owned()).or_default() +=
            pages.stats.pinned.get().get();
    }
    users
}

fn row(account: &Account, pinned: &HashMap<u32, ByStrength>) -> AccountRow {
    let uid = account.key().uid;
    let bytes = |pages: u64| pages.saturating_mul(PAGE_SIZE);
    AccountRow {
        uid,
        charged_bytes: bytes(account.charged().get()),
        limited_bytes: bytes(account.limited().get()),
        table_bytes: account.tables().get(),
        pinned_bytes: pinned.get(&uid).cloned().unwrap_or_default(),
    }
}

/// `after` is the user of the last account known.
pub(super) async fn list(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let part = NumberPart::of(&request)?;
    let pinned = pinned_by_user(&data.view.registry);
    let unknown = |uid: u32| part.after.is_none_or(|after| u64::from(uid) > after.0);
    let accounts = data.view.ledger.accounts();
    let rest: Vec<_> = accounts.iter().filter(|account| unknown(account.key().uid)).collect();
    let items: Vec<AccountRow> = rest.iter().take(part.limit).map(|account| row(account, &pinned)).collect();
    let next = items.last().filter(|_| rest.len() > part.limit).map(|last| last.uid.to_string());
    Ok(shown(&Listed { items, next }))
}
