//! `ioasd serve`: the agent's life from start to stop.
//!
//! ```text
//! configuration -> logging -> engine -> admin -> SIGTERM or SIGINT -> drain -> engine ends -> admin stops
//! ```
//!
//! How the agent drains, and what further signals do: `drain`; what SIGHUP does: `reload`.
//!
//! The engine (sockets, actors, pins) is handed in as a type, so that this order can be tested without it.
//!
//! Imports allowed: everything.

use std::error::Error;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use actix_rt::System;
use actix_rt::signal::unix::{SignalKind, signal};
use futures_util::stream::{self, Stream, StreamExt};
use ioasd_client::units::ByteLen;
use tracing::field::display;

use super::drain::{Times, drain};
use super::reload::{self, Govern, Governed, Origin, Reloader};
use super::service_manager;
use super::{Exit, ServeArgs, with_causes};
use crate::actors::contexts::Contexts;
use crate::actors::journal::Happening;
use crate::actors::registry::Registry;
use crate::actors::view::View;
use crate::admin::health::{Check, Readiness};
use crate::admin::reload::Configured;
use crate::admin::{self, AdminError, AdminHandle, Controls};
use crate::config::Config;
use crate::config::effective::{Effective, effective};
use crate::config::load::{ConfigError, Flags};
use crate::config::place::Environment;
use crate::sys::activation::{self, ActivationError};
use crate::sys::limits;
use crate::telemetry::logging::{self, FilterHandle, LoggingError};

/// The part of the agent that serves clients.
pub trait Engine: Sized {
    /// Why it could not start.
    type Error: Error + Send + Sync + 'static;

    /// Starts all of it; `socket` answers as soon as this is done.
    fn start(
        config: &Config,
        socket: &Path,
        registry: &Arc<Registry>,
    ) -> impl Future<Output = Result<Self, Self::Error>>;

    /// What the admin server may look at.
    fn view(&self, registry: &Arc<Registry>) -> View;

    /// What must hold for it to be ready.
    fn checks(&self) -> Vec<Check>;

    /// Accepts nobody any more.
    fn stop_accepting(&self);

    /// The live contexts, for the admin server.
    fn live(&self) -> Arc<Contexts>;

    /// Puts in force what of another configuration counts without a restart.
    fn governor(&self) -> Govern;

    /// Contexts that are not taken down yet.
    fn contexts(&self) -> usize;

    /// Ends every context there is, as if its client had hung up; waits for none of them.
    fn hang_up(&self);

    /// Ends whatever still runs.
    fn end(self);
}

/// Why the agent did not run, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No logging.
    #[error("cannot set up logging")]
    Logging(#[from] LoggingError),
    /// No engine.
    #[error("cannot start the engine")]
    Engine(#[source] Box<dyn Error + Send + Sync>),
    /// No admin server.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Sockets that were inherited for nothing.
    #[error(transparent)]
    Activation(#[from] ActivationError),
    /// No signals.
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    /// The engine stopped and left pins behind.
    #[error("{0} bytes were still pinned at the end")]
    LeftPinned(ByteLen),
}

impl ServeError {
    /// The exit code that tells a supervisor whether to try again.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Activation(_) => Exit::Usage,
            Self::LeftPinned(_) => Exit::LeftPinned,
            Self::Logging(_) | Self::Engine(_) | Self::Admin(_) | Self::Signals(_) => Exit::Failed,
        }
    }
}

/// Runs the agent with engine `E` until SIGTERM or SIGINT.
pub fn serve<E: Engine>(args: ServeArgs) -> Exit {
    match try_serve::<E>(args, &Environment::of_process()) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("ioasd: {}", with_causes(&error));
            error.exit()
        }
    }
}

fn try_serve<E: Engine>(args: ServeArgs, environment: &Environment) -> Result<(), ServeError> {
    activation::inherit()?;
    let flags = Flags::from(args);
    let Effective { config, settings } = effective(&flags, environment)?;
    let log = Some(logging::init(&config.log.filter, config.log.format)?);
    let origin = Some(Origin { flags, settings });
    match limits::raise_descriptors() {
        Ok(limit) => tracing::debug!(?limit, "descriptors"),
        Err(errno) => tracing::warn!(%errno, "the limit of descriptors could not be raised to its maximum"),
    }
    System::new().block_on(async {
        let signals = stop_signals().map_err(ServeError::Signals)?;
        run::<E>(Start { config: &config, environment, log, origin }, signals).await
    })
}

