//! Pages: one pages object. Runs one movement at a time, whoever asks, and carries its steps to the tiers.
//!
//! ```text
//!   run(order) ──▶ queue ──▶ Movement ──steps──▶ PfnCache, FanOuts, Pinner, ledger
//!                  unpins ─┘ (first, and between the batches of a running movement)
//! ```
//!
//! Orders come through the cell of the object, from the same arbiter. The queue is its own, because a mailbox does not bound
//! an actor that goes on serving. A panic poisons this
//! object: every later movement fails with EIO and its memory stays pinned until the client closes it.
//!
//! Imports allowed: storage, messages, the other tier actors, credits, guard, figures, late,
//! operation.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use ioasd_client::units::{ByteLen, PAGE_SIZE};
use rustix::process::Uid;
use tokio::sync::oneshot;

use super::credits::{Credit, Purpose};
use super::figures::{PagesStats, UnderWay};
use super::guard::{caught, poisoned};
use super::inbox::Question;
use super::latch::latch;
use super::late::current;
use super::messages::questions::{HoldersOf, HoldersReport};
use super::messages::tiers::{
    ChangeTables, EraseCache, Failable, FramesRead, ReadCache, ReadDomain, StoreCache, TableChange,
};
use super::operation::Waiting;
use super::operation::watching::{Stepping, Watching};
use super::payer::Payer;
use super::pfn_cache::PfnCache;
use super::pinner::{PinDone, PinRequest, PinWork, Pinner, carry_out_now};
use super::registry::Registered;
use super::shards::Shards;
use super::tables::Tables;
use crate::error::Errno;
use crate::fault_points::{self, Point};
use crate::storage::Tuning;
use crate::storage::counts::{ArrayLen, Delta};
use crate::storage::ledger::bill::ChargeRefused;
use crate::storage::movement::Movement;
use crate::storage::order::{MoveResult, Order};
use crate::storage::pages::IoptPages;
use crate::storage::pfn::PfnBatch;
use crate::storage::refusal::Refusal;
use crate::storage::source::{PageSource, Strength};
use crate::storage::step::{DomainKey, Next, Reply, Step, StepId};

const NAME: &str = "a pages object";

/// What a pages object is made of.
pub struct PagesParts {
    /// How many pages.
    pub len: ArrayLen,
    /// Where they come from.
    pub source: Arc<dyn PageSource>,
    /// Who pays now.
    pub payer: RefCell<Payer>,
    /// The pin threads.
    pub pinner: Addr<Pinner>,
    /// The owners of tables.
    pub shards: Shards,
    /// The tables that can be reached without a message.
    pub near_tables: Option<Rc<Tables>>,
    /// Limits of movements.
    pub tuning: Tuning,
    /// Its figures.
    pub stats: Registered<PagesStats>,
}

/// One pages object.
pub struct Pages {
    cell: Rc<PagesCell>,
}

/// What a pages object is, as those reach it who live on its arbiter.
pub struct PagesCell {
    parts: PagesParts,
    core: RefCell<IoptPages>,
    cache: RefCell<Option<Addr<PfnCache>>>,
    queue: RefCell<VecDeque<Queued>>,
    unpins: RefCell<VecDeque<Queued>>,
    working: Cell<bool>,
    poisoned: Cell<bool>,
}

struct Queued {
    order: Order,
    reply: oneshot::Sender<MoveResult>,
    watching: Watching,
    _under_way: UnderWay,
}

impl Pages {
    /// A pages object none of whose pages is pinned.
    #[must_use]
    pub fn new(parts: PagesParts) -> Self {
        let core = RefCell::new(IoptPages::new(parts.len));
        let (queue, unpins, cache) = Default::default();
        let (working, poisoned) = Default::default();
        Self { cell: Rc::new(PagesCell { parts, core, cache, queue, unpins, working, poisoned }) }
    }

    /// What others on its arbiter reach it by.
    #[must_use]
    pub fn cell(&self) -> Rc<PagesCell> {
        Rc::clone(&self.cell)
    }
}

