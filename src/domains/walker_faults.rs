//! What walkers tell of their faults, as the agent believes it: counts and the last of them, for each domain.
//!
//! A walker writes its faults into its own memory. Whoever asks makes the agent look there, and so does the end of a walker,
//! so that nothing is lost with it. Nothing read there is trusted: counts only grow and stop at a bound, a record that
//! is no fault or was written meanwhile is dropped, and times lie between the registration and now. A walker that lies
//! pushes out what others of its domain told, and nothing else.
//!
//! Imports allowed: sys, the client crate's layouts.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use ioasd_client::formats::Level;
use ioasd_client::layout::protocol::View;
use ioasd_client::layout::{
    Access, FaultKind, Nanoseconds, RECORDS, SLOTS, SlotIndex, WalkerFault, read_record, record_offset,
};
use ioasd_client::units::Iova;
use parking_lot::Mutex;
use rustix::process::Pid;

use super::epoch::WalkerId;
use crate::sys::clock::Clocks;
use crate::sys::mapping::SharedMapping;

/// Faults that are kept for each domain.
pub const KEPT: usize = 256;

/// No count of a walker is believed beyond this, so that one that lies does not make the sum over all useless.
const COUNT_MAX: u64 = 1 << 40;

const KINDS: usize = FaultKind::ALL.len();

/// How often each kind of fault was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts([u64; KINDS]);

impl FaultCounts {
    /// Each kind with its count.
    pub fn iter(&self) -> impl Iterator<Item = (FaultKind, u64)> {
        FaultKind::ALL.into_iter().zip(self.0)
    }

    /// All kinds together.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.iter().copied().fold(0, u64::saturating_add)
    }
}

/// The word for a kind of fault in reports and metrics.
#[must_use]
pub const fn cause(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::NotPresent => "not-present",
        FaultKind::Permission => "permission",
        FaultKind::Malformed => "malformed",
        FaultKind::NotExported => "not-exported",
        FaultKind::OutsideAperture => "outside-aperture",
        FaultKind::Dead => "dead",
    }
}

/// The sum over the domains of an agent, gone ones included.
#[derive(Debug, Default)]
pub struct FaultTotals([AtomicU64; KINDS]);

impl FaultTotals {
    /// What was counted so far.
    #[must_use]
    pub fn get(&self) -> FaultCounts {
        FaultCounts(self.0.each_ref().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// A fault of one of the walkers of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSeen {
    /// Its number in the domain; a later one is greater.
    pub number: u64,
    /// The walker that met it.
    pub walker: WalkerId,
    /// The process of the walker, if that is certain.
    pub process: Option<Pid>,
    /// The address.
    pub iova: Iova,
    /// What was to be done there.
    pub access: Access,
    /// What was wrong.
    pub kind: FaultKind,
    /// The level of the last entry read.
    pub level: Level,
    /// The bits of that entry; 0 if none was read.
    pub entry: u64,
    /// When the last one was met.
    pub at: SystemTime,
    /// How often in a row the same was met.
    pub times: u64,
}

/// A part of what is kept, and what was true when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultPart {
    /// How often each kind was met since the domain was made.
    pub counts: FaultCounts,
    /// The faults, the oldest first.
    pub faults: Vec<FaultSeen>,
    /// Whether there are more behind them.
    pub more: bool,
    /// The number of the last one that was forgotten; 0 if none was.
    pub forgotten: u64,
}

/// The faults of one domain's walkers.
#[derive(Debug, Default)]
pub struct WalkerFaults {
    told: Mutex<Told>,
    everybody: OnceLock<Arc<FaultTotals>>,
}

#[derive(Debug, Default)]
struct Told {
    walkers: Vec<Teller>,
    counts: FaultCounts,
    last: u64,
    forgotten: u64,
    kept: VecDeque<FaultSeen>,
}

/// A walker whose memory is looked at.
#[derive(Debug)]
struct Teller {
    id: WalkerId,
    process: Option<Pid>,
    memory: Arc<SharedMapping>,
    since: Nanoseconds,
    counted: FaultCounts,
    /// The last record known of each slot.
    known: [u64; SLOTS as usize],
}

impl WalkerFaults {
    /// Adds to `totals` too from here on.
    pub fn add_to(&self, totals: &Arc<FaultTotals>) {
        let first = self.everybody.set(Arc::clone(totals));
        debug_assert!(first.is_ok(), "a domain belongs to one agent");
    }

    pub(super) fn watch(&self, id: WalkerId, process: Option<Pid>, memory: Arc<SharedMapping>) {
        let (counted, known) = (FaultCounts::default(), [0; SLOTS as usize]);
        let teller = Teller { id, process, memory, since: Clocks::now().monotonic, counted, known };
        self.told.lock().walkers.push(teller);
    }

    /// Looks for the last time at what `walker` told.
    pub(super) fn forget(&self, walker: WalkerId) {
        let mut told = self.told.lock();
        self.look_at(&mut told);
        told.walkers.retain(|teller| teller.id != walker);
    }

