//! `/v1/status`: the agent at a glance.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, health, the actors' view.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::json::{rfc3339, shown};
use super::parameters;
use super::problem::Problem;

/// The agent at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Status {
    /// Version of the agent.
    pub(crate) version: String,
    /// Its process.
    pub(crate) pid: i32,
    /// When its admin server started.
    pub(crate) since: String,
    /// Whether clients can be served.
    pub(crate) ready: bool,
    /// What is missing, if not.
    pub(crate) missing: Vec<String>,
    /// Opens of the agent.
    pub(crate) contexts: u64,
    /// Address spaces.
    pub(crate) ioases: u64,
    /// Areas in them.
    pub(crate) areas: u64,
    /// Pages objects.
    pub(crate) pages: u64,
    /// Domains.
    pub(crate) domains: u64,
    /// Accesses.
    pub(crate) accesses: u64,
    /// Bytes that hold a pin.
    pub(crate) pinned_bytes: u64,
    /// Bytes that were billed.
    pub(crate) charged_bytes: u64,
    /// Bytes that wait for walkers before they are unpinned.
    pub(crate) retiring_bytes: u64,
    /// Bytes of IOVA that domains translate, over all domains.
    pub(crate) mapped_bytes: u64,
    /// Bytes of table pages.
    pub(crate) table_bytes: u64,
}

pub(super) async fn status(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    parameters::none(&request)?;
    let all = data.view.registry.snapshot();
    let missing = data.readiness.missing();
    Ok(shown(&Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: rustix::process::getpid().as_raw_pid(),
        since: rfc3339(data.since),
        ready: missing.is_empty(),
        missing,
        contexts: all.contexts.len() as u64,
        ioases: all.ioases.len() as u64,
        areas: all.ioases.iter().map(|entry| entry.stats.areas.get()).sum(),
        pages: all.pages.len() as u64,
        domains: all.domains.len() as u64,
        accesses: all.accesses.len() as u64,
        pinned_bytes: all.pinned().get(),
        charged_bytes: all.pages.iter().map(|entry| entry.stats.charged.get().get()).sum(),
        retiring_bytes: all.pages.iter().map(|entry| entry.stats.retiring.get().get()).sum(),
        mapped_bytes: all.domains.iter().map(|entry| entry.stats.mapped.get().get()).sum(),
        table_bytes: all.domains.iter().map(|entry| entry.stats.table.get().get()).sum(),
    }))
}
