//! `/openapi.json`: the admin API as an OpenAPI document, made from the types that are answered. `docs/openapi.json` is the
//! same text.
//!
//! Imports allowed: `actix_web`, `utoipa`, json, problem, the rows of every resource.

use actix_web::http::header::ContentType;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::json;
use utoipa::openapi::path::{Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::{
    Content, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, PathsBuilder, Ref, RefOr, Required,
    ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};

use super::json::Listed;
use super::parameters::{self, LIMIT_MAX};
use super::problem::{self, Body, Problem};
use super::{
    accesses, accounts, areas, config, contexts, devices, domains, ending, event_stream, events, explain,
    faults, gaps, host, ioases, log, operations, pages, payers, reload, status, version, walk,
};
use crate::storage::source;

/// The schemas that the document names.
type Schemas = Vec<(String, RefOr<Schema>)>;

/// What a path answers when all is well.
#[derive(Clone, Copy)]
enum Answer {
    /// JSON of a type: puts its schemas there and gives its name.
    Json(fn(&mut Schemas) -> String),
    /// The same, and a stream of what it lists for whoever accepts one.
    Stream(fn(&mut Schemas) -> String),
    /// Text.
    Text,
}

/// A parameter, in the query unless a header is said.
#[derive(Clone, Copy)]
enum Query {
    After,
    AfterAddress,
    Limit,
    Context,
    Command,
    Ioas,
    Uid,
    State,
    Iova,
    PlaceAt,
    Length,
    Offset,
    Rights,
    Strength,
    Source,
    Since,
    LastEventId,
    Verbose,
    DryRun,
}

use Query::{
    After, AfterAddress, Command, Context, DryRun, Ioas, Iova, LastEventId, Length, Limit, Offset, PlaceAt,
    Rights, Since, Source, State, Strength, Uid, Verbose,
};

/// A path, what it shows, what it takes and what it answers.
type Described = (&'static str, &'static str, &'static [Query], Answer);

fn named<T: ToSchema>(schemas: &mut Schemas) -> String {
    T::schemas(schemas);
    let name = T::name().into_owned();
    schemas.push((name.clone(), T::schema()));
    name
}

/// A list of rows.
fn listed<T: ToSchema>(schemas: &mut Schemas) -> String {
    let name = format!("ListOf{}", named::<T>(schemas));
    schemas.push((name.clone(), Listed::<T>::schema()));
    name
}

fn paths() -> Vec<Described> {
    [agent_and_spaces(), objects_and_users(), work_and_accounts()].concat()
}

/// The agent as a whole, who has it open, and address spaces.
fn agent_and_spaces() -> Vec<Described> {
    use Answer::{Json, Text};
    vec![
        ("/livez", "whether the admin server runs", &[], Text),
        ("/readyz", "whether clients can be served; 503 if not", &[Verbose], Text),
        ("/metrics", "figures for Prometheus", &[], Text),
        ("/version", "name and version", &[], Json(named::<version::Version>)),
        ("/v1/status", "the agent at a glance", &[], Json(named::<status::Status>)),
        ("/v1/contexts", "who has it open", &[After, Limit, Uid], Json(listed::<contexts::ContextRow>)),
        ("/v1/contexts/{id}", "one of them", &[], Json(named::<contexts::ContextRow>)),
        ("/v1/ioas", "address spaces", &[After, Limit, Context], Json(listed::<ioases::IoasRow>)),
        ("/v1/ioas/{id}", "one of them", &[], Json(named::<ioases::IoasRow>)),
        (
            "/v1/ioas/{id}/areas",
            "what one shows, in IOVA order",
            &[AfterAddress, Limit, State],
            Json(listed::<areas::AreaRow>),
        ),
        (
            "/v1/ioas/{id}/gaps",
            "what is free there, in IOVA order",
            &[AfterAddress, Limit],
            Json(listed::<gaps::GapRow>),
        ),
        (
            "/v1/ioas/{id}/ranges",
            "what is reserved or allowed there, in IOVA order",
            &[AfterAddress, Limit],
            Json(listed::<gaps::RangeRow>),
        ),
        (
            "/v1/ioas/{id}/explain",
            "whether a map would succeed there, and what is in its way",
            &[Length, PlaceAt, Offset, Rights, Strength, Source],
            Json(named::<explain::Explanation>),
        ),
    ]
}

/// Events as a list and as a stream.
fn events(schemas: &mut Schemas) -> String {
    named::<event_stream::Missed>(schemas);
    named::<events::Events>(schemas)
}

/// What areas show, and who uses it.
fn objects_and_users() -> Vec<Described> {
    use Answer::Json;
    vec![
        ("/v1/pages", "pages objects", &[After, Limit, Context, Uid], Json(listed::<pages::PagesRow>)),
        ("/v1/pages/{id}", "one of them, with who holds it", &[], Json(named::<pages::PagesDetail>)),
        ("/v1/domains", "IO page tables", &[After, Limit, Context, Ioas], Json(listed::<domains::DomainRow>)),
        ("/v1/domains/{id}", "one of them, with its shape", &[], Json(named::<domains::DomainDetail>)),
        ("/v1/domains/{id}/walk", "the way to an address", &[Iova], Json(named::<walk::WalkReport>)),
        (
            "/v1/domains/{id}/faults",
            "what its walkers could not reach, by cause and the last ones, the oldest first",
            &[After, Limit],
            Json(named::<faults::Faults>),
        ),
        (
            "/v1/devices",
            "software and mock devices",
            &[After, Limit, Context, Ioas],
            Json(listed::<devices::DeviceRow>),
        ),
        ("/v1/devices/{id}", "one of them", &[], Json(named::<devices::DeviceRow>)),
        (
            "/v1/accesses",
            "software users",
            &[After, Limit, Context, Ioas],
            Json(listed::<accesses::AccessRow>),
        ),
    ]
}

/// What is done, who pays, and what is so of the agent and its host.
fn work_and_accounts() -> Vec<Described> {
    use Answer::Json;
    vec![
        (
            "/v1/operations",
            "what takes long just now",
            &[After, Limit, Context, Command],
            Json(listed::<operations::OperationRow>),
        ),
        ("/v1/operations/{id}", "one of them", &[], Json(named::<operations::OperationRow>)),
        (
            "/v1/accounts",
            "who uses how much of what, and what binds them",
            &[After, Limit],
            Json(listed::<accounts::AccountRow>),
        ),
        (
            "/v1/payers",
            "the processes that map, and their limits",
            &[After, Limit],
            Json(listed::<payers::PayerRow>),
        ),
        (
            "/v1/events",
            "what happened lately, the oldest first",
            &[Since, LastEventId, Limit],
            Answer::Stream(events),
        ),
        ("/v1/config", "the effective configuration", &[], Json(named::<config::Settings>)),
        ("/v1/log", "which events are logged", &[], Json(named::<log::LogState>)),
        ("/v1/drain", "whether whoever connects is served", &[], Json(named::<ending::DrainState>)),
        ("/v1/host", "what anybody on this host holds in place", &[Limit], Json(named::<host::Host>)),
    ]
}

/// A body that a change takes.
type Taken = Option<fn(&mut Schemas) -> String>;

/// What changes something: how, and with which body.
fn changes() -> Vec<(HttpMethod, Described, Taken)> {
    use Answer::Json;
    use HttpMethod::{Delete, Post, Put};
    let drained = || Json(named::<ending::DrainState>);
    let evicted = Json(named::<ending::Eviction>);
    vec![
        (
            Put,
            ("/v1/log", "change which events are logged", &[], Json(named::<log::LogState>)),
            Some(named::<log::NewFilter>),
        ),
        (Post, ("/v1/reload", "read the configuration again", &[], Json(named::<reload::Reloaded>)), None),
        (Post, ("/v1/drain", "serve nobody who connects from now on", &[], drained()), None),
        (Delete, ("/v1/drain", "serve whoever connects again", &[], drained()), None),
        (
            Delete,
            (
                "/v1/operations/{id}",
                "cancel it: it is undone, and its client is told so",
                &[],
                Json(named::<operations::Cancellation>),
            ),
            None,
        ),
        (
            Post,
            ("/v1/contexts/{id}/evict", "end a context as if its client had died", &[DryRun], evicted),
            None,
        ),
    ]
}

/// The document.
fn document() -> OpenApi {
    let (mut paths_built, mut schemas) = (PathsBuilder::new(), Schemas::new());
    let problem = named::<Body<'_>>(&mut schemas);
    for described in paths() {
        let path = described.0;
        let operation = operation(described, &problem, &mut schemas);
        paths_built = paths_built.path(path, PathItem::new(HttpMethod::Get, operation));
    }
    for (method, described, taken) in changes() {
        let path = described.0;
        let mut operation = operation(described, &problem, &mut schemas);
        let id = operation.operation_id.take().unwrap_or_default();
        operation.operation_id = Some(format!("{id}_{}", verb(&method)));
        operation.request_body = taken.map(|taken| body(&taken(&mut schemas)).into());
        paths_built = paths_built.path(path, PathItem::new(method, operation));
    }
    let info = InfoBuilder::new().title(env!("CARGO_PKG_NAME")).version(env!("CARGO_PKG_VERSION"));
    let info = info.description(Some(
        "What the agent holds. What is not a GET changes something: over the admin socket it takes the agent's user or root, over TCP the token. Addresses are strings in hex, sizes are bytes.",
    ));
    let components = ComponentsBuilder::new().schemas_from_iter(schemas).build();
    OpenApiBuilder::new().info(info.build()).paths(paths_built).components(Some(components)).build()
}

const fn verb(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Put => "put",
        HttpMethod::Delete => "delete",
        _ => "post",
    }
}

fn body(name: &str) -> RequestBody {
    let content = Content::new(Some(Ref::from_schema_name(name)));
    RequestBodyBuilder::new().content("application/json", content).required(Some(Required::True)).build()
}

fn operation((path, shows, query, answer): Described, problem: &str, schemas: &mut Schemas) -> Operation {
    let id = path.split(['/', '{', '}', '.']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_");
    let mut operation = OperationBuilder::new().summary(Some(shows)).operation_id(Some(id));
    if path.contains("{id}") {
        operation = operation.parameter(parameter(
            ("id", ParameterIn::Path, Required::True),
            "the number of the object",
            number(),
        ));
    }
    for query in query {
        operation = operation.parameter(query.described());
    }
    let (kind, schema) = match answer {
        Answer::Json(schemas_of) | Answer::Stream(schemas_of) => {
            ("application/json", Ref::from_schema_name(schemas_of(schemas)).into())
        }
        Answer::Text => ("text/plain", RefOr::from(text())),
    };
    let refused = || Content::new(Some(Ref::from_schema_name(problem)));
    let unready = if path == "/readyz" { Content::new(Some(text())) } else { refused() };
    let unready_kind = if path == "/readyz" { kind } else { problem::CONTENT_TYPE };
    let mut all_well = ResponseBuilder::new().description(shows).content(kind, Content::new(Some(schema)));
    if matches!(answer, Answer::Stream(_)) {
        all_well = all_well.content(event_stream::CONTENT_TYPE, Content::new(Some(stream())));
    }
    operation
        .response("200", all_well)
        .response(
            "4XX",
            ResponseBuilder::new().description("refused").content(problem::CONTENT_TYPE, refused()),
        )
        .response("503", ResponseBuilder::new().description("not now").content(unready_kind, unready))
        .build()
}

impl Query {
    fn described(self) -> Parameter {
        let (name, says, schema) = match self {
            After => ("after", "the `next` of the part before", matching(NUMBER)),
            AfterAddress => ("after", "the `next` of the part before", matching(ADDRESS)),
            Limit => ("limit", "rows at most", limit()),
            Context => ("context", "only what belongs to this context", number()),
            Command => ("command", "only requests for this command", matching(COMMAND)),
            Ioas => ("ioas", "only what uses this address space", number()),
            Uid => ("uid", "only what belongs to this user", number()),
            State => {
                ("state", "only areas in this state", one_of(["filling", "ready", "withdrawn", "retiring"]))
            }
            Iova => ("iova", "the address, in hex with 0x or in decimal", matching(ADDRESS)),
            PlaceAt => ("iova", "where to map; automatic placement without it", matching(ADDRESS)),
            Length => ("length", "bytes, in hex with 0x or in decimal", matching(ADDRESS)),
            Offset => ("offset", "of the first byte in its file, or its address", matching(ADDRESS)),
            Rights => ("permission", "what devices may do; rw without it", one_of(["r", "w", "rw"])),
            Strength => (
                "strength",
                "what holds the pins; without it the strongest that is possible and allowed",
                one_of(explain::words::<source::Strength>()),
            ),
            Source => (
                "source",
                "what the memory is; without it whatever the tenant may map",
                one_of(explain::words::<source::SourceKind>()),
            ),
            Since => ("since", "the number of the last event known", number()),
            LastEventId => {
                let says = "the last event that came before a stream broke off; goes before `since`";
                let header = (events::LAST_EVENT_ID, ParameterIn::Header, Required::False);
                return parameter(header, says, number());
            }
            Verbose => ("verbose", "what passes too", text()),
            DryRun => ("dry_run", "only tell what would be done", boolean()),
        };
        let required = if matches!(self, Iova | Length) { Required::True } else { Required::False };
        parameter((name, ParameterIn::Query, required), says, schema)
    }
}

fn parameter(
    (name, place, required): (&str, ParameterIn, Required),
    says: &str,
    schema: Schema,
) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(Some(says))
        .schema(Some(schema))
        .build()
}

fn text() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).into()
}

