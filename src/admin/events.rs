//! `/v1/events`: what happened lately, the oldest first. `since` is the number of the last event known.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, the actors' journal.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::json::{rfc3339, shown};
use super::parameters::{self, Parameters, Whole};
use super::problem::Problem;
use crate::actors::journal::Event;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct EventRow {
    /// Its number; a later one is greater. It gets a new one when it happens again.
    pub(crate) number: u64,
    /// When it happened last.
    pub(crate) at: String,
    /// How often it happened in a row.
    pub(crate) times: u64,
    /// `opened`, `closed`, `refused`, `walkers-late`, `walker-killed`, `walkers-left`, `denied`, `soft-limit`, `stopping`,
    /// `changed` or `not-reloaded`.
    pub(crate) kind: String,
    /// The context it happened to.
    pub(crate) context: Option<u64>,
    /// The command that was refused.
    pub(crate) command: Option<String>,
    /// The stable code of why.
    pub(crate) code: Option<String>,
    /// The same for people; of a refusal, what the client was told.
    pub(crate) text: String,
}

/// A part of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Events {
    /// The events.
    pub(crate) items: Vec<EventRow>,
    /// What `since` must be to get the rest; `None` at the end.
    pub(crate) next: Option<String>,
    /// The number of the last event that was forgotten; who knows none as late has missed some.
    pub(crate) forgotten: u64,
}

fn row(Event { number, at, times, what }: &Event) -> EventRow {
    let (command, code) = what.refused.unzip();
    EventRow {
        number: *number,
        at: rfc3339(*at),
        times: *times,
        kind: what.kind.name().to_owned(),
        context: what.context,
        command: command.map(str::to_owned),
        code: code.map(str::to_owned),
        text: what.text.clone(),
    }
}

pub(super) async fn list(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::of(&request)?;
    let since = parameters.take::<Whole>("since")?.map_or(0, |since| since.0);
    let limit = parameters::limit(&mut parameters)?;
    parameters.finish()?;
    let journal = data.view.registry.journal();
    let forgotten = journal.forgotten();
    let (events, more) = journal.since(since, limit);
    let next = events.last().filter(|_| more).map(|last| last.number.to_string());
    Ok(shown(&Events { items: events.iter().map(row).collect(), next, forgotten }))
}
