//! Models of a fault that is told: a walker writes a record over an older one while the agent reads it.
//!
//! Nobody waits. What the agent reads is one record or the other, never a mixture; and whoever sees that something was
//! counted finds its record.

use ioasd_client::layout::protocol::look;
use ioasd_client::layout::{
    COUNTS_OFFSET, RECORD_WORDS, RECORDS, count_fault, read_record, record_offset, write_record,
};
use loom::thread;

use crate::memory::{Weak, Words};
use crate::world::{SLOT, explore};

/// Who is weak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Weakened {
    walker: Weak,
    count: Weak,
    agent: Weak,
}

const OLD: u64 = 1;
const NEW: u64 = OLD + RECORDS;
const PLACE: u64 = record_offset(SLOT, OLD);

/// A ring whose record lies at one place, and the counts.
fn ring(sequence: u64, value: u64) -> Words {
    let words = (1..=RECORD_WORDS as u64).map(|word| (PLACE + 8 * word, value));
    Words::new([(PLACE, sequence), (COUNTS_OFFSET, 0)].into_iter().chain(words))
}

fn tell(ring: &Words, number: u64, weak: Weakened) {
    let words: [_; RECORD_WORDS] = std::array::from_fn(|word| ring.at(PLACE + 8 + 8 * word as u64));
    let sequence = ring.weak_at(PLACE, weak.walker);
    write_record(&sequence, words.each_ref(), number, [number; RECORD_WORDS]);
    count_fault(&ring.weak_at(COUNTS_OFFSET, weak.count));
}

/// What the agent reads while the old record is written over.
fn overwrite(weak: Weakened) -> Vec<Option<u64>> {
    explore(move || {
        let ring = ring(2 * OLD, OLD);
        let walker = thread::spawn({
            let ring = ring.clone();
            move || tell(&ring, NEW, weak)
        });
        let read = read_record(&ring.seen(weak.agent), PLACE);
        walker.join().unwrap();
        read.map(|(number, words)| {
            assert_eq!(words, [number; RECORD_WORDS], "a record is a mixture");
            number
        })
    })
}

#[test]
fn a_record_is_read_as_it_was_or_not_at_all() {
    assert_eq!(overwrite(Weakened::default()), [None, Some(OLD), Some(NEW)]);
}

#[test]
#[should_panic(expected = "a record is a mixture")]
fn a_record_needs_the_fence_behind_its_first_mark() {
    overwrite(Weakened { walker: Weak::Fences, ..Weakened::default() });
}

#[test]
#[should_panic(expected = "a record is a mixture")]
fn a_record_needs_the_release_of_its_last_mark() {
    overwrite(Weakened { walker: Weak::Stores, ..Weakened::default() });
}

#[test]
#[should_panic(expected = "a record is a mixture")]
fn a_record_needs_the_acquire_of_who_reads_it() {
    overwrite(Weakened { agent: Weak::Loads, ..Weakened::default() });
}

/// What the agent sees counted.
fn counted(weak: Weakened) -> Vec<u64> {
    explore(move || {
        let ring = ring(0, 0);
        let walker = thread::spawn({
            let ring = ring.clone();
            move || tell(&ring, OLD, weak)
        });
        let count = look(&ring.weak_at(COUNTS_OFFSET, weak.agent));
        let read = read_record(&ring.seen(Weak::Nothing), PLACE);
        walker.join().unwrap();
        assert!(count == 0 || read.is_some(), "a fault was counted before it was told");
        count
    })
}

#[test]
fn what_is_counted_can_be_read() {
    assert_eq!(counted(Weakened::default()), [0, 1]);
}

#[test]
#[should_panic(expected = "a fault was counted before it was told")]
fn counting_needs_its_release() {
    counted(Weakened { count: Weak::Stores, ..Weakened::default() });
}

#[test]
#[should_panic(expected = "a fault was counted before it was told")]
fn counting_needs_the_acquire_of_who_looks() {
    counted(Weakened { agent: Weak::Loads, ..Weakened::default() });
}
