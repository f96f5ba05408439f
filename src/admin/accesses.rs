//! `/v1/accesses`: software users and what they hold.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the actors' view.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::json::shown;
use super::parameters::{UserPart, belongs};
use super::problem::Problem;
use crate::actors::figures::AccessStats;
use crate::actors::registry::{Entry, Registry};
use crate::storage::ioas::AccessNeeds;

/// One access.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct AccessRow {
    /// Its number, never used again.
    pub(crate) id: u64,
    /// The context it belongs to.
    pub(crate) context: Option<u64>,
    /// The address space it uses.
    pub(crate) ioas: u64,
    /// Its object id in the context.
    pub(crate) object: u32,
    /// What it was made for: `pin`, `keep` (pins that cannot be asked to go), or `copy` only.
    pub(crate) may: String,
    /// Pins it holds.
    pub(crate) pins: u64,
    /// Bytes of IOVA under them; what is pinned twice counts twice.
    pub(crate) pinned_bytes: u64,
}

impl AccessRow {
    fn of(Entry { number, stats }: &Entry<AccessStats>, registry: &Registry) -> Self {
        let ioas = stats.ioas.get();
        let may = match stats.needs {
            AccessNeeds::Pins => "pin",
            AccessNeeds::Keeps => "keep",
            AccessNeeds::Copies => "copy",
        };
        Self {
            id: number.get(),
            context: registry.context_of(ioas),
            ioas,
            object: stats.object.get(),
            may: may.to_owned(),
            pins: stats.pins.get(),
            pinned_bytes: stats.pinned.get().get(),
        }
    }
}

pub(super) async fn list(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let (part, registry) = (UserPart::of(&request)?, &data.view.registry);
    let row = |entry: &Entry<_>| AccessRow::of(entry, registry);
    Ok(shown(&part.list(registry.accesses(), |stats| belongs(registry, stats.ioas), row)))
}
