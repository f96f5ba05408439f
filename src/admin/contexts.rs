//! `/v1/contexts`: who has the agent open, since when, and what it costs.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the actors' view.

use std::collections::HashMap;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::json::{rfc3339, shown};
use super::parameters::{self, Filter, NumberPart, Parameters};
use super::problem::Problem;
use crate::actors::figures::ContextStats;
use crate::actors::registry::{Entry, Registry};

/// One open of the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ContextRow {
    /// Its number, never used again.
    pub(crate) id: u64,
    /// The process that opened it, where it can be seen.
    pub(crate) pid: Option<i32>,
    /// The user who opened it.
    pub(crate) uid: u32,
    /// The name that process gave itself.
    pub(crate) comm: Option<String>,
    /// The file it ran.
    pub(crate) exe: Option<String>,
    /// Its control group.
    pub(crate) cgroup: Option<String>,
    /// When it was opened.
    pub(crate) since: String,
    /// Objects it has.
    pub(crate) objects: u64,
    /// Bytes of its pages objects that hold a pin.
    pub(crate) pinned_bytes: u64,
    /// Bytes of them that were billed.
    pub(crate) charged_bytes: u64,
}

/// Bytes pinned and charged, by context.
struct Sums(HashMap<u64, (u64, u64)>);

impl Sums {
    fn of(registry: &Registry) -> Self {
        let mut sums: HashMap<u64, (u64, u64)> = HashMap::new();
        for pages in registry.all_pages() {
            let (pinned, charged) = sums.entry(pages.stats.context.get()).or_default();
            *pinned += pages.stats.pinned.get().get();
            *charged += pages.stats.charged.get().get();
        }
        Self(sums)
    }

    fn row(&self, Entry { number, stats }: &Entry<ContextStats>) -> ContextRow {
        let (pinned_bytes, charged_bytes) = self.0.get(&number.get()).copied().unwrap_or_default();
        ContextRow {
            id: number.get(),
            pid: stats.pid.map(rustix::process::Pid::as_raw_pid),
            uid: stats.uid.as_raw(),
            comm: stats.program.comm.clone(),
            exe: stats.program.exe.as_ref().map(|path| path.display().to_string()),
            cgroup: stats.program.cgroup.clone(),
            since: rfc3339(stats.since),
            objects: stats.objects.get(),
            pinned_bytes,
            charged_bytes,
        }
    }
}

pub(super) async fn list(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::of(&request)?;
    let part = NumberPart::take(&mut parameters)?;
    let uid = Filter::take(&mut parameters, "uid")?;
    parameters.finish()?;
    let registry = &data.view.registry;
    let sums = Sums::of(registry);
    let mut contexts = registry.contexts();
    contexts.retain(|entry| uid.passes(u64::from(entry.stats.uid.as_raw())));
    Ok(shown(&part.list(&contexts, |entry| sums.row(entry))))
}

pub(super) async fn one(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let id = parameters::id(&request)?;
    parameters::none(&request)?;
    let registry = &data.view.registry;
    let entry = registry.context(id).ok_or_else(|| Problem::absent(format_args!("context {id}")))?;
    Ok(shown(&Sums::of(registry).row(&entry)))
}
