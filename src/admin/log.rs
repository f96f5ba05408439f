//! `/v1/log`: which events are logged, changed while the agent runs, for good or for a while.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, door, telemetry::logging.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actix_web::rt::{spawn, time::sleep};
use actix_web::{HttpRequest, HttpResponse, web};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::body::Body;
use super::door::Changer;
use super::json::{rfc3339, shown};
use super::parameters;
use super::problem::{Kind, Problem};
use crate::actors::journal::Happening;
use crate::telemetry::logging::{FilterHandle, LoggingError};

/// How long a filter can be used: up to a week.
const SECONDS: RangeInclusive<f64> = 1.0..=604_800.0;

/// The filter of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct LogState {
    /// The filter in use.
    pub(crate) filter: String,
    /// The one that was in use before a change.
    pub(crate) before: Option<String>,
    /// The one that will be in use again.
    pub(crate) reverts_to: Option<String>,
    /// When.
    pub(crate) reverts_at: Option<String>,
}

/// A new filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewFilter {
    /// Levels and modules, for example `info` or `warn,ioasd::actors=debug`.
    #[schema(
        pattern = "^[a-z_][a-z0-9_]*(::[a-z_][a-z0-9_]*)*(=(off|error|warn|info|debug|trace))?(,[a-z_][a-z0-9_]*(::[a-z_][a-z0-9_]*)*(=(off|error|warn|info|debug|trace))?)*$"
    )]
    pub(crate) filter: String,
    /// Seconds after which the filter of before is in use again; without it never.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 604_800)]
    pub(crate) for_seconds: Option<f64>,
}

/// What a filter that is used for a while gives way to.
#[derive(Clone, Debug)]
struct Revert {
    to: String,
    at: SystemTime,
}

/// The filter, and what it gives way to.
#[derive(Debug)]
pub(super) struct LogControl {
    handle: FilterHandle,
    revert: Mutex<Option<Revert>>,
}

impl LogControl {
    /// Changes what `handle` does.
    pub(super) fn new(handle: FilterHandle) -> Self {
        Self { handle, revert: Mutex::default() }
    }

    fn state(&self, before: Option<String>) -> Result<LogState, LoggingError> {
        let revert = self.revert.lock().clone();
        let (reverts_to, reverts_at) = revert.map(|Revert { to, at }| (to, rfc3339(at))).unzip();
        Ok(LogState { filter: self.handle.get()?, before, reverts_to, reverts_at })
    }

    /// Uses `filter` from now on, for good or for a while; one that was used for a while leaves its turn to it.
    fn set(self: &Arc<Self>, filter: &str, period: Option<Duration>) -> Result<LogState, LoggingError> {
        let mut revert = self.revert.lock();
        let before = self.handle.get()?;
        self.handle.set(filter)?;
        let base = revert.take().map_or_else(|| before.clone(), |revert| revert.to);
        *revert = period.map(|period| self.revert_later(base, period));
        drop(revert);
        self.state(Some(before))
    }

    fn revert_later(self: &Arc<Self>, to: String, after: Duration) -> Revert {
        let (log, at) = (Arc::clone(self), SystemTime::now() + after);
        drop(spawn(async move {
            sleep(after).await;
            log.revert_if_due(at);
        }));
        Revert { to, at }
    }

    fn revert_if_due(&self, at: SystemTime) {
        let mut revert = self.revert.lock();
        if let Some(due) = revert.take_if(|revert| revert.at == at) {
            match self.handle.set(&due.to) {
                Ok(()) => tracing::info!(filter = due.to, "the log filter is again what it was"),
                Err(error) => tracing::error!(%error, "the log filter cannot be set back"),
            }
        }
    }
}

fn control(data: &Shown) -> Result<&Arc<LogControl>, Problem> {
    let none =
        || Problem::new(Kind::NotOffered, "this agent's log is not its own: its filter cannot be seen");
    data.log.as_ref().ok_or_else(none)
}

fn failed(error: &LoggingError) -> Problem {
    Problem::new(Kind::BodyInvalid, format!("filter: {}", with_cause(error)))
}

fn with_cause(error: &LoggingError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
    error.to_string() + &cause.unwrap_or_default()
}

fn period(seconds: f64) -> Result<Duration, Problem> {
    let period = Some(seconds).filter(|seconds| SECONDS.contains(seconds));
    period.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(|| {
        let (least, most) = (SECONDS.start(), SECONDS.end());
        let detail = format!(
            "for_seconds: {seconds} is not {least} to {most}; without it the filter is used for good"
        );
        Problem::new(Kind::BodyInvalid, detail)
    })
}

pub(super) async fn get(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    parameters::none(&request)?;
    control(&data)?.state(None).map(|state| shown(&state)).map_err(|error| failed(&error))
}

pub(super) async fn put(
    changer: Changer,
    request: HttpRequest,
    data: web::Data<Shown>,
    body: Body<NewFilter>,
) -> Result<HttpResponse, Problem> {
    parameters::none(&request)?;
    let log = control(&data)?;
    let Body(NewFilter { filter, for_seconds }) = body;
    let state = log.set(&filter, for_seconds.map(period).transpose()?).map_err(|error| failed(&error))?;
    let text = format!("log filter {:?} set by {changer}", state.filter);
    data.view.registry.journal().tell(Happening::changed(None, text));
    Ok(shown(&state))
}
