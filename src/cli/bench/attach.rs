//! `attach`: a domain attached to an address space that is full already.
//!
//! `tables=fresh` is the whole of DEVICE_ATTACH: a new arena, whose pages the kernel has to find and clear. `tables=warm`
//! is the filling alone, with a table whose pages are there.
//!
//! Imports allowed: bed, frames, floor, sample, report, domains.

use std::sync::Arc;

use ioasd_client::formats::FormatId;
use ioasd_client::ids::ObjectId;
use ioasd_client::units::{Permission, PhysAddr};

use super::bed::{self, Bed, IOVA};
use super::floor::{Bare, Entries, Floor};
use super::frames::{LogicalFrames, Order};
use super::report::{Row, Unit};
use super::sample::{Samples, timed_async};
use super::scenario::Scenario;
use super::{BenchError, Plan};
use crate::actors::fan_out::{AddTable, RemoveTable};
use crate::actors::figures::{DomainIdentity, DomainStats};
use crate::actors::objects::Iommu;
use crate::actors::tables::OwnedTable;
use crate::domains::arena::ArenaSize;
use crate::domains::map::MapRun;
use crate::domains::spec::TableSpec;
use crate::domains::table::{self, Budget, DomainTable};
use crate::storage::io_pagetable::LargePages;
use crate::storage::ioas::DomainNeeds;
use crate::storage::ledger::node::Allowance;
use crate::storage::ledger::resource::Resource;
use crate::storage::refusal::Refusal;
use crate::storage::source::PageSource;
use crate::storage::step::DomainKey;

/// An address space that one domain shows already.
struct Rig {
    ioas: ObjectId,
    source: Arc<dyn PageSource>,
    entries: Entries,
    floor: Floor,
    fresh: Samples,
    warm: Samples,
}

pub(super) fn measure(plan: Plan) -> Result<Vec<Row>, BenchError> {
    bed::run(plan, async |bed| {
        let mut rows = Vec::new();
        for order in [Order::Contiguous, Order::Scattered] {
            let mut rig = Rig::new(bed, order).await?;
            rig.attach_warm(bed).await?;
            rig.forget_times();
            for _ in 0..bed.plan.rounds.div_ceil(2) {
                rig.attach_fresh(bed).await?;
                rig.attach_warm(bed).await?;
            }
            rows.extend(rig.rows(order));
        }
        Ok(rows)
    })
}

impl Rig {
    async fn new(bed: &Bed, order: Order) -> Result<Self, BenchError> {
        let ioas = bed.state.ioas_alloc()?;
        bed.attach(ioas, 1, &[FormatId::AmdV1]).await?;
        let source = LogicalFrames::source(order);
        bed.map(ioas, Arc::clone(&source)).await?;
        let (fresh, warm) = Default::default();
        let (entries, floor) = (Entries::new(bed.plan.pages(), 2), Floor::new(Bare::CopyEntry, 1));
        Ok(Self { ioas, source, entries, floor, fresh, warm })
    }

    fn forget_times(&mut self) {
        (self.fresh, self.warm) = Default::default();
    }

    async fn attach_fresh(&mut self, bed: &Bed) -> Result<(), BenchError> {
        self.entries.copy(&mut self.floor);
        let device = bed.state.device_create(Iommu::Own, FormatId::AmdV1)?;
        let (time, attached) = timed_async(bed.state.device_attach(device, self.ioas)).await;
        self.fresh.add(time, bed.plan.pages());
        let hwpt =
            bed.state.with_objects(|objects| objects.hwpt(attached?).map_err(|error| Refusal::of(&error)))?;
        bed.check(&[hwpt], &*self.source).await?;
        bed.state.device_detach(device).await?;
        bed.state.destroy(device).await?;
        Ok(())
    }

    async fn attach_warm(&mut self, bed: &Bed) -> Result<(), BenchError> {
        self.entries.copy(&mut self.floor);
        let object = bed.state.with_objects(|objects| objects.ioas(self.ioas));
        let object = object.map_err(|error| Refusal::of(&error))?;
        let table = warm_table(bed)?;
        let spec = TableSpec::of(FormatId::AmdV1);
        let needs = DomainNeeds { alignment: spec.alignment(), aperture: spec.aperture() };
        let epochs = table.epochs();
        let domain = DomainKey { fan_out: 0, id: bed.agent.next_number() };
        let (format, key) = (FormatId::AmdV1.name(), domain.id);
        let identity = DomainIdentity { format, ioas: object.number, object: object.id, key };
        let stats = DomainStats::new(identity, Arc::clone(epochs.faults()));
        let stats = bed.agent.registry.register_domain(stats);
        let shard = bed.agent.shards.get(0).ok_or(BenchError::Lost)?;
        let added = shard.fan_out.send(AddTable(domain.id, OwnedTable { table, stats })).await;
        added.map_err(|_| BenchError::Lost)?;
        let attach = object.cell.attach(domain, needs, epochs);
        let (time, attached) = timed_async(attach).await;
        attached?;
        self.warm.add(time, bed.plan.pages());
        object.cell.detach(domain).await?;
        shard.fan_out.send(RemoveTable(domain.id)).await.map_err(|_| BenchError::Lost)
    }

    fn rows(&self, order: Order) -> [Row; 2] {
        let row = |tables, samples| {
            let case = format!("tables={tables},frames={order}");
            Row::new(Scenario::Attach, case, Unit::PerPage, samples, Some(&self.floor))
        };
        [row("warm", &self.warm), row("fresh", &self.fresh)]
    }
}

/// An empty table that has been full.
fn warm_table(bed: &Bed) -> Result<Box<dyn DomainTable>, Refusal> {
    let size = ArenaSize::DEFAULT;
    let spec = TableSpec::of(FormatId::AmdV1);
    let table = table::create(spec, Allowance::unlimited(Resource::Tables), size, bed.agent.boot);
    let mut table = table.map_err(|error| Refusal::of(&error))?;
    let mut budget = Budget::unlimited();
    let run = MapRun {
        iova: IOVA,
        phys: PhysAddr::new(0),
        length: bed.plan.size,
        permission: Permission::Read,
        large_pages: LargePages::Off,
    };
    let mapped = table.map(&run, &mut budget);
    mapped.map_err(|error| Refusal::of(&error))?;
    let unmapped = table.unmap(bed.range(), &mut budget);
    unmapped.map_err(|error| Refusal::of(&error))?;
    Ok(table)
}
