//! `/v1/ioas`: IO address spaces.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the actors' view.

use std::collections::HashMap;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::json::shown;
use super::parameters::{self, Filter, NumberPart, Parameters};
use super::problem::Problem;
use crate::actors::figures::IoasStats;
use crate::actors::registry::{Entry, Registry};

/// One address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct IoasRow {
    /// Its number, never used again.
    pub(crate) id: u64,
    /// The context it belongs to.
    pub(crate) context: u64,
    /// Its object id there.
    pub(crate) object: u32,
    /// Areas in it.
    pub(crate) areas: u64,
    /// Bytes of IOVA that they cover.
    pub(crate) mapped_bytes: u64,
    /// Domains that show it.
    pub(crate) domains: u64,
    /// Accesses that use it.
    pub(crate) accesses: u64,
}

/// Domains and accesses, by address space.
struct Users(HashMap<u64, (u64, u64)>);

impl Users {
    fn of(registry: &Registry) -> Self {
        let mut users: HashMap<u64, (u64, u64)> = HashMap::new();
        for domain in registry.domains() {
            users.entry(domain.stats.ioas.get()).or_default().0 += 1;
        }
        for access in registry.accesses() {
            users.entry(access.stats.ioas.get()).or_default().1 += 1;
        }
        Self(users)
    }

    fn row(&self, Entry { number, stats }: &Entry<IoasStats>) -> IoasRow {
        let (domains, accesses) = self.0.get(&number.get()).copied().unwrap_or_default();
        IoasRow {
            id: number.get(),
            context: stats.context.get(),
            object: stats.object.get(),
            areas: stats.areas.get(),
            mapped_bytes: stats.mapped.get().get(),
            domains,
            accesses,
        }
    }
}

pub(super) async fn list(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::of(&request)?;
    let part = NumberPart::take(&mut parameters)?;
    let context = Filter::take(&mut parameters, "context")?;
    parameters.finish()?;
    let registry = &data.view.registry;
    let users = Users::of(registry);
    let mut ioases = registry.ioases();
    ioases.retain(|entry| context.passes(entry.stats.context.get()));
    Ok(shown(&part.list(&ioases, |entry| users.row(entry))))
}

pub(super) async fn one(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let entry = asked(&request, &data)?;
    parameters::none(&request)?;
    Ok(shown(&Users::of(&data.view.registry).row(&entry)))
}

/// The address space that the path names.
pub(super) fn asked(request: &HttpRequest, data: &Shown) -> Result<Entry<IoasStats>, Problem> {
    let id = parameters::id(request)?;
    data.view.registry.ioas(id).ok_or_else(|| Problem::absent(format_args!("ioas {id}")))
}
