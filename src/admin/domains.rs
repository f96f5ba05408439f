//! `/v1/domains`: IO page tables.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the actors' view and questions.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::json::{Hex, shown};
use super::parameters::{self, UserPart, belongs};
use super::problem::Problem;
use crate::actors::figures::DomainStats;
use crate::actors::messages::questions::{TableOf, TableReport};
use crate::actors::registry::{Entry, Registry};

/// One domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct DomainRow {
    /// Its number, never used again.
    pub(crate) id: u64,
    /// The context it belongs to.
    pub(crate) context: Option<u64>,
    /// The address space it shows.
    pub(crate) ioas: u64,
    /// The object id of its HWPT in the context.
    pub(crate) object: u32,
    /// The page-table format.
    pub(crate) format: String,
    /// Bytes of IOVA that it translates.
    pub(crate) mapped_bytes: u64,
    /// Bytes of its table pages.
    pub(crate) table_bytes: u64,
    /// Walkers registered.
    pub(crate) walkers: u64,
    /// Accesses of its walkers that reached no memory, since it was made.
    pub(crate) faults: u64,
}

impl DomainRow {
    /// The row of a domain.
    pub(super) fn of(Entry { number, stats }: &Entry<DomainStats>, registry: &Registry) -> Self {
        let ioas = stats.ioas.get();
        Self {
            id: number.get(),
            context: registry.context_of(ioas),
            ioas,
            object: stats.object.get(),
            format: stats.format.to_owned(),
            mapped_bytes: stats.mapped.get().get(),
            table_bytes: stats.table.get().get(),
            walkers: stats.walkers.get(),
            faults: stats.faults.counts().sum(),
        }
    }
}

/// A domain with the shape of its table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct DomainDetail {
    /// The domain.
    #[serde(flatten)]
    pub(crate) domain: DomainRow,
    /// Levels walked.
    pub(crate) levels: u32,
    /// Bytes of the smallest leaf.
    pub(crate) granule: u64,
    /// Bits of the addresses that leaves name.
    pub(crate) output_bits: u32,
    /// The first IOVA that can be mapped.
    pub(crate) aperture_start: Hex,
    /// The last IOVA that can be mapped.
    pub(crate) aperture_last: Hex,
}

pub(super) async fn list(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let (part, registry) = (UserPart::of(&request)?, &data.view.registry);
    let row = |entry: &Entry<_>| DomainRow::of(entry, registry);
    Ok(shown(&part.list(registry.domains(), |stats| belongs(registry, stats.ioas), row)))
}

pub(super) async fn one(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let entry = asked(&request, &data)?;
    parameters::none(&request)?;
    let geometry = ask(&entry, None).await?.geometry;
    Ok(shown(&DomainDetail {
        domain: DomainRow::of(&entry, &data.view.registry),
        levels: geometry.levels,
        granule: geometry.granule(),
        output_bits: geometry.output_lg2,
        aperture_start: Hex(geometry.aperture.start().get()),
        aperture_last: Hex(geometry.aperture.last().get()),
    }))
}

/// The domain that the path names.
pub(super) fn asked(request: &HttpRequest, data: &Shown) -> Result<Entry<DomainStats>, Problem> {
    let id = parameters::id(request)?;
    data.view.registry.domain(id).ok_or_else(|| absent(id))
}

/// Asks the owner of a table.
pub(super) async fn ask(entry: &Entry<DomainStats>, walk_to: Option<Hex>) -> Result<TableReport, Problem> {
    let id = entry.number.get();
    let walk_to = walk_to.map(|address| ioasd_client::units::Iova::new(address.0));
    let answer = entry.stats.inbox.ask(TableOf { domain: entry.stats.key, walk_to }).await;
    let answer = answer.map_err(|why| Problem::no_answer(format_args!("domain {id}"), why))?;
    answer.ok_or_else(|| absent(id))
}

fn absent(id: u64) -> Problem {
    Problem::absent(format_args!("domain {id}"))
}
