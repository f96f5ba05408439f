//! `access`: bytes read and written by a software user, 16 MiB at once.
//!
//! Imports allowed: bed, memory, floor, sample, report.

use ioasd_client::ids::ObjectId;
use ioasd_client::units::ByteLen;

use super::bed::{self, Bed, IOVA};
use super::floor::{Bare, Copying, Floor};
use super::memory::Memory;
use super::report::{Row, Unit};
use super::sample::{Samples, timed_async};
use super::scenario::Scenario;
use super::{BenchError, Plan};
use crate::storage::ioas::AccessNeeds;

/// Bytes moved at once.
const BYTES: u64 = 16 << 20;

/// What is measured.
struct Times {
    read: Samples,
    written: Samples,
    page: Floor,
}

pub(super) fn measure(plan: Plan) -> Result<Vec<Row>, BenchError> {
    let plan = Plan { size: ByteLen::new(plan.size.get().min(BYTES)), ..plan };
    bed::run(plan, async |bed| {
        let memory = Memory::new(bed.plan.size)?;
        let ioas = bed.state.ioas_alloc()?;
        bed.map_file(ioas, &memory).await?;
        let nobody = Box::new(|_| Box::pin(async {}) as _);
        let access = bed.state.access_create(ioas, AccessNeeds::Copies, nobody).await?;
        let mut copying = Copying::new(bed.plan.size.get());
        let mut times = Times::new();
        times.round(bed, access, &memory, &mut copying).await?;
        times = Times::new();
        for _ in 0..bed.plan.rounds {
            times.round(bed, access, &memory, &mut copying).await?;
        }
        Ok(times.rows())
    })
}

impl Times {
    fn new() -> Self {
        let (read, written) = Default::default();
        Self { read, written, page: Floor::new(Bare::CopyPage, 1) }
    }

    /// Writes something else each time, and reads it back.
    async fn round(
        &mut self,
        bed: &Bed,
        access: ObjectId,
        memory: &Memory,
        copying: &mut Copying,
    ) -> Result<(), BenchError> {
        copying.copy(&mut self.page);
        let (range, pages) = (bed.range(), bed.plan.pages());
        let bytes: Vec<u8> = pattern(bed, self.read.values().len());
        let (time, written) = timed_async(bed.state.access_write(access, IOVA, bytes.clone())).await;
        written?;
        self.written.add(time, pages);
        let (time, read) = timed_async(bed.state.access_read(access, range)).await;
        self.read.add(time, pages);
        let mut there = vec![0; bytes.len()];
        memory.mapping().copy_out(ByteLen::new(0), &mut there).map_err(|_| BenchError::WrongBytes)?;
        if read? == bytes && there == bytes { Ok(()) } else { Err(BenchError::WrongBytes) }
    }

    fn rows(&self) -> Vec<Row> {
        let row = |case, samples| Row::new(Scenario::Access, case, Unit::PerPage, samples, Some(&self.page));
        vec![row("op=read", &self.read), row("op=write", &self.written)]
    }
}

/// Bytes that differ between pages and between rounds.
fn pattern(bed: &Bed, round: usize) -> Vec<u8> {
    let bytes = usize::try_from(bed.plan.size.get()).unwrap_or(0);
    (0..bytes).map(|at| u8::try_from((at / 4096 + at + round) % 251).unwrap_or(0)).collect()
}
