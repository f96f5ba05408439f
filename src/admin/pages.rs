//! `/v1/pages`: pages objects, what they cost and who holds them.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the actors' view and questions.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::json::{Hex, shown};
use super::parameters::{self, Filter, NumberPart, Parameters};
use super::problem::Problem;
use crate::actors::figures::PagesStats;
use crate::actors::messages::questions::HoldersOf;
use crate::actors::registry::Entry;

/// Areas that the report of one object lists.
const SHOWN_MAX: usize = 100;

/// One pages object. Length, pinned and charged are three different things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct PagesRow {
    /// Its number, never used again.
    pub(crate) id: u64,
    /// The context it was made in.
    pub(crate) context: u64,
    /// Where its pages come from.
    pub(crate) source: String,
    /// What holds its pins.
    pub(crate) strength: String,
    /// The user who pays.
    pub(crate) uid: u32,
    /// Bytes of the whole array.
    pub(crate) length: u64,
    /// Bytes that hold a pin now.
    pub(crate) pinned_bytes: u64,
    /// Bytes the account was billed for.
    pub(crate) charged_bytes: u64,
    /// Bytes that wait for walkers before they are unpinned; part of those pinned.
    pub(crate) retiring_bytes: u64,
}

impl PagesRow {
    /// The row of an object.
    pub(super) fn of(Entry { number, stats }: &Entry<PagesStats>) -> Self {
        Self {
            id: number.get(),
            context: stats.context.get(),
            source: stats.source.clone(),
            strength: stats.strength.name().to_owned(),
            uid: stats.account.get().as_raw(),
            length: stats.length.get(),
            pinned_bytes: stats.pinned.get().get(),
            charged_bytes: stats.charged.get().get(),
            retiring_bytes: stats.retiring.get().get(),
        }
    }
}

/// An area that shows pages of the object through domains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ShownArea {
    /// The address space.
    pub(crate) ioas: u64,
    /// The first IOVA.
    pub(crate) start: Hex,
    /// The last IOVA, inclusive.
    pub(crate) last: Hex,
}

/// A pages object with who holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct PagesDetail {
    /// The object.
    #[serde(flatten)]
    pub(crate) pages: PagesRow,
    /// Ranges of pages that accesses hold.
    pub(crate) access_ranges: u64,
    /// Areas that show it through domains.
    pub(crate) shown_areas: u64,
    /// The first of them.
    pub(crate) shown: Vec<ShownArea>,
}

pub(super) async fn list(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::of(&request)?;
    let part = NumberPart::take(&mut parameters)?;
    let context = Filter::take(&mut parameters, "context")?;
    let uid = Filter::take(&mut parameters, "uid")?;
    parameters.finish()?;
    let mut pages = data.view.registry.all_pages();
    pages.retain(|Entry { stats, .. }| {
        context.passes(stats.context.get()) && uid.passes(u64::from(stats.account.get().as_raw()))
    });
    Ok(shown(&part.list(&pages, PagesRow::of)))
}

pub(super) async fn one(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let id = parameters::id(&request)?;
    parameters::none(&request)?;
    let entry = data.view.registry.pages(id).ok_or_else(|| Problem::absent(format_args!("pages {id}")))?;
    let holders = entry.stats.inbox.ask(HoldersOf { limit: SHOWN_MAX }).await;
    let holders = holders.map_err(|why| Problem::no_answer(format_args!("pages {id}"), why))?;
    let areas = holders.shown.iter().map(|(key, shape)| ShownArea {
        ioas: key.ioas,
        start: Hex(shape.iova().start().get()),
        last: Hex(shape.iova().last().get()),
    });
    Ok(shown(&PagesDetail {
        pages: PagesRow::of(&entry),
        access_ranges: holders.access_ranges,
        shown_areas: holders.shown_areas,
        shown: areas.collect(),
    }))
}
