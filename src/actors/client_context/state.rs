//! The state of one context: its objects, and what it shares with the agent.
//!
//! Imports allowed: agent, objects, channels, storage, sources.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use ioasd_client::ids::ObjectId;
use ioasd_client::wire::FRAME_MAX;

use super::accounting::Accounting;
use super::channels::Channels;
use super::container::Container;
use super::descriptors::Descriptors;
use super::memory_services::MemoryServices;
use crate::actors::agent::{Agent, Local};
use crate::actors::figures::ContextStats;
use crate::actors::journal::Happening;
use crate::actors::late::{Ended, until_late};
use crate::actors::number::Number;
use crate::actors::objects::regions::Regions;
use crate::actors::objects::{Object, ObjectError, Objects};
use crate::actors::registry::Registered;
use crate::actors::tables::Tables;
use crate::sources::presence::FirstTouch;
use crate::storage::ledger::Account;
use crate::storage::ledger::node::Allowance;
use crate::storage::ledger::resource::Resource;
use crate::storage::refusal::Refusal;

/// One context.
pub struct ClientState {
    /// What it shares.
    pub(super) agent: Arc<Agent>,
    /// The actors of its arbiter.
    pub(super) local: Local,
    /// Its objects.
    pub(super) objects: RefCell<Objects>,
    /// What it uses, as far as its opener pays.
    pub(super) account: Account,
    /// Holes that are allocated for it.
    pub(super) first_touch: FirstTouch,
    /// Where messages are received into.
    pub(super) buffer: RefCell<Vec<u8>>,
    /// Who pays for what it maps.
    pub(super) accounting: Accounting,
    /// What it is used through, besides its lease.
    pub(super) channels: Channels,
    /// The tables of its arbiter, if it lives there.
    pub(super) near_tables: Option<Rc<Tables>>,
    /// What a VFIO container stands for.
    pub(super) container: Container,
    /// The processes that use it: their memory, and how they are asked to pin it.
    pub(super) memory: MemoryServices,
    /// Objects that are descriptors.
    pub(super) descriptors: Descriptors,
    /// What the program can map.
    pub(super) regions: Regions,
    /// Its figures.
    pub(super) stats: Registered<ContextStats>,
}

impl ClientState {
    /// A context without objects.
    #[must_use]
    pub fn new(agent: Arc<Agent>, local: Local, stats: Registered<ContextStats>) -> Self {
        let account = agent.ledger.account(&stats.tenant, stats.uid.as_raw(), stats.number().get());
        let allowance = |resource| Allowance::new(Arc::clone(account.node()), resource);
        let objects = RefCell::new(Objects::new(allowance(Resource::Objects)));
        let first_touch = agent.pins.first_touch(allowance(Resource::FirstTouch));
        let channels = Channels::new(agent.settings.channels);
        let buffer = RefCell::new(vec![0; FRAME_MAX]);
        let (accounting, container, memory, descriptors, regions) = Default::default();
        let near_tables = Tables::here(local.shard);
        Self {
            agent,
            local,
            objects,
            account,
            first_touch,
            buffer,
            accounting,
            channels,
            near_tables,
            container,
            memory,
            descriptors,
            regions,
            stats,
        }
    }

    /// The number under which the context is listed.
    #[must_use]
    pub const fn number(&self) -> Number<ContextStats> {
        self.stats.number()
    }

    /// What the context may use of a resource.
    #[must_use]
    pub(super) fn allowance(&self, resource: Resource) -> Allowance {
        Allowance::new(Arc::clone(self.account.node()), resource)
    }

    /// Requests of one channel that may wait.
    #[must_use]
    pub fn credits(&self) -> usize {
        self.agent.settings.credits
    }

    /// Fails unless `id` is an address space.
    ///
    /// # Errors
    /// ENOENT.
    pub fn require_ioas(&self, id: ObjectId) -> Result<(), Refusal> {
        self.look(|objects| objects.ioas(id)).map(drop)
    }

    /// Looks at the objects. For tests and reports.
    pub fn with_objects<R>(&self, look: impl FnOnce(&Objects) -> R) -> R {
        look(&self.objects.borrow())
    }

    /// Counts an answered request.
    pub fn record(&self, command: &'static str, result: &'static str, took: Duration) {
        self.agent.registry.requests().record(command, result, took);
    }

    /// Does the work of a request until it is over, or must be answered.
    pub async fn request<T: 'static>(&self, work: LocalBoxFuture<'static, T>) -> Ended<T> {
        until_late(Arc::clone(&self.agent.registry), self.number(), work).await
    }

    /// Notes a refused request.
    pub fn note_refusal(&self, command: &'static str, refusal: &Refusal) {
        self.agent.registry.journal().tell(Happening::refused(self.number(), command, refusal));
    }

    /// Looks at the objects.
    pub(super) fn look<T>(
        &self,
        look: impl FnOnce(&Objects) -> Result<T, ObjectError>,
    ) -> Result<T, Refusal> {
        look(&self.objects.borrow()).map_err(|error| Refusal::of(&error))
    }

    /// Takes an id for an object under construction; it is given back unless the object is published.
    pub(super) fn reserve(&self) -> Result<ReservedId<'_>, Refusal> {
        let id = self.objects.borrow_mut().reserve().map_err(|error| Refusal::of(&error))?;
        Ok(ReservedId { state: self, id, published: false })
    }

    pub(super) fn show_figures(&self) {
        let count = self.objects.borrow().count();
        self.stats.objects.set(count as u64);
    }
}

/// An id on its way to an object.
pub(super) struct ReservedId<'a> {
    state: &'a ClientState,
    id: ObjectId,
    published: bool,
}

impl ReservedId<'_> {
    pub(super) const fn id(&self) -> ObjectId {
        self.id
    }

    /// Lets the object be found.
    pub(super) fn publish(mut self, object: Object) {
        self.published = true;
        self.state.objects.borrow_mut().publish(self.id, object);
        self.state.show_figures();
    }
}

impl Drop for ReservedId<'_> {
    fn drop(&mut self) {
        if !self.published {
            self.state.objects.borrow_mut().forget(self.id);
        }
    }
}
