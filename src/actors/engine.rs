//! The engine: starts the arbiters with their actors, accepts clients, and takes everything down again.
//!
//! Imports allowed: every actor, config's values through [`EngineSettings`].

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use actix::prelude::*;
use ioasd_client::layout::BootId;
use ioasd_client::wire::FRAME_MAX;
use ioasd_client::wire::channels::CONTAINER_NAME;
use ioasd_client::wire::frame::{Echo, Reply};
use parking_lot::Mutex;
use rustix::process::{Pid, Uid};

use super::agent::{Agent, Local, Settings};
use super::client_context::ClientContext;
use super::client_context::accounting::RlimitMode;
use super::client_context::state::ClientState;
use super::contexts::{Contexts, Draining};
use super::credits::Credits;
use super::fan_out::FanOut;
use super::figures::ContextStats;
use super::frame_service::FrameService;
use super::journal::{Happening, Journal};
use super::leases::Leases;
use super::load::Load;
use super::messages::dispatch::Dispatch;
use super::mock_hardware::Hardware;
use super::payer::{Surety, limit_of};
use super::pinner::{PinPool, Pinner};
use super::policy::{Identity, Policy, Rule};
use super::registry::Registry;
use super::retirement::{Grace, HungSettings, Retirement};
use super::rights::Deed;
use super::shards::{Shard, Shards};
use super::view::View;
use crate::error::Coded;
use crate::sources::frames::Frames;
use crate::sources::pin_host::{PinHost, PinHostError};
use crate::storage::among::Worded;
use crate::storage::frame_window::FrameLimit;
use crate::storage::ledger::Ledger;
use crate::storage::ledger::holder::{Holder, TenantName};
use crate::storage::ledger::limits::TreeLimits;
use crate::storage::refusal::Refusal;
use crate::storage::source::PinSettings;
use crate::sys::identity::shares_mounts;
use crate::sys::listener::{ListenError, Listener};
use crate::sys::opener::{Program, program};
use crate::sys::peer::{is_named, opener, opener_handle};
use crate::sys::pidfd::PidFd;
use crate::sys::socket::{self, Credentials};
use crate::sys::watched::Watched;

/// How long stopping waits for contexts to be taken down.
const DRAIN: Duration = Duration::from_secs(30);

/// How long nobody is accepted after an accept failed: descriptors may be short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a client that gets no context may take to ask for something, and be told why.
const DENIAL: Duration = Duration::from_secs(10);

/// How long an arbiter may take to answer a probe.
const PROBE: Duration = Duration::from_secs(2);

