//! `/v1/operations`: what takes long just now: how far it has come, what it waits for, and whether it can be cancelled.
//!
//! A request is listed from the first time that it has to wait. One that is cancelled is undone between two of its steps;
//! its client is told so, and goes on.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, parameters, problem, door, the actors' view and operations.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use actix_web::rt::time::timeout;
use actix_web::{HttpRequest, HttpResponse, web};
use ioasd_client::ids::ObjectId;
use ioasd_client::units::ByteLen;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Shown;
use super::door::Changer;
use super::json::{Hex, rfc3339, shown};
use super::parameters::{self, Filter, NumberPart, Parameters};
use super::problem::{Kind, Problem};
use crate::actors::journal::Happening;
use crate::actors::number::Number;
use crate::actors::operation::{Canceller, Operation, Subject};
use crate::actors::registry::Entry;

/// How long the end of what was cancelled is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Letters of the longest name of a command.
const COMMAND_MAX: usize = 40;

/// The command of a request that nobody has looked at yet.
const UNREAD: &str = "?";

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct OperationRow {
    /// Its number, never used again.
    pub(crate) id: u64,
    /// The context it is for.
    pub(crate) context: u64,
    /// The command; `CLOSE` when a context is taken down.
    pub(crate) command: String,
    /// The object id in the context that the request named: a device, an access, or what is destroyed.
    pub(crate) object: Option<u32>,
    /// The address space at work.
    pub(crate) ioas: Option<u64>,
    /// The first of the addresses that it is about.
    pub(crate) start: Option<Hex>,
    /// The last of them.
    pub(crate) last: Option<Hex>,
    /// When it began.
    pub(crate) since: String,
    /// How long ago that is.
    pub(crate) age_ms: u64,
    /// `beginning`, `filling`, `pinning`, `moving`, `undoing`, `taking-out` or `letting-go`.
    pub(crate) doing: String,
    /// What it waits for: `turn` (others at work on the same objects), `pages` (earlier movements of the same pages),
    /// `credits`, `pins`, `tables`, `walkers` or `accesses`.
    pub(crate) waits_for: String,
    /// What is wrong with what it waits for.
    pub(crate) trouble: Option<String>,
    /// How far it has come with what it does.
    pub(crate) done_bytes: u64,
    /// All there is to do, if that is known.
    pub(crate) total_bytes: Option<u64>,
    /// Whether the client has its answer already, and only the rest goes on.
    pub(crate) answered: bool,
    /// Whether it can be cancelled now.
    pub(crate) cancellable: bool,
    /// Why not.
    pub(crate) fixed: Option<String>,
}

/// What came of cancelling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Cancellation {
    /// The operation.
    pub(crate) operation: u64,
    /// The context it is for.
    pub(crate) context: u64,
    /// Its command.
    pub(crate) command: String,
    /// Whether it is over; if not, it is on its way back.
    pub(crate) over: bool,
    /// How it ended: `operation-cancelled`; `ok` if it was complete before; or the stable code of another error.
    pub(crate) outcome: Option<String>,
}

/// The command of an operation.
pub(super) fn command(operation: &Operation) -> &'static str {
    operation.command().unwrap_or(UNREAD)
}

fn row(Entry { number, stats }: &Entry<Operation>) -> OperationRow {
    let (age, progress, fixed) = (stats.age(), stats.progress(), stats.fixed());
    let Subject { object, ioas, range, trouble } = stats.subject();
    OperationRow {
        id: number.get(),
        context: stats.context.get(),
        command: command(stats).to_owned(),
        object: object.map(ObjectId::get),
        ioas: ioas.map(Number::get),
        start: range.map(|range| Hex(range.start().get())),
        last: range.map(|range| Hex(range.last().get())),
        since: rfc3339(SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)),
        age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
        doing: stats.doing().name().to_owned(),
        waits_for: stats.waiting().name().to_owned(),
        trouble,
        done_bytes: progress.done.get(),
        total_bytes: progress.total.map(ByteLen::get),
        answered: stats.is_answered(),
        cancellable: fixed.is_none(),
        fixed: fixed.map(|fixed| fixed.to_string()),
    }
}

/// The name of a command, to filter by.
struct CommandName(String);

impl FromStr for CommandName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
        match text.len() {
            1..=COMMAND_MAX if is_name => Ok(Self(text.to_owned())),
            _ => Err(format!("{text:?} is no name of a command, such as IOAS_MAP_FILE")),
        }
    }
}

pub(super) async fn list(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    let mut parameters = Parameters::of(&request)?;
    let part = NumberPart::take(&mut parameters)?;
    let context = Filter::take(&mut parameters, "context")?;
    let wanted = parameters.take::<CommandName>("command")?;
    parameters.finish()?;
    let mut operations = data.view.registry.operations();
    operations.retain(|Entry { stats, .. }| {
        context.passes(stats.context.get()) && wanted.as_ref().is_none_or(|wanted| wanted.0 == command(stats))
    });
    Ok(shown(&part.list(&operations, row)))
}

/// The operation that the path names.
fn asked(request: &HttpRequest, data: &Shown) -> Result<Entry<Operation>, Problem> {
    let id = parameters::id(request)?;
    parameters::none(request)?;
    data.view.registry.operation(id).ok_or_else(|| Problem::absent(format_args!("operation {id}")))
}

pub(super) async fn one(request: HttpRequest, data: web::Data<Shown>) -> Result<HttpResponse, Problem> {
    Ok(shown(&row(&asked(&request, &data)?)))
}

pub(super) async fn cancel(
    changer: Changer,
    request: HttpRequest,
    data: web::Data<Shown>,
) -> Result<HttpResponse, Problem> {
    let Entry { number, stats: operation } = asked(&request, &data)?;
    let (id, command) = (number.get(), command(&operation));
    operation.cancel(Canceller::Operator).map_err(|fixed| {
        Problem::new(Kind::OperationFixed, format!("operation {id} ({command}) cannot be cancelled: {fixed}"))
    })?;
    let text = format!("operation {id} ({command}) is cancelled: said {changer}");
    tracing::warn!(operation = id, command, %changer, "an operation is cancelled");
    data.view.registry.journal().tell(Happening::changed(Some(operation.context), text));
    let outcome = timeout(PATIENCE, operation.ended()).await.ok();
    Ok(shown(&Cancellation {
        operation: id,
        context: operation.context.get(),
        command: command.to_owned(),
        over: outcome.is_some(),
        outcome: outcome.map(str::to_owned),
    }))
}
