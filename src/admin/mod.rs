//! The admin server: what people and monitoring ask the agent over HTTP.
//!
//! ```text
//! GET /livez                      200 while this server runs
//! GET /readyz                     200 when every check passes, else 503 with the failing ones; ?verbose lists all
//! GET /metrics                    Prometheus text, made afresh from the registry
//! GET /version                    name and version
//!
//! GET /                           a page for people
//! GET /openapi.json               this API as a document, made from the types that are answered
//! GET /v1/status                  the agent at a glance
//! GET /v1/contexts[/{id}]         who has it open
//! GET /v1/ioas[/{id}]             address spaces
//! GET /v1/ioas/{id}/areas         what one shows
//! GET /v1/ioas/{id}/gaps          what is free there
//! GET /v1/ioas/{id}/ranges        what is reserved or allowed there
//! GET /v1/ioas/{id}/explain       ?length=&iova=..: whether a map would succeed there, and what is in its way
//! GET /v1/pages[/{id}]            pages objects
//! GET /v1/domains[/{id}]          IO page tables
//! GET /v1/domains/{id}/walk       ?iova=0x..: the way to an address
//! GET /v1/domains/{id}/faults     what its walkers could not reach
//! GET /v1/devices[/{id}]          software and mock devices
//! GET /v1/accesses                software users
//! GET /v1/operations[/{id}]       what takes long just now, how far it has come, what it waits for
//! DELETE /v1/operations/{id}      cancels one that can be undone
//! GET /v1/accounts                who uses how much of what, and what binds them
//! GET /v1/payers                  the processes that map, and their limits
//! GET /v1/events                  what happened lately; ?since=; also as a stream (text/event-stream)
//! GET /v1/host                    what anybody on this host holds in place
//! GET /v1/config                  the effective configuration, with the source of each value
//! GET PUT /v1/log                 which events are logged
//! POST /v1/reload                 reads the configuration again
//! GET POST DELETE /v1/drain       whether whoever connects is served
//! POST /v1/contexts/{id}/evict    ends a context; ?dry_run=true
//! ```
//!
//! Lists come in parts: `?limit=`, and `?after=` with the `next` of the part before. Filters: `?context=` (ioas, pages,
//! domains, devices, accesses, operations), `?command=` (operations), `?ioas=` (domains, devices, accesses), `?uid=` (contexts, pages), `?state=` (areas). The server has a thread and an actix
//! system of its own, and asks the data side with a deadline: when that is stuck, `/livez`, `/metrics` and the lists still
//! answer, and what needs an owner's answer is 503. Whatever cannot be answered is `application/problem+json`.
//!
//! Which of this is shown to whom, and who may change anything: `door`. A change is told in the journal.
//!
//! Imports allowed: the actors' view (registry, inboxes, questions), `telemetry`, sys::activation, units, storage's words for reports.

pub(crate) mod accesses;
pub(crate) mod accounts;
pub(crate) mod areas;
mod body;
pub mod config;
pub(crate) mod contexts;
pub(crate) mod devices;
pub(crate) mod domains;
pub mod door;
pub(crate) mod ending;
pub(crate) mod event_stream;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod faults;
pub(crate) mod gaps;
pub mod health;
pub(crate) mod host;
pub(crate) mod ioases;
pub(crate) mod json;
pub mod listen;
pub(crate) mod log;
mod metrics;
mod openapi;
pub(crate) mod operations;
pub(crate) mod pages;
pub(crate) mod parameters;
pub(crate) mod payers;
mod problem;
pub mod reload;
pub(crate) mod status;
pub mod token;
mod ui;
mod version;
pub(crate) mod walk;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::SystemTime;

