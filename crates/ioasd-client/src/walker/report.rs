//! What is told of faults: each is counted, and written into the ring of its slot, in the walker's own memory. The agent
//! reads it there; nobody is asked and nobody waits.
//!
//! Imports allowed: units, layout, `rustix`, the parts of this folder.

use std::array;

use rustix::time::{ClockId, clock_gettime};

use super::fault::{FaultKind, WalkFault};
use super::stream::{Access, Stream};
use crate::layout::{Nanoseconds, WalkerFault, count_fault, latest_record, record_offset, write_record};

/// What becomes of a fault that may be explained by a file that is not known here yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewFiles {
    /// It is told, as every other fault.
    Told,
    /// It is held back until the agent was asked for the file. This is the last one.
    AskedFor(Option<(Access, WalkFault)>),
}

impl Stream {
    /// Tells of `fault`, or holds it back; gives it back.
    #[cold]
    pub(super) fn told(&self, access: Access, fault: WalkFault) -> WalkFault {
        if fault.kind == FaultKind::NotExported && self.new_files.get() != NewFiles::Told {
            self.new_files.set(NewFiles::AskedFor(Some((access, fault))));
        } else {
            self.tell((access, fault));
        }
        fault
    }

    /// From here on holds back the last fault that a new file may explain, instead of telling it. Whoever learns of the file
    /// calls this again; whoever does not, [`Stream::settle`]. [`Stream::burst`] does all that.
    pub fn hold_back(&self) {
        self.new_files.set(NewFiles::AskedFor(None));
    }

    /// Tells of what was held back, and holds nothing back any more.
    pub fn settle(&self) {
        if let NewFiles::AskedFor(Some(last)) = self.new_files.replace(NewFiles::Told) {
            self.tell(last);
        }
    }

    /// Tells of `fault`.
    #[cold]
    fn tell(&self, (access, fault): (Access, WalkFault)) {
        let WalkFault { iova, level, entry, kind } = fault;
        let memory = &self.domain().slots;
        let number = latest_record(memory, self.slot()).wrapping_add(1);
        let offset = record_offset(self.slot(), number);
        let words = array::from_fn(|word| memory.word(offset + 8 + 8 * word as u64));
        let ([Some(a), Some(b), Some(c), Some(d)], Some(sequence), Some(count)) =
            (words, memory.word(offset), memory.word(kind.count_offset()))
        else {
            return;
        };
        let record = WalkerFault { iova, access, kind, level, entry, at: now() };
        write_record(sequence, [a, b, c, d], number, record.encode());
        count_fault(count);
    }
}

fn now() -> Nanoseconds {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Nanoseconds(seconds.wrapping_mul(1_000_000_000).wrapping_add(u64::try_from(now.tv_nsec).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::super::Walker;
    use super::super::stream::tests::{domain, fault, link_to_zero, page, set};
    use super::*;
    use crate::layout::{ALIVE_OFFSET, IS_DEAD, RECORDS, read_record};
    use crate::units::{ByteLen, Iova, Permission};

    fn counts(walker: &Walker) -> Vec<u64> {
        FaultKind::ALL.iter().map(|kind| walker.domain.slots.load(kind.count_offset()).unwrap()).collect()
    }

    /// The records in the ring of the slot of `stream`, the latest last.
    fn records(stream: &Stream) -> Vec<WalkerFault> {
        let memory = &stream.domain().slots;
        let read = (1..=RECORDS).filter_map(|place| read_record(memory, record_offset(stream.slot(), place)));
        let mut read: Vec<_> = read.collect();
        read.sort_unstable_by_key(|(number, _)| *number);
        read.into_iter().map(|(_, words)| WalkerFault::decode(words).unwrap()).collect()
    }

    #[test]
    fn every_kind_of_fault_is_counted_once() {
        let (walker, writer) = domain();
        link_to_zero(&writer, page(0x10_0000, Permission::Read));
        fault(&walker, 0, Access::Write);
        (0..2).for_each(|_| assert_eq!(fault(&walker, 0x1000, Access::Read).kind, FaultKind::NotPresent));
        fault(&walker, 1 << 60, Access::Read);
        link_to_zero(&writer, page(0x10_4000, Permission::Read));
        fault(&walker, 0, Access::Read);
        link_to_zero(&writer, 0x201);
        fault(&walker, 0, Access::Read);
        set(&writer, ALIVE_OFFSET, IS_DEAD);
        fault(&walker, 0, Access::Read);
        assert_eq!(counts(&walker), [2, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn the_ring_of_a_slot_has_the_last_faults_as_they_were() {
        let (walker, writer) = domain();
        link_to_zero(&writer, page(0x10_0000, Permission::Read));
        let mut stream = walker.stream().unwrap();
        let mut met = Vec::new();
        let before = now();
        for page in 1..=RECORDS + 3 {
            let burst = stream.enter();
            met.push(burst.slice(Iova::new(page << 12), ByteLen::new(8), Access::Write).unwrap_err());
        }
        let told = records(&stream);
        assert!(
            told.iter().all(|fault| fault.access == Access::Write && fault.at >= before && fault.at <= now())
        );
        let told: Vec<WalkFault> = told
            .into_iter()
            .map(|WalkerFault { iova, level, entry, kind, .. }| WalkFault { iova, level, entry, kind })
            .collect();
        assert_eq!(told, met[3..]);
        drop(stream);
        let mut next = walker.stream().unwrap();
        next.enter().slice(Iova::new(0), ByteLen::new(1), Access::Write).unwrap_err();
        assert_eq!(records(&next).last().map(|fault| fault.kind), Some(FaultKind::Permission));
        assert_eq!(records(&next).len() as u64, RECORDS, "the slot goes on where it was");
    }

    #[test]
    fn a_fault_that_the_agent_can_explain_is_told_when_it_does_not() {
        let (walker, writer) = domain();
        link_to_zero(&writer, page(0x10_4000, Permission::Read));
        let mut stream = walker.stream().unwrap();
        let failed = stream.burst(|burst| burst.read(Iova::new(0), &mut [0]));
        assert_eq!(failed.map_err(|fault| fault.kind), Err(FaultKind::NotExported));
        let swallowed = stream.burst(|burst| Ok(burst.read(Iova::new(0), &mut [0]).is_ok()));
        assert_eq!((swallowed, counts(&walker)[FaultKind::NotExported.index()]), (Ok(false), 2));
    }
}
