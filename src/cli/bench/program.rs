//! The program of `map-process`: it uses `/dev/iommu` as any program does, times what it gets beside bare code for the
//! same, and writes one JSON object a case to standard output.
//!
//! Imports allowed: echo, floor, sample, sys, serde.

use std::io;
use std::os::fd::OwnedFd;

use ioasd_client::ids::IoasId;
use ioasd_client::units::{ByteLen, Iova, PAGE_SIZE};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::BenchError;
use super::echo::Echo;
use super::floor::{Bare, Copying, Floor};
use super::sample::{Samples, timed_by_the_wall};
use crate::sys::iommu_program::{BarePins, Device, Memory, Way};

/// Small requests of a kind in one round.
const BURST: u32 = 50;

/// What was measured of one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Measured {
    /// Of [`Case`].
    pub(super) case: Case,
    /// Nanoseconds for a unit.
    pub(super) samples: Vec<f64>,
    /// Nanoseconds for a unit of the floor.
    pub(super) floor: Vec<f64>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Case {
    /// A call that does nothing.
    Null,
    /// A page mapped and unmapped: two calls.
    Page,
    /// Memory read through an access.
    Read,
    /// Memory written through an access.
    Write,
    /// Memory mapped into a domain, which pins it.
    Pin,
}

impl Case {
    /// Bare code for the same, and how often a unit takes it.
    pub(super) fn floor(self) -> Floor {
        match self {
            Self::Null => Floor::new(Bare::Echo, 1),
            Self::Page => Floor::new(Bare::Echo, 2),
            Self::Read | Self::Write => Floor::new(Bare::CopyPage, 1),
            Self::Pin => Floor::new(Bare::PinPage, 1),
        }
    }
}

/// What the program works with.
struct Rig {
    device: Device,
    ioas: IoasId,
    access: OwnedFd,
    mapped: Memory,
    beside: Memory,
    size: ByteLen,
    echo: Echo,
    copying: Copying,
}

/// What is measured, and beside what.
struct Times {
    null: Samples,
    page: Samples,
    read: Samples,
    written: Samples,
    pinned: Samples,
    echo: Floor,
    copied: Floor,
    bare: Floor,
}

/// Measures, over memory of `size`, and writes the figures.
pub(super) fn run(size: ByteLen, rounds: u32) -> Result<(), BenchError> {
    let mut rig = Rig::new(size)?;
    rig.round(&mut Times::new(), 0)?;
    let mut times = Times::new();
    for round in 0..rounds {
        rig.round(&mut times, round)?;
    }
    times.write(&mut io::stdout().lock()).map_err(BenchError::io("write the figures"))
}

impl Rig {
    fn new(size: ByteLen) -> Result<Self, BenchError> {
        let device = Device::open().map_err(BenchError::io("open /dev/iommu"))?;
        let ioas = device.address_space().map_err(refused("make an address space"))?;
        let access = device.access(ioas).map_err(refused("make an access"))?;
        let memory = || Memory::new(size).map_err(refused("make memory"));
        let (mapped, beside, echo) = (memory()?, memory()?, Echo::start()?);
        Ok(Self { device, ioas, access, mapped, beside, size, echo, copying: Copying::new(size.get()) })
    }

    fn round(&mut self, times: &mut Times, round: u32) -> Result<(), BenchError> {
        self.echo.measure(&mut times.echo, BURST)?;
        for _ in 0..BURST {
            let (time, called) = timed_by_the_wall(|| self.device.null());
            called.map_err(refused("call"))?;
            times.null.add(time, 1);
            let (time, mapped) = timed_by_the_wall(|| self.map_and_unmap(ByteLen::new(PAGE_SIZE)));
            mapped.map_err(refused("map a page"))?;
            times.page.add(time, 1);
        }
        self.copying.copy(&mut times.copied);
        self.pin_bare(&mut times.bare)?;
        let (time, mapped) = timed_by_the_wall(|| self.device.map(self.ioas, &self.mapped, self.size));
        let iova = mapped.map_err(refused("map memory"))?;
        times.pinned.add(time, self.size.get() / PAGE_SIZE);
        self.move_bytes(times, iova, round)?;
        self.device.unmap(self.ioas, iova, self.size).map_err(refused("unmap memory"))
    }

    fn map_and_unmap(&self, length: ByteLen) -> Result<(), Errno> {
        let iova = self.device.map(self.ioas, &self.mapped, length)?;
        self.device.unmap(self.ioas, iova, length)
    }

    fn pin_bare(&self, floor: &mut Floor) -> Result<(), BenchError> {
        let ring = BarePins::new().map_err(refused("make a ring"))?;
        let (time, pinned) = timed_by_the_wall(|| ring.pin(&self.mapped, self.size));
        pinned.map_err(refused("pin memory"))?;
        floor.samples().add(time, self.size.get() / PAGE_SIZE);
        Ok(())
    }

    /// Writes something else each round, and reads it back.
    fn move_bytes(&self, times: &mut Times, iova: Iova, round: u32) -> Result<(), BenchError> {
        let (written, pages) = (u8::try_from(round % 251).unwrap_or(0) + 2, self.size.get() / PAGE_SIZE);
        for (way, samples) in [(Way::Write, &mut times.written), (Way::Read, &mut times.read)] {
            self.beside.fill(if way == Way::Write { written } else { 0 });
            let place = (iova, self.size);
            let (time, moved) =
                timed_by_the_wall(|| self.device.transfer(&self.access, place, &self.beside, way));
            moved.map_err(refused("move bytes"))?;
            samples.add(time, pages);
        }
        let there = [&self.mapped, &self.beside].iter().all(|memory| memory.is_all(self.size, written));
        if there { Ok(()) } else { Err(BenchError::WrongBytes) }
    }
}

fn refused(doing: &'static str) -> impl FnOnce(Errno) -> BenchError {
    move |errno| BenchError::Io { doing, source: errno.into() }
}

impl Times {
    fn new() -> Self {
        let (null, page, read, written, pinned) = Default::default();
        let (echo, copied, bare) = (Case::Null.floor(), Case::Read.floor(), Case::Pin.floor());
        Self { null, page, read, written, pinned, echo, copied, bare }
    }

    fn write(mut self, out: &mut impl io::Write) -> io::Result<()> {
        let floors = [&mut self.echo, &mut self.copied, &mut self.bare];
        let [echo, copied, bare] = floors.map(|floor| floor.samples().values().to_vec());
        for (case, samples, floor) in [
            (Case::Null, &self.null, &echo),
            (Case::Page, &self.page, &echo),
            (Case::Read, &self.read, &copied),
            (Case::Write, &self.written, &copied),
            (Case::Pin, &self.pinned, &bare),
        ] {
            let measured = Measured { case, samples: samples.values().to_vec(), floor: floor.clone() };
            let line = serde_json::to_string(&measured).map_err(io::Error::other)?;
            writeln!(out, "{line}")?;
        }
        Ok(())
    }
}
