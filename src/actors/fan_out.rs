//! FanOut: owns the tables of the domains of one arbiter and is the only one who writes them.
//!
//! ```text
//!   Pages elsewhere ──ChangeTables{Arc<batch>, domains, seat}──▶ FanOut ──▶ Tables ──32,768 entries a turn──▶ tables
//!   Pages here ─────────────────────────────────────────────────────────────▲      └─ last table done: the seat is filled
//! ```
//!
//! One message reaches all tables here; the batch is shared, never copied. Who lives on the same arbiter reaches the
//! tables without one (see [`tables`](super::tables)).
//!
//! Imports allowed: domains, messages, credits, tables.

use std::rc::Rc;

use actix::prelude::*;

use super::credits::FAN_OUT_MAILBOX;
use super::inbox::Question;
use super::messages::questions::{TableOf, TableReport};
use super::messages::tiers::{ChangeTables, ReadDomain};
use super::tables::{OwnedTable, Tables};
use crate::domains::table::DomainTable;

/// The owner of the tables of one arbiter.
pub struct FanOut {
    tables: Rc<Tables>,
}

impl FanOut {
    /// The owner of the tables of shard `shard`; to be made on its arbiter.
    #[must_use]
    pub fn new(shard: u16) -> Self {
        Self { tables: Tables::settle(shard) }
    }
}

/// Gives a table to the FanOut.
#[derive(Message)]
#[rtype(result = "()")]
pub struct AddTable(pub u64, pub OwnedTable);

/// Takes a table away again. If its address space panicked it still maps something; its walkers see that it is dead.
#[derive(Message)]
#[rtype(result = "()")]
pub struct RemoveTable(pub u64);

/// Does something with a table between two turns.
#[derive(Message)]
#[rtype(result = "Option<R>")]
pub struct WithTable<R: Send + 'static> {
    domain: u64,
    work: Work<R>,
}

type Work<R> = Box<dyn FnOnce(&mut dyn DomainTable) -> R + Send>;

impl<R: Send + 'static> WithTable<R> {
    /// Runs `work` on the table of `domain`; `None` if there is none.
    pub fn new(domain: u64, work: impl FnOnce(&mut dyn DomainTable) -> R + Send + 'static) -> Self {
        Self { domain, work: Box::new(work) }
    }
}

impl Actor for FanOut {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(FAN_OUT_MAILBOX);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        Tables::leave();
    }
}

impl Handler<AddTable> for FanOut {
    type Result = ();

    fn handle(&mut self, AddTable(domain, owned): AddTable, _: &mut Self::Context) {
        self.tables.add(domain, owned);
    }
}

impl Handler<RemoveTable> for FanOut {
    type Result = ();

    fn handle(&mut self, RemoveTable(domain): RemoveTable, _: &mut Self::Context) {
        self.tables.remove(domain);
    }
}

impl<R: Send + 'static> Handler<WithTable<R>> for FanOut {
    type Result = MessageResult<WithTable<R>>;

    fn handle(&mut self, WithTable { domain, work }: WithTable<R>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.tables.with(domain, work))
    }
}

impl Handler<Question<TableOf>> for FanOut {
    type Result = MessageResult<Question<TableOf>>;

    fn handle(&mut self, question: Question<TableOf>, _: &mut Self::Context) -> Self::Result {
        let TableOf { domain, walk_to } = question.asked;
        MessageResult(self.tables.look(domain, |table| TableReport {
            geometry: table.spec().geometry(),
            steps: walk_to.map(|iova| table.walk(iova)).unwrap_or_default(),
            translation: walk_to.and_then(|iova| table.translate(iova)),
        }))
    }
}

impl Handler<ReadDomain> for FanOut {
    type Result = MessageResult<ReadDomain>;

    fn handle(&mut self, request: ReadDomain, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.tables.read(request))
    }
}

impl Handler<ChangeTables> for FanOut {
    type Result = ();

    fn handle(&mut self, request: ChangeTables, _: &mut Self::Context) {
        self.tables.change(request);
    }
}
