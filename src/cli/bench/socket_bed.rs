//! An agent in another process, a client of it with a domain, and an echo for comparison; all of them on one CPU.
//!
//! With more CPUs figures would tell how far apart these are.
//!
//! Imports allowed: cpus, echo, peer, memory, floor, the client crate.

use ioasd_client::calls::{ExportChannel, Iommu};
use ioasd_client::connection::Connection;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::{HwptId, IoasId};
use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::walker::Walker;

use super::BenchError;
use super::cpus::OneCpu;
use super::echo::Echo;
use super::floor::Floor;
use super::memory::{Memory, PAGE};
use super::peer::{Peer, Role};

/// Both peers, and an address space with a domain.
pub(super) struct SocketBed {
    echo: Echo,
    /// The client.
    pub(super) client: Connection,
    /// Its address space.
    pub(super) ioas: IoasId,
    hwpt: HwptId,
    _peer: Peer,
    pub(super) one: OneCpu,
}

impl SocketBed {
    /// Starts everything.
    pub(super) fn new() -> Result<Self, BenchError> {
        let one = OneCpu::enter()?;
        let (echo, mut agent) = (Echo::start()?, Peer::start(Role::Agent)?);
        let mut client = Connection::from_fd(agent.take_socket()?);
        let ioas = client.ioas_alloc()?;
        let device = client.device_create(FormatId::AmdV1, Iommu::Own)?;
        let hwpt = client.device_attach(device, ioas)?;
        Ok(Self { echo, client, ioas, hwpt, _peer: agent, one })
    }

    /// Sends a message to the echo and waits for it, some times.
    pub(super) fn echo(&self, floor: &mut Floor, times: u32) -> Result<(), BenchError> {
        self.echo.measure(floor, times)
    }

    /// Fails unless a device sees the pages of `memory`, in order, each at its place.
    pub(super) fn check(
        &mut self,
        memory: &Memory,
        places: impl Iterator<Item = Iova>,
    ) -> Result<(), BenchError> {
        let walker = self.walker()?;
        let mut stream = walker.stream().map_err(|_| BenchError::Lost)?;
        let (mut seen, mut there) = ([0; PAGE], [0; PAGE]);
        for (place, offset) in places.zip((0..).step_by(PAGE)) {
            let read = stream.enter().read(place, &mut seen);
            let copied = memory.mapping().copy_out(ByteLen::new(offset), &mut there);
            if read.is_err() || copied.is_err() || seen != there {
                return Err(BenchError::WrongBytes);
            }
        }
        Ok(())
    }

    /// What a device sees through.
    pub(super) fn walker(&mut self) -> Result<Walker, BenchError> {
        let channel = ExportChannel::from_fd(self.client.domain_export(self.hwpt)?);
        Walker::attach(channel).map_err(|_| BenchError::Lost)
    }
}