    /// Looks at what all walkers have told, and gives `limit` faults at most with numbers above `number`.
    #[must_use]
    pub fn since(&self, number: u64, limit: usize) -> FaultPart {
        let mut told = self.told.lock();
        self.look_at(&mut told);
        let from = told.kept.partition_point(|fault| fault.number <= number);
        let faults: Vec<FaultSeen> = told.kept.iter().skip(from).take(limit).copied().collect();
        let more = from + faults.len() < told.kept.len();
        FaultPart { counts: told.counts, faults, more, forgotten: told.forgotten }
    }

    /// Looks at what all walkers have told.
    pub fn look(&self) {
        self.look_at(&mut self.told.lock());
    }

    /// Looks at what all walkers have told, and gives how often each kind of fault was met.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        let mut told = self.told.lock();
        self.look_at(&mut told);
        told.counts
    }

    fn look_at(&self, told: &mut Told) {
        let Told { walkers, counts, last, forgotten, kept } = told;
        for teller in walkers {
            let more = teller.counted();
            if more.sum() == 0 {
                continue;
            }
            self.count(counts, &more);
            for fault in teller.told() {
                *last += 1;
                kept.push_back(FaultSeen { number: *last, ..fault });
            }
            let surplus = kept.len().saturating_sub(KEPT);
            *forgotten = kept.drain(..surplus).next_back().map_or(*forgotten, |fault| fault.number);
        }
    }

    fn count(&self, counts: &mut FaultCounts, more: &FaultCounts) {
        for (kind, more) in more.iter() {
            if let Some(count) = counts.0.get_mut(kind.index()) {
                *count = count.saturating_add(more);
            }
            if let Some(total) = self.everybody.get().and_then(|totals| totals.0.get(kind.index())) {
                total.fetch_add(more, Ordering::Relaxed);
            }
        }
    }
}

impl Teller {
    /// What was counted since the last look.
    fn counted(&mut self) -> FaultCounts {
        let mut more = FaultCounts::default();
        let counts = FaultKind::ALL.iter().zip(&mut self.counted.0).zip(&mut more.0);
        for ((kind, known), more) in counts {
            let count = self.memory.load(kind.count_offset()).unwrap_or(0).min(COUNT_MAX);
            *more = count.saturating_sub(*known);
            *known = count.max(*known);
        }
        more
    }

    /// The faults told since the last look, the oldest first; what was met several times in a row is one.
    fn told(&mut self) -> Vec<FaultSeen> {
        let mut told: Vec<WalkerFault> = Vec::new();
        for (slot, known) in SlotIndex::all().zip(&mut self.known) {
            let mut new: Vec<_> = (1..=RECORDS)
                .filter_map(|place| whole(&*self.memory, slot, place))
                .filter(|(number, _)| *number > *known)
                .collect();
            new.sort_unstable_by_key(|(number, _)| *number);
            *known = new.last().map_or(*known, |(number, _)| *number);
            told.extend(new.into_iter().map(|(_, fault)| fault));
        }
        told.sort_by_key(|fault| fault.at);
        self.joined(told)
    }

    fn joined(&self, told: Vec<WalkerFault>) -> Vec<FaultSeen> {
        let clocks = Clocks::now();
        let mut joined: Vec<FaultSeen> = Vec::new();
        for fault in told {
            let fault = self.seen(&fault, &clocks);
            match joined.last_mut() {
                Some(last) if (FaultSeen { at: fault.at, times: 1, ..*last }) == fault => {
                    (last.at, last.times) = (fault.at, last.times + 1);
                }
                _ => joined.push(fault),
            }
        }
        joined
    }

    fn seen(&self, fault: &WalkerFault, clocks: &Clocks) -> FaultSeen {
        let WalkerFault { iova, access, kind, level, entry, at } = *fault;
        let at = clocks.system_at(at.clamp(self.since, clocks.monotonic));
        let (walker, process) = (self.id, self.process);
        FaultSeen { number: 0, walker, process, iova, access, kind, level, entry, at, times: 1 }
    }
}

/// The fault at a place of a ring, if there is one.
fn whole(memory: &impl View, slot: SlotIndex, place: u64) -> Option<(u64, WalkerFault)> {
    let offset = record_offset(slot, place);
    let (number, words) = read_record(memory, offset)?;
    let fault = WalkerFault::decode(words)?;
    (record_offset(slot, number) == offset).then_some((number, fault))
}

#[cfg(test)]
mod tests {
    use ioasd_client::layout::{WALKER_BYTES, count_fault, write_record};

    use super::*;
    use crate::domains::epoch::examples::{epochs, walker};

    const SLOT: SlotIndex = SlotIndex::new(5).unwrap();

    fn fault(page: u64) -> WalkerFault {
        WalkerFault {
            iova: Iova::new(page << 12),
            access: Access::Read,
            kind: FaultKind::NotPresent,
            level: Level::new(1),
            entry: 0,
            at: Clocks::now().monotonic,
        }
    }

