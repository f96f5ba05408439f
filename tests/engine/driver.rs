//! The driver: runs the movements of one pages object against the tiers, step by step in a random order.
//!
//! Movements wait in a queue, an unpin before those that have not begun. Steps of a running movement stay under way for
//! a random while and are answered in random order; an unpin may run between them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::task::Poll;

use ioasd::error::Errno;
use ioasd::storage::counts::{ArrayLen, Delta};
use ioasd::storage::movement::Movement;
use ioasd::storage::order::{MoveResult, Order};
use ioasd::storage::pages::IoptPages;
use ioasd::storage::pfn::PfnBatch;
use ioasd::storage::pinned_pfns::PinnedPfns;
use ioasd::storage::refusal::Refusal;
use ioasd::storage::source::Strength;
use ioasd::storage::step::{DomainKey, Next, Reply, Step, StepId};

use crate::memory::{Machine, Payer, Source};

/// One pages object with its tiers.
pub struct Pages {
    /// Its name.
    pub serial: u64,
    /// Its book-keeping.
    pub core: RefCell<IoptPages>,
    /// Tier 1.
    pub cache: RefCell<PinnedPfns>,
    /// Tier 3.
    pub source: Source,
    /// Who pays.
    pub payer: Payer,
    machine: Rc<Machine>,
    queue: RefCell<VecDeque<(Ticket, Order)>>,
    running: RefCell<Option<Running>>,
    results: RefCell<BTreeMap<Ticket, MoveResult>>,
    next_ticket: Cell<u64>,
}

/// Names a movement until its result is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

struct Running {
    ticket: Ticket,
    movement: Movement,
    under_way: Vec<(StepId, Work)>,
    waiting: bool,
}

/// A step that a tier has: not looked at yet, or carried out and not replied to.
enum Work {
    Open(Step),
    Done(Reply),
}

impl Pages {
    /// `len` pages from `source`.
    pub fn new(serial: u64, len: u64, source: Source, payer: Payer, machine: Rc<Machine>) -> Rc<Self> {
        Rc::new(Self {
            serial,
            core: RefCell::new(IoptPages::new(ArrayLen::new(len))),
            cache: RefCell::default(),
            source,
            payer,
            machine,
            queue: RefCell::default(),
            running: RefCell::default(),
            results: RefCell::default(),
            next_ticket: Cell::new(0),
        })
    }

    /// Queues a movement.
    pub fn order(&self, order: Order) -> Ticket {
        let ticket = Ticket(self.next_ticket.replace(self.next_ticket.get() + 1));
        self.queue.borrow_mut().push_back((ticket, order));
        ticket
    }

    /// Does a random number of things, then tells whether the movement is over.
    pub fn poll(&self, ticket: Ticket, patience: u64) -> Poll<MoveResult> {
        for _ in 0..patience {
            if self.results.borrow().contains_key(&ticket) {
                break;
            }
            self.advance();
        }
        self.results.borrow_mut().remove(&ticket).map_or(Poll::Pending, Poll::Ready)
    }

    fn advance(&self) {
        let Some(mut running) = self.running.borrow_mut().take().or_else(|| self.begin()) else { return };
        if running.movement.is_interruptible() && self.machine.below(2) == 0 {
            self.interrupt(&running);
        }
        match running.act(self) {
            None => *self.running.borrow_mut() = Some(running),
            Some(result) => drop(self.results.borrow_mut().insert(running.ticket, result)),
        }
    }

    fn begin(&self) -> Option<Running> {
        let mut queue = self.queue.borrow_mut();
        let unpin = queue.iter().position(|(_, order)| matches!(order, Order::UnpinAccess(_)));
        let (ticket, order) = queue.remove(unpin.unwrap_or(0))?;
        Some(Running::new(ticket, self.machine.movement(order)))
    }

