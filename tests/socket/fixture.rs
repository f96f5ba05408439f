//! An agent in this process, and the proof at its end that nothing was left behind.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use actix_rt::System;
use ioasd::actors::agent::Agent as Shared;
use ioasd::actors::engine::{Engine, EngineSettings};
use ioasd::actors::policy::Policy;
use ioasd::actors::registry::{Registry, Snapshot};
use ioasd::cli::agent::settings;
use ioasd::config::Config;
use ioasd::storage::ledger::Ledger;
use ioasd::storage::ledger::holder::{Holder, TenantName};
use ioasd::storage::ledger::node::Node;
use ioasd::storage::ledger::resource::Resource as Counted;
use ioasd_client::connection::Connection;
use ioasd_client::error::CallError;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::noise;

/// How long anything may take that should happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An agent. Dropping it hangs up on whoever is left, stops it, and asserts that nothing remains.
pub(crate) struct Agent {
    folder: TempDir,
    registry: Arc<Registry>,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// An agent as `serve` runs it, with two arbiters.
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// An agent whose settings `change` has seen.
    pub(crate) fn with(change: impl FnOnce(&mut EngineSettings)) -> Self {
        noise::listen();
        raise_descriptor_limit();
        let mut settings = settings(&Config::default());
        (settings.arbiters, settings.pin_threads) = (2, 2);
        change(&mut settings);
        let (folder, registry) = (tempfile::tempdir().unwrap(), Registry::new());
        let (stop, stopped) = oneshot::channel();
        let (started, when_started) = channel();
        let (path, its_registry) = (socket_in(folder.path()), Arc::clone(&registry));
        let thread = thread::spawn(move || run(settings, its_registry, &path, &started, stopped));
        let shared = when_started.recv().expect("the engine did not start");
        Self { folder, registry, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.folder.path())
    }

    /// Lets any user connect.
    pub(crate) fn open_to_everybody(&self) {
        for (path, mode) in [(self.folder.path().to_owned(), 0o711), (self.socket(), 0o666)] {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
    }

    /// A new context.
    pub(crate) fn connect(&self) -> Connection {
        Connection::connect(&self.socket()).unwrap()
    }

    /// What it shows.
    pub(crate) const fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// What it shows now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.registry.snapshot()
    }

    /// Bytes pinned and bytes charged, over all pages objects.
    pub(crate) fn pinned_and_charged(&self) -> (u64, u64) {
        let pages = self.snapshot().pages;
        let sum = |figure: fn(&ioasd::actors::figures::PagesStats) -> u64| {
            pages.iter().map(|entry| figure(&entry.stats)).sum()
        };
        (sum(|stats| stats.pinned.get().get()), sum(|stats| stats.charged.get().get()))
    }

    /// Pages charged to all accounts, by the ledger.
    pub(crate) fn ledger_sum(&self) -> u64 {
        self.shared.ledger.sum_charged().get()
    }

    /// The account of a named tenant.
    pub(crate) fn account_of_tenant(&self, name: &str) -> Arc<Node> {
        self.shared.ledger.find(&Holder::of_tenant(TenantName::named(name)))
    }

    /// Who may do what.
    pub(crate) fn policy(&self) -> &Policy {
        &self.shared.policy
    }

    /// Everybody's accounts.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// Pages charged to a user.
    pub(crate) fn charged_to(&self, uid: u32) -> u64 {
        self.shared.ledger.charged_to(uid).get()
    }

    /// Asserts that it holds nothing for anybody, as soon as those who have just hung up are taken down.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        let clean = eventually(|| leftovers(&self.snapshot()).is_empty());
        assert!(clean, "left behind: {}", leftovers(&self.snapshot()));
        assert_eq!(self.ledger_sum(), 0, "the ledger still bills pages");
        let host = self.shared.ledger.host();
        for resource in Counted::ALL {
            assert_eq!(host.used(resource), 0, "somebody still pays for {resource}");
        }
        self.shared.ledger.check();
    }

    /// Stops it now; clients that are still there are hung up on.
    pub(crate) fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        drop(self.stop.take());
        assert!(thread.join().is_ok(), "the engine's thread panicked");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            return drop(self.stop.take());
        }
        self.stop();
        self.assert_clean();
        noise::assert_silence();
    }
}

/// As `serve` does: files of many tests are open at once in this process.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("ioasd.sock")
}

fn run(
    settings: EngineSettings,
    registry: Arc<Registry>,
    path: &Path,
    started: &Sender<Arc<Shared>>,
    stopped: oneshot::Receiver<()>,
) {
    System::new().block_on(async {
        let engine = Engine::start(settings, registry).await.unwrap();
        engine.listen(path, Mode::RUSR | Mode::WUSR).unwrap();
        started.send(Arc::clone(engine.agent())).unwrap();
        let asked = stopped.await;
        assert!(asked.is_err(), "stopping is asked for by dropping the sender");
        engine.stop().await;
    });
}

fn leftovers(snapshot: &Snapshot) -> String {
    let counts = [
        ("contexts", snapshot.contexts.len()),
        ("ioases", snapshot.ioases.len()),
        ("pages objects", snapshot.pages.len()),
        ("domains", snapshot.domains.len()),
        ("accesses", snapshot.accesses.len()),
    ];
    let left = counts.iter().filter(|(_, count)| *count > 0);
    left.map(|(kind, count)| format!("{count} {kind}, ")).collect()
}

/// Whether `condition` comes to hold while somebody has patience.
pub(crate) fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// The errno with which a call was refused.
#[track_caller]
pub(crate) fn errno<T>(result: Result<T, CallError>) -> Errno {
    match result {
        Ok(_) => panic!("a call that must be refused was not"),
        Err(CallError::Refused { errno, .. }) => errno,
        Err(other) => panic!("not a refusal: {other:?}"),
    }
}
