//! `/v1/domains/{id}/faults`: what the walkers of a domain could not reach, by cause and one by one, the oldest first. `after`
//! is the number of the last one known.
//!
//! Walkers are looked at when this is asked. Where a fault lies among the areas is asked of the owner of the address space;
//! what it does not answer is left out.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, gaps, the actors' view, figures and questions,
//! the client crate's layout.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web};
use ioasd_client::layout::Access;
use ioasd_client::units::IovaRange;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::gaps::{GapRow, gap};
use super::json::{Hex, rfc3339, shown};
use super::parameters::NumberPart;
use super::problem::Problem;
use super::{Shown, domains};
use crate::actors::figures::{FaultPart, FaultSeen, cause};
use crate::actors::messages::questions::GapsAt;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct FaultRow {
    /// Its number in the domain; a later one is greater.
    pub(crate) number: u64,
    /// When the last one of them was met.
    pub(crate) at: String,
    /// How often in a row the same was met.
    pub(crate) times: u64,
    /// The walker that met it, by its number in the domain.
    pub(crate) walker: u64,
    /// The process of the walker, if that is certain.
    pub(crate) pid: Option<i32>,
    /// The address.
    pub(crate) iova: Hex,
    /// `read` or `write`.
    pub(crate) access: String,
    /// `not-present`, `permission`, `malformed`, `not-exported`, `outside-aperture` or `dead`.
    pub(crate) cause: String,
    /// The level of the last entry read, 0 at the leaf.
    pub(crate) level: u32,
    /// The bits of that entry; 0 if none was read.
    pub(crate) entry: Hex,
    /// What is at the address now: `free`, or `taken` by an area or a reservation; `null` if the owner of the address space does not say.
    pub(crate) place: Option<String>,
    /// The free range that it lies in: what is before and behind it is taken.
    pub(crate) gap: Option<GapRow>,
}

/// The faults of a domain's walkers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Faults {
    /// The domain.
    pub(crate) domain: u64,
    /// How often each cause was met since the domain was made, by walkers that are gone too.
    pub(crate) counts: BTreeMap<String, u64>,
    /// The last ones, the oldest first.
    pub(crate) items: Vec<FaultRow>,
    /// What `after` must be to get the rest; `None` at the end.
    pub(crate) next: Option<String>,
    /// The number of the last one that was forgotten; who knows none as late has missed some.
    pub(crate) forgotten: u64,
}

pub(super) async fn list(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let domain = domains::asked(&request, &data)?;
    let part = NumberPart::of(&request)?;
    let after = part.after.map_or(0, |after| after.0);
    let FaultPart { counts, faults, more, forgotten } = domain.stats.faults.since(after, part.limit);
    let places = places(&faults, domain.stats.ioas.get(), &data).await;
    let items = faults.iter().zip(&places).map(|(fault, place)| row(fault, *place)).collect();
    let next = faults.last().filter(|_| more).map(|last| last.number.to_string());
    let counts = counts.iter().map(|(kind, count)| (cause(kind).to_owned(), count)).collect();
    Ok(shown(&Faults { domain: domain.number.get(), counts, items, next, forgotten }))
}

/// What is where a fault was met.
#[derive(Clone, Copy, Debug)]
enum Place {
    Unknown,
    Taken,
    Free(IovaRange),
}

async fn places(faults: &[FaultSeen], ioas: u64, data: &Shown) -> Vec<Place> {
    let unknown = vec![Place::Unknown; faults.len()];
    let Some(entry) = data.view.registry.ioas(ioas).filter(|_| !faults.is_empty()) else { return unknown };
    let addresses = faults.iter().map(|fault| fault.iova).collect();
    let gaps = entry.stats.gaps_at.ask(GapsAt(addresses)).await;
    gaps.map_or(unknown, |gaps| gaps.into_iter().map(|gap| gap.map_or(Place::Taken, Place::Free)).collect())
}

fn row(fault: &FaultSeen, place: Place) -> FaultRow {
    let (place, free) = match place {
        Place::Unknown => (None, None),
        Place::Taken => (Some("taken"), None),
        Place::Free(range) => (Some("free"), Some(gap(&range))),
    };
    let access = match fault.access {
        Access::Read => "read",
        Access::Write => "write",
    };
    FaultRow {
        number: fault.number,
        at: rfc3339(fault.at),
        times: fault.times,
        walker: fault.walker.get(),
        pid: fault.process.map(rustix::process::Pid::as_raw_pid),
        iova: Hex(fault.iova.get()),
        access: access.to_owned(),
        cause: cause(fault.kind).to_owned(),
        level: fault.level.get(),
        entry: Hex(fault.entry),
        place: place.map(str::to_owned),
        gap: free,
    }
}