    /// Runs an unpin that waits, if there is one, while the steps of `running` stay under way.
    fn interrupt(&self, running: &Running) {
        if !self.queue.borrow().iter().any(|(_, order)| matches!(order, Order::UnpinAccess(_))) {
            return;
        }
        let Some(mut unpin) = self.begin() else { return };
        assert!(running.movement.is_interruptible());
        self.machine.counters.borrow_mut().interruptions += 1;
        let result = loop {
            if let Some(result) = unpin.act(self) {
                break result;
            }
        };
        self.results.borrow_mut().insert(unpin.ticket, result);
    }

    /// Whether no movement runs or waits.
    pub fn is_quiet(&self) -> bool {
        self.running.borrow().is_none() && self.queue.borrow().is_empty()
    }

    fn carry_out(&self, step: Step) -> Reply {
        match step {
            Step::ReadCache { .. } | Step::ReadDomain { .. } | Step::Recall { .. } | Step::Pin { .. } => {
                self.read(step)
            }
            Step::Unpin { range } => {
                self.source.unpin(&self.machine, range);
                Reply::Done
            }
            Step::StoreCache { batch } => Reply::Stored(self.store(&batch)),
            Step::EraseCache { range } => {
                self.cache.borrow_mut().erase(range);
                Reply::Done
            }
            Step::Deliver { .. } => self.deliver(step),
            Step::Unmap { shape, range, domains } => {
                let iova = shape.iova_of(range).expect("an unmap of pages that the area does not show");
                let now = self.machine.tick();
                domains.iter().for_each(|domain| self.table(*domain, |table| table.unmap(iova, now)));
                Reply::Done
            }
            Step::Charge { delta } => Reply::Charged(self.charge(delta)),
            Step::Transfer(transfer) => Reply::Transferred(self.source.transfer(&transfer)),
        }
    }

    fn table<R>(&self, domain: DomainKey, act: impl FnOnce(&mut crate::tables::Table) -> R) -> R {
        let mut tables = self.machine.tables.borrow_mut();
        act(tables.get_mut(&domain).unwrap_or_else(|| panic!("{domain:?} does not exist")))
    }

    fn read(&self, step: Step) -> Reply {
        let (tier, mut batch, result) = match step {
            Step::ReadCache { range, mut batch } => {
                let result = self.cache.borrow().read(range, &mut batch).map_err(|error| Refusal::of(&error));
                assert_eq!(result, Ok(()), "tier 1 of pages {} was asked in vain", self.serial);
                (0, batch, result)
            }
            Step::ReadDomain { domain, shape, range, mut batch } => {
                // An unmap asks so how far a run goes; it does not read the tiers in order.
                let is_question = batch.is_empty() && batch.limit().get() == 1;
                let is_cached = self.cache.borrow().get(range.first()).is_some();
                assert!(is_question || !is_cached, "{range} of pages {} is read past tier 1", self.serial);
                self.table(domain, |table| table.read(shape, range, &mut batch));
                self.machine.counters.borrow_mut().carries += u64::from(is_question && batch.pages() > 1);
                (1, batch, Ok(()))
            }
            Step::Recall { range, mut batch } => {
                let result = self.source.recall(range, &mut batch);
                (2, batch, result)
            }
            Step::Pin { range, mut batch } => {
                let result = self.source.pin(&self.machine, range, &mut batch);
                (3, batch, result)
            }
            other => unreachable!("{other:?} reads no frames"),
        };
        self.machine.counters.borrow_mut().reads[tier] += 1;
        self.check_frames(&mut batch);
        Reply::Frames(batch, result)
    }

    fn check_frames(&self, batch: &mut PfnBatch) {
        batch.check();
        let Some(range) = batch.range() else { return };
        (range.first().get()..=range.last().get())
            .for_each(|at| self.source.assert_pinned(ioasd_client::units::PageIndex::new(at)));
    }

    fn store(&self, batch: &PfnBatch) -> Result<(), Refusal> {
        self.cache.borrow_mut().store(batch).map_err(|error| Refusal::of(&error))
    }

