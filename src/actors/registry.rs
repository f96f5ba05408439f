//! The registry: every live object of the agent with its figures, for whoever wants to look.
//!
//! An actor registers its object when it starts and keeps the [`Registered`] guard; the entry is gone when the guard is
//! dropped, however the actor ends. The actor alone writes the figures; `/metrics` and the admin API read them.
//!
//! A figure is one relaxed atomic: reading it takes no lock and never makes its actor wait. Two figures read one after
//! the other may belong to different moments, so sums hold exactly only at rest. The tables of entries are dashmaps:
//! registering, dropping and walking them lock one shard for a moment.
//!
//! Imports allowed: units, figures, operation, requests, number, journal, `domains::walker_faults`.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use dashmap::DashMap;
use ioasd_client::units::ByteLen;

use super::figures::{AccessStats, ContextStats, DeviceStats, DomainStats, IoasStats, PagesStats};
use super::journal::{Happening, Journal};
use super::number::Number;
use super::operation::Operation;
use super::requests::{RequestCount, RequestCounts};
use crate::domains::walker_faults::{FaultCounts, FaultTotals};

/// What is told when an object is gone.
type Obituary<S> = Box<dyn Fn(Number<S>) + Send + Sync>;

/// The objects of one kind.
struct Table<S> {
    next: AtomicU64,
    entries: DashMap<u64, Arc<S>>,
    gone: Option<Obituary<S>>,
}

impl<S> Table<S> {
    fn new() -> Arc<Self> {
        Self::with(None)
    }

    fn with(gone: Option<Obituary<S>>) -> Arc<Self> {
        Arc::new(Self { next: AtomicU64::new(1), entries: DashMap::new(), gone })
    }

    fn register(self: &Arc<Self>, stats: impl Into<Arc<S>>) -> Registered<S> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let stats = stats.into();
        self.entries.insert(number, Arc::clone(&stats));
        Registered { number: Number::new(number), stats, table: Arc::clone(self) }
    }

    fn list(&self) -> Vec<Entry<S>> {
        let mut list: Vec<_> =
            self.entries.iter().map(|entry| Entry::new(*entry.key(), entry.value())).collect();
        list.sort_unstable_by_key(|entry| entry.number.get());
        list
    }

    fn get(&self, number: u64) -> Option<Entry<S>> {
        self.entries.get(&number).map(|entry| Entry::new(number, entry.value()))
    }
}

/// Keeps an object in the registry; takes it out when dropped. Derefs to the figures.
pub struct Registered<S> {
    number: Number<S>,
    stats: Arc<S>,
    table: Arc<Table<S>>,
}

impl<S> Registered<S> {
    /// The number under which the object is listed.
    #[must_use]
    pub const fn number(&self) -> Number<S> {
        self.number
    }

    /// The figures, to be written from another thread that works for the same actor.
    #[must_use]
    pub fn share(&self) -> Arc<S> {
        Arc::clone(&self.stats)
    }
}

impl<S> Deref for Registered<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.stats
    }
}

impl<S> Drop for Registered<S> {
    fn drop(&mut self) {
        self.table.entries.remove(&self.number.get());
        if let Some(gone) = &self.table.gone {
            gone(self.number);
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Registered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registered").field(&self.number).field(&self.stats).finish()
    }
}

/// One line of a [`Snapshot`]: an object and its figures.
///
/// The figures go on moving after the snapshot; the set of objects does not.
#[derive(Debug)]
pub struct Entry<S> {
    /// The number under which the object is listed.
    pub number: Number<S>,
    /// Its figures.
    pub stats: Arc<S>,
}

impl<S> Entry<S> {
    fn new(number: u64, stats: &Arc<S>) -> Self {
        Self { number: Number::new(number), stats: Arc::clone(stats) }
    }
}

/// The objects that were registered at one moment, each kind in the order of its numbers.
#[derive(Debug)]
pub struct Snapshot {
    /// The contexts.
    pub contexts: Vec<Entry<ContextStats>>,
    /// The IO address spaces.
    pub ioases: Vec<Entry<IoasStats>>,
    /// The pages objects.
    pub pages: Vec<Entry<PagesStats>>,
    /// The domains.
    pub domains: Vec<Entry<DomainStats>>,
    /// The accesses.
    pub accesses: Vec<Entry<AccessStats>>,
    /// Operations under way.
    pub operations: Vec<Entry<Operation>>,
    /// Requests answered since the agent started.
    pub requests: Vec<RequestCount>,
    /// Faults that walkers have met since the agent started.
    pub faults: FaultCounts,
    /// Bytes of holes that the agent has allocated for clients since it started.
    pub first_touched: ByteLen,
}

impl Snapshot {
    /// The bytes that still hold a pin, over all pages objects.
    #[must_use]
    pub fn pinned(&self) -> ByteLen {
        ByteLen::new(self.pages.iter().map(|entry| entry.stats.pinned.get().get()).sum())
    }
}

/// Every live object of the agent.
pub struct Registry {
    contexts: Arc<Table<ContextStats>>,
    ioases: Arc<Table<IoasStats>>,
    pages: Arc<Table<PagesStats>>,
    domains: Arc<Table<DomainStats>>,
    accesses: Arc<Table<AccessStats>>,
    devices: Arc<Table<DeviceStats>>,
    operations: Arc<Table<Operation>>,
    requests: RequestCounts,
    first_touched: Arc<AtomicU64>,
    faults: Arc<FaultTotals>,
    journal: Arc<Journal>,
    since: SystemTime,
}

impl Registry {
    /// An empty registry, to be shared by all actors.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let journal = Arc::<Journal>::default();
        let closed = Arc::clone(&journal);
        Arc::new(Self {
            contexts: Table::with(Some(Box::new(move |number| closed.tell(Happening::closed(number))))),
            ioases: Table::new(),
            pages: Table::new(),
            domains: Table::new(),
            accesses: Table::new(),
            devices: Table::new(),
            operations: Table::new(),
            requests: RequestCounts::default(),
            first_touched: Arc::default(),
            faults: Arc::default(),
            journal,
            since: SystemTime::now(),
        })
    }

