//! An agent for one program: in this process, at a socket in a private folder, gone with the program.
//!
//! The program is started when the agent listens. It ends by itself; SIGTERM is passed on to it, SIGINT it has from the
//! terminal as we have.
//!
//! Imports allowed: everything.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::pin;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use actix_rt::System;
use actix_rt::signal::unix::{SignalKind, signal};
use futures_util::future::{Either, select};
use futures_util::stream;
use rustix::process::{Pid, Signal, kill_process};

use super::program::Program;
use super::{RunError, SOCKET};
use crate::actors::mock_hardware::Hardware;
use crate::cli::agent::Agent;
use crate::cli::demo::folder::PrivateFolder;
use crate::cli::serve::{self, ServeError, Start};
use crate::cli::with_causes;
use crate::config::Config;
use crate::config::place::{Environment, Place};
use crate::config::values::{FileMode, Listen};
use crate::sys::limits;
use crate::telemetry::logging;

/// What of the agent's log goes to standard error, which is the program's too.
const LOG: &str = "warn,actix_server=error";

/// Runs `command`, the program, over an agent of its own.
pub(super) fn run(
    mut command: Command,
    program: &Program,
    hardware: Hardware,
) -> Result<ExitStatus, RunError> {
    let folder = PrivateFolder::new().map_err(RunError::Folder)?;
    let config = config(folder.path(), hardware);
    let environment = Environment::of_process();
    logging::init(&log_filter(&environment), config.log.format)
        .map_err(|error| RunError::Agent(error.into()))?;
    command.env(SOCKET, config.socket(&environment));
    let outcome = Cell::new(None);
    let served = System::new().block_on(async {
        let life = async { outcome.set(Some(life(command, program).await)) };
        let start = Start { config: &config, environment: &environment, log: None, origin: None };
        serve::run::<Agent>(start, pin!(stream::once(life))).await
    });
    ended(served, outcome.take())
}

/// The program's end counts; an agent that ends badly after it is only told of.
fn ended(
    served: Result<(), ServeError>,
    outcome: Option<Result<ExitStatus, RunError>>,
) -> Result<ExitStatus, RunError> {
    match (served, outcome) {
        (Err(error), None) => Err(RunError::Agent(error)),
        (Err(error), Some(outcome)) => {
            eprintln!("ioasd: after the program's end: {}", with_causes(&error));
            outcome
        }
        (Ok(()), outcome) => outcome.unwrap_or_else(|| Err(RunError::Wait(io::ErrorKind::Other.into()))),
    }
}

/// No TCP and no admin socket; only the program's user may connect, and nobody outlives it.
fn config(folder: &Path, hardware: Hardware) -> Config {
    let mut config = Config::default();
    config.mock.enabled = hardware == Hardware::Mock;
    config.server.socket = Place::At(folder.join("ioasd.sock"));
    config.server.socket_mode = FileMode::OWNER;
    config.server.drain_timeout = Duration::ZERO;
    config.admin.listen = Listen::Off;
    config.admin.socket = None;
    config
}

fn log_filter(environment: &Environment) -> String {
    let chosen = environment.log.as_ref().and_then(|filter| filter.to_str());
    chosen.unwrap_or(LOG).to_owned()
}

/// The program's life: its start, what is passed on to it, its end.
async fn life(mut command: Command, program: &Program) -> Result<ExitStatus, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Wait)?;
    let _interrupt = signal(SignalKind::interrupt()).map_err(RunError::Wait)?;
    let started = |source| RunError::Start { path: program.path().to_owned(), source };
    let child = command.spawn().map_err(started)?;
    raise_own_limit();
    let pid = Pid::from_child(&child);
    let mut waited = pin!(waited(child));
    loop {
        match select(waited.as_mut(), pin!(terminate.recv())).await {
            Either::Left((status, _)) => return status.map_err(RunError::Wait),
            Either::Right(_) => {
                let passed = kill_process(pid, Signal::TERM);
                tracing::debug!(?passed, "SIGTERM for the program");
            }
        }
    }
}

/// The agent may need more descriptors than the program is entitled to; the program has its own limit by now.
fn raise_own_limit() {
    if let Err(errno) = limits::raise_descriptors() {
        tracing::warn!(%errno, "the limit of descriptors could not be raised to its maximum");
    }
}

fn waited(mut child: Child) -> impl Future<Output = io::Result<ExitStatus>> {
    let waiting = actix_rt::task::spawn_blocking(move || child.wait());
    async move { waiting.await.unwrap_or_else(|error| Err(io::Error::other(error))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_opens_nothing_outside_of_its_folder() {
        let config = config(Path::new("/private"), Hardware::None);
        let environment = Environment::new(rustix::process::Uid::ROOT, |_| None);
        assert_eq!(config.socket(&environment), Path::new("/private/ioasd.sock"));
        let endpoints = config.admin_endpoints(&environment);
        assert_eq!((endpoints.tcp, endpoints.socket), (None, None));
    }
}
