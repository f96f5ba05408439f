//! The faults of one walker, behind its slots in the same memfd.
//!
//! ```text
//! at SLOTS_BYTES   counts: one word for each kind of fault, which all threads of the walker add to; at the end of their
//!                  line the number of the windows when the walker was registered, which the agent wrote
//! behind it        a ring for each slot: RECORDS records of RECORD_BYTES, written by the thread that has the slot
//! record           sequence, iova, entry, what, at, three words of zero
//! ```
//!
//! Record n of a ring, counted from 1, lies at (n - 1) mod RECORDS. Its sequence is 2n - 1 while it is written and 2n when it
//! is whole, so that whoever reads it meanwhile can tell, and nobody waits for anybody. A count is added to behind its
//! record: counts that stand still say that there is nothing new to read.
//!
//! The agent only reads. What it reads may be anything, and harms only what it says of this one walker.
//!
//! Imports allowed: units, formats, slots, the protocol.

use std::sync::atomic::Ordering;

use super::protocol::{View, Word};
use super::slots::{SLOTS, SLOTS_BYTES, SlotIndex};
use crate::formats::Level;
use crate::units::Iova;

/// Records in the ring of a slot.
pub const RECORDS: u64 = 8;

/// Bytes of a record: a cache line.
pub const RECORD_BYTES: u64 = 64;

/// Words of a record behind its sequence.
pub const RECORD_WORDS: usize = 4;

/// Where the counts lie. They share a cache line.
pub const COUNTS_OFFSET: u64 = SLOTS_BYTES;

/// Bytes in the memfd of a walker: slots, counts and rings, in whole pages.
pub const WALKER_BYTES: u64 = (RINGS_OFFSET + SLOTS as u64 * RING_BYTES).next_multiple_of(4096);

/// Where the number of the windows lies under which the walker was told of its first files.
pub const OPENED_OFFSET: u64 = COUNTS_OFFSET + COUNTS_BYTES - 8;

const COUNTS_BYTES: u64 = 64;
const RINGS_OFFSET: u64 = COUNTS_OFFSET + COUNTS_BYTES;
const RING_BYTES: u64 = RECORDS * RECORD_BYTES;

const _: () = {
    assert!(COUNTS_OFFSET + FaultKind::ALL.len() as u64 * 8 <= OPENED_OFFSET);
    assert!((1 + RECORD_WORDS as u64) * 8 <= RECORD_BYTES);
};

/// What is to be done with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// It is read.
    Read,
    /// It is written.
    Write,
}

/// What was wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// Nothing is mapped.
    NotPresent,
    /// Mapped, but not for this kind of access.
    Permission,
    /// An entry that the format does not allow, or that leads out of the arena.
    Malformed,
    /// Mapped to frames whose file this walker was not given, or not for this access, or beyond the end of the file.
    NotExported,
    /// The table does not translate such addresses.
    OutsideAperture,
    /// Nobody serves the domain any more.
    Dead,
}

impl FaultKind {
    /// All of them, in the order of their counts.
    pub const ALL: [Self; 6] = [
        Self::NotPresent,
        Self::Permission,
        Self::Malformed,
        Self::NotExported,
        Self::OutsideAperture,
        Self::Dead,
    ];

    /// Which of the counts is its.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The offset of its count.
    #[must_use]
    pub const fn count_offset(self) -> u64 {
        COUNTS_OFFSET + 8 * self as u64
    }
}

/// A fault as its record tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkerFault {
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
    /// When, on the clock of the host that never jumps.
    pub at: Nanoseconds,
}

/// A time on the monotonic clock of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanoseconds(pub u64);

const LEVELS: u64 = 8;
const LEVEL_LG2: u32 = 16;
const ACCESS_LG2: u32 = 8;

impl WalkerFault {
    /// The words behind the sequence.
    #[must_use]
    pub fn encode(&self) -> [u64; RECORD_WORDS] {
        let what =
            u64::from(self.level.get()) << LEVEL_LG2 | (self.access as u64) << ACCESS_LG2 | self.kind as u64;
        [self.iova.get(), self.entry, what, self.at.0]
    }