    /// When the agent started.
    #[must_use]
    pub const fn since(&self) -> SystemTime {
        self.since
    }

    /// What happened lately.
    #[must_use]
    pub const fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Where bytes that are allocated for clients are counted.
    #[must_use]
    pub const fn first_touched(&self) -> &Arc<AtomicU64> {
        &self.first_touched
    }

    /// Lists a context for as long as the guard lives.
    #[must_use]
    pub fn register_context(&self, stats: ContextStats) -> Registered<ContextStats> {
        let context = self.contexts.register(stats);
        self.journal.tell(Happening::opened(context.number(), &context));
        context
    }

    /// Lists an IO address space for as long as the guard lives.
    #[must_use]
    pub fn register_ioas(&self, stats: IoasStats) -> Registered<IoasStats> {
        self.ioases.register(stats)
    }

    /// Lists a pages object for as long as the guard lives.
    #[must_use]
    pub fn register_pages(&self, stats: PagesStats) -> Registered<PagesStats> {
        self.pages.register(stats)
    }

    /// Lists a domain for as long as the guard lives.
    #[must_use]
    pub fn register_domain(&self, stats: DomainStats) -> Registered<DomainStats> {
        stats.faults.add_to(&self.faults);
        self.domains.register(stats)
    }

    /// Lists an access for as long as the guard lives.
    #[must_use]
    pub fn register_access(&self, stats: AccessStats) -> Registered<AccessStats> {
        self.accesses.register(stats)
    }

    /// Lists a device for as long as the guard lives.
    #[must_use]
    pub fn register_device(&self, stats: DeviceStats) -> Registered<DeviceStats> {
        self.devices.register(stats)
    }

    /// Lists an operation that waits, for as long as the guard lives.
    #[must_use]
    pub fn register_operation(&self, operation: Arc<Operation>) -> Registered<Operation> {
        self.operations.register(operation)
    }

    /// Context `number`, if it is registered.
    #[must_use]
    pub fn context(&self, number: u64) -> Option<Entry<ContextStats>> {
        self.contexts.get(number)
    }

    /// Address space `number`, if it is registered.
    #[must_use]
    pub fn ioas(&self, number: u64) -> Option<Entry<IoasStats>> {
        self.ioases.get(number)
    }

    /// The context of address space `number`, if it is registered.
    #[must_use]
    pub fn context_of(&self, number: u64) -> Option<u64> {
        self.ioas(number).map(|ioas| ioas.stats.context.get())
    }

    /// Pages object `number`, if it is registered.
    #[must_use]
    pub fn pages(&self, number: u64) -> Option<Entry<PagesStats>> {
        self.pages.get(number)
    }

    /// Domain `number`, if it is registered.
    #[must_use]
    pub fn domain(&self, number: u64) -> Option<Entry<DomainStats>> {
        self.domains.get(number)
    }

    /// The contexts, in the order of their numbers.
    #[must_use]
    pub fn contexts(&self) -> Vec<Entry<ContextStats>> {
        self.contexts.list()
    }

    /// The address spaces, in the order of their numbers.
    #[must_use]
    pub fn ioases(&self) -> Vec<Entry<IoasStats>> {
        self.ioases.list()
    }

    /// The pages objects, in the order of their numbers.
    #[must_use]
    pub fn all_pages(&self) -> Vec<Entry<PagesStats>> {
        self.pages.list()
    }

