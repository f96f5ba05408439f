//! An IO address space: the operations on one IOVA map, its domains and its accesses.
//!
//! [`Ioas`] holds the order of things: IOVA is taken in one step, an area is filled while it counts as used, it turns
//! ready in one step; it leaves the domains before its pages are let go of; what fails leaves no trace. It is written
//! as `async` code over a [`Port`], which carries movements to the pages objects, waits for walkers and sends notices.
//! No runtime is assumed: actors drive it, and so does a test that polls it by hand.
//!
//! ```text
//!   gate     shared: MAP, COPY, UNMAP of different ranges side by side
//!            exclusive: adding and removing domains and accesses, switching large pages, cutting areas
//!            free: while walkers leave, while accesses are asked to let go, and for pin, read and write
//! ```
//!
//! No borrow of the core lives across an await.
//!
//! Imports allowed: units, the passive types of this folder, `tokio::sync` and `futures_util` (which need no runtime).

mod access;
mod domains;
mod map;
mod notices;
mod port;
mod split;
mod unmap;
mod withdraw;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use ioasd_client::units::{Iova, IovaRange, Permission};
use tokio::sync::{Notify, RwLock};

pub use access::{AccessKey, AccessNeeds, HeldByAccess};
pub use domains::DomainNeeds;
pub use notices::HeldError;
pub use port::{Notified, Port};

use super::area::AreaShape;
use super::io_pagetable::{Area, AreaId, IoPageTable, LargePages};
use super::ledger::node::Allowance;
use super::ledger::resource::Resource;
use super::order::{MoveFailure, Moved, Order, Showing};
use super::pages::{AreaKey, RetireKey};
use super::refusal::Refusal;
use super::step::DomainKey;
use crate::error::Errno;

/// One IO address space.
#[derive(Debug)]
pub struct Ioas<P: Port> {
    key: u64,
    port: P,
    gate: RwLock<()>,
    /// Told whenever an access takes hold of areas, or lets go.
    holds_changed: Notify,
    core: RefCell<Core<P::Pages>>,
}

#[derive(Debug)]
struct Core<H> {
    table: IoPageTable<H>,
    domains: Vec<DomainKey>,
    accesses: BTreeMap<AccessKey, access::AccessState<H>>,
}

/// An area as the operations hand it around.
#[derive(Clone, Debug)]
struct AreaView<H> {
    id: AreaId,
    shape: AreaShape,
    permission: Permission,
    pages: H,
}

/// Pages that left the domains: to be released once every walker has left them.
type Retired<H> = Vec<(H, RetireKey)>;

impl<P: Port> Ioas<P> {
    /// An empty address space without a limit of areas. `key` is unique among all that share pages.
    pub fn new(key: u64, port: P) -> Self {
        Self::within(Allowance::unlimited(Resource::Areas), key, port)
    }

    /// An empty address space whose areas count towards `areas`.
    pub fn within(areas: Allowance, key: u64, port: P) -> Self {
        let core = Core { table: IoPageTable::within(areas), domains: Vec::new(), accesses: BTreeMap::new() };
        Self { key, port, gate: RwLock::new(()), holds_changed: Notify::new(), core: RefCell::new(core) }
    }

    /// How it reaches the rest.
    pub const fn port(&self) -> &P {
        &self.port
    }

    /// Looks at the IOVA map.
    pub fn with_table<R>(&self, look: impl FnOnce(&IoPageTable<P::Pages>) -> R) -> R {
        look(&self.core.borrow().table)
    }

    /// Changes what allocation may use: allowed ranges, reserved ranges.
    pub fn with_table_mut<R>(&self, change: impl FnOnce(&mut IoPageTable<P::Pages>) -> R) -> R {
        change(&mut self.core.borrow_mut().table)
    }

    /// Switches large leaves on or off, while nothing is mapped or unmapped.
    ///
    /// # Errors
    /// When switching off, if there are domains and areas, or an area is not page aligned.
    pub async fn set_large_pages(&self, large_pages: LargePages) -> Result<(), Refusal> {
        let _gate = self.gate.write().await;
        let switched = self.core.borrow_mut().table.set_large_pages(large_pages);
        switched.map_err(|error| Refusal::of(&error))
    }

    /// The pages objects of all areas, while nothing is mapped or unmapped. One that several areas show comes several times.
    ///
    /// # Errors
    /// EBUSY if an area is not ready.
    pub async fn all_pages(&self) -> Result<Vec<P::Pages>, Refusal> {
        let _gate = self.gate.write().await;
        let core = self.core.borrow();
        if let Some(area) = core.table.areas().find(|area| !area.is_whole()) {
            let text = format!("area {} is being unmapped: try again", area.iova());
            return Err(Refusal::new(Errno::BUSY, "area-not-ready", text));
        }
        Ok(core.table.areas().map(|area| area.pages().clone()).collect())
    }