/// What an engine is started with.
#[derive(Clone)]
pub struct EngineSettings {
    /// Threads that run actors.
    pub arbiters: usize,
    /// Threads that pin.
    pub pin_threads: usize,
    /// How it pins.
    pub pins: PinSettings,
    /// Below which address logical frames lie.
    pub frames: FrameLimit,
    /// How walkers are waited for.
    pub walkers: HungSettings,
    /// For all contexts.
    pub settings: Settings,
    /// What everybody may use.
    pub limits: TreeLimits,
    /// The tenants that have names.
    pub rules: Vec<Rule>,
    /// Understands messages.
    pub dispatch: Arc<dyn Dispatch>,
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The socket.
    #[error("cannot listen for clients")]
    Listen(#[from] ListenError),
    /// The host holds no memory as it must.
    #[error("cannot hold memory")]
    Pins(#[from] PinHostError),
    /// The pin threads.
    #[error("cannot start the pin threads")]
    PinPool(#[source] io::Error),
    /// An arbiter.
    #[error("an arbiter ended while it started")]
    Arbiter,
    /// The leases.
    #[error("cannot watch leases")]
    Leases(#[source] rustix::io::Errno),
    /// The accept loop.
    #[error("cannot watch the socket")]
    Watch(#[source] io::Error),
}

/// A running engine.
pub struct Engine {
    agent: Arc<Agent>,
    arbiters: Vec<Arbiter>,
    locals: Vec<Local>,
    next: AtomicUsize,
    contexts: Arc<Contexts>,
    accepting: Mutex<Option<actix_rt::task::JoinHandle<()>>>,
}

/// Processes that are asked to pin at the same time, at most.
const UPCALL_THREADS: usize = 8;

impl Engine {
    /// Starts arbiters and their actors; accepts nobody yet. Runs inside an actix system.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub async fn start(start: EngineSettings, registry: Arc<Registry>) -> Result<Arc<Self>, EngineError> {
        let frames = Arc::new(FrameService::new(start.frames));
        let pins = pin_host(start.pins, &frames)?.counting_into(registry.first_touched());
        let pool =
            |name, threads| PinPool::start(name, threads, super::MAILBOX).map_err(EngineError::PinPool);
        let (prompt, waiting) = (pool("pin", start.pin_threads)?, pool("upcall", UPCALL_THREADS)?);
        let arbiters: Vec<Arbiter> = (0..start.arbiters.max(1)).map(|_| Arbiter::new()).collect();
        let handles: Vec<ArbiterHandle> = arbiters.iter().map(Arbiter::handle).collect();
        let shards = (0..).zip(&handles).map(|(shard, arbiter)| Shard {
            fan_out: FanOut::start_in_arbiter(arbiter, move |_| FanOut::new(shard)),
            credits: Credits::default(),
        });
        let shards = Shards::new(shards.collect());
        let load = Load { fan_outs: shards.permits(), pins: Some(prompt.places().clone()) };
        let locals = (0..).zip(&handles).map(|(shard, arbiter)| Local {
            shard,
            pinner: Pinner::start_in_arbiter(arbiter, {
                let (prompt, waiting) = (prompt.clone(), waiting.clone());
                move |_| Pinner::new(prompt, waiting)
            }),
            retirement: Retirement::start_in_arbiter(arbiter, {
                let journal = Arc::clone(registry.journal());
                move |_| Retirement::new(start.walkers).telling(journal)
            }),
        });
        let locals: Vec<Local> = locals.collect();
        let ledger = ledger(start.limits, registry.journal());
        let agent = Arc::new(Agent {
            registry,
            ledger: Arc::new(ledger),
            policy: Arc::new(Policy::new(start.rules)),
            paying: Arc::default(),
            frames,
            pins,
            mock: (start.settings.hardware == Hardware::Mock).then(Arc::default),
            leases: Arc::new(Leases::new().map_err(EngineError::Leases)?),
            shards,
            load,
            arbiters: handles,
            settings: start.settings,
            dispatch: start.dispatch,
            boot: boot_id(),
            last_number: AtomicU64::new(0),
        });
        let (contexts, accepting) = Default::default();
        Ok(Arc::new(Self { agent, arbiters, locals, next: AtomicUsize::new(0), contexts, accepting }))
    }

    /// What all contexts share.
    #[must_use]
    pub fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    /// What the admin server may look at.
    #[must_use]
    pub fn view(&self) -> View {
        let Agent { registry, ledger, paying, frames, load, .. } = &*self.agent;
        View {
            registry: Arc::clone(registry),
            ledger: Arc::clone(ledger),
            paying: Arc::clone(paying),
            frames: Arc::clone(frames),
            load: load.clone(),
        }
    }

    /// Listens at `path` and serves whoever connects.
    ///
    /// # Errors
    /// If the socket cannot be made.
    pub fn listen(self: &Arc<Self>, path: &Path, mode: rustix::fs::Mode) -> Result<(), EngineError> {
        let listener = Listener::bind(path, mode)?;
        let listener = Watched::new(listener).map_err(EngineError::Watch)?;
        let engine = Arc::clone(self);
        let accepting = actix_rt::spawn(async move { engine.accept_all(&listener).await });
        *self.accepting.lock() = Some(accepting);
        Ok(())
    }

    async fn accept_all(self: Arc<Self>, listener: &Watched<Listener>) {
        loop {
            match listener.read_with(Listener::accept).await {
                Ok(socket) if self.contexts.draining() == Draining::No => self.serve(socket),
                Ok(_) => tracing::debug!("draining: somebody who connected is hung up on"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    actix_rt::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Makes a context for a connected client, on the next arbiter in turn.
    pub fn serve(&self, socket: OwnedFd) {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.locals.len().max(1);
        let (Some(local), Some(arbiter)) = (self.locals.get(turn).cloned(), self.agent.arbiters.get(turn))
        else {
            return;
        };
        let Ok(opener) = opener(&socket) else { return };
        let process = opener_handle(&socket, opener);
        let seen = process.as_ref().and_then(|process| program(process).ok());
        let tenant = self.agent.policy.tenant_of(&identity(opener, process.as_ref(), seen.as_ref()));
        if let Err(refusal) = self.may_connect(&tenant, opener.uid) {
            return self.deny(socket, refusal);
        }
        let program = seen.unwrap_or_else(|| program_of(opener.pid));
        let stats = ContextStats::new(Uid::from_raw(opener.uid), opener.pid).by(program).of(tenant);
        let stats = self.agent.registry.register_context(stats);
        let surety = process.map(|process| Surety { uid: opener.uid, limit: limit_of(&process) });
        let (number, mode) = (stats.number(), rlimit_mode(&socket));
        let agent = Arc::clone(&self.agent);
        let context = ClientContext::start_in_arbiter(arbiter, move |_| {
            ClientContext::new(ClientState::new(agent, local, stats).opened_by(surety, mode), socket)
        });
        self.contexts.add(number, context);
    }

    fn may_connect(&self, tenant: &TenantName, uid: u32) -> Result<(), Refusal> {
        let Some(granted) = self.agent.policy.granted(tenant) else { return Ok(()) };
        let who = Arc::new(Holder::of_user(tenant.clone(), uid));
        granted.may(Deed::Connect, &who).map_err(|denied| Refusal::of(&denied))
    }

    /// Tells a client that it may not have a context, once it asks for something.
    fn deny(&self, socket: OwnedFd, refusal: Refusal) {
        tracing::info!(%refusal, "a client is not served");
        self.agent.registry.journal().tell(Happening::denied(&refusal));
        actix_rt::spawn(async move {
            let told = actix_rt::time::timeout(DENIAL, deny(socket, &refusal)).await;
            tracing::debug!(?told, "a client that is not served was told so");
        });
    }

    /// Runs `work` on an arbiter, beside its actors; dropped if there is no such arbiter. For measurements.
    pub fn on_arbiter(&self, shard: u16, work: impl FnOnce(Arc<Agent>, Local) + Send + 'static) {
        let local = self.locals.get(usize::from(shard)).cloned();
        if let Some((local, arbiter)) = local.zip(self.agent.arbiters.get(usize::from(shard))) {
            let agent = Arc::clone(&self.agent);
            let spawned = arbiter.spawn_fn(move || work(agent, local));
            debug_assert!(spawned, "an arbiter has ended");
        }
    }

    /// Whether every arbiter answers; to be asked now and then.
    pub fn probe(&self) -> impl Future<Output = Result<(), String>> + use<> {
        let retirements: Vec<Addr<Retirement>> =
            self.locals.iter().map(|local| local.retirement.clone()).collect();
        async move {
            for (number, retirement) in retirements.into_iter().enumerate() {
                let answered = actix_rt::time::timeout(
                    PROBE,
                    retirement.send(Grace { domains: Vec::new(), operation: None }),
                )
                .await;
                if !matches!(answered, Ok(Ok(()))) {
                    return Err(format!("arbiter {number} does not answer"));
                }
            }
            Ok(())
        }
    }

    /// Accepts nobody any more.
    pub fn stop_accepting(&self) {
        if let Some(accepting) = self.accepting.lock().take() {
            accepting.abort();
        }
    }

    /// Contexts that are not taken down yet.
    #[must_use]
    pub fn contexts(&self) -> usize {
        self.contexts.count()
    }

    /// The live contexts, to be ended from outside.
    #[must_use]
    pub fn live(&self) -> &Arc<Contexts> {
        &self.contexts
    }

    /// Ends every context there is, as if its client had hung up; waits for none of them.
    pub fn hang_up(&self) {
        self.contexts.hang_up();
    }

    /// Ends the arbiters, whatever still runs there.
    pub fn end(&self) {
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }

    /// Accepts nobody any more, hangs up on every client, waits until all is taken down, and ends.
    pub async fn stop(&self) {
        self.stop_accepting();
        tracing::info!(contexts = self.contexts(), "hanging up on all clients");
        self.hang_up();
        let deadline = actix_rt::time::Instant::now() + DRAIN;
        while self.contexts() > 0 {
            if actix_rt::time::Instant::now() >= deadline {
                tracing::error!("contexts are not taken down in time");
                break;
            }
            actix_rt::time::sleep(Duration::from_millis(2)).await;
        }
        self.end();
    }
}

/// Answers the first request of a client that gets no context.
async fn deny(socket: OwnedFd, refusal: &Refusal) -> io::Result<()> {
    let socket = Watched::new(socket)?;
    let mut buffer = vec![0; FRAME_MAX];
    let received = socket.read_with(|socket| socket::receive(socket.as_fd(), &mut buffer)).await?;
    let echo = Echo::of(buffer.get(..received.len).unwrap_or_default());
    let text = refusal.to_string();
    let reply =
        Reply::refused(echo, refusal.errno(), refusal.code(), &text).encode().map_err(io::Error::other)?;
    socket.write_with(|socket| socket::send(socket.as_fd(), &[&reply], &[])).await
}

/// Who opens a context, as far as it is certain. Which program it is counts only in our own mount namespace: elsewhere a
/// process can have any file at any path.
fn identity(opener: Credentials, process: Option<&PidFd>, seen: Option<&Program>) -> Identity {
    let exe = process.filter(|process| shares_mounts(process)).and_then(|_| seen?.exe.clone());
    let cgroup = seen.and_then(|seen| seen.cgroup.clone());
    Identity { uid: opener.uid, gid: opener.gid, cgroup, exe }
}

/// What the process behind a number was when it was looked at, as far as it can be seen.
fn program_of(pid: Option<Pid>) -> Program {
    let process = pid.and_then(|pid| PidFd::open(pid).ok());
    process.and_then(|process| program(&process).ok()).unwrap_or_default()
}

/// Which limit binds a context from the beginning: as a VFIO container it is that of each process.
fn rlimit_mode(socket: &impl AsFd) -> RlimitMode {
    if is_named(socket, CONTAINER_NAME) { RlimitMode::Mm } else { RlimitMode::User }
}

/// A ledger that tells the journal of soft limits that are passed.
fn ledger(limits: TreeLimits, journal: &Arc<Journal>) -> Ledger {
    let journal = Arc::clone(journal);
    Ledger::with(
        limits,
        Arc::new(move |crossing| {
            tracing::warn!(%crossing, "a soft limit is passed");
            journal.tell(Happening::soft_limit(&crossing));
        }),
    )
}

/// Probes the host once, and says what came of it.
fn pin_host(settings: PinSettings, frames: &Arc<FrameService>) -> Result<PinHost, PinHostError> {
    let pins = PinHost::start(settings, Arc::clone(frames) as Arc<dyn Frames>)?;
    tracing::info!(
        setting = settings.strength.name(),
        strength = %pins.ladder(),
        frames = settings.frames.word(),
        "how memory is held"
    );
    Ok(pins)
}

/// Tells this start of the agent from others: walkers compare it.
fn boot_id() -> BootId {
    let mut id = [0; 16];
    let read = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let digits: Vec<u8> = read.bytes().filter(u8::is_ascii_hexdigit).collect();
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        let text = std::str::from_utf8(pair).unwrap_or("0");
        *byte = u8::from_str_radix(text, 16).unwrap_or(0);
    }
    BootId(id)
}