impl Actor for Pages {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(super::MAILBOX);
        self.cell.parts.stats.inbox.open(context.address().downgrade().recipient());
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        let core = self.cell.core.borrow();
        let left = core.charged().get();
        if left > 0 {
            tracing::error!(source = self.cell.parts.source.name(), pinned = %core.pinned(), "a pages object ended with pins");
            self.cell.parts.payer.borrow().credit(left, self.cell.parts.source.strength());
        }
    }
}

/// Looks at the book-keeping of these pages between two steps. For tests and reports.
#[derive(Message)]
#[rtype(result = "R")]
pub struct LookAtPages<R: Send + 'static>(Box<dyn FnOnce(&IoptPages) -> R + Send>);

impl<R: Send + 'static> LookAtPages<R> {
    /// Runs `look`.
    pub fn new(look: impl FnOnce(&IoptPages) -> R + Send + 'static) -> Self {
        Self(Box::new(look))
    }
}

impl<R: Send + 'static> Handler<LookAtPages<R>> for Pages {
    type Result = MessageResult<LookAtPages<R>>;

    fn handle(&mut self, LookAtPages(look): LookAtPages<R>, _: &mut Self::Context) -> Self::Result {
        MessageResult(look(&self.cell.core.borrow()))
    }
}

impl Handler<Question<HoldersOf>> for Pages {
    type Result = MessageResult<Question<HoldersOf>>;

    fn handle(&mut self, question: Question<HoldersOf>, _: &mut Self::Context) -> Self::Result {
        let core = self.cell.core.borrow();
        MessageResult(HoldersReport {
            access_ranges: core.access_ranges(),
            shown_areas: core.shown_count(),
            shown: core.shown_areas().take(question.asked.limit).collect(),
        })
    }
}

/// The cache of these pages, once an access has pinned. For tests and reports.
#[derive(Debug, Message)]
#[rtype(result = "Option<Addr<PfnCache>>")]
pub struct CacheOf;

impl Handler<CacheOf> for Pages {
    type Result = Option<Addr<PfnCache>>;

    fn handle(&mut self, CacheOf: CacheOf, _: &mut Self::Context) -> Self::Result {
        self.cell.cache.borrow().clone()
    }
}

impl PagesCell {
    /// What is charged, and `new` by the rule of these pages.
    fn handed_to(&self, new: &Payer) -> (Payer, (u64, Strength)) {
        let mode = self.parts.payer.borrow().bill.mode();
        let new = Payer { bill: new.bill.by(mode), binding: new.binding.clone() };
        (new, (self.core.borrow().charged().get(), self.parts.source.strength()))
    }

    /// `new` pays for what is charged, too.
    pub(super) fn pay_too(&self, new: &Payer) -> Result<(), ChargeRefused> {
        let (new, charged) = self.handed_to(new);
        new.pay_too(&self.parts.payer.borrow(), charged)
    }

    /// `new`, which pays too, does so no more.
    pub(super) fn pay_no_more(&self, new: &Payer) {
        let (new, charged) = self.handed_to(new);
        new.let_go(&self.parts.payer.borrow(), charged);
    }

    /// `new`, which pays too, pays alone from now on.
    pub(super) fn pay_alone(&self, new: &Payer) {
        let (new, charged) = self.handed_to(new);
        self.parts.stats.account.set(Uid::from_raw(new.bill.account().uid()));
        let old = self.parts.payer.replace(new.clone());
        old.let_go(&new, charged);
    }

    fn enqueue(&self, queued: Queued) {
        let lane = if matches!(queued.order, Order::UnpinAccess(_)) { &self.unpins } else { &self.queue };
        lane.borrow_mut().push_back(queued);
    }

    fn next_queued(&self) -> Option<Queued> {
        let unpin = self.unpins.borrow_mut().pop_front();
        unpin.or_else(|| self.queue.borrow_mut().pop_front())
    }

