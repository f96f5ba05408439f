//! What the models of walkers have in common: an arena with a root and a table, two slots, and memory behind. What one model
//! runs is one thread of the machine, so that counts of references need no atomics.
//!
//! The tables are of a format with two levels. Every part of a model that orders something is the code of agent and
//! client: the steps of `layout::protocol` and the walk.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ioasd_client::formats::{AmdV1, Format, Level, TABLE_BYTES, TableAddr};
use ioasd_client::layout::protocol::{self, Entered, Word};
use ioasd_client::layout::{
    ALIVE_OFFSET, EPOCH_OFFSET, FIRST_EPOCH, GENERATION_OFFSET, HEADER_BYTES, IS_ALIVE, OUTSIDE, SlotIndex,
    WINDOWS_OFFSET,
};
use ioasd_client::units::{Iova, Permission, PhysAddr};
use ioasd_client::walker::{Leaf, Way, descend};
use loom::cell::UnsafeCell;
use parking_lot::Mutex;

use crate::memory::{Eye, Weak, Words};

type Tables = AmdV1<2>;

pub(crate) const ROOT: TableAddr = TableAddr::new(HEADER_BYTES);
pub(crate) const TABLE: TableAddr = TableAddr::new(HEADER_BYTES + TABLE_BYTES);
/// Two addresses that go through neighbouring entries of the root.
pub(crate) const HERE: Iova = Iova::new(0);
pub(crate) const THERE: Iova = Iova::new(1 << 21);
/// The entries of the root for them, and the first entry of the table below.
pub(crate) const ROOT_HERE: u64 = ROOT.get();
pub(crate) const ROOT_THERE: u64 = ROOT.get() + 8;
pub(crate) const ENTRY: u64 = TABLE.get();

const FRAME: u64 = 0x5_0000;
const OTHER_FRAME: u64 = 0x6_0000;

/// The leaf for the page, for another one, and the entry that points to the table.
pub(crate) fn leaf() -> u64 {
    Tables::leaf(PhysAddr::new(FRAME), 12, Permission::ReadWrite)
}

pub(crate) fn other_leaf() -> u64 {
    Tables::leaf(PhysAddr::new(OTHER_FRAME), 12, Permission::ReadWrite)
}

pub(crate) fn link() -> u64 {
    Tables::table(TABLE, Level::new(1))
}

/// What a walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Found {
    Nothing,
    ThePage,
    AnotherPage,
    /// The table was there, its entry was not.
    EmptyTable,
}

/// Memory that is mapped. Loom watches that nobody writes it while others read it, or without knowing that they have.
struct Page {
    bytes: UnsafeCell<()>,
    /// Not part of what is modelled: what really happened.
    reused: AtomicBool,
}

/// What is shared.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) arena: Words,
    pub(crate) slots: Words,
    /// A word of the walker's dirty log, and the memory that it writes to.
    pub(crate) log: Words,
    pub(crate) written: Words,
    page: Rc<Page>,
    /// The bytes of the table, as those who write them privately and those who walk them touch them.
    table: Rc<UnsafeCell<()>>,
    /// What was wrong on purpose.
    pub(crate) weak: Weakened,
}

/// The step that is not as it should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Step {
    /// Every step is as it should be.
    #[default]
    None,
    Enter,
    Look,
    Leave,
    Publish,
    BeginEpoch,
    AfterUnlinking,
    HasLeft,
    TakeSlot,
    GiveSlotBack,
}

/// What is wrong with it.
pub(crate) type Weakened = (Step, Weak);

pub(crate) const SLOT: SlotIndex = SlotIndex::new(0).unwrap();

impl World {
    /// A domain that maps [`HERE`] if the root is `root` and the table has `entry`.
    pub(crate) fn new(weak: Weakened, root: u64, entry: u64) -> Self {
        let live = [
            (EPOCH_OFFSET, FIRST_EPOCH),
            (GENERATION_OFFSET, 0),
            (ALIVE_OFFSET, IS_ALIVE),
            (WINDOWS_OFFSET, 0),
        ];
        let tables = [(ROOT_HERE, root), (ROOT_THERE, 0), (ENTRY, entry)];
        let slots = [0, 1].map(|slot| (SlotIndex::new(slot).unwrap().offset(), OUTSIDE));
        let page = Rc::new(Page { bytes: UnsafeCell::new(()), reused: AtomicBool::new(false) });
        Self {
            arena: Words::new(live.into_iter().chain(tables)),
            slots: Words::new(slots),
            log: Words::new([(0, 0)]),
            written: Words::new([(0, 0)]),
            page,
            table: Rc::new(UnsafeCell::new(())),
            weak,
        }
    }

    /// What is wrong with `step`.
    pub(crate) fn of(&self, step: Step) -> Weak {
        if self.weak.0 == step { self.weak.1 } else { Weak::Nothing }
    }