    /// The domains, in the order of their numbers.
    #[must_use]
    pub fn domains(&self) -> Vec<Entry<DomainStats>> {
        self.domains.list()
    }

    /// The accesses, in the order of their numbers.
    #[must_use]
    pub fn accesses(&self) -> Vec<Entry<AccessStats>> {
        self.accesses.list()
    }

    /// The devices, in the order of their numbers.
    #[must_use]
    pub fn devices(&self) -> Vec<Entry<DeviceStats>> {
        self.devices.list()
    }

    /// Device `number`, if it is registered.
    #[must_use]
    pub fn device(&self, number: u64) -> Option<Entry<DeviceStats>> {
        self.devices.get(number)
    }

    /// The operations, in the order of their numbers.
    #[must_use]
    pub fn operations(&self) -> Vec<Entry<Operation>> {
        self.operations.list()
    }

    /// Operation `number`, if it is registered.
    #[must_use]
    pub fn operation(&self, number: u64) -> Option<Entry<Operation>> {
        self.operations.get(number)
    }

    /// The counts of answered requests.
    #[must_use]
    pub const fn requests(&self) -> &RequestCounts {
        &self.requests
    }

    /// Faults that walkers have met since the agent started, looked at now.
    #[must_use]
    pub fn walker_faults(&self) -> FaultCounts {
        for domain in self.domains.list() {
            domain.stats.faults.look();
        }
        self.faults.get()
    }

    /// What is registered now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            contexts: self.contexts.list(),
            ioases: self.ioases.list(),
            pages: self.pages.list(),
            domains: self.domains.list(),
            accesses: self.accesses.list(),
            operations: self.operations.list(),
            requests: self.requests.list(),
            faults: self.walker_faults(),
            first_touched: ByteLen::new(self.first_touched.load(Ordering::Relaxed)),
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("contexts", &self.contexts.entries.len())
            .field("ioases", &self.ioases.entries.len())
            .field("pages", &self.pages.entries.len())
            .field("domains", &self.domains.entries.len())
            .field("accesses", &self.accesses.entries.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use ioasd_client::ids::ObjectId;
    use rustix::process::{Pid, Uid};

    use super::*;
    use crate::actors::figures::examples;

    fn pages(length: u64) -> PagesStats {
        examples::pages(length, 1000)
    }

    #[test]
    fn an_object_is_listed_exactly_as_long_as_its_guard_lives() {
        let registry = Registry::new();
        let first = registry.register_pages(pages(4096));
        let second = registry.register_pages(pages(8192));
        assert_ne!(first.number(), second.number());
        assert_eq!(registry.snapshot().pages.len(), 2);
        drop(first);
        let left = registry.snapshot().pages;
        assert_eq!(left.iter().map(|entry| entry.number).collect::<Vec<_>>(), [second.number()]);
        drop(second);
        assert!(registry.snapshot().pages.is_empty());
    }

    #[test]
    fn a_guard_that_outlives_the_registry_drops_quietly() {
        let registry = Registry::new();
        let guard = registry.register_context(ContextStats::new(Uid::ROOT, Some(Pid::INIT)));
        drop(registry);
        drop(guard);
    }

    #[test]
    fn a_snapshot_shows_what_the_actor_wrote_last() {
        let registry = Registry::new();
        let guard = registry.register_pages(pages(8192));
        guard.pinned.set(ByteLen::new(8192));
        guard.share().pinned.set(ByteLen::new(4096));
        let other = registry.register_pages(pages(4096));
        other.pinned.set(ByteLen::new(100));
        assert_eq!(registry.snapshot().pinned(), ByteLen::new(4196));
    }

    #[test]
    fn objects_of_different_kinds_do_not_mix() {
        let registry = Registry::new();
        let context = registry.register_context(ContextStats::new(Uid::ROOT, Some(Pid::INIT)));
        let ioas = registry.register_ioas(IoasStats::new(context.number(), ObjectId::new(1)));
        let domain = registry.register_domain(examples::domain("amd-v1", ioas.number()));
        assert_eq!(registry.domain(domain.number().get()).map(|entry| entry.stats.ioas), Some(ioas.number()));
        assert!(registry.pages(domain.number().get()).is_none());
        let snapshot = registry.snapshot();
        assert_eq!((snapshot.contexts.len(), snapshot.ioases.len()), (1, 1));
        assert_eq!((snapshot.domains.len(), snapshot.pages.len()), (1, 0));
        assert_eq!(snapshot.ioases[0].stats.context, context.number());
    }

    #[test]
    fn many_threads_register_and_drop_while_others_look() {
        let registry = Registry::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| drop(registry.register_pages(pages(4096)))));
            }
            scope.spawn(|| (0..200).for_each(|_| assert!(registry.snapshot().pages.len() <= 4)));
        });
        assert!(registry.snapshot().pages.is_empty());
    }
}