use actix_web::dev::{Server, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::rt::System;
use actix_web::{App, HttpServer, Resource, Route, web};

use self::door::{Keys, Scope};
use self::event_stream::{Streams, StreamsEnd};
use self::health::Readiness;
use self::listen::{LoopbackAddr, SocketFile};
use self::log::LogControl;
use self::reload::Configured;
use self::token::{AdminToken, TokenError};
use crate::actors::contexts::Contexts;
use crate::actors::view::View;
use crate::telemetry::host::HostView;
use crate::telemetry::logging::FilterHandle;
use crate::telemetry::metrics::NamedSeries;

/// Seconds that a connection may still take when the server stops.
const SHUTDOWN_SECONDS: u64 = 1;

/// Why the admin server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The TCP address cannot be listened on.
    #[error("the admin server cannot listen on {address}, set admin.listen to another address or to \"off\"")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The socket file cannot be listened on.
    #[error("the admin server cannot listen on {}, set admin.socket to another path or to \"off\"", path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Others could reach it, and nobody would be asked who he is.
    #[error(
        "admin.remote is {0}: set admin.token_file to a file with a token that whoever asks there must show"
    )]
    RemoteWithoutToken(SocketAddr),
    /// The thread or its runtime could not be started.
    #[error("the admin server cannot start")]
    Start(#[source] io::Error),
}

/// What the admin server listens on. With neither there is no admin server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// A loopback TCP address; port 0 takes a free one.
    pub tcp: Option<LoopbackAddr>,
    /// A TCP address that others reach; needs a token.
    pub remote: Option<SocketAddr>,
    /// The path of a Unix socket.
    pub socket: Option<PathBuf>,
    /// What is shown through TCP.
    pub scope: Scope,
    /// How many objects `/metrics` names.
    pub series: NamedSeries,
    /// Names of this host, besides its addresses.
    pub names: Vec<String>,
}

impl Endpoints {
    const fn is_empty(&self) -> bool {
        self.tcp.is_none() && self.remote.is_none() && self.socket.is_none()
    }

    /// The token in `file`, which there must be if others reach the agent.
    ///
    /// # Errors
    /// If it must be there and is not, or cannot be used.
    pub fn token(&self, file: Option<&Path>) -> Result<Option<AdminToken>, AdminError> {
        let token = file.map(AdminToken::read).transpose()?;
        self.require(token.as_ref()).map(|()| token)
    }

    fn require(&self, token: Option<&AdminToken>) -> Result<(), AdminError> {
        match self.remote {
            Some(remote) if token.is_none() => Err(AdminError::RemoteWithoutToken(remote)),
            _ => Ok(()),
        }
    }

    fn keys(&self, token: Option<AdminToken>) -> Result<Keys, AdminError> {
        self.require(token.as_ref())?;
        Ok(Keys { scope: self.scope, token, names: self.names.clone() })
    }

    fn listen(&self) -> Result<Listeners, AdminError> {
        let loopback = self.tcp.map(|address| listen::tcp(address.get())).transpose()?;
        let remote = self.remote.map(listen::tcp).transpose()?;
        let (unix, file) = self.socket.as_deref().map(listen::unix).transpose()?.unzip();
        Ok(Listeners { loopback, remote, unix, file: file.flatten() })
    }
}

/// What is listened on.
struct Listeners {
    loopback: Option<TcpListener>,
    remote: Option<TcpListener>,
    unix: Option<UnixListener>,
    file: Option<SocketFile>,
}

/// What the admin server may change, and shows besides objects.
#[derive(Debug, Default)]
pub struct Controls {
    /// The live contexts.
    pub contexts: Arc<Contexts>,
    /// The token that opens everything over TCP, if there is one.
    pub token: Option<AdminToken>,
    /// The filter of the log, if the log is the agent's own.
    pub log: Option<FilterHandle>,
    /// Where the configuration comes from, if the agent was started with one.
    pub configured: Option<Arc<dyn Configured>>,
}

