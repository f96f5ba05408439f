//! `small`: one page mapped and unmapped through the socket of an agent in another process.
//!
//! Client and agent share one CPU, as do the two ends of the echo that is the floor: with more CPUs the figures would
//! tell how far apart they are. Echoes and requests take turns.
//!
//! Imports allowed: peer, memory, floor, sample, report, the client crate.

use std::os::fd::{AsFd, OwnedFd};

use ioasd_client::calls::{ExportChannel, FileSlice, Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::{HwptId, IoasId};
use ioasd_client::layout::{FrameWindow, WINDOW_BYTES};
use ioasd_client::mapping::MapAccess;
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, Permission};
use ioasd_client::walker::{BackingFile, DomainParts, Walker};
use rustix::net::{SendFlags, send};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::floor::{Bare, Floor};
use super::memory::Memory;
use super::peer::{ECHOED, Peer, Role, receive};
use super::report::{Row, Unit};
use super::sample::{Samples, timed_by_the_wall};
use super::scenario::Scenario;
use super::{BenchError, Plan};

/// Requests of a kind in one round.
const BURST: u32 = 50;

/// Rounds that only warm up.
const WARM_UP: u32 = 5;

/// Where the page is mapped.
const IOVA: Iova = Iova::new(0x10_0000);

/// What the page holds.
const PATTERN: [u8; 4096] = [0x5a; 4096];

/// Both peers, and what is mapped.
struct Rig {
    echo: OwnedFd,
    client: Connection,
    ioas: IoasId,
    hwpt: HwptId,
    memory: Memory,
    _peers: [Peer; 2],
}

/// What is measured.
struct Times {
    mapped: Samples,
    unmapped: Samples,
    made: Samples,
    echo: Floor,
}

pub(super) fn measure(plan: Plan) -> Result<Vec<Row>, BenchError> {
    let _one = OneCpu::enter()?;
    let mut rig = Rig::new()?;
    let mut times = Times::new();
    for _ in 0..WARM_UP {
        rig.round(&mut times)?;
    }
    times = Times::new();
    for _ in 0..plan.rounds {
        rig.round(&mut times)?;
    }
    rig.check()?;
    Ok(times.rows())
}

impl Rig {
    fn new() -> Result<Self, BenchError> {
        let (mut echo, mut agent) = (Peer::start(Role::Echo)?, Peer::start(Role::Agent)?);
        let mut client = Connection::from_fd(agent.take_socket()?);
        let ioas = client.ioas_alloc()?;
        let device = client.device_create(FormatId::AmdV1, Iommu::Own)?;
        let hwpt = client.device_attach(device, ioas)?;
        let memory = Memory::new(ByteLen::new(PAGE_SIZE))?;
        memory.mapping().copy_in(ByteLen::new(0), &PATTERN).map_err(|_| BenchError::WrongBytes)?;
        Ok(Self { echo: echo.take_socket()?, client, ioas, hwpt, memory, _peers: [echo, agent] })
    }

    fn round(&mut self, times: &mut Times) -> Result<(), BenchError> {
        for _ in 0..BURST {
            let (time, echoed) = timed_by_the_wall(|| self.echo());
            echoed?;
            times.echo.samples().add(time, 1);
        }
        for _ in 0..BURST {
            let (time, mapped) = timed_by_the_wall(|| self.map());
            mapped?;
            times.mapped.add(time, 1);
            let (time, unmapped) = timed_by_the_wall(|| self.client.unmap_all(self.ioas));
            unmapped?;
            times.unmapped.add(time, 1);
            let (time, made) = timed_by_the_wall(|| self.client.ioas_alloc());
            times.made.add(time, 1);
            self.client.destroy(made?)?;
        }
        Ok(())
    }

    fn echo(&self) -> Result<(), BenchError> {
        let mut message = [7; ECHOED];
        let echoed = send(&self.echo, &message, SendFlags::NOSIGNAL)
            .map_err(std::io::Error::from)
            .and_then(|_| receive(self.echo.as_fd(), &mut message));
        echoed.map(drop).map_err(BenchError::io("send to the echo"))
    }

    fn map(&mut self) -> Result<Iova, BenchError> {
        let (offset, length) = (ByteLen::new(0), ByteLen::new(PAGE_SIZE));
        let slice = FileSlice { file: self.memory.as_fd(), offset, length };
        Ok(self.client.map_file(self.ioas, slice, Permission::ReadWrite, Placement::Fixed(IOVA))?)
    }

    /// What a device sees through the table that was written so often.
    fn check(&mut self) -> Result<(), BenchError> {
        self.map()?;
        let parts = ExportChannel::from_fd(self.client.domain_export(self.hwpt)?).open()?;
        let windows = parts.windows.as_chunks::<WINDOW_BYTES>().0.iter().map(FrameWindow::decode);
        let files = parts.files.into_iter().map(|fd| BackingFile { fd, access: MapAccess::ReadOnly });
        let walker = Walker::open(DomainParts {
            arena: parts.arena,
            slots: parts.slots,
            windows: windows.collect::<Result<_, _>>().map_err(|_| BenchError::WrongBytes)?,
            files: files.collect(),
        });
        let mut stream = walker.ok().and_then(|walker| walker.stream().ok()).ok_or(BenchError::Lost)?;
        let mut bytes = [0; PATTERN.len()];
        let read = stream.enter().read(IOVA, &mut bytes);
        drop(stream);
        self.client.unmap(self.ioas, page())?;
        if read.is_ok() && bytes == PATTERN { Ok(()) } else { Err(BenchError::WrongBytes) }
    }
}

impl Times {
    fn new() -> Self {
        let (mapped, unmapped, made) = Default::default();
        Self { mapped, unmapped, made, echo: Floor::new(Bare::Echo, 1) }
    }

    fn rows(&self) -> Vec<Row> {
        let row = |op, samples| {
            let case = format!("path=socket,op={op}");
            Row::new(Scenario::Small, case, Unit::PerRequest, samples, Some(&self.echo))
        };
        vec![row("map", &self.mapped), row("unmap", &self.unmapped), row("ioas-alloc", &self.made)]
    }
}

fn page() -> IovaRange {
    IovaRange::from_length(IOVA, ByteLen::new(PAGE_SIZE)).unwrap_or(IovaRange::ALL)
}

/// Keeps this thread, and the processes it starts, on one CPU while it lives.
struct OneCpu {
    before: CpuSet,
}

impl OneCpu {
    fn enter() -> Result<Self, BenchError> {
        let before = sched_getaffinity(None).map_err(std::io::Error::from);
        let before = before.map_err(BenchError::io("ask for the CPUs of this thread"))?;
        let mut one = CpuSet::new();
        let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| before.is_set(*cpu)).unwrap_or(0);
        one.set(last);
        let set = sched_setaffinity(None, &one).map_err(std::io::Error::from);
        set.map_err(BenchError::io("keep this thread on one CPU"))?;
        Ok(Self { before })
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        if let Err(error) = sched_setaffinity(None, &self.before) {
            eprintln!("bench: cannot use all CPUs again: {error}");
        }
    }
}
