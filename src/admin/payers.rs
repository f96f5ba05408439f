//! `/v1/payers`: the processes that map, what each has been billed for, and its limit for locked memory.
//!
//! The limit binds in account mode user what its user has charged in that mode, over all tenants and processes, and in mode mm
//! what the process has: a process with `CAP_IPC_LOCK` is not bound. A process may have mapped in both modes, in contexts of
//! either; so both figures are shown.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the actors' payers, storage's ledger.

use actix_web::{HttpRequest, HttpResponse, web};
use ioasd_client::units::PAGE_SIZE;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::json::{Listed, shown};
use super::parameters::NumberPart;
use super::problem::Problem;
use crate::actors::payer::PayingProcess;
use crate::storage::ledger::Ledger;

/// A process that pays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct PayerRow {
    /// Its number.
    pub(crate) pid: i32,
    /// The user as whom it mapped last.
    pub(crate) uid: u32,
    /// Whether it has ended, and others still use what it mapped.
    pub(crate) ended: bool,
    /// Bytes pinned for it, in any account mode.
    pub(crate) charged_bytes: u64,
    /// The part of them that counts towards its limit in account mode mm.
    pub(crate) limited_bytes: u64,
    /// What counts towards its limit in account mode user, the default: locked bytes of its user, whichever process mapped them.
    pub(crate) user_limited_bytes: u64,
    /// Its limit for locked memory, in whole pages; `null` if it has none.
    pub(crate) limit_bytes: Option<u64>,
}

fn row(paying: &PayingProcess, ledger: &Ledger) -> PayerRow {
    let bytes = |pages: u64| pages.saturating_mul(PAGE_SIZE);
    PayerRow {
        pid: paying.process().pid().as_raw_pid(),
        uid: paying.uid(),
        ended: paying.process().has_exited() == Ok(true),
        charged_bytes: bytes(paying.account().pinned().get()),
        limited_bytes: bytes(paying.account().locked().get()),
        user_limited_bytes: bytes(ledger.locked_by(paying.uid()).get()),
        limit_bytes: Some(paying.limit().0).filter(|pages| *pages != u64::MAX).map(bytes),
    }
}

/// `after` is the number of the last process known.
pub(super) async fn list(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let part = NumberPart::of(&request)?;
    let number = |paying: &PayingProcess| u64::from(paying.process().pid().as_raw_pid().unsigned_abs());
    let mut rest = data.view.paying.list();
    rest.retain(|paying| part.after.is_none_or(|after| number(paying) > after.0));
    let items: Vec<PayerRow> =
        rest.iter().take(part.limit).map(|paying| row(paying, &data.view.ledger)).collect();
    let next = items.last().filter(|_| rest.len() > part.limit).map(|last| last.pid.to_string());
    Ok(shown(&Listed { items, next }))
}