/// The greatest number of [`parameters::DIGITS_MAX`] digits.
const NUMBER_MAX: usize = 10_usize.pow(19) - 1;

/// What is told in a stream.
fn stream() -> Schema {
    let says =
        "`id` is the number of an event and `data` an EventRow; of `event: missed`, `data` is a Missed";
    ObjectBuilder::new().schema_type(Type::String).description(Some(says)).into()
}

/// A number in decimal, so that it surely fits into 64 bits.
const NUMBER: &str = "^[0-9]{1,19}$";

/// An address, in hex or so that it surely fits into 64 bits in decimal.
const ADDRESS: &str = "^(0x[0-9a-fA-F]{1,16}|[0-9]{1,19})$";

/// The name of a command.
const COMMAND: &str = "^[A-Z_]{1,40}$";

fn matching(pattern: &str) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).into()
}

fn one_of(words: impl IntoIterator<Item = &'static str>) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).into()
}

fn boolean() -> Schema {
    ObjectBuilder::new().schema_type(Type::Boolean).into()
}

fn number() -> Schema {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(NUMBER_MAX)).into()
}

fn limit() -> Schema {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(LIMIT_MAX))
        .default(Some(json!(parameters::LIMIT)))
        .into()
}

/// The document as it is served and kept.
fn written() -> Result<String, serde_json::Error> {
    document().to_pretty_json().map(|text| text + "\n")
}

