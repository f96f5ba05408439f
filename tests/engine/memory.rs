//! The three tiers in memory: files and the pins of their pages, domains, accounts.
//!
//! Each of them panics when it is used wrongly: a page pinned twice or let go of without a pin, an entry of a table that
//! is split, a page let go of while a domain, or a walker that has not left yet, can still reach it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use ioasd::error::Errno;
use ioasd::fault_points::{self, Point};
use ioasd::storage::ledger::bill::Bill;
use ioasd::storage::ledger::{Ledger, PageLimit};
use ioasd::storage::movement::Movement;
use ioasd::storage::pfn::{PfnBatch, RunLimit};
use ioasd::storage::refusal::Refusal;
use ioasd::storage::step::{DomainKey, Transfer};
use ioasd::storage::{Tuning, order::Order};
use ioasd_client::units::{IndexRange, PAGE_SIZE, PageIndex, Pfn};

use crate::tables::Table;

/// How much happened, so that a test can see that it tested something.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Unmap windows that ended in the middle of a run.
    pub carries: u64,
    /// Batches that some of several domains took and others refused.
    pub torn_deliveries: u64,
    /// Unpins that ran between the steps of another movement.
    pub interruptions: u64,
    /// Frames asked of tier 1, tier 2, tier 3 (told again), tier 3 (pinned).
    pub reads: [u64; 4],
    /// Times that two steps of a movement were under way together.
    pub overlaps: u64,
    /// Charges that were refused.
    pub refused_charges: u64,
}

impl Counters {
    /// Adds what happened elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.carries += other.carries;
        self.torn_deliveries += other.torn_deliveries;
        self.interruptions += other.interruptions;
        self.overlaps += other.overlaps;
        self.refused_charges += other.refused_charges;
        (0..4).for_each(|tier| self.reads[tier] += other.reads[tier]);
    }
}

/// Everything that pages objects and address spaces share.
pub struct Machine {
    /// The tables of all domains.
    pub tables: RefCell<BTreeMap<DomainKey, Table>>,
    /// Who pays.
    pub ledger: Ledger,
    /// All that is random below the operations.
    pub rng: RefCell<fastrand::Rng>,
    /// What happened.
    pub counters: RefCell<Counters>,
    /// At which look at a movement it is cancelled, and all that come after it.
    pub cancel_after: Cell<Option<u64>>,
    clock: Cell<u64>,
}

impl Machine {
    /// A machine without domains and accounts.
    pub fn new(seed: u64) -> Rc<Self> {
        Rc::new(Self {
            tables: RefCell::default(),
            ledger: Ledger::new(),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            counters: RefCell::default(),
            cancel_after: Cell::new(None),
            clock: Cell::new(0),
        })
    }

    /// A random number below `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.rng.borrow_mut().u64(..end)
    }

    /// Whether the movement that is looked at is cancelled.
    pub fn is_cancelled(&self) -> bool {
        let left = self.cancel_after.get().map(|left| left.saturating_sub(1));
        self.cancel_after.set(left);
        left == Some(0)
    }

    /// The movement that does as ordered, under random small limits.
    pub fn movement(&self, order: Order) -> Movement {
        Movement::new(order, self.tuning())
    }

    fn tuning(&self) -> Tuning {
        let mut rng = self.rng.borrow_mut();
        let mut small = |otherwise: u64| if rng.u8(..4) == 0 { otherwise } else { rng.u64(1..5) };
        let runs = u32::try_from(small(1000)).unwrap();
        Tuning {
            runs: RunLimit::new(runs),
            batch_pages: small(1000),
            unmap_pages: small(1000),
            ..Tuning::default()
        }
    }

    /// The time, which moves with every call.
    pub fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    /// Panics if a domain shows a page of `range`, or a walker of it may.
    fn check_unreachable(&self, pages: u64, range: IndexRange) {
        for (key, table) in self.tables.borrow().iter() {
            assert!(
                !table.shows(pages, range),
                "domain {} shows {range} of pages {pages} that are let go of",
                key.id
            );
            assert!(
                !table.lingers(pages, range),
                "a walker of domain {} may be in {range} of pages {pages} that are let go of",
                key.id
            );
        }
    }
}

/// Memory of a client: bytes, frames, and pages that cannot be pinned.
pub struct Memory {
    /// The frame of each page.
    pub frames: Vec<u64>,
    /// The address of its first byte.
    pub origin: u64,
    /// What it holds.
    pub bytes: RefCell<Vec<u8>>,
    /// Pages whose pinning fails.
    pub bad: RefCell<Vec<bool>>,
}

