//! `small`: one page mapped and unmapped through the socket of an agent in another process.
//!
//! Echoes and requests take turns.
//!
//! Imports allowed: busy, socket_bed, memory, floor, sample, report, the client crate.

use std::iter;
use std::os::fd::AsFd;

use ioasd_client::calls::{FileSlice, Placement};
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, Permission};
use ioasd_client::walker::Walker;

use super::busy::Busy;
use super::floor::{Bare, Floor};
use super::memory::Memory;
use super::report::{Row, Unit};
use super::sample::{Samples, timed_by_the_wall};
use super::scenario::Scenario;
use super::socket_bed::SocketBed;
use super::{BenchError, Plan};

/// Requests of a kind in one round.
const BURST: u32 = 50;

/// Rounds that only warm up.
const WARM_UP: u32 = 5;

/// Walkers that an unmap has to look at.
const WALKERS: usize = 8;

/// Rounds of which one is enough where every unmap may wait for a thread that is not running.
const WAITING: u32 = 4;

/// Where the page is mapped.
const IOVA: Iova = Iova::new(0x10_0000);

/// What is mapped, and through what.
struct Rig {
    bed: SocketBed,
    memory: Memory,
}

/// What is measured.
struct Times {
    mapped: Samples,
    unmapped: Samples,
    made: Samples,
    echo: Floor,
}

pub(super) fn measure(plan: Plan) -> Result<Vec<Row>, BenchError> {
    let mut rig = Rig { bed: SocketBed::new()?, memory: Memory::numbered(1)? };
    rig.rounds(WARM_UP)?;
    let times = rig.rounds(plan.rounds)?;
    let walkers: Vec<Walker> = (0..WALKERS).map(|_| rig.bed.walker()).collect::<Result<_, _>>()?;
    let watched = rig.rounds(plan.rounds)?;
    let mut rows = times.rows();
    rows.push(watched.row(&format!("unmap,walkers={WALKERS}"), &watched.unmapped));
    for busy in [1, WALKERS] {
        let threads = Busy::start(&rig.bed.one, walkers.iter().take(busy))?;
        let waited = rig.rounds(plan.rounds.div_ceil(WAITING))?;
        threads.end()?;
        rows.push(waited.row(&format!("unmap,walkers={WALKERS},busy={busy}"), &waited.unmapped));
    }
    Ok(rows)
}

impl Rig {
    fn rounds(&mut self, rounds: u32) -> Result<Times, BenchError> {
        let mut times = Times::new();
        for _ in 0..rounds {
            self.round(&mut times)?;
        }
        self.check()?;
        Ok(times)
    }

    fn round(&mut self, times: &mut Times) -> Result<(), BenchError> {
        self.bed.echo(&mut times.echo, BURST)?;
        for _ in 0..BURST {
            let (time, mapped) = timed_by_the_wall(|| self.map());
            mapped?;
            times.mapped.add(time, 1);
            let (time, unmapped) = timed_by_the_wall(|| self.bed.client.unmap_all(self.bed.ioas));
            unmapped?;
            times.unmapped.add(time, 1);
            let (time, made) = timed_by_the_wall(|| self.bed.client.ioas_alloc());
            times.made.add(time, 1);
            self.bed.client.destroy(made?)?;
        }
        Ok(())
    }

    fn map(&mut self) -> Result<Iova, BenchError> {
        let (offset, length) = (ByteLen::new(0), ByteLen::new(PAGE_SIZE));
        let slice = FileSlice { file: self.memory.as_fd(), offset, length };
        let place = Placement::Fixed(IOVA);
        Ok(self.bed.client.map_file(self.bed.ioas, slice, Permission::ReadWrite, place)?)
    }

    /// What a device sees through the table that was written so often.
    fn check(&mut self) -> Result<(), BenchError> {
        self.map()?;
        self.bed.check(&self.memory, iter::once(IOVA))?;
        self.bed.client.unmap(self.bed.ioas, page())?;
        Ok(())
    }
}

impl Times {
    fn new() -> Self {
        let (mapped, unmapped, made) = Default::default();
        Self { mapped, unmapped, made, echo: Floor::new(Bare::Echo, 1) }
    }

    fn rows(&self) -> Vec<Row> {
        let rows = [("map", &self.mapped), ("unmap", &self.unmapped), ("ioas-alloc", &self.made)];
        rows.map(|(op, samples)| self.row(op, samples)).into()
    }

    fn row(&self, op: &str, samples: &Samples) -> Row {
        Row::new(Scenario::Small, format!("path=socket,op={op}"), Unit::PerRequest, samples, Some(&self.echo))
    }
}

fn page() -> IovaRange {
    IovaRange::from_length(IOVA, ByteLen::new(PAGE_SIZE)).unwrap_or(IovaRange::ALL)
}
