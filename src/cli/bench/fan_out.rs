//! `fanout`, `fanout-marginal` and `unmap`: frames into the tables of many domains, and out again.
//!
//! The source pins for nothing, so that the time is the engine's. Tables are mapped and unmapped before, so that their
//! pages are there. The marginal cost of a domain is (t(N) - t(1)) / (N - 1), of runs that follow one another.
//!
//! Imports allowed: bed, frames, floor, sample, report.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ioasd_client::formats::FormatId;
use ioasd_client::ids::ObjectId;

use super::bed::{self, Bed};
use super::floor::{Bare, Entries, Floor};
use super::frames::{LogicalFrames, Order};
use super::report::{Row, Unit};
use super::sample::{Samples, timed_async};
use super::scenario::Scenario;
use super::{BenchError, Plan};
use crate::actors::objects::HwptObject;
use crate::storage::refusal::Refusal;
use crate::storage::source::PageSource;

/// How many domains are compared; the first is what the others are compared with.
const DOMAINS: [usize; 4] = [1, 4, 16, 64];

/// Whose tables.
#[derive(Clone, Copy, Debug)]
enum Formats {
    One,
    Mixed,
}

impl Formats {
    /// The formats of domains, in turn.
    const fn list(self) -> &'static [FormatId] {
        match self {
            Self::One => &[FormatId::AmdV1],
            Self::Mixed => &[FormatId::AmdV1, FormatId::VtdSs, FormatId::ArmS2, FormatId::RiscVSv48],
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Mixed => "mixed",
        }
    }
}

/// Rounds that only warm up.
const WARM_UP: u32 = 2;

/// Rounds of scattered frames are longer, so there are fewer.
const SCATTERED_SHARE: u32 = 3;

/// An address space with some domains.
struct Rig {
    formats: Formats,
    domains: Vec<Rc<HwptObject>>,
    ioas: ObjectId,
    source: Arc<dyn PageSource>,
    bare: Entries,
    stored: Floor,
    cleared: Floor,
    mapped: Samples,
    unmapped: Samples,
    marginal: Samples,
}

pub(super) fn measure(plan: Plan) -> Result<Vec<Row>, BenchError> {
    bed::run(plan, async |bed| {
        let mut rows = measure_order(bed, Order::Contiguous, bed.plan.rounds).await?;
        let rounds = bed.plan.rounds.div_ceil(SCATTERED_SHARE);
        rows.extend(measure_order(bed, Order::Scattered, rounds).await?);
        Ok(rows)
    })
}

async fn measure_order(bed: &Bed, order: Order, rounds: u32) -> Result<Vec<Row>, BenchError> {
    let mut rigs = Vec::new();
    for count in DOMAINS {
        rigs.push(Rig::new(bed, order, count, Formats::One).await?);
    }
    for count in DOMAINS.into_iter().filter(|count| *count > 1) {
        rigs.push(Rig::new(bed, order, count, Formats::Mixed).await?);
    }
    for _ in 0..WARM_UP {
        round(bed, &mut rigs).await?;
    }
    rigs.iter_mut().for_each(Rig::forget_times);
    for _ in 0..rounds {
        round(bed, &mut rigs).await?;
    }
    let mut rows = Vec::new();
    for rig in &rigs {
        rig.check(bed).await?;
        rows.extend(rig.rows(order));
    }
    Ok(rows)
}

/// Every rig in turn; the first has one domain.
async fn round(bed: &Bed, rigs: &mut [Rig]) -> Result<(), Refusal> {
    let mut of_one = Duration::ZERO;
    for rig in rigs {
        let time = rig.round(bed).await?;
        let others = rig.domains.len() as u64 - 1;
        if others == 0 {
            of_one = time;
        } else {
            let difference = time.as_secs_f64() - of_one.as_secs_f64();
            rig.marginal.add_value(difference * 1e9 / (others * bed.plan.pages()) as f64);
        }
    }
    Ok(())
}

impl Rig {
    async fn new(bed: &Bed, order: Order, count: usize, formats: Formats) -> Result<Self, BenchError> {
        let ioas = bed.state.ioas_alloc()?;
        let domains = bed.attach(ioas, count, formats.list()).await?;
        let (mapped, unmapped, marginal) = Default::default();
        Ok(Self {
            formats,
            domains,
            ioas,
            source: LogicalFrames::source(order),
            bare: Entries::new(bed.plan.pages(), count),
            stored: Floor::new(Bare::StoreEntry, count),
            cleared: Floor::new(Bare::ClearEntry, count),
            mapped,
            unmapped,
            marginal,
        })
    }

    /// Bare code, then the engine.
    async fn round(&mut self, bed: &Bed) -> Result<Duration, Refusal> {
        self.bare.store(&mut self.stored);
        let (time, mapped) = timed_async(bed.map(self.ioas, Arc::clone(&self.source))).await;
        mapped?;
        self.mapped.add(time, bed.plan.pages());
        self.bare.clear(&mut self.cleared);
        let (unmap_time, unmapped) = timed_async(bed.unmap(self.ioas)).await;
        unmapped?;
        self.unmapped.add(unmap_time, bed.plan.pages());
        Ok(time)
    }

    fn forget_times(&mut self) {
        for samples in [&mut self.mapped, &mut self.unmapped, &mut self.marginal] {
            *samples = Samples::default();
        }
        *self.stored.samples() = Samples::default();
        *self.cleared.samples() = Samples::default();
    }

    async fn check(&self, bed: &Bed) -> Result<(), BenchError> {
        bed.map(self.ioas, Arc::clone(&self.source)).await?;
        bed.check(&self.domains, &*self.source).await?;
        bed.unmap(self.ioas).await?;
        Ok(())
    }

    fn rows(&self, order: Order) -> Vec<Row> {
        let case = format!("domains={},frames={order},formats={}", self.domains.len(), self.formats.name());
        let mut rows = vec![
            Row::new(Scenario::Fanout, case.clone(), Unit::PerPage, &self.mapped, Some(&self.stored)),
            Row::new(Scenario::Unmap, case.clone(), Unit::PerPage, &self.unmapped, Some(&self.cleared)),
        ];
        if !self.marginal.values().is_empty() {
            let floor = self.stored.of_each();
            let unit = Unit::PerPageAndDomain;
            rows.push(Row::new(Scenario::FanoutMarginal, case, unit, &self.marginal, Some(&floor)));
        }
        rows
    }
}
