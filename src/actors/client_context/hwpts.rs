//! Operations of a context on HWPTs: a domain is made, filled, placed on an arbiter, exported and ended.
//!
//! Imports allowed: state, storage, domains, messages, the object actors.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use ioasd_client::ids::ObjectId;

use super::state::ClientState;
use crate::actors::domain::{Close, Domain, DomainParts, Export, TellFaults};
use crate::actors::fan_out::{AddTable, RemoveTable};
use crate::actors::figures::{DomainIdentity, DomainStats, IoasStats};
use crate::actors::guard::poisoned;
use crate::actors::number::Number;
use crate::actors::objects::events::FaultQueueObject;
use crate::actors::objects::nesting::NestParent;
use crate::actors::objects::{DeviceObject, HwptObject, IoasObject, Made, Object, Sharing};
use crate::actors::rights::Deed;
use crate::actors::shards::Shard;
use crate::actors::tables::OwnedTable;
use crate::domains::arena::ArenaSize;
use crate::domains::epoch::Epochs;
use crate::domains::spec::TableSpec;
use crate::domains::table::{self, DomainTable};
use crate::error::Errno;
use crate::fault_points::{self, Point};
use crate::storage::ioas::DomainNeeds;
use crate::storage::ledger::resource::Resource;
use crate::storage::refusal::Refusal;
use crate::storage::step::DomainKey;

/// Domains of a context that stay on its own arbiter before others are used.
const SMALL_CONTEXT: u64 = 4;

/// What a HWPT is to show.
#[derive(Clone, Debug)]
pub enum HwptParent {
    /// An address space.
    Ioas(Rc<IoasObject>),
    /// Another HWPT, or a vIOMMU.
    Nest(NestParent),
}

/// What a domain shall be.
#[derive(Clone, Copy, Debug)]
pub struct HwptPlan {
    /// Who asks for it.
    pub made: Made,
    /// Its table.
    pub spec: TableSpec,
    /// `HWPT_*`.
    pub flags: u32,
    /// The queue for faults of its devices.
    pub faults: Option<ObjectId>,
}

impl HwptPlan {
    /// One that an attach to its address space asks for.
    #[must_use]
    pub const fn automatic(spec: TableSpec) -> Self {
        Self { made: Made::Automatically, spec, flags: 0, faults: None }
    }

    /// One that a client asks for.
    #[must_use]
    pub const fn by_hand(spec: TableSpec, flags: u32, faults: Option<ObjectId>) -> Self {
        Self { made: Made::ByHand, spec, flags, faults }
    }
}

impl ClientState {
    /// HWPT_ALLOC on an address space: a domain for `device` and those it can share one with, filled.
    ///
    /// # Errors
    /// What filling the domain meets.
    pub async fn hwpt_alloc(
        &self,
        device: &DeviceObject,
        ioas: Rc<IoasObject>,
        plan: HwptPlan,
    ) -> Result<ObjectId, Refusal> {
        let hwpt = self.hwpt_create(ioas, device.sharing(), plan).await?;
        Ok(hwpt.id)
    }

    /// The device that HWPT_ALLOC names, and what the HWPT is to show.
    ///
    /// # Errors
    /// ENOENT without such a device; EINVAL without such an object, or if it is of a kind that nothing can show.
    pub fn hwpt_parent(
        &self,
        device: ObjectId,
        parent: ObjectId,
    ) -> Result<(Rc<DeviceObject>, HwptParent), Refusal> {
        let device = self.look(|objects| objects.device(device))?;
        match self.look(|objects| objects.any(parent)) {
            Ok(Object::Ioas(ioas)) => Ok((device, HwptParent::Ioas(ioas))),
            Ok(Object::Hwpt(hwpt)) => Ok((device, HwptParent::Nest(NestParent::Hwpt(hwpt)))),
            Ok(Object::Viommu(viommu)) => Ok((device, HwptParent::Nest(NestParent::Viommu(viommu)))),
            Ok(_) | Err(_) => {
                let text = format!("object {parent} is nothing that a hwpt can show: name an ioas");
                Err(Refusal::new(Errno::INVAL, "hwpt-parent", text))
            }
        }
    }

    pub(super) async fn hwpt_create(
        &self,
        ioas: Rc<IoasObject>,
        sharing: Sharing,
        HwptPlan { made, spec, flags, faults }: HwptPlan,
    ) -> Result<Rc<HwptObject>, Refusal> {
        let (reserved, queue) = (self.reserve()?, self.fault_queue(faults));
        let (key, shard, arbiter) = self.place_domain()?;
        let tables = self.allowance(Resource::Tables);
        let size = ArenaSize::within(tables.hard());
        let table = table::create(spec, tables, size, self.agent.boot);
        let table = table.map_err(|error| Refusal::of(&error))?;
        fault_points::hit(Point::ActorStart).map_err(|injected| Refusal::of(&injected))?;
        let needs = DomainNeeds { alignment: spec.alignment(), aperture: spec.aperture() };
        let epochs = table.epochs();
        let domain = self.start_domain((key, ioas.number, reserved.id()), &shard, &arbiter, table).await?;
        let cell = Rc::clone(&ioas.cell);
        let (id, tracking) = (reserved.id(), Cell::default());
        let faults = queue.clone().unwrap_or_default();
        let hwpt = HwptObject { id, ioas, domain, key, sharing, made, spec, flags, faults, tracking };
        let hwpt = Rc::new(hwpt);
        if let Err(refusal) = cell.attach(key, needs, epochs).await {
            self.remove_table(&hwpt).await;
            return Err(refusal);
        }
        if let Err(refusal) = queue {
            self.end_hwpt(hwpt).await;
            return Err(refusal);
        }
        hwpt.ioas.add_hwpt(&hwpt);
        reserved.publish(Object::Hwpt(Rc::clone(&hwpt)));
        Ok(hwpt)
    }