/// Tier 3: a slice of some memory, and the pins of its pages.
pub struct Source {
    serial: u64,
    memory: Rc<Memory>,
    first: u64,
    pinned: RefCell<Vec<bool>>,
}

impl Source {
    /// `len` pages of `memory` from its page `first` on; `serial` names the pages object.
    pub fn new(serial: u64, memory: Rc<Memory>, first: u64, len: u64) -> Self {
        Self { serial, memory, first, pinned: RefCell::new(vec![false; len as usize]) }
    }

    /// The address of the first byte of page 0.
    pub fn origin(&self) -> u64 {
        self.memory.origin + self.first * PAGE_SIZE
    }

    /// Which pages hold a pin.
    pub fn pins(&self) -> Vec<bool> {
        self.pinned.borrow().clone()
    }

    fn frame(&self, index: PageIndex) -> Pfn {
        Pfn::new(self.memory.frames[(self.first + index.get()) as usize])
    }

    fn is_bad(&self, index: PageIndex) -> bool {
        self.memory.bad.borrow()[(self.first + index.get()) as usize]
    }

    /// Pins pages, often fewer than asked for.
    pub fn pin(&self, machine: &Machine, range: IndexRange, batch: &mut PfnBatch) -> Result<(), Refusal> {
        fault_points::hit(Point::Pin).map_err(|error| Refusal::of(&error))?;
        assert_eq!(batch.end(), range.first(), "a pin does not continue its batch");
        let wanted = if machine.below(3) == 0 { 1 + machine.below(range.pages()) } else { range.pages() };
        for at in range.first().get()..range.first().get() + wanted {
            let index = PageIndex::new(at);
            if self.is_bad(index) {
                return if at == range.first().get() { Err(bad_page(index)) } else { Ok(()) };
            }
            if batch.push(self.frame(index), 1) == 0 {
                return Ok(());
            }
            let was_pinned = std::mem::replace(&mut self.pinned.borrow_mut()[at as usize], true);
            assert!(!was_pinned, "page {index} of pages {} is pinned twice", self.serial);
        }
        Ok(())
    }

    /// Tells frames of pinned pages.
    pub fn recall(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), Refusal> {
        fault_points::hit(Point::Recall).map_err(|error| Refusal::of(&error))?;
        for at in range.first().get()..=range.last().get() {
            self.assert_pinned(PageIndex::new(at));
            if batch.push(self.frame(PageIndex::new(at)), 1) == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Lets go of pinned pages that nobody can reach.
    pub fn unpin(&self, machine: &Machine, range: IndexRange) {
        machine.check_unreachable(self.serial, range);
        for at in range.first().get()..=range.last().get() {
            self.assert_pinned(PageIndex::new(at));
            self.pinned.borrow_mut()[at as usize] = false;
        }
    }

    /// Panics unless the page holds a pin.
    pub fn assert_pinned(&self, index: PageIndex) {
        assert!(
            self.pinned.borrow()[index.get() as usize],
            "page {index} of pages {} holds no pin",
            self.serial
        );
    }

    /// Moves bytes of pinned pages.
    pub fn transfer(&self, transfer: &Transfer) -> Result<Vec<u8>, Refusal> {
        fault_points::hit(Point::FileIo).map_err(|error| Refusal::of(&error))?;
        let (offset, length) = match transfer {
            Transfer::Read { offset, length } => (offset.get(), length.get()),
            Transfer::Write { offset, bytes } => (offset.get(), bytes.len() as u64),
        };
        for at in offset / PAGE_SIZE..=(offset + length - 1) / PAGE_SIZE {
            self.assert_pinned(PageIndex::new(at));
        }
        let from = (self.first * PAGE_SIZE + offset) as usize;
        let mut memory = self.memory.bytes.borrow_mut();
        let part = &mut memory[from..from + length as usize];
        match transfer {
            Transfer::Read { .. } => return Ok(part.to_vec()),
            Transfer::Write { bytes, .. } => part.copy_from_slice(bytes),
        }
        Ok(Vec::new())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let left = self.pinned.borrow().iter().filter(|pinned| **pinned).count();
        assert!(left == 0 || std::thread::panicking(), "pages {} go with {left} pins left", self.serial);
    }
}

/// Who pays for a pages object, and how.
pub struct Payer {
    /// Where, and by which rule.
    pub bill: Bill,
    /// The limit.
    pub limit: Option<PageLimit>,
}

fn bad_page(index: PageIndex) -> Refusal {
    Refusal::new(Errno::FAULT, "bad-page", format!("page {index} cannot be pinned"))
}
