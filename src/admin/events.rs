//! `/v1/events`: what happened lately, the oldest first. `since` is the number of the last event known. Whoever
//! asks for `text/event-stream` gets them as a stream (`event_stream`).
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, event_stream, the actors' journal.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::json::{rfc3339, shown};
use super::parameters::{self, Parameters, Whole};
use super::problem::Problem;
use super::{Shown, event_stream};
use crate::actors::journal::{Event, Part};

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct EventRow {
    /// Its number; a later one is greater. It gets a new one when it happens again.
    pub(crate) number: u64,
    /// When it happened last.
    pub(crate) at: String,
    /// How often it happened in a row.
    pub(crate) times: u64,
    /// `opened`, `closed`, `refused`, `walked`, `walkers-late`, `walker-killed`, `walkers-left`, `denied`, `soft-limit`, `stopping`,
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

pub(super) fn row(Event { number, at, times, what }: &Event) -> EventRow {
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

/// Where a browser says which event of a stream it knows.
pub(super) const LAST_EVENT_ID: &str = "Last-Event-ID";

/// The last event known: what a stream broke off after, else what was asked for.
fn known(request: &HttpRequest, parameters: &mut Parameters) -> Result<u64, Problem> {
    let asked = parameters.take::<Whole>("since")?;
    let broken_off = request.headers().get(LAST_EVENT_ID).map(|id| {
        let id = id.to_str().unwrap_or("?").parse::<Whole>();
        id.map_err(|error| Problem::parameter(LAST_EVENT_ID, error))
    });
    Ok(broken_off.transpose()?.or(asked).map_or(0, |number| number.0))
}

pub(super) async fn list(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::of(&request)?;
    let known = known(&request, &mut parameters)?;
    if event_stream::is_wanted(&request) {
        parameters.finish()?;
        return event_stream::answer(&data, known);
    }
    let limit = parameters::limit(&mut parameters)?;
    parameters.finish()?;
    let Part { events, more, forgotten, .. } = data.view.registry.journal().since(known, limit);
    let next = events.last().filter(|_| more).map(|last| last.number.to_string());
    Ok(shown(&Events { items: events.iter().map(row).collect(), next, forgotten }))
}
