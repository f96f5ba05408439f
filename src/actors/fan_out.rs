//! FanOut: owns the tables of the domains of one arbiter and is the only one who writes them.
//!
//! ```text
//!   Pages ──ChangeTables{Arc<batch>, domains, seat}──▶ jobs ──32,768 entries a turn──▶ tables
//!                                                        └─ last table done: the seat is filled
//! ```
//!
//! One message reaches all tables here; the batch is shared, never copied. A job that is longer than a turn yields to
//! whoever else lives on the arbiter and resumes. Jobs run in order of arrival. A panic here aborts the agent: tables of
//! many clients would be half written.
//!
//! Imports allowed: storage, domains, messages, credits, guard, figures.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use actix::prelude::*;
use ioasd_client::units::ByteLen;

use super::credits::FAN_OUT_MAILBOX;
use super::figures::DomainStats;
use super::guard::or_abort;
use super::inbox::Question;
use super::latch::Seat;
use super::messages::questions::{TableOf, TableReport};
use super::messages::tiers::{ChangeTables, Failable, FramesRead, ReadDomain, TableChange};
use super::registry::Registered;
use crate::domains::batch::{BatchWriter, Progress};
use crate::domains::table::{Budget, DomainTable};
use crate::error::Errno;
use crate::storage::ledger::Account;
use crate::storage::refusal::Refusal;

const NAME: &str = "a FanOut";

/// Entries written before others get their turn.
const TURN: u64 = 32_768;

/// A table, and who shows and pays it.
pub struct OwnedTable {
    /// The table.
    pub table: Box<dyn DomainTable>,
    /// Its figures.
    pub stats: Registered<DomainStats>,
    /// Pays for its pages.
    pub account: Arc<Account>,
}

/// The owner of the tables of one arbiter.
#[derive(Default)]
pub struct FanOut {
    tables: HashMap<u64, OwnedTable>,
    jobs: VecDeque<Job>,
    resuming: bool,
}

/// Gives a table to the FanOut.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AddTable(pub u64, pub OwnedTable);

/// Takes a table away again. If its address space panicked it still maps something; its walkers see that it is dead.
#[derive(Message)]
#[rtype(result = "()")]
pub struct RemoveTable(pub u64);

/// Looks at a table between two jobs.
#[derive(Message)]
#[rtype(result = "Option<R>")]
pub struct LookAt<R: Send + 'static> {
    domain: u64,
    look: Look<R>,
}

type Look<R> = Box<dyn FnOnce(&dyn DomainTable) -> R + Send>;

impl<R: Send + 'static> LookAt<R> {
    /// Runs `look` on the table of `domain`; `None` if there is none.
    pub fn new(domain: u64, look: impl FnOnce(&dyn DomainTable) -> R + Send + 'static) -> Self {
        Self { domain, look: Box::new(look) }
    }
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

impl Actor for FanOut {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(FAN_OUT_MAILBOX);
    }
}

impl Handler<AddTable> for FanOut {
    type Result = ();

    fn handle(&mut self, AddTable(domain, owned): AddTable, _: &mut Self::Context) {
        let clash = self.tables.insert(domain, owned);
        debug_assert!(clash.is_none(), "domain {domain} was added twice");
        self.show_figures(domain, ByteLen::new(0));
    }
}

impl Handler<RemoveTable> for FanOut {
    type Result = ();

    fn handle(&mut self, RemoveTable(domain): RemoveTable, _: &mut Self::Context) {
        if let Some(owned) = self.tables.remove(&domain) {
            owned.account.credit_tables(owned.table.table_bytes());
            owned.table.epochs().mark_dead();
        }
    }
}

impl<R: Send + 'static> Handler<LookAt<R>> for FanOut {
    type Result = MessageResult<LookAt<R>>;

    fn handle(&mut self, LookAt { domain, look }: LookAt<R>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.tables.get(&domain).map(|owned| look(&*owned.table)))
    }
}

impl Handler<Question<TableOf>> for FanOut {
    type Result = MessageResult<Question<TableOf>>;

    fn handle(&mut self, question: Question<TableOf>, _: &mut Self::Context) -> Self::Result {
        let TableOf { domain, walk_to } = question.asked;
        MessageResult(self.tables.get(&domain).map(|owned| TableReport {
            geometry: owned.table.spec().geometry(),
            steps: walk_to.map(|iova| owned.table.walk(iova)).unwrap_or_default(),
            translation: walk_to.and_then(|iova| owned.table.translate(iova)),
        }))
    }
}

impl Handler<ReadDomain> for FanOut {
    type Result = MessageResult<ReadDomain>;

    fn handle(&mut self, request: ReadDomain, _: &mut Self::Context) -> Self::Result {
        let ReadDomain { domain, shape, range, mut batch } = request;
        let result = match self.tables.get(&domain) {
            Some(owned) => {
                owned.table.read_back(&shape, range, &mut batch).map_err(|error| Refusal::of(&error))
            }
            None => Err(no_table(domain)),
        };
        MessageResult(FramesRead { batch, result })
    }
}

impl Handler<ChangeTables> for FanOut {
    type Result = ();

    fn handle(&mut self, request: ChangeTables, context: &mut Self::Context) {
        self.jobs.push_back(Job::new(request));
        if !self.resuming {
            self.take_turn(context);
        }
    }
}

impl FanOut {
    fn take_turn(&mut self, context: &mut Context<Self>) {
        or_abort(NAME, || self.work(&mut Budget::new(TURN)));
        self.resuming = !self.jobs.is_empty();
        if self.resuming {
            let others = tokio::task::yield_now().into_actor(self);
            context.spawn(others.map(|(), fan_out, context| fan_out.take_turn(context)));
        }
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
            let before = owned.table.table_bytes();
            let worked = job.work(&mut *owned.table, budget);
            self.show_figures(domain, before);
            match worked {
                Some(outcome) => job.next(outcome),
                None => return Progress::Paused,
            }
        }
        Progress::Finished
    }

    /// Shows the figures of a table and settles what its pages cost.
    fn show_figures(&self, domain: u64, before: ByteLen) {
        let Some(OwnedTable { table, stats, account }) = self.tables.get(&domain) else { return };
        let (before, now) = (before.get(), table.table_bytes().get());
        account.charge_tables(ByteLen::new(now.saturating_sub(before)));
        account.credit_tables(ByteLen::new(before.saturating_sub(now)));
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
