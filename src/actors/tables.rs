//! Tables: the tables of one arbiter, and the changes on their way into them.
//!
//! A change is a job; jobs run in order of arrival, 32,768 entries a turn. A job that is longer yields to whoever else
//! lives on the arbiter and resumes. The first turn of a job that has nothing before it is taken at once, so that a small
//! change is over when `Tables::change` returns: whoever lives on the same arbiter reaches its tables without a message.
//! Nothing is awaited while the tables are borrowed. A panic here aborts the agent: tables of many clients would be half
//! written.
//!
//! Imports allowed: storage, domains, messages, guard, figures.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use super::figures::DomainStats;
use super::guard::or_abort;
use super::latch::Seat;
use super::messages::tiers::{ChangeTables, Failable, FramesRead, ReadDomain, TableChange};
use super::registry::Registered;
use crate::domains::batch::{BatchWriter, Progress};
use crate::domains::table::{Budget, DomainTable};
use crate::error::Errno;
use crate::storage::refusal::Refusal;

const NAME: &str = "a FanOut";

/// Entries written before others get their turn.
pub(super) const TURN: u64 = 32_768;

thread_local! {
    /// The tables of the FanOut whose arbiter this thread is.
    static HERE: RefCell<Option<Rc<Tables>>> = const { RefCell::new(None) };
}

/// A table, and who shows it.
pub struct OwnedTable {
    /// The table.
    pub table: Box<dyn DomainTable>,
    /// Its figures.
    pub stats: Registered<DomainStats>,
}

/// The tables of one arbiter.
pub struct Tables {
    shard: u16,
    core: RefCell<Core>,
}

#[derive(Default)]
struct Core {
    tables: HashMap<u64, OwnedTable>,
    jobs: VecDeque<Job>,
    resuming: bool,
}

/// A change on its way into several tables, one after the other.
struct Job {
    change: TableChange,
    domains: Vec<u64>,
    outcomes: Vec<Failable>,
    writing: Option<BatchWriter>,
    cleared: u64,
    seat: Option<Seat<Vec<Failable>>>,
}

impl Tables {
    /// No tables yet; found by whoever runs on this thread from now on.
    pub(super) fn settle(shard: u16) -> Rc<Self> {
        let tables = Rc::new(Self { shard, core: RefCell::default() });
        HERE.set(Some(Rc::clone(&tables)));
        tables
    }

    /// Nobody finds them any more.
    pub(super) fn leave() {
        drop(HERE.take());
    }

    /// The tables of shard `shard`, if this is their thread.
    #[must_use]
    pub fn here(shard: u16) -> Option<Rc<Self>> {
        HERE.with_borrow(Clone::clone).filter(|tables| tables.shard == shard)
    }

    /// Which shard this is.
    #[must_use]
    pub const fn shard(&self) -> u16 {
        self.shard
    }

    /// Takes a table over.
    pub(super) fn add(&self, domain: u64, owned: OwnedTable) {
        let mut core = self.core.borrow_mut();
        let clash = core.tables.insert(domain, owned);
        debug_assert!(clash.is_none(), "domain {domain} was added twice");
        core.show_figures(domain);
    }

    /// Gives a table away; its walkers see that it is dead.
    pub(super) fn remove(&self, domain: u64) {
        let removed = self.core.borrow_mut().tables.remove(&domain);
        if let Some(owned) = removed {
            owned.table.epochs().mark_dead();
        }
    }

    /// Looks at a table between two turns; `None` if there is none.
    pub(super) fn look<R>(&self, domain: u64, look: impl FnOnce(&dyn DomainTable) -> R) -> Option<R> {
        self.core.borrow().tables.get(&domain).map(|owned| look(&*owned.table))
    }

    /// Does something with a table between two turns; `None` if there is none.
    pub(super) fn with<R>(&self, domain: u64, work: impl FnOnce(&mut dyn DomainTable) -> R) -> Option<R> {
        let mut core = self.core.borrow_mut();
        let owned = core.tables.get_mut(&domain)?;
        Some(or_abort(NAME, || work(&mut *owned.table)))
    }