    /// Runs an order after those that came before it. The order counts from the first poll; if nothing has to be waited
    /// for, that poll is the last.
    pub(super) async fn run(self: Rc<Self>, order: Order) -> MoveResult {
        let (reply, done) = oneshot::channel();
        let watching = Watching::new(current(), &order);
        watching.wait_for(Waiting::Pages);
        self.enqueue(Queued { order, reply, watching, _under_way: self.parts.stats.movements.enter() });
        self.begin();
        done.await.unwrap_or_else(|_| Err(poisoned(NAME).into()))
    }

    /// Works the queue off, unless that is under way. What cannot be done at once goes on by itself: nobody who asked has
    /// to stay.
    fn begin(self: &Rc<Self>) {
        if self.working.replace(true) {
            return;
        }
        let mut work = Rc::clone(self).work().boxed_local();
        if (&mut work).now_or_never().is_none() {
            actix_rt::spawn(work);
        }
    }

    /// Works the queue off.
    async fn work(self: Rc<Self>) {
        while let Some(queued) = self.next_queued() {
            self.run_queued(queued).await;
        }
        self.working.set(false);
    }

    async fn run_queued(self: &Rc<Self>, Queued { order, reply, watching, _under_way }: Queued) {
        let result = if self.poisoned.get() {
            Err(poisoned(NAME).into())
        } else {
            self.run_order(order, watching).await
        };
        self.show_figures();
        let unheard = reply.send(result).is_err();
        debug_assert!(!unheard, "an operation stopped waiting for its movement");
    }

    async fn run_order(self: &Rc<Self>, order: Order, watching: Watching) -> MoveResult {
        watching.wait_for(Waiting::Credits);
        let _credits = self.take_credits(&order).await;
        let moved = caught(NAME, self.drive(Movement::new(order, self.parts.tuning), watching)).await;
        moved.unwrap_or_else(|refusal| {
            self.poisoned.set(true);
            Err(refusal.into())
        })
    }

    /// One credit of every FanOut the order may write to, in ascending order.
    async fn take_credits(&self, order: &Order) -> Vec<Credit> {
        let (purpose, domains): (_, &[DomainKey]) = match order {
            Order::Fill { domains, .. } => (Purpose::Fill, domains),
            Order::Unfill { domains, .. } => (Purpose::TakeAway, domains),
            Order::UnmapFrom { domain, .. } => (Purpose::TakeAway, std::slice::from_ref(domain)),
            _ => return Vec::new(),
        };
        let mut credits = Vec::new();
        for fan_out in by_fan_out(domains).into_keys() {
            if let Some(shard) = self.parts.shards.get(fan_out) {
                credits.push(shard.credits.take(purpose).await);
            }
        }
        credits
    }

    /// Carries a movement's steps to the tiers until it is over; gives it up between two of them if that is asked for.
    async fn drive(self: &Rc<Self>, mut movement: Movement, mut watching: Watching) -> MoveResult {
        let mut under_way = FuturesUnordered::new();
        watching.begin();
        loop {
            if movement.is_interruptible() {
                self.run_unpins().await;
            }
            if let Some(refusal) = watching.cancelled() {
                movement.cancel(refusal);
            }
            let next = movement.next(&mut self.core.borrow_mut());
            match next {
                Next::Start(id, step) => {
                    let stepping = watching.step(&step);
                    under_way.push(self.carry(step).map(move |reply| (id, stepping, reply)));
                }
                Next::Done(result) => return result,
                Next::Wait => {
                    watching.wait();
                    let reply: Option<(StepId, Stepping, Reply)> = under_way.next().await;
                    let Some((id, stepping, reply)) = reply else { return Err(poisoned(NAME).into()) };
                    watching.stepped(stepping);
                    let is_billed = matches!(reply, Reply::Charged(_));
                    movement.supply(&mut self.core.borrow_mut(), id, reply);
                    if is_billed {
                        self.show_charged();
                    }
                }
            }
        }
    }

    /// Runs the unpins that have come in, in the middle of another movement.
    async fn run_unpins(self: &Rc<Self>) {
        loop {
            let Some(Queued { order, reply, watching, _under_way }) = self.unpins.borrow_mut().pop_front()
            else {
                return;
            };
            let run: LocalBoxFuture<'_, MoveResult> =
                Box::pin(self.drive(Movement::new(order, self.parts.tuning), watching));
            let unheard = reply.send(run.await).is_err();
            debug_assert!(!unheard, "an operation stopped waiting for its unpin");
        }
    }