/// What the handlers answer from.
#[derive(Clone, Debug)]
struct Shown {
    view: View,
    host: Arc<HostView>,
    readiness: Arc<Readiness>,
    keys: Keys,
    series: NamedSeries,
    streams: Streams,
    contexts: Arc<Contexts>,
    log: Option<Arc<LogControl>>,
    configured: Option<Arc<dyn Configured>>,
    since: SystemTime,
}

/// A running admin server; stops it when dropped.
#[derive(Debug)]
pub struct AdminHandle {
    address: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    server: ServerHandle,
    streams: Option<StreamsEnd>,
    thread: Option<JoinHandle<io::Result<()>>>,
    _socket: Option<SocketFile>,
}

impl AdminHandle {
    /// The TCP address it listens on, with the port it got.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The address that others reach, with the port it got.
    #[must_use]
    pub const fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// Stops the server, ends its streams and waits for its thread: at once when idle, else a second at most for open requests.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        drop(self.streams.take());
        // The order to stop is sent by the call; the future would only wait for what `join` waits for.
        drop(self.server.stop(true));
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => tracing::error!(%error, "admin server failed"),
            Some(Err(_)) => tracing::error!("admin server panicked"),
            Some(Ok(Ok(()))) | None => tracing::debug!("admin server stopped"),
        }
    }
}

/// Starts the admin server; it answers as soon as this returns. `None` if there is nothing to listen on.
///
/// # Errors
/// If an endpoint cannot be listened on, or the thread not be started.
pub fn start(
    endpoints: &Endpoints,
    view: View,
    controls: Controls,
    readiness: Readiness,
) -> Result<Option<AdminHandle>, AdminError> {
    if endpoints.is_empty() {
        return Ok(None);
    }
    let Controls { contexts, token, log, configured } = controls;
    let (streams, streams_end) = Streams::new();
    let shown = Shown {
        view,
        host: Arc::default(),
        readiness: Arc::new(readiness),
        keys: endpoints.keys(token)?,
        series: endpoints.series,
        streams,
        contexts,
        log: log.map(|log| Arc::new(LogControl::new(log))),
        configured,
        since: SystemTime::now(),
    };
    spawn(shown, streams_end, endpoints.listen()?).map(Some).map_err(AdminError::Start)
}

fn spawn(shown: Shown, streams: StreamsEnd, mut listeners: Listeners) -> io::Result<AdminHandle> {
    let address = listeners.loopback.as_ref().map(TcpListener::local_addr).transpose()?;
    let remote = listeners.remote.as_ref().map(TcpListener::local_addr).transpose()?;
    let socket = listeners.file.take();
    let (started, when_started) = sync_channel(1);
    let thread = Builder::new().name("admin".to_owned()).spawn(move || run(shown, listeners, &started))?;
    match when_started.recv() {
        Ok(server) => {
            let (streams, thread) = (Some(streams), Some(thread));
            Ok(AdminHandle { address, remote, server, streams, thread, _socket: socket })
        }
        Err(_) => Err(outcome(thread)),
    }
}

fn outcome(thread: JoinHandle<io::Result<()>>) -> io::Error {
    match thread.join() {
        Ok(Err(error)) => error,
        Ok(Ok(())) | Err(_) => io::Error::other("the admin thread ended early"),
    }
}

fn run(shown: Shown, listeners: Listeners, started: &SyncSender<ServerHandle>) -> io::Result<()> {
    System::new().block_on(async {
        let server = server(shown, listeners)?;
        started.send(server.handle()).map_err(io::Error::other)?;
        server.await
    })
}

