//! Scenarios with real memory: a memfd is mapped, attached, exported, and every syscall on the way fails once.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ioasd::actors::client_context::address_spaces::{FileSlice, Mapping};
use ioasd::actors::client_context::state::ClientState;
use ioasd::actors::figures::ContextStats;
use ioasd::actors::objects::attachment::Pasid;
use ioasd::actors::objects::{Iommu, Objects};
use ioasd::fault_points::{Armed, Point};
use ioasd::storage::Tuning;
use ioasd::storage::io_pagetable::Placement;
use ioasd::storage::ledger::resource::Resource;
use ioasd::sys::pidfd::PidFd;
use ioasd::sys::sender::Sender;
use ioasd::sys::socket::Credentials;
use ioasd_client::formats::FormatId;
use ioasd_client::units::{ByteLen, Permission};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::Uid;

use crate::system::engine;

const BYTES: u64 = 64 * 4096;

fn memory() -> OwnedFd {
    let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::io::pwrite(&file, &vec![7; BYTES as usize], 0).unwrap();
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    file
}

fn fds() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until no more descriptors are open than before: a client's are closed by threads of their own.
async fn come_down_to(descriptors: usize) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while fds() > descriptors && Instant::now() < deadline {
        actix_rt::time::sleep(Duration::from_millis(1)).await;
    }
    fds() <= descriptors
}

/// Objects, pins, charges and tables, as the registry and the ledger show them.
fn figures(state: &ClientState, engine: &ioasd::actors::engine::Engine) -> Vec<u64> {
    let seen = engine.agent().registry.snapshot();
    let tables = seen.domains.iter().map(|domain| domain.stats.table.get().get()).sum();
    let mapped = seen.domains.iter().map(|domain| domain.stats.mapped.get().get()).sum();
    let charged = engine.agent().ledger.sum_charged().get();
    let objects = state.with_objects(Objects::count) as u64;
    let paid = engine.agent().ledger.host().used(Resource::Tables);
    vec![objects, seen.pinned().get(), charged, seen.domains.len() as u64, tables, mapped, paid]
}

/// This process as the client: its limit for locked memory binds.
fn own_process() -> Sender {
    let pid = rustix::process::getpid();
    Sender {
        credentials: Credentials { pid: Some(pid), uid: 0, gid: 0 },
        process: Some(Arc::new(PidFd::open(pid).unwrap())),
    }
}

async fn disturb(n: u64) -> Option<Point> {
    let (engine, local) = engine(Tuning::default()).await;
    engine.probe().await.unwrap();
    let stats = engine.agent().registry.register_context(ContextStats::new(Uid::ROOT, None));
    let state = Rc::new(ClientState::new(Arc::clone(engine.agent()), local, stats));
    let (who, mut fired, mut armed) = (own_process(), None, Some(Armed::nth(n)));
    let (mut ioas, mut device) = (None, None);
    for step in 0..6 {
        let (before, descriptors) = (figures(&state, &engine), fds());
        let mut export: Option<OwnedFd> = None;
        let mut run = async || match step {
            0 => state.ioas_alloc().map(|id| ioas = Some(id)),
            1 => state.device_create(Iommu::Own, FormatId::AmdV1).map(|id| device = Some(id)),
            2 | 4 => {
                let slice =
                    FileSlice { file: memory().into(), start: ByteLen::new(0), length: ByteLen::new(BYTES) };
                let mapping = Mapping { permission: Permission::ReadWrite, placement: Placement::Any };
                state.map_file(ioas.unwrap(), slice, mapping, Some(who.clone())).await.map(drop)
            }
            3 => state.device_attach(device.unwrap(), ioas.unwrap()).await.map(drop),
            _ => {
                let hwpt = state.with_objects(|objects| {
                    let device = objects.device(device.unwrap()).unwrap();
                    let attached = device.hwpt(Pasid::NONE);
                    attached.unwrap().id()
                });
                state.domain_export(hwpt).await.map(|channel| export = Some(channel))
            }
        };
        if let Err(refusal) = run().await {
            fired = armed.take().and_then(Armed::disarm);
            assert!(fired.is_some(), "step {step} failed on its own: {refusal}");
            assert_eq!(before, figures(&state, &engine), "step {step}, point {n}, {fired:?}, left a trace");
            assert!(come_down_to(descriptors).await, "step {step}, point {n}, {fired:?}, left a descriptor");
            let again = run().await;
            assert!(again.is_ok(), "step {step}, after {fired:?}: {again:?}");
        }
        assert!(export.is_none_or(|channel| channel.as_fd().try_clone_to_owned().is_ok()));
    }
    let fired = fired.or_else(|| armed.and_then(Armed::disarm));
    state.close().await;
    assert_eq!(
        figures(&state, &engine)[..3],
        [0, 0, 0],
        "point {n}, {fired:?}: something is left at the end"
    );
    engine.stop().await;
    fired
}

#[test]
fn every_syscall_on_the_way_of_a_real_file_fails_without_a_trace() {
    let _alone = crate::ONE_AT_A_TIME.lock();
    let mut tally: BTreeMap<String, u64> = BTreeMap::new();
    let mut n = 0;
    while let Some(point) = actix::System::new().block_on(disturb(n)) {
        *tally.entry(format!("{point:?}")).or_default() += 1;
        n += 1;
    }
    println!("real files: {n} points: {tally:?}");
    for point in
        ["MemfdCreate", "Mmap", "Seal", "ArenaGrow", "Fstat", "FrameWindow", "SocketPair", "ObjectId"]
    {
        assert!(tally.contains_key(point), "{point} is never reached: {tally:?}");
    }
}
