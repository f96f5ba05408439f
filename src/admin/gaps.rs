//! `/v1/ioas/{id}/gaps` and `/v1/ioas/{id}/ranges`: what is free in an address space, and what is reserved or allowed, in IOVA
//! order. `after` is the last address known. One answer passes so many areas at most that its owner serves others meanwhile,
//! and may have fewer rows than are left.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the actors' view and questions.

use actix_web::{HttpRequest, HttpResponse, web};
use ioasd_client::units::{Iova, IovaRange};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::json::{Hex, Listed, shown};
use super::parameters::AddressPart;
use super::problem::Problem;
use super::{Shown, ioases};
use crate::actors::messages::questions::{GapLimits, Gaps, GapsFrom, Ruled, RulesFrom};

/// Areas and reserved ranges that one answer passes at most.
const PASSED_MAX: usize = 10_000;

/// A free range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct GapRow {
    /// The first IOVA.
    pub(crate) start: Hex,
    /// The last IOVA, inclusive.
    pub(crate) last: Hex,
    /// Bytes; of a gap of all 2^64 addresses one less.
    pub(crate) length: u64,
}

/// A range that was reserved or allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RangeRow {
    /// `reserved`: no area may be there. `allowed`: automatic placement uses only such ranges.
    pub(crate) kind: String,
    /// The first IOVA.
    pub(crate) start: Hex,
    /// The last IOVA, inclusive.
    pub(crate) last: Hex,
    /// Bytes; of a range of all 2^64 addresses one less.
    pub(crate) length: u64,
    /// Who reserved it, the first few of them.
    pub(crate) owners: Vec<String>,
    /// How many requests reserve it, or a part of it.
    pub(crate) requests: u64,
}

fn bytes(range: IovaRange) -> u64 {
    (range.last().get() - range.start().get()).saturating_add(1)
}

/// A free range, as a row.
pub(super) fn gap(range: &IovaRange) -> GapRow {
    GapRow { start: Hex(range.start().get()), last: Hex(range.last().get()), length: bytes(*range) }
}

/// A range that was reserved or allowed, as a row.
pub(super) fn ruled(ruled: &Ruled) -> RangeRow {
    let range = ruled.range();
    let (kind, owners, requests) = match ruled {
        Ruled::Reserved { owners, requests, .. } => ("reserved", owners.as_slice(), *requests),
        Ruled::Allowed(_) => ("allowed", [].as_slice(), 0),
    };
    let GapRow { start, last, length } = gap(&range);
    let owners = owners.iter().map(ToString::to_string).collect();
    RangeRow { kind: kind.to_owned(), start, last, length, owners, requests }
}

/// The first address that is not known, if there is one.
fn first_unknown(after: Option<Hex>) -> Option<Iova> {
    match after {
        None => Some(Iova::new(0)),
        Some(Hex(last)) => Iova::new(last).checked_add(1),
    }
}

/// What one look found, and the last address of it if there are more.
type Part<T> = (Vec<T>, Option<Iova>);

fn answer<T: Serialize>((items, last): Part<T>) -> HttpResponse {
    shown(&Listed { items, next: last.map(|last| Hex(last.get()).to_string()) })
}

pub(super) async fn gaps(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let ioas = ioases::asked(&request, &data)?;
    let part = AddressPart::of(&request)?;
    let Some(from) = first_unknown(part.after) else { return Ok(answer::<GapRow>((Vec::new(), None))) };
    let limits = GapLimits { gaps: part.limit, passed: PASSED_MAX };
    let found = ioas.stats.gaps.ask(GapsFrom { from, limits }).await;
    let found = found.map_err(|why| Problem::no_answer(format_args!("ioas {}", ioas.number.get()), why))?;
    let Gaps { found, looked_to } = found;
    Ok(answer((found.iter().map(gap).collect(), looked_to)))
}

pub(super) async fn ranges(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let ioas = ioases::asked(&request, &data)?;
    let part = AddressPart::of(&request)?;
    let Some(from) = first_unknown(part.after) else { return Ok(answer::<RangeRow>((Vec::new(), None))) };
    let found = ioas.stats.rules.ask(RulesFrom { from, limit: part.limit.saturating_add(1) }).await;
    let found = found.map_err(|why| Problem::no_answer(format_args!("ioas {}", ioas.number.get()), why))?;
    let items: Vec<RangeRow> = found.iter().take(part.limit).map(ruled).collect();
    let last = items.last().filter(|_| found.len() > part.limit).map(|row| Iova::new(row.last.0));
    Ok(answer((items, last)))
}
