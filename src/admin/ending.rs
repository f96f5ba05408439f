//! `/v1/drain` and `/v1/contexts/{id}/evict`: nobody is served any more, and a context ends as if its client had died.
//!
//! Draining is what SIGTERM begins with, but it can be undone: whoever connects is hung up on at once, those who are served
//! go on. An evicted context is taken down whole, and nothing else.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, door, the actors' view and contexts.

use std::time::Duration;

use actix_web::rt::time::{Instant, sleep};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::door::Changer;
use super::json::shown;
use super::parameters::{self, Parameters};
use super::problem::Problem;
use crate::actors::contexts::Draining;
use crate::actors::figures::ContextStats;
use crate::actors::journal::Happening;
use crate::actors::registry::{Entry, Registry};

/// How long an evicted context is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether it is gone.
const POLL: Duration = Duration::from_millis(2);

/// Whether clients are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct DrainState {
    /// Whether whoever connects is hung up on.
    pub(crate) draining: bool,
    /// Contexts that are still there.
    pub(crate) contexts: u64,
}

/// What an eviction ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Eviction {
    /// The context.
    pub(crate) context: u64,
    /// Whether nothing was done.
    pub(crate) dry_run: bool,
    /// Whether it is taken down already; if not, its walkers are waited for, see `/v1/events`.
    pub(crate) gone: bool,
    /// Objects it has.
    pub(crate) objects: u64,
    /// Areas in its address spaces.
    pub(crate) areas: u64,
    /// Bytes of its pages objects that hold a pin.
    pub(crate) pinned_bytes: u64,
    /// Bytes of IOVA that its domains translate.
    pub(crate) mapped_bytes: u64,
    /// Its domains.
    pub(crate) domains: u64,
    /// Walkers that use them.
    pub(crate) walkers: u64,
    /// Its devices that are attached.
    pub(crate) devices: u64,
    /// Pins that its accesses hold.
    pub(crate) access_pins: u64,
}

impl Eviction {
    fn of(Entry { number, stats }: &Entry<ContextStats>, registry: &Registry) -> Self {
        let (id, all) = (number.get(), registry.snapshot());
        let spaces = all.ioases.iter().filter(|ioas| ioas.stats.context == *number);
        let (numbers, areas): (Vec<u64>, Vec<u64>) =
            spaces.map(|ioas| (ioas.number.get(), ioas.stats.areas.get())).unzip();
        let pages = all.pages.iter().filter(|pages| pages.stats.context == *number);
        let domains = || all.domains.iter().filter(|domain| numbers.contains(&domain.stats.ioas.get()));
        let accesses = all.accesses.iter().filter(|access| numbers.contains(&access.stats.ioas.get()));
        let devices = registry.devices();
        let devices = devices.iter().filter(|device| device.stats.context == *number);
        Self {
            context: id,
            dry_run: true,
            gone: false,
            objects: stats.objects.get(),
            areas: areas.iter().sum(),
            pinned_bytes: pages.map(|pages| pages.stats.pinned.get().get()).sum(),
            mapped_bytes: domains().map(|domain| domain.stats.mapped.get().get()).sum(),
            domains: domains().count() as u64,
            walkers: domains().map(|domain| domain.stats.walkers.get()).sum(),
            devices: devices.filter(|device| device.stats.attached().is_some()).count() as u64,
            access_pins: accesses.map(|access| access.stats.pins.get()).sum(),
        }
    }
}

fn drain_state(data: &Shown) -> HttpResponse {
    let draining = data.contexts.draining() == Draining::Yes;
    shown(&DrainState { draining, contexts: data.view.registry.contexts().len() as u64 })
}

pub(super) async fn drain(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    parameters::none(&request)?;
    Ok(drain_state(&data))
}

fn set_draining(data: &Shown, changer: Changer, draining: Draining) {
    if data.contexts.draining() == draining {
        return;
    }
    data.contexts.set_draining(draining);
    let what = match draining {
        Draining::Yes => "nobody is served any more",
        Draining::No => "whoever connects is served again",
    };
    tracing::info!(%changer, what);
    data.view.registry.journal().tell(Happening::changed(None, format!("{what}: said {changer}")));
}

pub(super) async fn begin_drain(
    changer: Changer,
    request: HttpRequest,
    data: web::Data<Shown>,
) -> Result<HttpResponse, Problem> {
    parameters::none(&request)?;
    set_draining(&data, changer, Draining::Yes);
    Ok(drain_state(&data))
}

pub(super) async fn end_drain(
    changer: Changer,
    request: HttpRequest,
    data: web::Data<Shown>,
) -> Result<HttpResponse, Problem> {
    parameters::none(&request)?;
    set_draining(&data, changer, Draining::No);
    Ok(drain_state(&data))
}

pub(super) async fn evict(
    changer: Changer,
    request: HttpRequest,
    data: web::Data<Shown>,
) -> Result<HttpResponse, Problem> {
    let id = parameters::id(&request)?;
    let mut parameters = Parameters::of(&request)?;
    let dry_run = parameters.take::<bool>("dry_run")?.unwrap_or(false);
    parameters.finish()?;
    let registry = &data.view.registry;
    let entry = registry.context(id).ok_or_else(|| Problem::absent(format_args!("context {id}")))?;
    let eviction = Eviction::of(&entry, registry);
    if dry_run {
        return Ok(shown(&eviction));
    }
    let text = format!("evicted by {changer}: {} bytes pinned", eviction.pinned_bytes);
    tracing::warn!(context = id, %changer, pinned = eviction.pinned_bytes, "a context is evicted");
    registry.journal().tell(Happening::changed(Some(entry.number), text));
    data.contexts.evict(entry.number);
    let deadline = Instant::now() + PATIENCE;
    while registry.context(id).is_some() && Instant::now() < deadline {
        sleep(POLL).await;
    }
    Ok(shown(&Eviction { dry_run: false, gone: registry.context(id).is_none(), ..eviction }))
}
