//! `/v1/ioas/{id}/areas`: what an address space shows, in IOVA order. `after` is the last IOVA of the last area known.
//! With `state`, one answer looks at so many areas at most as a part can have, and may have fewer rows than are left.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the actors' view and questions.

use actix_web::{HttpRequest, HttpResponse, web};
use ioasd_client::units::{Iova, Permission};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::json::{Hex, Listed, shown};
use super::parameters::{AddressPart, LIMIT_MAX, Parameters};
use super::problem::Problem;
use super::{Shown, ioases};
use crate::actors::messages::questions::{AreaReport, AreasFrom};
use crate::actors::registry::Registry;
use crate::storage::io_pagetable::AreaState;

/// One area.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct AreaRow {
    /// The first IOVA.
    pub(crate) start: Hex,
    /// The last IOVA, inclusive.
    pub(crate) last: Hex,
    /// Bytes.
    pub(crate) length: u64,
    /// What devices may do: `r`, `w` or `rw`.
    pub(crate) permission: String,
    /// `ready`, `filling`, `withdrawn` or `retiring`.
    pub(crate) state: String,
    /// The pages object it shows.
    pub(crate) pages: u64,
    /// The index there of its first page.
    pub(crate) first_page: u64,
    /// Bytes of that page before the area.
    pub(crate) page_offset: u64,
    /// Pins of accesses that hold it.
    pub(crate) accesses: u64,
    /// Where the pages come from.
    pub(crate) source: Option<String>,
    /// What holds their pins.
    pub(crate) strength: Option<String>,
}

impl AreaRow {
    /// A report with what `registry` knows of the pages.
    pub(super) fn new(report: &AreaReport, registry: &Registry) -> Self {
        let (shape, pages) = (report.shape, registry.pages(report.pages.get()));
        Self {
            start: Hex(shape.iova().start().get()),
            last: Hex(shape.iova().last().get()),
            length: shape.iova().length().get(),
            permission: permission(report.permission).to_owned(),
            state: state(report.state).to_owned(),
            pages: report.pages.get(),
            first_page: shape.indexes().first().get(),
            page_offset: shape.page_offset().get(),
            accesses: report.accesses,
            source: pages.as_ref().map(|entry| entry.stats.source.clone()),
            strength: pages.map(|entry| entry.stats.strength.name().to_owned()),
        }
    }
}

/// A permission in the word used in reports.
pub(super) const fn permission(permission: Permission) -> &'static str {
    match permission {
        Permission::Read => "r",
        Permission::Write => "w",
        Permission::ReadWrite => "rw",
        Permission::Neither => "-",
    }
}

/// The state that `word` names.
fn known(word: &str) -> Result<AreaState, Problem> {
    let states = [AreaState::Ready, AreaState::Installing, AreaState::Withdrawn, AreaState::Retiring];
    let found = states.into_iter().find(|known| state(*known) == word);
    found.ok_or_else(|| {
        let names = states.map(state).join(", ");
        Problem::parameter("state", format_args!("{word:?} is no state of an area: use one of {names}"))
    })
}

/// A state in the word used in reports.
pub(super) const fn state(state: AreaState) -> &'static str {
    match state {
        AreaState::Installing => "filling",
        AreaState::Ready => "ready",
        AreaState::Withdrawn => "withdrawn",
        AreaState::Retiring => "retiring",
    }
}

pub(super) async fn list(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let ioas = ioases::asked(&request, &data)?;
    let mut parameters = Parameters::of(&request)?;
    let AddressPart { after, limit } = AddressPart::take(&mut parameters)?;
    let wanted = parameters.take("state")?.map(|word: String| known(&word)).transpose()?;
    parameters.finish()?;
    let from = match after {
        None => Some(Iova::new(0)),
        Some(Hex(last)) => Iova::new(last).checked_add(1),
    };
    let Some(from) = from else { return Ok(shown(&Listed::<AreaRow> { items: Vec::new(), next: None })) };
    let looked_at = if wanted.is_some() { LIMIT_MAX } else { limit };
    let reports = ioas.stats.inbox.ask(AreasFrom { from, limit: looked_at.saturating_add(1) }).await;
    let reports =
        reports.map_err(|why| Problem::no_answer(format_args!("ioas {}", ioas.number.get()), why))?;
    let (found, next) = part(&reports, looked_at, wanted, limit);
    let items = found.into_iter().map(|report| AreaRow::new(report, &data.view.registry)).collect();
    Ok(shown(&Listed::<AreaRow> { items, next }))
}

/// Those wanted among the first `looked_at` of `reports`, `limit` of them at most, and where to go on.
fn part(
    reports: &[AreaReport],
    looked_at: usize,
    wanted: Option<AreaState>,
    limit: usize,
) -> (Vec<&AreaReport>, Option<String>) {
    let (mut found, mut seen) = (Vec::new(), 0_usize);
    for report in reports.iter().take(looked_at) {
        if found.len() == limit {
            break;
        }
        seen += 1;
        if wanted.is_none_or(|state| state == report.state) {
            found.push(report);
        }
    }
    let last = reports.get(seen.saturating_sub(1)).filter(|_| reports.len() > seen);
    (found, last.map(|report| Hex(report.shape.iova().last().get()).to_string()))
}