    /// Carries one step to its tier.
    fn carry(self: &Rc<Self>, step: Step) -> LocalBoxFuture<'static, Reply> {
        match step {
            Step::Pin { range, batch } => self.pin(PinWork::Pin(range, batch)),
            Step::Recall { range, batch } => self.pin(PinWork::Recall(range, batch)),
            Step::Unpin { range } => self.pin(PinWork::Unpin(range)),
            Step::Transfer(transfer) => self.pin(PinWork::Transfer(transfer)),
            Step::ReadCache { range, batch } => self.read_cache(ReadCache { range, batch }),
            Step::StoreCache { batch } => self.store_cache(batch),
            Step::EraseCache { range } => self.erase_cache(EraseCache(range)),
            Step::ReadDomain { domain, shape, range, batch } => {
                self.read_domain(domain.fan_out, ReadDomain { domain: domain.id, shape, range, batch })
            }
            Step::Deliver { batch, shape, permission, large_pages, domains } => {
                let change = TableChange::Deliver { batch, shape, permission, large_pages };
                let outcomes = self.change_tables(&change, &domains);
                outcomes.map(Reply::Delivered).boxed_local()
            }
            Step::Unmap { shape, range, domains } => {
                let outcomes = self.change_tables(&TableChange::Unmap { shape, range }, &domains);
                outcomes.map(|outcomes| unmapped(&outcomes)).boxed_local()
            }
            Step::Charge { delta } => std::future::ready(self.charge(delta)).boxed_local(),
        }
    }

    /// Here if the source can do it at once, else on a thread that may block.
    fn pin(&self, work: PinWork) -> LocalBoxFuture<'static, Reply> {
        let work = match carry_out_now(&*self.parts.source, work) {
            Ok(done) => return std::future::ready(pin_reply(done)).boxed_local(),
            Err(work) => work,
        };
        let request = PinRequest { source: Arc::clone(&self.parts.source), work };
        let done = self.parts.pinner.send(request);
        Box::pin(
            async move { pin_reply(done.await.unwrap_or_else(|_| PinDone::Lost(poisoned("the pinner")))) },
        )
    }

    fn cache(&self) -> Addr<PfnCache> {
        self.cache.borrow_mut().get_or_insert_with(|| PfnCache::default().start()).clone()
    }

    fn read_cache(&self, request: ReadCache) -> LocalBoxFuture<'static, Reply> {
        let read = self.cache().send(request);
        Box::pin(async move { frames(read.await) })
    }

    fn store_cache(&self, batch: Arc<PfnBatch>) -> LocalBoxFuture<'static, Reply> {
        let stored = self.cache().send(StoreCache(batch));
        Box::pin(async move { Reply::Stored(stored.await.unwrap_or_else(|_| Err(poisoned("a pfn cache")))) })
    }

    fn erase_cache(&self, request: EraseCache) -> LocalBoxFuture<'static, Reply> {
        let erased = self.cache().send(request);
        Box::pin(async move {
            if erased.await.is_err() {
                std::panic::panic_any("a pfn cache is gone");
            }
            Reply::Done
        })
    }

    /// The tables of shard `fan_out`, if they live on this arbiter.
    fn near(&self, fan_out: u16) -> Option<&Rc<Tables>> {
        self.parts.near_tables.as_ref().filter(|tables| tables.shard() == fan_out)
    }

    fn read_domain(&self, fan_out: u16, request: ReadDomain) -> LocalBoxFuture<'static, Reply> {
        if let Some(tables) = self.near(fan_out) {
            let FramesRead { batch, result } = tables.read(request);
            return std::future::ready(Reply::Frames(batch, result)).boxed_local();
        }
        let Some(shard) = self.parts.shards.get(fan_out) else {
            return std::future::ready(Reply::Frames(request.batch, Err(poisoned("a FanOut")))).boxed_local();
        };
        let read = shard.fan_out.send(request);
        Box::pin(async move { frames(read.await) })
    }

    /// Hands a change to every FanOut that owns one of `domains`; gives an outcome for each domain.
    fn change_tables(
        &self,
        change: &TableChange,
        domains: &[DomainKey],
    ) -> LocalBoxFuture<'static, Vec<Failable>> {
        let groups = by_fan_out(domains);
        let (seats, all) = latch(groups.len());
        for ((fan_out, places), seat) in groups.iter().zip(seats) {
            let ids = places.iter().filter_map(|place| domains.get(*place)).map(|domain| domain.id).collect();
            self.send_to(*fan_out, ChangeTables { change: change.clone(), domains: ids, seat });
        }
        let mut outcomes = vec![Err(unreached()); domains.len()];
        Box::pin(async move {
            for (places, seat) in groups.into_values().zip(all.await) {
                for (place, outcome) in places.into_iter().zip(seat.into_iter().flatten()) {
                    if let Some(slot) = outcomes.get_mut(place) {
                        *slot = outcome;
                    }
                }
            }
            outcomes
        })
    }

    /// Hands a change to the owner of tables: those of this arbiter at once, others by a message, under the credit that
    /// this movement holds. What cannot be handed over leaves its seat empty. Only what may fail asks its fault point.
    fn send_to(&self, fan_out: u16, request: ChangeTables) {
        let may_fail = matches!(request.change, TableChange::Deliver { .. });
        if may_fail && fault_points::hit(Point::Mailbox).is_err() {
            return;
        }
        if let Some(tables) = self.near(fan_out) {
            return tables.change(request);
        }
        if let Some(shard) = self.parts.shards.get(fan_out) {
            let sent = shard.fan_out.try_send(request);
            debug_assert!(sent.is_ok(), "a FanOut had no room under its credits");
        }
    }

    fn charge(&self, delta: Delta) -> Reply {
        let charged = self.parts.payer.borrow().charge(delta, self.parts.source.strength());
        Reply::Charged(charged.map_err(|error| Refusal::of(&error)))
    }

    fn show_figures(&self) {
        let core = self.core.borrow();
        let stats = &self.parts.stats;
        stats.pinned.set(ByteLen::new(core.pinned().get() * PAGE_SIZE));
        stats.held.set(ByteLen::new(self.parts.source.held().saturating_mul(PAGE_SIZE)));
        stats.retiring.set(core.retiring());
        self.show_charged();
    }

    /// Also while a movement is under way, which pays for its pages before it pins them.
    fn show_charged(&self) {
        self.parts.stats.charged.set(ByteLen::new(self.core.borrow().charged().get() * PAGE_SIZE));
    }
}