/// What an agent is started with.
#[derive(Debug)]
pub struct Start<'a> {
    /// Its configuration.
    pub config: &'a Config,
    /// What it takes from its process.
    pub environment: &'a Environment,
    /// The filter of the log, if the log is the agent's own.
    pub log: Option<FilterHandle>,
    /// Where the configuration was read, if it can be read again.
    pub origin: Option<Origin>,
}

/// Runs the agent until the first item of `signals`; further ones hurry its end.
///
/// # Errors
/// If a part cannot be started, or memory is still pinned at the end.
pub async fn run<E: Engine>(
    Start { config, environment, log, origin }: Start<'_>,
    mut signals: impl Stream<Item = ()> + Unpin,
) -> Result<(), ServeError> {
    // From here on SIGHUP does not end the process.
    let hangup = origin.is_some().then(|| signal(SignalKind::hangup())).transpose();
    let hangup = hangup.map_err(ServeError::Signals)?;
    let registry = Registry::new();
    let socket = config.socket(environment);
    let token = config.admin_endpoints(environment).token(config.admin.token_file.as_deref())?;
    let engine =
        E::start(config, &socket, &registry).await.map_err(|error| ServeError::Engine(Box::new(error)))?;
    let reloader = origin.map(|origin| {
        let journal = Arc::clone(registry.journal());
        let governed = Governed { govern: engine.governor(), token: token.clone() };
        Arc::new(Reloader::new(origin, environment.clone(), governed, journal))
    });
    let reloading = hangup.zip(reloader.clone()).map(|(hangup, reloader)| reload::at_each(hangup, reloader));
    let configured = reloader.map(|reloader| reloader as Arc<dyn Configured>);
    let controls = Controls { contexts: engine.live(), token, log, configured };
    let served = serve_until(&mut signals, (config, environment, controls), &engine, &registry).await;
    if let Some(reloading) = reloading {
        reloading.abort();
    }
    if served.is_ok() {
        let times = Times { grace: config.server.drain_timeout, close: config.server.close_timeout };
        registry.journal().tell(Happening::stopping(engine.contexts()));
        drain(&engine, times, &mut signals).await;
    }
    // An engine that ends forgets what it listed.
    let pinned = nothing_pinned(&registry);
    engine.end();
    if let Some(admin) = served? {
        admin.stop();
    }
    pinned
}

async fn serve_until<E: Engine>(
    signals: &mut (impl Stream<Item = ()> + Unpin),
    (config, environment, controls): (&Config, &Environment, Controls),
    engine: &E,
    registry: &Arc<Registry>,
) -> Result<Option<AdminHandle>, ServeError> {
    let endpoints = config.admin_endpoints(environment);
    let stopping = Arc::new(AtomicBool::new(false));
    let admitting = [not_stopping(&stopping), Check::not_draining(&controls.contexts)];
    let readiness = Readiness::new(engine.checks().into_iter().chain(admitting).collect());
    let admin = admin::start(&endpoints, engine.view(registry), controls, readiness)?;
    let socket = config.socket(environment);
    let address = admin.as_ref().and_then(AdminHandle::address).map(display);
    tracing::info!(socket = %socket.display(), admin = address, "serving");
    activation::all_taken()?;
    let told = service_manager::serving(engine.checks(), Arc::clone(registry));
    signals.next().await;
    stopping.store(true, Ordering::Relaxed);
    drop(told);
    Ok(admin)
}

/// Ready as long as the agent does not stop.
fn not_stopping(stopping: &Arc<AtomicBool>) -> Check {
    let stopping = Arc::clone(stopping);
    let refuse = || "the agent stops: no context is opened any more".to_owned();
    Check::new("accepting", move || if stopping.load(Ordering::Relaxed) { Err(refuse()) } else { Ok(()) })
}

fn nothing_pinned(registry: &Registry) -> Result<(), ServeError> {
    match registry.snapshot().pinned() {
        left if left == ByteLen::new(0) => Ok(()),
        left => Err(ServeError::LeftPinned(left)),
    }
}