    /// The queue for the faults of a HWPT that is made, if one was named. That there is none is told once the HWPT could be
    /// made.
    pub(super) fn fault_queue(&self, id: Option<ObjectId>) -> Result<Option<Rc<FaultQueueObject>>, Refusal> {
        id.map(|id| self.look(|objects| objects.fault_queue(id))).transpose()
    }

    /// The arbiter for one more domain: the context's own while it has few, then all in turn.
    fn place_domain(&self) -> Result<(DomainKey, Shard, ArbiterHandle), Refusal> {
        let id = self.agent.next_number();
        let own = self.local.shard;
        let domains = self.objects.borrow().hwpt_count();
        let turn = u16::try_from(domains % u64::from(self.agent.shards.count().max(1))).unwrap_or(0);
        let fan_out = if domains < SMALL_CONTEXT { own } else { turn };
        let shard = self.agent.shards.get(fan_out).cloned();
        let arbiter = self.agent.arbiters.get(usize::from(fan_out)).cloned();
        let (shard, arbiter) = shard.zip(arbiter).ok_or_else(|| poisoned("a FanOut"))?;
        Ok((DomainKey { fan_out, id }, shard, arbiter))
    }

    async fn start_domain(
        &self,
        (key, ioas, object): (DomainKey, Number<IoasStats>, ObjectId),
        shard: &Shard,
        arbiter: &ArbiterHandle,
        table: Box<dyn DomainTable>,
    ) -> Result<Addr<Domain>, Refusal> {
        let epochs: Arc<Epochs> = table.epochs();
        let format = table.spec().format().name();
        let identity = DomainIdentity { format, ioas, object, key: key.id };
        let stats = DomainStats::new(identity, Arc::clone(epochs.faults()));
        stats.inbox.open(shard.fan_out.downgrade().recipient());
        let stats = self.agent.registry.register_domain(stats);
        let parts = DomainParts {
            id: key.id,
            fan_out: shard.fan_out.clone(),
            epochs,
            stats: stats.share(),
            frames: Arc::clone(&self.agent.frames),
            unsafe_files: self.agent.settings.unsafe_files,
            owner: (self.stats.number(), Arc::clone(self.agent.registry.journal())),
        };
        let owned = OwnedTable { table, stats };
        shard.fan_out.send(AddTable(key.id, owned)).await.map_err(|_| poisoned("a FanOut"))?;
        Ok(Domain::start_in_arbiter(arbiter, |_| Domain::new(parts)))
    }

    /// Empties and ends a domain that is out of the table of objects.
    pub(super) async fn end_hwpt(&self, hwpt: Rc<HwptObject>) {
        let detached = hwpt.ioas.cell.detach(hwpt.key).await;
        if detached.is_err() {
            tracing::error!(
                domain = hwpt.key.id,
                ?detached,
                "a domain could not be emptied; it goes as it is"
            );
        }
        self.remove_table(&hwpt).await;
    }

    async fn remove_table(&self, hwpt: &HwptObject) {
        let closed = hwpt.domain.send(Close).await;
        let Some(shard) = self.agent.shards.get(hwpt.key.fan_out) else { return };
        let removed = shard.fan_out.send(RemoveTable(hwpt.key.id)).await;
        debug_assert!(closed.is_ok() && removed.is_ok(), "a domain ended before it was closed");
    }

    /// Makes an export channel of a domain.
    ///
    /// # Errors
    /// ENOENT without such a HWPT, EACCES if the tenant may not; what the kernel says about sockets.
    pub async fn domain_export(&self, hwpt: ObjectId) -> Result<OwnedFd, Refusal> {
        let hwpt = self.look(|objects| objects.hwpt(hwpt))?;
        self.may(Deed::Export)?;
        let ioas = hwpt.ioas.ioas.downgrade();
        hwpt.domain.send(Export { ioas }).await.unwrap_or_else(|_| Err(poisoned("a domain")))
    }

    /// Makes a fault channel of a domain.
    ///
    /// # Errors
    /// ENOENT without such a HWPT; what the kernel says about sockets.
    pub async fn domain_faults(&self, hwpt: ObjectId) -> Result<OwnedFd, Refusal> {
        let hwpt = self.look(|objects| objects.hwpt(hwpt))?;
        hwpt.domain.send(TellFaults).await.unwrap_or_else(|_| Err(poisoned("a domain")))
    }
}
