//! An agent in this process with an admin server, and a client of it.

use std::fs::Permissions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use actix_rt::System;
use ioasd::actors::agent::Agent as Shared;
use ioasd::actors::contexts::Contexts;
use ioasd::actors::engine::Engine;
use ioasd::actors::journal::Happening;
use ioasd::actors::registry::Registry;
use ioasd::actors::view::View;
use ioasd::admin::door::Scope;
use ioasd::admin::health::{Check, Readiness};
use ioasd::admin::token::AdminToken;
use ioasd::admin::{self, AdminHandle, Controls, Endpoints};
use ioasd::cli::agent::settings;
use ioasd::config::Config;
use ioasd::storage::Tuning;
use ioasd_client::calls::{FileSlice, Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::{HwptId, IoasId};
use ioasd_client::units::{ByteLen, Iova, IovaRange, Permission};
use rustix::fs::{MemfdFlags, Mode, memfd_create};
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::http::Door;

/// How long anything may take that should happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The token of an agent that has one.
pub(crate) const TOKEN: &str = "correct-horse-battery-staple";

/// An agent with both doors.
pub(crate) struct Agent {
    folder: TempDir,
    pub(crate) shared: Arc<Shared>,
    admin: Option<AdminHandle>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// An agent that shows everything through both doors.
    pub(crate) fn start() -> Self {
        Self::with_scope(Scope::Full)
    }

    /// An agent that shows `scope` through TCP. It has two arbiters.
    pub(crate) fn with_scope(scope: Scope) -> Self {
        Self::with(Tuning::default(), |_| (Endpoints { scope, ..Endpoints::default() }, None))
    }

    /// An agent whose movements take so many pages at a time.
    pub(crate) fn with_batches_of(batch_pages: u64) -> Self {
        let tuning = Tuning { batch_pages, ..Tuning::default() };
        Self::with(tuning, |_| (Endpoints { scope: Scope::Full, ..Endpoints::default() }, None))
    }

    /// An agent with [`TOKEN`], and a third door that others reach.
    pub(crate) fn with_token() -> Self {
        Self::with(Tuning::default(), |folder| {
            let path = folder.join("token");
            std::fs::write(&path, TOKEN).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
            let names = vec!["node7.example".to_owned()];
            let remote = "127.0.0.1:0".parse().ok();
            (Endpoints { remote, names, ..Endpoints::default() }, AdminToken::read(&path).ok())
        })
    }

    fn with(tuning: Tuning, endpoints: impl FnOnce(&Path) -> (Endpoints, Option<AdminToken>)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (started, when_started) = channel();
        let path = client_socket(folder.path());
        let thread = thread::spawn(move || run(&path, tuning, &started, stopped));
        let (shared, view, contexts) = when_started.recv().unwrap();
        let (endpoints, token) = endpoints(folder.path());
        let endpoints = Endpoints {
            tcp: Some("127.0.0.1:0".parse().unwrap()),
            socket: Some(folder.path().join("admin.sock")),
            ..endpoints
        };
        let readiness = Readiness::new(vec![Check::not_draining(&contexts)]);
        let controls = Controls { contexts, token, ..Controls::default() };
        let admin = admin::start(&endpoints, view, controls, readiness).unwrap();
        Self { folder, shared, admin, stop: Some(stop), thread: Some(thread) }
    }

    /// The door over TCP.
    pub(crate) fn tcp(&self) -> Door {
        Door::Tcp(self.admin.as_ref().and_then(AdminHandle::address).unwrap())
    }

    /// The door that others reach.
    pub(crate) fn remote(&self) -> Door {
        Door::Tcp(self.admin.as_ref().and_then(AdminHandle::remote).unwrap())
    }

    /// The path of the admin socket.
    pub(crate) fn admin_socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// The door through the admin socket.
    pub(crate) fn socket(&self) -> Door {
        Door::Socket(self.admin_socket())
    }

    /// The path of the clients' socket.
    pub(crate) fn clients(&self) -> PathBuf {
        client_socket(self.folder.path())
    }

    /// Notes in the journal that `contexts` contexts may leave.
    pub(crate) fn tell(&self, contexts: usize) {
        self.shared.registry.journal().tell(Happening::stopping(contexts));
    }

    /// Stops the admin server; the rest goes on.
    pub(crate) fn stop_admin(&mut self) {
        self.admin.take().unwrap().stop();
    }

    /// A new context.
    pub(crate) fn connect(&self) -> Connection {
        Connection::connect(&client_socket(self.folder.path())).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take().filter(|_| !thread::panicking()) {
            thread.join().unwrap();
        }
    }
}

fn client_socket(folder: &Path) -> PathBuf {
    folder.join("ioasd.sock")
}

type Started = (Arc<Shared>, View, Arc<Contexts>);

fn run(path: &Path, tuning: Tuning, started: &Sender<Started>, stopped: oneshot::Receiver<()>) {
    System::new().block_on(async {
        let mut settings = settings(&Config::default());
        (settings.arbiters, settings.pin_threads, settings.settings.tuning) = (2, 2, tuning);
        let engine = Engine::start(settings, Registry::new()).await.unwrap();
        engine.listen(path, Mode::RUSR | Mode::WUSR).unwrap();
        started.send((Arc::clone(engine.agent()), engine.view(), Arc::clone(engine.live()))).unwrap();
        let asked = stopped.await;
        assert!(asked.is_err(), "stopping is asked for by dropping the sender");
        engine.stop().await;
    });
}

/// Whether something comes true in good time.
pub(crate) fn eventually(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// A memfd of `pages` pages, all of them written.
pub(crate) fn memory(pages: usize) -> OwnedFd {
    let file = memfd_create("admin-test", MemfdFlags::CLOEXEC).unwrap();
    let bytes = vec![7; pages << 12];
    assert_eq!(rustix::io::pwrite(&file, &bytes, 0), Ok(bytes.len()));
    file
}

/// Maps `length` bytes of `file` from `offset` at `iova`.
pub(crate) fn map(
    client: &mut Connection,
    ioas: IoasId,
    file: impl AsFd,
    (offset, length): (u64, u64),
    iova: u64,
) {
    let slice = FileSlice { file: file.as_fd(), offset: ByteLen::new(offset), length: ByteLen::new(length) };
    client.map_file(ioas, slice, Permission::ReadWrite, Placement::Fixed(Iova::new(iova))).unwrap();
}

/// Attaches a new device with a table of its own.
pub(crate) fn attach(client: &mut Connection, ioas: IoasId) -> HwptId {
    let device = client.device_create(FormatId::AmdV1, Iommu::Own).unwrap();
    client.device_attach(device, ioas).unwrap()
}

/// The `length` addresses from `start`.
pub(crate) fn range(start: u64, length: u64) -> IovaRange {
    IovaRange::from_length(Iova::new(start), ByteLen::new(length)).unwrap()
}