/// An item for each SIGTERM or SIGINT. From the call on, neither ends the process.
pub(super) fn stop_signals() -> io::Result<impl Stream<Item = ()> + Unpin> {
    let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    Ok(stream::poll_fn(move |context| {
        let arrived = signals.iter_mut().map(|signal| signal.poll_recv(context));
        if arrived.fold(false, |some, poll| some | poll.is_ready()) {
            Poll::Ready(Some(()))
        } else {
            Poll::Pending
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use rustix::process::{Signal, Uid};

    use super::*;
    use crate::actors::figures::{PagesStats, examples};
    use crate::actors::registry::Registered;

    thread_local! {
        static STEPS: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
        static HUNG_UP: Cell<bool> = const { Cell::new(false) };
    }

    fn step(name: &'static str) {
        STEPS.with_borrow_mut(|steps| steps.push(name));
    }

    /// An engine that starts, unless its socket is called `refuse`, and leaves a pin behind if it is called `leak`.
    struct Fake(Option<Registered<PagesStats>>);

    impl Engine for Fake {
        type Error = io::Error;

        async fn start(_: &Config, socket: &Path, registry: &Arc<Registry>) -> io::Result<Self> {
            step("start");
            if socket.ends_with("refuse") {
                return Err(io::Error::other("refused"));
            }
            let pages = examples::pages(4096, 0);
            pages.pinned.set(ByteLen::new(4096));
            let pages = registry.register_pages(pages);
            Ok(Self(socket.ends_with("leak").then_some(pages)))
        }

        fn view(&self, registry: &Arc<Registry>) -> View {
            View::of(Arc::clone(registry))
        }

        fn checks(&self) -> Vec<Check> {
            vec![Check::new("fake", || Ok(()))]
        }

        fn stop_accepting(&self) {
            step("stop accepting");
        }

        fn live(&self) -> Arc<Contexts> {
            Arc::default()
        }

        fn governor(&self) -> Govern {
            Box::new(|_| step("govern"))
        }

        fn contexts(&self) -> usize {
            usize::from(self.0.is_some() && !HUNG_UP.get())
        }

        fn hang_up(&self) {
            step("hang up");
            HUNG_UP.set(true);
        }

        fn end(self) {
            step("end");
        }
    }

    fn environment() -> Environment {
        Environment::new(Uid::from_raw(1000), |_| None)
    }

    fn config(socket: &str, admin: &str) -> Config {
        let mut config = Config::default();
        config.server.socket = socket.parse().expect("a path");
        config.admin.listen = admin.parse().expect("an address");
        config
    }

    /// `count` signals, each of which comes as soon as it is waited for.
    fn signals(count: usize) -> impl Stream<Item = ()> + Unpin {
        stream::iter((0..count).inspect(|_| step("signal")).map(|_| ()))
    }

    fn run_fake(config: &Config) -> (Result<(), ServeError>, Vec<&'static str>) {
        let start = Start { config, environment: &environment(), log: None, origin: None };
        let outcome = System::new().block_on(run::<Fake>(start, signals(2)));
        (outcome, STEPS.take())
    }

    #[test]
    fn the_engine_starts_before_and_stops_after_serving() {
        let (outcome, steps) = run_fake(&config("/x/fine", "127.0.0.1:0"));
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(steps, ["start", "signal", "stop accepting", "hang up", "end"]);
    }

    #[test]
    fn an_engine_that_cannot_start_ends_the_agent() {
        let (outcome, steps) = run_fake(&config("/x/refuse", "off"));
        let error = outcome.unwrap_err();
        assert_eq!(with_causes(&error), "cannot start the engine: refused");
        assert_eq!((error.exit(), steps), (Exit::Failed, vec!["start"]));
    }

    #[test]
    fn the_engine_is_stopped_when_the_admin_server_cannot_start() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let (outcome, steps) = run_fake(&config("/x/fine", &address));
        assert!(matches!(outcome, Err(ServeError::Admin(_))));
        assert_eq!(steps, ["start", "end"]);
    }

    #[test]
    fn a_pin_left_behind_is_an_exit_code_of_its_own() {
        let (outcome, steps) = run_fake(&config("/x/leak", "off"));
        let error = outcome.unwrap_err();
        assert_eq!(
            (error.exit(), error.to_string().as_str()),
            (Exit::LeftPinned, "0x1000 bytes were still pinned at the end")
        );
        assert_eq!(
            steps,
            ["start", "signal", "stop accepting", "signal", "hang up", "end"],
            "the second hurries"
        );
    }

    #[test]
    fn a_wrong_configuration_is_wrong_usage() {
        let args = ServeArgs { config: Some("/nonexistent/x.toml".into()), ..ServeArgs::default() };
        let error = try_serve::<Fake>(args, &environment()).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(with_causes(&error).contains("/nonexistent/x.toml"));
        assert!(STEPS.take().is_empty());
    }

    #[test]
    fn every_sigterm_and_sigint_is_an_item() {
        System::new().block_on(async {
            let mut signals = stop_signals().unwrap();
            for kind in [Signal::TERM, Signal::INT, Signal::TERM] {
                rustix::process::kill_process(rustix::process::getpid(), kind).unwrap();
                signals.next().await;
            }
        });
    }
}