    fn tell(memory: &SharedMapping, number: u64, fault: &WalkerFault) {
        let offset = record_offset(SLOT, number);
        let words = std::array::from_fn(|word| memory.word(offset + 8 + 8 * word as u64).unwrap());
        write_record(memory.word(offset).unwrap(), words, number, fault.encode());
        count_fault(memory.word(fault.kind.count_offset()).unwrap());
    }

    fn pages(faults: &WalkerFaults) -> Vec<(u64, u64)> {
        faults.since(0, KEPT).faults.iter().map(|fault| (fault.iova.get() >> 12, fault.times)).collect()
    }

    #[test]
    fn what_was_told_since_the_last_look_is_added_to_what_is_known() {
        let epochs = epochs();
        let totals = Arc::<FaultTotals>::default();
        epochs.faults().add_to(&totals);
        let (memory, id) = walker(&epochs);
        tell(&memory, 1, &fault(1));
        assert_eq!(pages(epochs.faults()), [(1, 1)]);
        for (number, page) in [(2, 7), (3, 7), (4, 8)] {
            tell(&memory, number, &WalkerFault { at: Clocks::now().monotonic, ..fault(page) });
        }
        assert_eq!(pages(epochs.faults()), [(1, 1), (7, 2), (8, 1)]);
        tell(&memory, 5, &fault(9));
        epochs.unregister(id);
        tell(&memory, 6, &fault(10));
        let FaultPart { counts, faults, more, forgotten } = epochs.faults().since(2, 1);
        assert_eq!((counts.sum(), faults[0].number, faults[0].walker, more, forgotten), (5, 3, id, true, 0));
        assert_eq!(pages(epochs.faults()).last(), Some(&(9, 1)), "of a walker that is gone");
        assert_eq!(totals.get(), counts);
    }

    #[test]
    fn the_oldest_are_forgotten_and_that_can_be_seen() {
        let epochs = epochs();
        let (memory, _) = walker(&epochs);
        for number in 1..=KEPT as u64 + 3 {
            tell(&memory, number, &fault(number));
            epochs.faults().look();
        }
        let part = epochs.faults().since(0, usize::MAX);
        assert_eq!((part.faults.len(), part.forgotten, part.more), (KEPT, 3, false));
    }

    #[test]
    fn counts_only_grow_and_stop() {
        let epochs = epochs();
        let (memory, _) = walker(&epochs);
        let count = memory.word(FaultKind::Dead.count_offset()).unwrap();
        for (told, believed) in [(7, 7), (3, 7), (9, 9), (u64::MAX, COUNT_MAX), (0, COUNT_MAX)] {
            count.store(told, Ordering::Relaxed);
            assert_eq!(epochs.faults().since(0, 1).counts.sum(), believed, "{told}");
        }
    }

    #[test]
    fn records_that_are_none_are_dropped_and_times_that_cannot_be_are_mended() {
        let epochs = epochs();
        let (memory, _) = walker(&epochs);
        let before = SystemTime::now();
        tell(&memory, 1, &WalkerFault { at: Nanoseconds(u64::MAX), ..fault(1) });
        tell(&memory, 2, &WalkerFault { at: Nanoseconds(0), ..fault(2) });
        let set = |number: u64, word: u64, value: u64| {
            let offset = record_offset(SLOT, number) + 8 * word;
            memory.word(offset).unwrap().store(value, Ordering::Relaxed);
        };
        tell(&memory, 3, &fault(3));
        set(3, 0, 5);
        tell(&memory, 4, &fault(4));
        set(4, 3, u64::MAX);
        tell(&memory, 5, &fault(5));
        set(5, 0, 2 * 6);
        let told = epochs.faults().since(0, KEPT).faults;
        assert_eq!(told.iter().map(|fault| fault.iova.get() >> 12).collect::<Vec<_>>(), [2, 1]);
        let while_registered = before - std::time::Duration::from_secs(60)..=SystemTime::now();
        assert!(told.iter().all(|fault| while_registered.contains(&fault.at)), "{told:?}");
    }

    #[test]
    fn memory_of_any_bytes_harms_only_what_is_said_of_its_walker() {
        let epochs = epochs();
        let ((wild, _), (honest, id)) = (walker(&epochs), walker(&epochs));
        let mut rng = fastrand::Rng::with_seed(7);
        for round in 1..50 {
            for offset in (0..WALKER_BYTES).step_by(8) {
                let bits = rng.u64(..) >> rng.u32(..64);
                wild.word(offset).unwrap().store(bits, Ordering::Relaxed);
            }
            tell(&honest, round, &fault(round));
            let told = epochs.faults().since(0, KEPT).faults;
            assert!(told.iter().any(|seen| seen.walker == id && seen.iova == fault(round).iova));
            assert!(told.is_sorted_by_key(|seen| seen.number));
        }
    }
}
