//! `vectored`: many pages of a file, each mapped by a range of its own, in one request and in as many as there are ranges.
//!
//! There is a page between any two ranges in the address space, so that each is an area of its
//! own. The floor is one echo, which is the least that a request of its own costs.
//!
//! Imports allowed: socket_bed, memory, floor, sample, report, the client crate.

use std::os::fd::AsFd;

use ioasd_client::calls::lists::FileRange;
use ioasd_client::calls::{FileSlice, Placement};
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, Permission};

use super::floor::{Bare, Floor};
use super::memory::Memory;
use super::report::{Row, Unit};
use super::sample::{Samples, timed_by_the_wall};
use super::scenario::Scenario;
use super::socket_bed::SocketBed;
use super::{BenchError, Plan};

/// Ranges of one request.
const RANGES: u64 = 256;

/// Echoes in one round.
const ECHOES: u32 = 50;

/// Rounds that only warm up.
const WARM_UP: u32 = 2;

/// Where the first page is mapped; the others follow with a page between them.
const IOVA: Iova = Iova::new(0x10_0000);

/// A range that is mapped.
#[derive(Clone, Copy)]
struct Piece {
    offset: ByteLen,
    range: IovaRange,
}

/// What is mapped, and through what.
struct Rig {
    bed: SocketBed,
    memory: Memory,
    pieces: Vec<Piece>,
}

/// What is measured, for one range.
struct Times {
    mapped_by_list: Samples,
    unmapped_by_list: Samples,
    mapped_singly: Samples,
    unmapped_singly: Samples,
    echo: Floor,
}

pub(super) fn measure(plan: Plan) -> Result<Vec<Row>, BenchError> {
    let mut rig = Rig { bed: SocketBed::new()?, memory: Memory::numbered(RANGES)?, pieces: pieces()? };
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

fn pieces() -> Result<Vec<Piece>, BenchError> {
    let piece = |number: u64| {
        let start = Iova::new(IOVA.get() + number * 2 * PAGE_SIZE);
        let range = IovaRange::from_length(start, ByteLen::new(PAGE_SIZE)).ok_or(BenchError::Lost)?;
        Ok(Piece { offset: ByteLen::new(number * PAGE_SIZE), range })
    };
    (0..RANGES).map(piece).collect()
}

impl Rig {
    fn round(&mut self, times: &mut Times) -> Result<(), BenchError> {
        self.bed.echo(&mut times.echo, ECHOES)?;
        let files = self.file_ranges();
        let (time, mapped) = timed_by_the_wall(|| self.map_list(&files));
        mapped?;
        times.mapped_by_list.add(time, RANGES);
        let (time, unmapped) = timed_by_the_wall(|| self.unmap_list());
        unmapped?;
        times.unmapped_by_list.add(time, RANGES);
        let (time, mapped) = timed_by_the_wall(|| self.map_singly());
        mapped?;
        times.mapped_singly.add(time, RANGES);
        let (time, unmapped) = timed_by_the_wall(|| self.unmap_singly());
        unmapped?;
        times.unmapped_singly.add(time, RANGES);
        Ok(())
    }

    fn file_ranges(&self) -> Vec<FileRange> {
        let file_range = |piece: &Piece| FileRange {
            file: 0,
            offset: piece.offset,
            length: piece.range.length(),
            permission: Permission::ReadWrite,
            placement: Placement::Fixed(piece.range.start()),
        };
        self.pieces.iter().map(file_range).collect()
    }

    fn map_list(&mut self, ranges: &[FileRange]) -> Result<(), BenchError> {
        every(self.bed.client.map_files(self.bed.ioas, &[self.memory.as_fd()], ranges)?)
    }

    fn unmap_list(&mut self) -> Result<(), BenchError> {
        let ranges: Vec<IovaRange> = self.pieces.iter().map(|piece| piece.range).collect();
        every(self.bed.client.unmap_ranges(self.bed.ioas, &ranges)?)
    }

    fn map_singly(&mut self) -> Result<(), BenchError> {
        for piece in &self.pieces {
            let (offset, length) = (piece.offset, piece.range.length());
            let slice = FileSlice { file: self.memory.as_fd(), offset, length };
            let place = Placement::Fixed(piece.range.start());
            self.bed.client.map_file(self.bed.ioas, slice, Permission::ReadWrite, place)?;
        }
        Ok(())
    }

    fn unmap_singly(&mut self) -> Result<(), BenchError> {
        for piece in &self.pieces {
            self.bed.client.unmap(self.bed.ioas, piece.range)?;
        }
        Ok(())
    }

    /// What a device sees where a list was mapped.
    fn check(&mut self) -> Result<(), BenchError> {
        self.map_list(&self.file_ranges())?;
        let places = self.pieces.iter().map(|piece| piece.range.start());
        self.bed.check(&self.memory, places)?;
        self.unmap_list()
    }
}

/// Fails with the first range that was refused.
fn every<T>(outcomes: Vec<Result<T, rustix::io::Errno>>) -> Result<(), BenchError> {
    for (range, outcome) in outcomes.into_iter().enumerate() {
        outcome.map_err(|errno| BenchError::RangeRefused { range, errno })?;
    }
    Ok(())
}

impl Times {
    fn new() -> Self {
        let (mapped_by_list, unmapped_by_list, mapped_singly, unmapped_singly) = Default::default();
        let echo = Floor::new(Bare::Echo, 1);
        Self { mapped_by_list, unmapped_by_list, mapped_singly, unmapped_singly, echo }
    }

    fn rows(&self) -> Vec<Row> {
        let row = |op, call, samples| {
            let case = format!("path=socket,op={op},call={call},ranges={RANGES}");
            Row::new(Scenario::Vectored, case, Unit::PerRange, samples, Some(&self.echo))
        };
        vec![
            row("map", "list", &self.mapped_by_list),
            row("map", "single", &self.mapped_singly),
            row("unmap", "list", &self.unmapped_by_list),
            row("unmap", "single", &self.unmapped_singly),
        ]
    }
}