    fn slot_for(&self, slot: SlotIndex, step: Step) -> Eye<'_> {
        self.slots.weak_at(slot.offset(), self.of(step))
    }

    /// A thread of the walker begins a burst, on a machine whose words are `W`.
    pub(crate) fn enter<'a, W: Word>(&'a self, slot: SlotIndex, machine: impl Fn(Eye<'a>) -> W) -> Entered {
        protocol::enter(&machine(self.slot_for(slot, Step::Enter)), &self.arena.seen(Weak::Nothing))
    }

    /// It ends its burst.
    pub(crate) fn leave(&self, slot: SlotIndex) {
        protocol::leave(&self.slot_for(slot, Step::Leave));
    }

    /// It walks.
    pub(crate) fn walk(&self, iova: Iova) -> Found {
        self.found(descend::<Tables>(&self.arena.seen(self.of(Step::Look)), ROOT, iova))
    }

    /// It follows an address to its table, if that is linked.
    pub(crate) fn way(&self, iova: Iova) -> Option<Way> {
        let arena = self.arena.seen(self.of(Step::Look));
        Way::at::<Tables>(ROOT).down_to::<Tables>(Level::LEAF, &arena, iova).ok()
    }

    /// It walks the rest of a way.
    pub(crate) fn walk_from(&self, way: Way, iova: Iova) -> Found {
        self.found(way.to_leaf::<Tables>(&self.arena.seen(self.of(Step::Look)), iova))
    }

    /// What a walk came to. Unless it ended at the root, it has looked at the table.
    fn found(&self, walked: Result<Leaf, Level>) -> Found {
        let found = match walked {
            Ok(leaf) if leaf.phys() == PhysAddr::new(FRAME) => Found::ThePage,
            Ok(_) => Found::AnotherPage,
            Err(Level::LEAF) => Found::EmptyTable,
            Err(_) => return Found::Nothing,
        };
        self.table.with(|_| ());
        found
    }

    /// It reads the page.
    pub(crate) fn read_page(&self) {
        self.page.bytes.with(|_| ());
        assert!(!self.page.reused.load(Ordering::Relaxed), "a page was read after it was reused");
    }

    /// The agent lets others have the page, who write to it.
    pub(crate) fn reuse_page(&self) {
        self.page.bytes.with_mut(|_| ());
        self.page.reused.store(true, Ordering::Relaxed);
    }

    /// The agent writes the table with plain stores, while nobody may know it.
    pub(crate) fn fill_table(&self, entry: u64) {
        self.table.with_mut(|_| ());
        self.arena.at(ENTRY).fill(entry);
    }

    /// The client fills the page before it maps it.
    pub(crate) fn fill_page(&self) {
        self.page.bytes.with_mut(|_| ());
    }

    /// The agent begins an epoch.
    pub(crate) fn begin_epoch(&self) -> u64 {
        let weak = self.of(Step::BeginEpoch);
        protocol::begin_epoch(&self.arena.at(GENERATION_OFFSET), &self.arena.weak_at(EPOCH_OFFSET, weak))
    }

    /// The agent renews the windows; an epoch begins afterwards.
    pub(crate) fn renew_windows(&self) {
        protocol::renew_windows(&self.arena.at(WINDOWS_OFFSET));
    }

    /// The agent has unlinked a table.
    pub(crate) fn after_unlinking(&self) -> u64 {
        protocol::epoch_after_unlinking(&self.arena.weak_at(EPOCH_OFFSET, self.of(Step::AfterUnlinking)))
    }

    /// Whether a slot has left what was before `epoch`.
    pub(crate) fn has_left(&self, slot: SlotIndex, epoch: u64) -> bool {
        protocol::has_left(&self.slots.seen(self.of(Step::HasLeft)), slot, epoch)
    }

    /// The agent publishes an entry.
    pub(crate) fn publish(&self, offset: u64, bits: u64) {
        protocol::publish(&self.arena.weak_at(offset, self.of(Step::Publish)), bits);
    }

    /// The agent takes an entry away.
    pub(crate) fn clear(&self, offset: u64) {
        protocol::clear(&self.arena.at(offset));
    }
}

/// Runs a model in every interleaving, and gives everything it came to.
pub(crate) fn explore<T: Ord + Send + 'static>(model: impl Fn() -> T + Send + Sync + 'static) -> Vec<T> {
    let noted = Arc::new(Mutex::new((BTreeSet::new(), 0)));
    let notes = Arc::clone(&noted);
    loom::model(move || {
        let outcome = model();
        let mut notes = notes.lock();
        notes.0.insert(outcome);
        notes.1 += 1;
    });
    let (outcomes, runs) = std::mem::take(&mut *noted.lock());
    assert!(runs > 5, "only {runs} interleavings were tried");
    outcomes.into_iter().collect()
}