    /// What the words say; `None` if they are no fault.
    #[must_use]
    pub fn decode(words: [u64; RECORD_WORDS]) -> Option<Self> {
        let [iova, entry, what, at] = words;
        let byte = |lg2: u32| what >> lg2 & 0xff;
        let level = u32::try_from(what >> LEVEL_LG2).ok().filter(|level| u64::from(*level) < LEVELS)?;
        let access =
            [Access::Read, Access::Write].into_iter().nth(usize::try_from(byte(ACCESS_LG2)).ok()?)?;
        let kind = FaultKind::ALL.get(usize::try_from(byte(0)).ok()?)?;
        let (iova, level, at) = (Iova::new(iova), Level::new(level), Nanoseconds(at));
        Some(Self { iova, access, kind: *kind, level, entry, at })
    }
}

/// Where record `number`, counted from 1, of a slot lies.
#[must_use]
pub const fn record_offset(slot: SlotIndex, number: u64) -> u64 {
    RINGS_OFFSET + slot.get() as u64 * RING_BYTES + number.wrapping_sub(1) % RECORDS * RECORD_BYTES
}

/// Writes record `number` over an older one. The thread that has the slot does so, nobody else.
pub fn write_record<W: Word>(
    sequence: &W,
    words: [&W; RECORD_WORDS],
    number: u64,
    values: [u64; RECORD_WORDS],
) {
    let whole = number.wrapping_mul(2);
    sequence.store(whole.wrapping_sub(1), Ordering::Relaxed);
    // Who sees one of the new words must see that the record is being written.
    sequence.full_fence();
    for (word, value) in words.into_iter().zip(values) {
        word.store(value, Ordering::Relaxed);
    }
    sequence.store(whole, Ordering::Release);
}

/// Counts a fault whose record is written.
pub fn count_fault(count: &impl Word) {
    count.fetch_add(1, Ordering::Release);
}

/// Reads the record at `offset`: its number and its words; `None` if it is none, or was written meanwhile.
pub fn read_record(view: &impl View, offset: u64) -> Option<(u64, [u64; RECORD_WORDS])> {
    let before = view.load(offset).filter(|sequence| *sequence != 0 && sequence.is_multiple_of(2))?;
    let mut values = [0; RECORD_WORDS];
    for (value, at) in values.iter_mut().zip((offset + 8..).step_by(8)) {
        *value = view.load(at)?;
    }
    (view.load(offset) == Some(before)).then_some((before / 2, values))
}

/// The number of the latest whole record in the ring of `slot`; 0 if there is none.
pub fn latest_record(view: &impl View, slot: SlotIndex) -> u64 {
    let numbers = (1..=RECORDS).filter_map(|place| {
        let number = view.load(record_offset(slot, place))? / 2;
        (record_offset(slot, number) == record_offset(slot, place)).then_some(number)
    });
    numbers.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault() -> WalkerFault {
        WalkerFault {
            iova: Iova::new(0x1234_5678),
            access: Access::Write,
            kind: FaultKind::Permission,
            level: Level::new(2),
            entry: u64::MAX,
            at: Nanoseconds(7),
        }
    }

    #[test]
    fn a_fault_survives_its_words() {
        for kind in FaultKind::ALL {
            let fault = WalkerFault { kind, ..fault() };
            assert_eq!(WalkerFault::decode(fault.encode()), Some(fault));
            assert_eq!(FaultKind::ALL.get(kind.index()), Some(&kind));
        }
    }

    #[test]
    fn words_that_are_no_fault_are_refused() {
        let words = fault().encode();
        for what in [6, 0xff, 2 << 8, 8 << 16, 1 << 32, u64::MAX] {
            assert_eq!(WalkerFault::decode([words[0], words[1], what, words[3]]), None, "{what:#x}");
        }
    }

    #[test]
    fn rings_lie_behind_the_counts_and_do_not_overlap() {
        let mut places: Vec<u64> =
            SlotIndex::all().flat_map(|slot| (1..=RECORDS).map(move |n| record_offset(slot, n))).collect();
        assert_eq!(places.first(), Some(&(COUNTS_OFFSET + 64)));
        let count = places.len();
        places.dedup();
        assert!(places.is_sorted() && places.len() == count, "{places:?}");
        assert!(places.last().is_some_and(|last| last + RECORD_BYTES <= WALKER_BYTES));
        let slot = SlotIndex::new(3).unwrap();
        assert_eq!(record_offset(slot, 1), record_offset(slot, 1 + RECORDS));
    }
}