    /// The attached domains; the first one is the storage domain of areas filled from now on.
    pub fn domains(&self) -> Arc<[DomainKey]> {
        self.core.borrow().domains.as_slice().into()
    }

    fn view(&self, id: AreaId) -> Option<AreaView<P::Pages>> {
        let core = self.core.borrow();
        let area = core.table.area(id)?;
        Some(AreaView { id, shape: area.shape(), permission: area.permission(), pages: area.pages().clone() })
    }

    fn ready_areas(&self) -> Vec<AreaId> {
        self.core.borrow().table.ready_areas().map(Area::id).collect()
    }

    const fn area_key(&self, area: AreaId) -> AreaKey {
        AreaKey { ioas: self.key, area }
    }

    async fn fill(
        &self,
        area: &AreaView<P::Pages>,
        domains: Arc<[DomainKey]>,
        showing: Showing,
    ) -> Result<(), MoveFailure> {
        require_permission(area)?;
        let (shape, permission, area_key) = (area.shape, area.permission, self.area_key(area.id));
        let large_pages = self.with_table(IoPageTable::large_pages);
        let order = Order::Fill { area: area_key, shape, permission, large_pages, domains, showing };
        self.port.run(&area.pages, order).await.map(drop)
    }

    /// Takes an area out of all its domains; its pages retire.
    async fn unfill(&self, area: &AreaView<P::Pages>, domains: Arc<[DomainKey]>) -> Retired<P::Pages> {
        self.retire(area, Order::Unfill { area: self.area_key(area.id), shape: area.shape, domains }).await
    }

    /// Runs an order that retires pages of an area.
    async fn retire(&self, area: &AreaView<P::Pages>, order: Order) -> Retired<P::Pages> {
        match self.port.run(&area.pages, order).await {
            Ok(Moved::Retiring(key)) => vec![(area.pages.clone(), key)],
            Ok(_) | Err(_) => Vec::new(),
        }
    }

    /// Waits until every walker of `domains` has left what was unmapped, then lets go of it.
    async fn release(&self, domains: &[DomainKey], retired: Retired<P::Pages>) {
        if retired.is_empty() {
            return;
        }
        self.port.grace(domains).await;
        for (pages, key) in retired {
            self.release_one(&pages, key).await;
        }
    }

    /// A release cannot fail; an error means that the pages object is gone, and its pins with it.
    async fn release_one(&self, pages: &P::Pages, key: RetireKey) {
        let gone = self.port.run(pages, Order::Release(key)).await.is_err();
        debug_assert!(!gone || self.port.is_gone(pages), "releasing {key:?} failed");
    }

    /// Ends everything: what a client that dies leaves behind. Domains stay attached, empty.
    pub async fn clear(&self) {
        let accesses: Vec<AccessKey> = self.core.borrow().accesses.keys().copied().collect();
        for access in accesses {
            self.detach_access(access).await;
        }
        let everything = super::io_pagetable::UnmapRequest::Everything;
        let cleared = self.unmap(everything).await;
        debug_assert!(cleared.is_ok(), "clearing an address space without accesses failed: {cleared:?}");
    }

    /// Panics unless the address space keeps its rules. For tests.
    pub fn check(&self) {
        let core = self.core.borrow();
        core.table.check();
        let mut held: BTreeMap<AreaId, u64> = BTreeMap::new();
        for part in core.accesses.values().flat_map(access::AccessState::parts) {
            *held.entry(part.area).or_default() += 1;
        }
        for area in core.table.areas() {
            assert_eq!(
                area.accesses(),
                held.remove(&area.id()).unwrap_or(0),
                "pins of {} drifted",
                area.id()
            );
        }
        assert!(held.is_empty(), "accesses hold areas that are gone: {held:?}");
    }
}

/// No table maps what nobody may use.
fn require_permission<H>(area: &AreaView<H>) -> Result<(), Refusal> {
    if area.permission != Permission::Neither {
        return Ok(());
    }
    let text =
        format!("{} may be neither read nor written, and no domain maps that: unmap it", area.shape.iova());
    Err(Refusal::new(Errno::INVAL, "no-permission", text))
}

/// The address behind `range`, unless it is the last there is.
const fn behind(range: IovaRange) -> Option<Iova> {
    range.last().checked_add(1)
}

impl From<MoveFailure> for Refusal {
    fn from(failure: MoveFailure) -> Self {
        failure.refusal
    }
}