    /// Reads frames back between two turns.
    pub(super) fn read(&self, request: ReadDomain) -> FramesRead {
        let ReadDomain { domain, shape, range, mut batch } = request;
        let read = self.look(domain, |table| {
            table.read_back(&shape, range, &mut batch).map_err(|error| Refusal::of(&error))
        });
        let result = read.unwrap_or_else(|| Err(no_table(domain)));
        FramesRead { batch, result }
    }

    /// Carries a change out, as much of it at once as fits into a turn that nobody else is in the middle of.
    pub(super) fn change(self: &Rc<Self>, request: ChangeTables) {
        let waits = {
            let mut core = self.core.borrow_mut();
            core.jobs.push_back(Job::new(request));
            core.resuming
        };
        if !waits {
            self.take_turn();
        }
    }

    fn take_turn(self: &Rc<Self>) {
        if self.core.borrow_mut().take_turn() {
            let tables = Rc::clone(self);
            actix_rt::spawn(async move {
                tokio::task::yield_now().await;
                tables.take_turn();
            });
        }
    }
}

impl Core {
    /// Whether there is more to do.
    fn take_turn(&mut self) -> bool {
        or_abort(NAME, || self.work(&mut Budget::new(TURN)));
        self.resuming = !self.jobs.is_empty();
        self.resuming
    }

    fn work(&mut self, budget: &mut Budget) {
        while !budget.is_spent() {
            let Some(mut job) = self.jobs.pop_front() else { return };
            match self.work_on(&mut job, budget) {
                Progress::Finished => job.finish(),
                Progress::Paused => self.jobs.push_front(job),
            }
        }
    }

    fn work_on(&mut self, job: &mut Job, budget: &mut Budget) -> Progress {
        while let Some(domain) = job.current() {
            let Some(owned) = self.tables.get_mut(&domain) else {
                job.next(Err(no_table(domain)));
                continue;
            };
            let worked = job.work(&mut *owned.table, budget);
            self.show_figures(domain);
            match worked {
                Some(outcome) => job.next(outcome),
                None => return Progress::Paused,
            }
        }
        Progress::Finished
    }

    /// Shows the figures of a table.
    fn show_figures(&self, domain: u64) {
        let Some(OwnedTable { table, stats }) = self.tables.get(&domain) else { return };
        stats.table.set(table.table_bytes());
        stats.mapped.set(table.mapped());
    }
}

impl Job {
    fn new(ChangeTables { change, domains, seat }: ChangeTables) -> Self {
        let outcomes = Vec::with_capacity(domains.len());
        Self { change, domains, outcomes, writing: None, cleared: 0, seat: Some(seat) }
    }

    fn current(&self) -> Option<u64> {
        self.domains.get(self.outcomes.len()).copied()
    }

    fn next(&mut self, outcome: Failable) {
        self.outcomes.push(outcome);
        (self.writing, self.cleared) = (None, 0);
    }

    fn finish(mut self) {
        if let Some(seat) = self.seat.take() {
            seat.fill(self.outcomes);
        }
    }

    /// Works on one table; the outcome, or `None` when the budget is spent before.
    fn work(&mut self, table: &mut dyn DomainTable, budget: &mut Budget) -> Option<Failable> {
        match &self.change {
            TableChange::Deliver { batch, shape, permission, large_pages } => {
                let new = || BatchWriter::new(Arc::clone(batch), *shape, *permission, *large_pages);
                match self.writing.get_or_insert_with(new).advance(table, budget) {
                    Ok(Progress::Finished) => Some(Ok(())),
                    Ok(Progress::Paused) => None,
                    Err(error) => Some(Err(Refusal::of(&error))),
                }
            }
            TableChange::Unmap { shape, range } => {
                let range = shape.iova_of(*range)?;
                let start = range.start().checked_add(self.cleared)?;
                let rest = ioasd_client::units::IovaRange::new(start, range.last())?;
                match table.unmap(rest, budget) {
                    Ok(cleared) => {
                        self.cleared += cleared.get();
                        (cleared.get() >= rest.length().get()).then_some(Ok(()))
                    }
                    Err(error) => Some(Err(Refusal::of(&error))),
                }
            }
        }
    }
}

fn no_table(domain: u64) -> Refusal {
    Refusal::new(Errno::IO, "no-such-table", format!("domain {domain} has no table here"))
}