    fn deliver(&self, step: Step) -> Reply {
        let Step::Deliver { batch, shape, permission, large_pages, domains } = step else { unreachable!() };
        let write = |domain: &DomainKey| {
            self.table(*domain, |table| table.map(self.serial, (shape, permission, large_pages), &batch))
        };
        let outcomes: Vec<Result<(), Refusal>> = domains.iter().map(write).collect();
        let is_torn = outcomes.iter().any(Result::is_ok) && outcomes.iter().any(Result::is_err);
        self.machine.counters.borrow_mut().torn_deliveries += u64::from(is_torn);
        Reply::Delivered(outcomes)
    }

    fn charge(&self, delta: Delta) -> Result<(), Refusal> {
        let Payer { bill, limit } = &self.payer;
        let charged = bill.charge(delta, Strength::Locked, *limit).map_err(|error| Refusal::of(&error));
        self.machine.counters.borrow_mut().refused_charges += u64::from(charged.is_err());
        charged
    }

    /// Panics unless the object keeps its rules. Between movements.
    pub fn check(&self) {
        self.core.borrow().check();
        self.cache.borrow().check();
        let pins = self.source.pins().iter().filter(|pinned| **pinned).count() as u64;
        assert_eq!(self.core.borrow().pinned().get(), pins, "pages {}: trees and pins differ", self.serial);
    }
}

impl Running {
    const fn new(ticket: Ticket, movement: Movement) -> Self {
        Self { ticket, movement, under_way: Vec::new(), waiting: false }
    }

    /// Starts a step, or carries one out, or replies to one.
    fn act(&mut self, pages: &Pages) -> Option<MoveResult> {
        if !self.waiting && (self.under_way.is_empty() || pages.machine.below(2) == 0) {
            return self.start(pages);
        }
        assert!(
            !self.under_way.is_empty(),
            "a movement of pages {} waits for nothing: {self:?}",
            pages.serial
        );
        let place = pages.machine.below(self.under_way.len() as u64) as usize;
        let (id, work) = self.under_way.swap_remove(place);
        match work {
            Work::Open(step) if pages.machine.below(2) == 0 => {
                self.under_way.push((id, Work::Done(pages.carry_out(step))));
            }
            Work::Open(step) => self.reply(pages, id, pages.carry_out(step)),
            Work::Done(reply) => self.reply(pages, id, reply),
        }
        None
    }

    fn reply(&mut self, pages: &Pages, id: StepId, reply: Reply) {
        self.movement.supply(&mut pages.core.borrow_mut(), id, reply);
        self.waiting = false;
    }

    fn start(&mut self, pages: &Pages) -> Option<MoveResult> {
        if pages.machine.is_cancelled() {
            self.movement.cancel(Refusal::new(Errno::CANCELED, "cancelled", "a test cancels"));
        }
        let next = self.movement.next(&mut pages.core.borrow_mut());
        match next {
            Next::Wait => self.waiting = true,
            Next::Start(id, step) => self.begin_step(pages, id, step),
            Next::Done(result) => {
                assert!(self.under_way.is_empty(), "a movement ended before its steps: {self:?}");
                return Some(result);
            }
        }
        None
    }

    /// The cache is reached at once, as its owner sits beside the pages object; other tiers take their time.
    fn begin_step(&mut self, pages: &Pages, id: StepId, step: Step) {
        assert!(self.under_way.iter().all(|(other, _)| *other != id), "two steps {id:?} at once: {self:?}");
        pages.machine.counters.borrow_mut().overlaps += u64::from(!self.under_way.is_empty());
        let is_cache =
            matches!(step, Step::ReadCache { .. } | Step::StoreCache { .. } | Step::EraseCache { .. });
        let work = if is_cache { Work::Done(pages.carry_out(step)) } else { Work::Open(step) };
        self.under_way.push((id, work));
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let steps: Vec<StepId> = self.under_way.iter().map(|(id, _)| *id).collect();
        write!(f, "{:?} with {steps:?} under way", self.movement)
    }
}