/// The places of `domains` that each FanOut owns.
fn by_fan_out(domains: &[DomainKey]) -> BTreeMap<u16, Vec<usize>> {
    let mut groups: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    for (place, domain) in domains.iter().enumerate() {
        groups.entry(domain.fan_out).or_default().push(place);
    }
    groups
}

fn unreached() -> Refusal {
    Refusal::new(Errno::NOMEM, "tables-unreached", "the owner of a table took no message: try again")
}

fn pin_reply(done: PinDone) -> Reply {
    match done {
        PinDone::Frames(batch, result) => Reply::Frames(batch, result),
        PinDone::Unpinned => Reply::Done,
        PinDone::Transferred(result) => Reply::Transferred(result),
        PinDone::Lost(refusal) => std::panic::panic_any(refusal.to_string()),
    }
}

fn frames(read: Result<FramesRead, MailboxError>) -> Reply {
    match read {
        Ok(FramesRead { batch, result }) => Reply::Frames(batch, result),
        Err(_) => std::panic::panic_any("a tier is gone with a batch"),
    }
}

/// An unmap cannot fail; if a table says it did, book and table differ, and the object must not go on.
fn unmapped(outcomes: &[Failable]) -> Reply {
    if let Some(refusal) = outcomes.iter().find_map(|outcome| outcome.as_ref().err()) {
        std::panic::panic_any(refusal.to_string());
    }
    Reply::Done
}
