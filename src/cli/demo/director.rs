//! The order of events, seen from the demo's own process.
//!
//! ```text
//! agent ready ─▶ client maps, devices read and write ─▶ metrics: held once ─▶ client unmaps, all end ─▶ metrics: nothing
//! ─▶ agent ends
//! ```
//!
//! Every step has a deadline, and no child outlives the demo's process.
//!
//! Imports allowed: everything of the demo.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::mpsc::{Sender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use actix_rt::System;
use futures_util::stream::StreamExt;
use rustix::process::Signal;

use super::agent::{AgentError, AgentFiles};
use super::client;
use super::family::{Awaited, Event, Family, FamilyError, Role};
use super::figures::WrongFigure;
use super::holding::{self, Holding};
use super::invitation;
use super::kernel_view::KernelView;
use super::plan::{Plan, PlanError, human};
use super::speech::{Milestone, say, since, tell};
use crate::cli::Exit;
use crate::cli::serve::stop_signals;
use crate::sys::failure::SysError;

/// How long the agent may take to forget a client that is gone.
const FORGETTING: Duration = Duration::from_secs(10);

/// How often it is asked meanwhile.
const POLL: Duration = Duration::from_millis(10);

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("cannot find out what can hold memory here")]
    Probe(#[from] SysError),
    #[error("cannot find the program itself")]
    Program(#[source] io::Error),
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Agent(#[from] AgentError),
    #[error(transparent)]
    Family(#[from] FamilyError),
    #[error(transparent)]
    Figure(#[from] WrongFigure),
    #[error("the agent still holds something though every client is gone: {0}")]
    Left(String),
    #[error("cannot ask the kernel what the agent holds")]
    Kernel(#[source] io::Error),
    #[error("cannot write to standard output")]
    Say(#[from] io::Error),
}

impl DemoError {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Plan(_) => Exit::Usage,
            Self::Left(_) => Exit::LeftPinned,
            Self::Family(FamilyError::Failed { role: Role::Agent, status })
                if status.code() == Some(i32::from(Exit::LeftPinned as u8)) =>
            {
                Exit::LeftPinned
            }
            _ => Exit::Failed,
        }
    }
}

/// Runs the demo.
pub(super) fn direct(plan: Plan) -> Result<(), DemoError> {
    let start = Instant::now();
    let (size, devices) = (human(plan.size()), plan.device_count());
    say(format_args!(
        "ioasd demo: {size} of memory, {devices} IO page tables, every part a process of its own"
    ))?;
    let mut stage = Stage::new(plan)?;
    stage.start_agent()?;
    stage.map_and_use()?;
    stage.show_held()?;
    stage.hold()?;
    stage.take_down()?;
    stage.require_nothing_left()?;
    stage.stop_agent()?;
    let took = since(start);
    say(format_args!(
        "demo: ok, {size} pinned once, read right and written through {devices} IO page tables, nothing left pinned, {took}"
    ))?;
    Ok(())
}

/// Fields are dropped in this order: first the processes end, then their files go.
struct Stage {
    family: Family,
    files: AgentFiles,
    program: PathBuf,
    plan: Plan,
}

impl Stage {
    fn new(plan: Plan) -> Result<Self, DemoError> {
        let family = Family::new();
        watch_signals(family.reporter()).map_err(DemoError::Signals)?;
        let program = std::env::current_exe().map_err(DemoError::Program)?;
        let holding = Holding::of_host()?;
        say(format_args!("strength is set to \"{}\": {}", holding.setting.name(), holding.reason))?;
        Ok(Self { family, files: AgentFiles::new(holding.setting, plan.stay())?, program, plan })
    }

    fn awaited(&self, what: &'static str) -> Awaited {
        Awaited { what, patience: self.plan.patience() }
    }

    fn start_agent(&mut self) -> Result<(), DemoError> {
        let (start, awaited) = (Instant::now(), self.awaited("the agent is ready"));
        self.files.start(&self.program, &mut self.family, awaited)?;
        let pid = self.family.pid(Role::Agent)?;
        tell(Role::Agent, format_args!("ready as process {pid} after {}", since(start)))?;
        Ok(())
    }

    fn map_and_use(&mut self) -> Result<(), DemoError> {
        let mut command = client::command(&self.program, self.plan, &self.files.socket());
        self.family.start(Role::Client, command.stdin(Stdio::piped()))?;
        let awaited = self.awaited("all devices have read everything and written their page");
        self.family.until(Milestone::AllUsed, 1, awaited)?;
        Ok(())
    }

    fn show_held(&mut self) -> Result<(), DemoError> {
        let figures = self.files.figures()?;
        let kernel = KernelView::of(self.family.pid(Role::Agent)?).map_err(DemoError::Kernel)?;
        say("what the agent holds now, by its /metrics:")?;
        say(figures.table())?;
        say(invitation::domains(&self.files.held()?))?;
        say(format_args!("  by the kernel: {kernel} of the agent's process"))?;
        say(format_args!("  {}", holding::meaning(&figures).unwrap_or("nothing is pinned")))?;
        figures.check_mapped(self.plan)?;
        Ok(())
    }

    /// Stays up until somebody interrupts, if that is wanted.
    fn hold(&mut self) -> Result<(), DemoError> {
        let Some(tcp) = self.files.tcp() else { return Ok(()) };
        let held = self.files.held()?;
        say(invitation::text(&self.program, &self.files.admin(), tcp, &held))?;
        Ok(self.family.until_interrupted()?)
    }

    fn take_down(&mut self) -> Result<(), DemoError> {
        self.family.tell(Role::Client, client::UNMAP)?;
        let awaited = self.awaited("the client and its devices have ended");
        self.family.until_ended(&[Role::Client], awaited)?;
        Ok(())
    }

    /// A client's context ends soon after the client.
    fn require_nothing_left(&mut self) -> Result<(), DemoError> {
        let deadline = Instant::now() + FORGETTING;
        loop {
            let left = self.files.figures()?.left();
            if left.is_empty() {
                break;
            }
            if Instant::now() >= deadline {
                return Err(DemoError::Left(left));
            }
            let awaited = self.awaited("the agent has forgotten the client");
            self.family.rest(POLL, awaited)?;
        }
        tell(
            Role::Agent,
            "pinned 0, charged 0, mapped 0; no context, address space, pages or domain is left",
        )?;
        Ok(())
    }

    fn stop_agent(&mut self) -> Result<(), DemoError> {
        let start = Instant::now();
        self.family.signal(Role::Agent, Signal::TERM)?;
        let awaited = self.awaited("the agent has ended");
        self.family.until_ended(&[Role::Agent], awaited)?;
        tell(Role::Agent, format_args!("ended on SIGTERM with exit code 0 after {}", since(start)))?;
        Ok(())
    }
}

/// Reports SIGTERM and SIGINT, so that they end the demo as an error does.
fn watch_signals(report: Sender<Event>) -> io::Result<()> {
    let (ready, when_ready) = sync_channel(1);
    let watch = move || {
        System::new().block_on(async {
            match stop_signals() {
                Err(error) => drop(ready.send(Err(error))),
                Ok(mut signals) => {
                    drop(ready.send(Ok(())));
                    while signals.next().await.is_some() {
                        drop(report.send(Event::Interrupted));
                    }
                }
            }
        });
    };
    thread::Builder::new().name("signals".to_owned()).spawn(watch)?;
    when_ready.recv().map_err(io::Error::other)?
}
