//! `map-longterm`: a file whose pages are in memory, pinned for good by the kernel and mapped into domains.
//!
//! A page of the file stays mapped all the time, so that the agent keeps its mapping of the file, as it does for a client
//! that maps more than once. Where the host cannot pin, the scenario is skipped and says so: on standard error, with the cause.
//!
//! Imports allowed: bed, memory, floor, sample, report.

use std::rc::Rc;

use ioasd_client::formats::FormatId;
use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, IndexRange, Iova, PAGE_SIZE, PageIndex};

use super::bed::{self, Bed, IOVA};
use super::floor::{Bare, Copying, Floor};
use super::memory::Memory;
use super::report::{Row, Unit};
use super::sample::{Samples, timed_async};
use super::scenario::Scenario;
use super::{BenchError, Plan};
use crate::actors::objects::HwptObject;
use crate::cli::with_causes;
use crate::sources::file::FileSource;
use crate::sources::presence::FirstTouch;
use crate::storage::refusal::Refusal;
use crate::storage::source::Strength;

/// How many domains are compared.
const DOMAINS: [usize; 2] = [1, 64];

/// Where the page lies that stays mapped.
const KEPT: Iova = Iova::new(IOVA.get() >> 1);

/// An address space with some domains.
struct Rig {
    ioas: ObjectId,
    domains: Vec<Rc<HwptObject>>,
    mapped: Samples,
    page: Floor,
}

pub(super) fn measure(plan: Plan) -> Result<Vec<Row>, BenchError> {
    let measured =
        bed::run(Plan { strength: Strength::Longterm, ..plan }, async |bed| measure_here(bed).await);
    match measured {
        Err(error @ (BenchError::Engine(_) | BenchError::Refused(_))) => {
            eprintln!("SKIP: map-longterm: {}", with_causes(&error));
            Ok(Vec::new())
        }
        measured => measured,
    }
}

async fn measure_here(bed: &Bed) -> Result<Vec<Row>, BenchError> {
    let memory = Memory::new(bed.plan.size)?;
    let mut copying = Copying::new(bed.plan.size.get());
    let keeper = bed.state.ioas_alloc()?;
    bed.map_slice(keeper, &memory, KEPT, ByteLen::new(PAGE_SIZE)).await?;
    let mut rigs = Vec::new();
    for count in DOMAINS {
        let ioas = bed.state.ioas_alloc()?;
        let domains = bed.attach(ioas, count, &[FormatId::AmdV1]).await?;
        let mut rig = Rig { ioas, domains, mapped: Samples::default(), page: Floor::new(Bare::CopyPage, 1) };
        rig.round(bed, &memory, &mut copying).await?;
        rig.mapped = Samples::default();
        rigs.push(rig);
    }
    for _ in 0..bed.plan.rounds.div_ceil(2) {
        for rig in &mut rigs {
            rig.round(bed, &memory, &mut copying).await?;
        }
    }
    for rig in &rigs {
        rig.check(bed, &memory).await?;
    }
    Ok(rigs.iter().map(Rig::row).collect())
}

impl Rig {
    async fn round(&mut self, bed: &Bed, memory: &Memory, copying: &mut Copying) -> Result<(), BenchError> {
        copying.copy(&mut self.page);
        let (time, mapped) = timed_async(bed.map_file(self.ioas, memory)).await;
        mapped?;
        self.mapped.add(time, bed.plan.pages());
        bed.unmap(self.ioas).await?;
        Ok(())
    }

    async fn check(&self, bed: &Bed, memory: &Memory) -> Result<(), BenchError> {
        bed.map_file(self.ioas, memory).await?;
        let pages = IndexRange::from_length(PageIndex::new(0), bed.plan.pages()).ok_or(BenchError::Lost)?;
        let source = FileSource::new(memory.descriptor()?, pages, &bed.agent.pins, FirstTouch::none());
        let source = source.map_err(|error| Refusal::of(&error))?;
        bed.check(&self.domains, &source).await?;
        bed.unmap(self.ioas).await?;
        Ok(())
    }

    fn row(&self) -> Row {
        let case = format!("domains={},mapping=kept", self.domains.len());
        Row::new(Scenario::MapLongterm, case, Unit::PerPage, &self.mapped, Some(&self.page))
    }
}