fn server(shown: Shown, listeners: Listeners) -> io::Result<Server> {
    let Listeners { loopback, remote, unix, .. } = listeners;
    let own = loopback.as_ref().map(TcpListener::local_addr).transpose()?;
    let app = move || {
        let shown = web::Data::new(shown.clone());
        App::new().app_data(shown).app_data(body::limits()).wrap(from_fn(door::keep)).configure(routes)
    };
    let server = HttpServer::new(app)
        .on_connect(move |connection, data| door::note(connection, data, own))
        .workers(1)
        .disable_signals();
    let mut server = server.shutdown_timeout(SHUTDOWN_SECONDS);
    for listener in loopback.into_iter().chain(remote) {
        server = server.listen(listener)?;
    }
    if let Some(listener) = unix {
        server = server.listen_uds(listener)?;
    }
    Ok(server.run())
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .service(read_only("/livez", web::get().to(health::livez)))
        .service(read_only("/readyz", web::get().to(health::readyz)))
        .service(read_only("/metrics", web::get().to(metrics::metrics)))
        .service(read_only("/version", web::get().to(version::version)))
        .service(read_only("/openapi.json", web::get().to(openapi::openapi)))
        .configure(ui::routes)
        .service(read_only("/v1/status", web::get().to(status::status)))
        .service(read_only("/v1/contexts", web::get().to(contexts::list)))
        .service(read_only("/v1/contexts/{id}", web::get().to(contexts::one)))
        .service(read_only("/v1/ioas", web::get().to(ioases::list)))
        .service(read_only("/v1/ioas/{id}", web::get().to(ioases::one)))
        .service(read_only("/v1/ioas/{id}/areas", web::get().to(areas::list)))
        .service(read_only("/v1/ioas/{id}/gaps", web::get().to(gaps::gaps)))
        .service(read_only("/v1/ioas/{id}/ranges", web::get().to(gaps::ranges)))
        .service(read_only("/v1/ioas/{id}/explain", web::get().to(explain::explain)))
        .service(read_only("/v1/pages", web::get().to(pages::list)))
        .service(read_only("/v1/pages/{id}", web::get().to(pages::one)))
        .service(read_only("/v1/domains", web::get().to(domains::list)))
        .service(read_only("/v1/domains/{id}", web::get().to(domains::one)))
        .service(read_only("/v1/domains/{id}/walk", web::get().to(walk::walk)))
        .service(read_only("/v1/domains/{id}/faults", web::get().to(faults::list)))
        .service(read_only("/v1/devices", web::get().to(devices::list)))
        .service(read_only("/v1/devices/{id}", web::get().to(devices::one)))
        .service(read_only("/v1/accesses", web::get().to(accesses::list)))
        .service(read_only("/v1/operations", web::get().to(operations::list)))
        .service(read_only("/v1/accounts", web::get().to(accounts::list)))
        .service(read_only("/v1/payers", web::get().to(payers::list)))
        .service(read_only("/v1/events", web::get().to(events::list)))
        .service(read_only("/v1/host", web::get().to(host::show)))
        .service(read_only("/v1/config", web::get().to(config::config)))
        .configure(changes)
        .default_service(web::to(problem::not_found));
}

fn read_only(path: &'static str, get: Route) -> Resource {
    web::resource(path).route(get).default_service(web::to(|request| problem::only("GET", request)))
}

/// What changes something: each handler takes a `Changer`.
fn changes(config: &mut web::ServiceConfig) {
    config
        .service(
            changing("/v1/log", "GET, PUT").route(web::get().to(log::get)).route(web::put().to(log::put)),
        )
        .service(changing("/v1/reload", "POST").route(web::post().to(reload::reload)))
        .service(
            changing("/v1/drain", "GET, POST, DELETE")
                .route(web::get().to(ending::drain))
                .route(web::post().to(ending::begin_drain))
                .route(web::delete().to(ending::end_drain)),
        )
        .service(
            changing("/v1/operations/{id}", "GET, DELETE")
                .route(web::get().to(operations::one))
                .route(web::delete().to(operations::cancel)),
        )
        .service(changing("/v1/contexts/{id}/evict", "POST").route(web::post().to(ending::evict)));
}

fn changing(path: &'static str, allow: &'static str) -> Resource {
    web::resource(path).default_service(web::to(move |request| problem::only(allow, request)))
}

#[cfg(test)]
mod tests;
