//! `map-file` and `copy`: a file whose pages are in memory into one domain, and from there into another address space.
//!
//! Both lie where a leaf of any size may begin; address spaces with large pages switched off have one leaf a page there.
//!
//! Imports allowed: bed, memory, floor, sample, report.

use std::rc::Rc;

use ioasd_client::formats::FormatId;
use ioasd_client::ids::ObjectId;
use ioasd_client::units::{IndexRange, PageIndex};

use super::bed::{self, ALIGNED, Bed};
use super::check::Leaves;
use super::floor::{Bare, Copying, Entries, Floor};
use super::memory::Memory;
use super::report::{Row, Unit};
use super::sample::{Samples, timed_async};
use super::scenario::Scenario;
use super::{BenchError, Plan};
use crate::actors::objects::HwptObject;
use crate::sources::file::FileSource;
use crate::sources::presence::FirstTouch;
use crate::storage::io_pagetable::LargePages;
use crate::storage::refusal::Refusal;

/// Rounds that only warm up.
const WARM_UP: u32 = 2;

/// Two address spaces with a domain each, and a file.
struct Rig {
    memory: Memory,
    ioases: [(ObjectId, Rc<HwptObject>); 2],
    copying: Copying,
    entries: Entries,
}

/// What is measured.
struct Times {
    mapped: Samples,
    copied: Samples,
    page: Floor,
    entry: Floor,
}

pub(super) fn measure(plan: Plan) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    for leaves in [Leaves::Pages, Leaves::Large] {
        let plan = Plan { iova: ALIGNED, leaves, ..plan };
        rows.extend(bed::run(plan, async |bed| measure_leaves(bed).await)?);
    }
    Ok(rows)
}

async fn measure_leaves(bed: &Bed) -> Result<Vec<Row>, BenchError> {
    let mut rig = Rig::new(bed).await?;
    let mut times = Times::new();
    for _ in 0..WARM_UP {
        rig.round(bed, &mut times).await?;
    }
    times = Times::new();
    for _ in 0..bed.plan.rounds {
        rig.round(bed, &mut times).await?;
    }
    rig.check(bed).await?;
    Ok(times.rows(bed.plan.leaves))
}

impl Rig {
    async fn new(bed: &Bed) -> Result<Self, BenchError> {
        let ioases = [Self::ioas(bed).await?, Self::ioas(bed).await?];
        Ok(Self {
            memory: Memory::new(bed.plan.size)?,
            ioases,
            copying: Copying::new(bed.plan.size.get()),
            entries: Entries::new(bed.plan.pages(), 2),
        })
    }

    async fn ioas(bed: &Bed) -> Result<(ObjectId, Rc<HwptObject>), BenchError> {
        let ioas = bed.state.ioas_alloc()?;
        let large_pages = match bed.plan.leaves {
            Leaves::Pages => LargePages::Off,
            Leaves::Large => LargePages::On,
        };
        bed.state.set_large_pages(ioas, large_pages).await?;
        let domain = bed.attach(ioas, 1, &[FormatId::AmdV1]).await?.pop().ok_or(BenchError::Lost)?;
        Ok((ioas, domain))
    }

    async fn round(&mut self, bed: &Bed, times: &mut Times) -> Result<(), BenchError> {
        let [(first, _), (second, _)] = self.ioases;
        let pages = bed.plan.pages();
        self.copying.copy(&mut times.page);
        let (time, mapped) = timed_async(bed.map_file(first, &self.memory)).await;
        mapped?;
        times.mapped.add(time, pages);
        self.entries.copy(&mut times.entry);
        let (time, copied) = timed_async(bed.copy(first, second)).await;
        copied?;
        times.copied.add(time, pages);
        bed.unmap(first).await?;
        bed.unmap(second).await?;
        Ok(())
    }

    async fn check(&self, bed: &Bed) -> Result<(), BenchError> {
        let [(first, one), (second, other)] = &self.ioases;
        bed.map_file(*first, &self.memory).await?;
        bed.copy(*first, *second).await?;
        let pages = IndexRange::from_length(PageIndex::new(0), bed.plan.pages()).ok_or(BenchError::Lost)?;
        let source = FileSource::new(self.memory.descriptor()?, pages, &bed.agent.pins, FirstTouch::none());
        let source = source.map_err(|error| Refusal::of(&error))?;
        bed.check(&[Rc::clone(one), Rc::clone(other)], &source).await
    }
}

impl Times {
    fn new() -> Self {
        let (mapped, copied) = Default::default();
        Self { mapped, copied, page: Floor::new(Bare::CopyPage, 1), entry: Floor::new(Bare::CopyEntry, 1) }
    }

    fn rows(&self, leaves: Leaves) -> Vec<Row> {
        let one = format!("domains=1,leaf={leaves}");
        vec![
            Row::new(Scenario::MapFile, one.clone(), Unit::PerPage, &self.mapped, Some(&self.page)),
            Row::new(Scenario::Copy, one, Unit::PerPage, &self.copied, Some(&self.entry)),
        ]
    }
}
