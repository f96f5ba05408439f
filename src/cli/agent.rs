//! The agent as `serve` runs it: the engine, made from the configuration.
//!
//! Imports allowed: everything.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::fs::Mode;

use super::reload::Govern;
use super::serve;
use crate::actors::agent::Settings;
use crate::actors::auditor::Auditor;
use crate::actors::contexts::Contexts;
use crate::actors::engine::{Engine, EngineError, EngineSettings};
use crate::actors::exported_files::UnsafeFiles;
use crate::actors::mock_hardware::Hardware;
use crate::actors::policy::Rule;
use crate::actors::registry::Registry;
use crate::actors::retirement::{HungPolicy, HungSettings};
use crate::actors::rights::{Right, Rights};
use crate::actors::view::View;
use crate::admin::health::Check;
use crate::config::tenants::TenantConfig;
use crate::config::values::WalkerPolicy;
use crate::config::{self, Config, WalkersConfig};
use crate::storage::Tuning;
use crate::storage::frame_window::FrameLimit;
use crate::storage::ledger::holder::TenantName;
use crate::storage::ledger::limits::{Limit, Limits, TenantLimits, TreeLimits};
use crate::storage::ledger::resource::Resource;
use crate::storage::pfn::RunLimit;
use crate::storage::source::PinSettings;
use crate::uapi::Uapi;

/// How often the arbiters are probed.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How many beats lie between two audits.
const AUDIT: u64 = 5;

/// A running agent.
pub struct Agent {
    engine: Arc<Engine>,
    health: Arc<Mutex<Result<(), String>>>,
    heartbeat: actix_rt::task::JoinHandle<()>,
}

impl serve::Engine for Agent {
    type Error = EngineError;

    async fn start(config: &Config, socket: &Path, registry: &Arc<Registry>) -> Result<Self, EngineError> {
        let engine = Engine::start(settings(config), Arc::clone(registry)).await?;
        engine.listen(socket, Mode::from_raw_mode(config.server.socket_mode.bits()))?;
        let health = Arc::new(Mutex::new(engine.probe().await));
        let heartbeat = actix_rt::spawn(beat(Arc::clone(&engine), Arc::clone(&health), Arc::clone(registry)));
        Ok(Self { engine, health, heartbeat })
    }

    fn view(&self, _: &Arc<Registry>) -> View {
        self.engine.view()
    }

    fn checks(&self) -> Vec<Check> {
        let health = Arc::clone(&self.health);
        vec![Check::new("arbiters", move || health.lock().clone())]
    }

    fn stop_accepting(&self) {
        self.engine.stop_accepting();
    }

    fn live(&self) -> Arc<Contexts> {
        Arc::clone(self.engine.live())
    }

    fn governor(&self) -> Govern {
        let agent = self.engine.agent();
        let (ledger, policy) = (Arc::clone(&agent.ledger), Arc::clone(&agent.policy));
        Box::new(move |config| {
            ledger.limit(limits(config));
            policy.replace(rules(config));
        })
    }

    fn contexts(&self) -> usize {
        self.engine.contexts()
    }

    fn hang_up(&self) {
        self.engine.hang_up();
    }

    fn end(self) {
        self.heartbeat.abort();
        self.engine.end();
    }
}

async fn beat(engine: Arc<Engine>, health: Arc<Mutex<Result<(), String>>>, registry: Arc<Registry>) {
    let mut auditor = Auditor::default();
    for turn in 1_u64.. {
        actix_rt::time::sleep(HEARTBEAT).await;
        let answered = engine.probe().await;
        *health.lock() = answered;
        if turn.is_multiple_of(AUDIT) {
            auditor.look(&registry);
        }
    }
}

fn walkers(config: &WalkersConfig) -> HungSettings {
    let policy = match config.policy {
        WalkerPolicy::Wait => HungPolicy::Wait,
        WalkerPolicy::Fail => HungPolicy::Fail,
        WalkerPolicy::Kill => HungPolicy::Kill,
    };
    HungSettings { alarm_after: config.alarm_after, policy, deadline: config.deadline }
}

/// What the configuration means for the engine.
#[must_use]
pub fn settings(config: &Config) -> EngineSettings {
    let cpus = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let runs = RunLimit::new(config.engine.batch_runs.get());
    EngineSettings {
        frames: FrameLimit::EVERY_FORMAT,
        arbiters: config.server.arbiters.resolve(cpus).get(),
        pin_threads: config.engine.pin_threads.resolve(cpus).get(),
        pins: PinSettings {
            strength: config.engine.strength,
            frames: config.engine.frames.into(),
            process_memory: config.engine.process_memory.into(),
        },
        walkers: walkers(&config.walkers),
        settings: Settings {
            credits: usize::try_from(config.limits.credits_per_channel.get()).unwrap_or(usize::MAX),
            channels: usize::try_from(config.limits.channels_per_context.get()).unwrap_or(usize::MAX),
            tuning: Tuning { runs, ..Tuning::default() },
            hardware: if config.mock.enabled { Hardware::Mock } else { Hardware::None },
            unsafe_files: match config.walkers.allow_unsealed {
                true => UnsafeFiles::Exported,
                false => UnsafeFiles::Withheld,
            },
        },
        limits: limits(config),
        rules: rules(config),
        dispatch: Arc::new(Uapi),
    }
}

/// What everybody may use.
fn limits(config: &Config) -> TreeLimits {
    let ours = &config.limits;
    let unnamed = TenantLimits {
        tenant: ours.tenant.over(Limits::NONE),
        user: ours.user.over(Limits::NONE),
        context: ours.context.over(per_context(ours)),
    };
    let named = config.tenant.iter().map(|tenant| {
        let limits = TenantLimits {
            tenant: tenant.limits.over(Limits::NONE),
            user: tenant.user.over(unnamed.user),
            context: tenant.context.over(unnamed.context),
        };
        (TenantName::named(&tenant.name), limits)
    });
    TreeLimits { host: ours.host.over(Limits::NONE), named: named.collect(), unnamed }
}

fn per_context(limits: &config::Limits) -> Limits {
    Limits::NONE
        .with(Resource::Objects, Limit::hard(limits.objects_per_context.get().into()))
        .with(Resource::Areas, Limit::hard(limits.areas_per_context.get().into()))
        .with(Resource::Tables, Limit::hard(limits.table_bytes_per_context.get()))
        .with(Resource::FirstTouch, Limit::hard(limits.first_touch_bytes_per_context.get()))
}

/// The tenants that have names.
fn rules(config: &Config) -> Vec<Rule> {
    let right = |allowed: bool| if allowed { Right::Granted } else { Right::Denied };
    let rule = |tenant: &TenantConfig| Rule {
        name: tenant.name.clone(),
        uids: tenant.uids.clone(),
        gids: tenant.gids.clone(),
        cgroup: tenant.cgroup.clone(),
        exe: tenant.exe.clone(),
        rights: Rights {
            connect: right(tenant.connect),
            export: right(tenant.export),
            mock: right(tenant.mock),
            sources: tenant.sources,
            strengths: tenant.strengths,
            frames: tenant.frames,
        },
        place: Arc::clone(&tenant.place),
    };
    config.tenant.iter().map(rule).collect()
}