pub(super) async fn openapi(request: HttpRequest) -> Result<HttpResponse, Problem> {
    parameters::none(&request)?;
    Ok(match written() {
        Ok(text) => HttpResponse::Ok().content_type(ContentType::json()).body(text),
        Err(error) => {
            tracing::error!(%error, "the document cannot be written");
            HttpResponse::InternalServerError().finish()
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::admin::json::Hex;

    #[test]
    fn the_document_that_is_kept_is_the_one_that_is_made() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
        if std::env::var_os("IOASD_BLESS").is_some() {
            std::fs::write(path, written().unwrap()).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap();
        assert!(kept == written().unwrap(), "IOASD_BLESS=1 cargo test --lib admin::openapi rewrites {path}");
    }

    #[test]
    fn every_route_is_described() {
        let source = include_str!("mod.rs");
        let routes = source.split("read_only(\"").skip(1).chain(source.split("changing(\"").skip(1));
        let routes: BTreeSet<&str> = routes.filter_map(|rest| rest.split('"').next()).collect();
        let mut described: BTreeSet<&str> = paths().iter().map(|described| described.0).collect();
        described.extend(changes().iter().map(|(_, described, _)| described.0));
        described.insert("/openapi.json");
        assert_eq!(routes, described);
    }

    #[test]
    fn an_address_is_a_string_and_every_reference_leads_somewhere() {
        let document = serde_json::to_value(document()).unwrap();
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas[&*Hex::name()]["type"], "string");
        let text = document.to_string();
        for name in text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(schemas.get(name).is_some(), "{name} is missing");
        }
    }
}
