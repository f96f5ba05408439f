//! A whole session over a real socket: connecting, mapping, attaching, exporting, walking, unmapping. Every fallible
//! place on the agent's side fails once. The client sees an answer or a hang-up, never silence; then everything is gone.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ioasd::actors::agent::Settings;
use ioasd::actors::engine::{Engine, EngineSettings};
use ioasd::actors::exported_files::UnsafeFiles;
use ioasd::actors::mock_hardware::Hardware;
use ioasd::actors::registry::Registry;
use ioasd::actors::retirement::HungSettings;
use ioasd::fault_points::{Armed, Point};
use ioasd::storage::Tuning;
use ioasd::storage::frame_window::FrameLimit;
use ioasd::storage::ledger::limits::{Limit, Limits, TreeLimits};
use ioasd::storage::ledger::resource::Resource;
use ioasd::storage::source::PinSettings;
use ioasd_client::calls::{AccessKind, ExportChannel, FileSlice, Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::error::CallError;
use ioasd_client::formats::FormatId;
use ioasd_client::units::{ByteLen, Permission};
use rustix::fs::{MemfdFlags, Mode, SealFlags, fcntl_add_seals, memfd_create};
use tokio::sync::oneshot;

const BYTES: u64 = 16 * 4096;

/// An agent in a thread of its own. When it has stopped it tells what it held before.
struct Agent {
    path: PathBuf,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Vec<u64>>,
}

impl Agent {
    fn start(folder: &Path) -> Self {
        let path = folder.join("socket");
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let at = path.clone();
        let thread = std::thread::spawn(move || actix::System::new().block_on(serve(at, ready, stopped)));
        is_ready.recv().unwrap();
        Self { path, stop, thread }
    }

    fn stop(self) -> Vec<u64> {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap()
    }
}

async fn serve(
    path: PathBuf,
    ready: std::sync::mpsc::Sender<()>,
    stopped: oneshot::Receiver<()>,
) -> Vec<u64> {
    let settings = Settings {
        credits: 64,
        channels: 16,
        tuning: Tuning::default(),
        hardware: Hardware::None,
        unsafe_files: UnsafeFiles::Withheld,
    };
    let dispatch = Arc::new(ioasd::uapi::Uapi);
    let start = EngineSettings {
        frames: FrameLimit::EVERY_FORMAT,
        arbiters: 1,
        pin_threads: 1,
        pins: PinSettings::default(),
        walkers: HungSettings::default(),
        settings,
        limits: limits(),
        rules: Vec::new(),
        dispatch,
    };
    let engine = Engine::start(start, Registry::new()).await.unwrap();
    engine.listen(&path, Mode::RUSR | Mode::WUSR).unwrap();
    engine.probe().await.unwrap();
    ready.send(()).unwrap();
    stopped.await.unwrap();
    for _ in 0..500 {
        let seen = engine.agent().registry.snapshot();
        if seen.contexts.is_empty()
            && seen.ioases.is_empty()
            && seen.pages.is_empty()
            && seen.domains.is_empty()
        {
            break;
        }
        actix_rt::time::sleep(Duration::from_millis(2)).await;
    }
    let seen = engine.agent().registry.snapshot();
    let objects = [seen.contexts.len(), seen.ioases.len(), seen.pages.len(), seen.domains.len()];
    let mut left: Vec<u64> = objects.into_iter().map(|count| count as u64).collect();
    left.push(engine.agent().ledger.sum_charged().get());
    engine.stop().await;
    left
}

fn memory() -> OwnedFd {
    let file = memfd_create("session", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::io::pwrite(&file, &vec![5; BYTES as usize], 0).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    file
}

/// The session; an error ends it.
fn session(path: &Path) -> Result<(), CallError> {
    let mut client = Connection::connect(path)?;
    let ioas = client.ioas_alloc()?;
    let mut channel = client.open_channel()?.channel;
    let second = channel.ioas_alloc()?;
    channel.destroy(second)?;
    let (access, notices) = client.access_create_with_notices(ioas, AccessKind::Pinning)?;
    client.destroy(access)?;
    drop(notices);
    let device = client.device_create(FormatId::AmdV1, Iommu::Own)?;
    let hwpt = client.device_attach(device, ioas)?;
    let file = memory();
    let slice = FileSlice { file: file.as_fd(), offset: ByteLen::new(0), length: ByteLen::new(BYTES) };
    client.map_file(ioas, slice, Permission::ReadWrite, Placement::Any)?;
    let mut channel = ExportChannel::from_fd(client.domain_export(hwpt)?);
    let parts = channel.open()?;
    assert_eq!(parts.files.len(), 1);
    drop((parts, channel));
    client.unmap_all(ioas)?;
    client.device_detach(device)?;
    client.destroy(ioas)
}

/// What a session must have failed at.
const REACHED: [&str; 9] = [
    "Accept",
    "SocketReceive",
    "SocketSend",
    "Watch",
    "ProcRead",
    "PidfdOpen",
    "Dup",
    "SocketPair",
    "PassPidfd",
];

/// Sweeps before a point counts as out of reach.
const SWEEPS: u32 = 8;

/// How often the agent finds nothing to receive depends on the order in which threads run, so a sweep may step over a
/// point: what it missed is looked for in another.
#[test]
fn a_session_ends_with_an_answer_or_a_hang_up_whatever_fails_and_leaves_nothing() {
    let _alone = crate::ONE_AT_A_TIME.lock();
    let mut tally: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..SWEEPS {
        sweep(&mut tally);
        if REACHED.iter().all(|&point| tally.contains_key(point)) {
            break;
        }
    }
    println!("sessions: {tally:?}");
    for point in REACHED {
        assert!(tally.contains_key(point), "{point} is never reached: {tally:?}");
    }
}

/// Fails every point of a session in turn.
fn sweep(tally: &mut BTreeMap<String, u64>) {
    for n in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let agent = Agent::start(folder.path());
        let armed = Armed::nth(n);
        let ended = session(&agent.path);
        let fired: Option<Point> = armed.disarm();
        assert!(fired.is_some() || ended.is_ok(), "{ended:?} though nothing failed");
        assert_eq!(agent.stop(), [0; 5], "point {n}, {fired:?}, {ended:?}: something is left");
        let Some(point) = fired else { break };
        *tally.entry(format!("{point:?}")).or_default() += 1;
    }
}

/// What each context may use.
fn limits() -> TreeLimits {
    let hard = Limits::NONE
        .with(Resource::Objects, Limit::hard(100))
        .with(Resource::Areas, Limit::hard(1000))
        .with(Resource::Tables, Limit::hard(1 << 20))
        .with(Resource::FirstTouch, Limit::hard(0));
    TreeLimits::of_contexts(hard)
}
