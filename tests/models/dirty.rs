//! Models of the dirty log: what a walker writes is told, or has been copied by then.
//!
//! The client copies a page whenever it is told that the page was written to. So what must hold at the end is that its last
//! copy has the last bytes, or that the page is told once more.

use ioasd_client::layout::protocol::{self, Word};
use ioasd_client::layout::{ALIVE_OFFSET, IS_LOGGED};
use loom::sync::atomic::Ordering;
use loom::thread;

use crate::memory::Weak;
use crate::walkers::{RIGHT, arm};
use crate::world::{ENTRY, Found, HERE, SLOT, Step, Weakened, World, explore, leaf, link};

/// The bit of the page.
const BIT: u64 = 1;

/// When the agent takes what is in the log.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    BeforeTheEpochBegins,
    AfterIt,
}

impl World {
    /// The walker says that it writes.
    fn note(&self) {
        protocol::note_written(&self.log.at(0), BIT);
    }

    /// The agent takes what was said.
    fn take(&self) -> bool {
        protocol::take_written(&self.log.at(0), BIT) != 0
    }

    /// The walker writes to the page, without saying so.
    fn write(&self, value: u64) {
        self.written.at(0).fill(value);
    }

    /// Copies the page.
    fn copy(&self) -> u64 {
        self.written.at(0).load(Ordering::Relaxed)
    }

    /// The agent waits; whether the walker has left.
    fn grace(&self) -> bool {
        self.has_left(SLOT, self.begin_epoch())
    }
}

/// A walker writes to a page in two bursts. In the second it may remember that the page is in the log, if the generation is
/// the same. The agent reads the log meanwhile, once.
fn read_log(weak: Weakened, taken: Taken) -> Vec<(bool, bool, bool)> {
    explore(move || {
        let world = World::new(weak, link(), leaf());
        let walker = thread::spawn({
            let world = world.clone();
            move || {
                let first = world.enter(SLOT, arm);
                world.note();
                world.write(1);
                world.leave(SLOT);
                let second = world.enter(SLOT, arm);
                let remembered = second.generation == first.generation;
                if !remembered {
                    world.note();
                }
                world.write(2);
                world.leave(SLOT);
                remembered
            }
        });
        let (told, left) = match taken {
            Taken::BeforeTheEpochBegins => (world.take(), world.grace()),
            Taken::AfterIt => {
                let epoch = world.begin_epoch();
                (world.take(), world.has_left(SLOT, epoch))
            }
        };
        let copied = if told && left { world.copy() } else { 0 };
        let remembered = walker.join().unwrap();
        let answered = !told || left;
        let told_again = world.take() || !answered;
        assert!(copied == world.copy() || told_again, "a page that was written to is never told");
        (told, left, remembered)
    })
}

#[test]
fn no_page_that_was_written_to_is_lost() {
    let seen = read_log(RIGHT, Taken::BeforeTheEpochBegins);
    for tried in [(true, true, true), (true, true, false), (true, false, true), (false, true, false)] {
        assert!(seen.contains(&tried), "{tried:?} is not among {seen:?}");
    }
}

#[test]
#[should_panic(expected = "never told")]
fn the_log_is_read_before_the_epoch_begins() {
    read_log(RIGHT, Taken::AfterIt);
}

#[test]
#[should_panic(expected = "never told")]
fn the_log_needs_the_fence_of_a_walker_that_enters() {
    read_log((Step::Enter, Weak::Fences), Taken::BeforeTheEpochBegins);
}

#[test]
#[should_panic(expected = "never told")]
fn the_log_needs_the_fence_after_the_epoch_began() {
    read_log((Step::BeginEpoch, Weak::Fences), Taken::BeforeTheEpochBegins);
}

#[test]
#[should_panic(expected = "never told")]
fn the_log_needs_the_release_of_a_walker_that_leaves() {
    read_log((Step::Leave, Weak::Stores), Taken::BeforeTheEpochBegins);
}

#[test]
#[should_panic(expected = "never told")]
fn the_log_needs_the_acquire_of_the_agent_that_looks_at_slots() {
    read_log((Step::HasLeft, Weak::Loads), Taken::BeforeTheEpochBegins);
}

/// Tracking is switched on while a walker writes, and a copy is made as soon as that is answered.
fn switch_on(weak: Weakened) -> Vec<(bool, bool)> {
    explore(move || {
        let world = World::new(weak, link(), leaf());
        let walker = thread::spawn({
            let world = world.clone();
            move || {
                let logged = world.enter(SLOT, arm).alive == IS_LOGGED;
                if logged {
                    world.note();
                }
                world.write(1);
                world.leave(SLOT);
                logged
            }
        });
        assert!(protocol::set_alive(&world.arena.at(ALIVE_OFFSET), IS_LOGGED));
        let left = world.grace();
        let copied = world.copy();
        let logged = walker.join().unwrap();
        assert!(
            !left || copied == world.copy() || world.take(),
            "what is written after the answer is never told"
        );
        (left, logged)
    })
}

#[test]
fn whatever_is_written_after_tracking_was_switched_on_is_told() {
    assert_eq!(switch_on(RIGHT).len(), 4, "both are tried with both");
}

#[test]
#[should_panic(expected = "never told")]
fn switching_on_needs_the_fence_of_a_walker_that_enters() {
    switch_on((Step::Enter, Weak::Fences));
}

#[test]
#[should_panic(expected = "never told")]
fn switching_on_needs_the_fence_after_the_epoch_began() {
    switch_on((Step::BeginEpoch, Weak::Fences));
}

#[test]
#[should_panic(expected = "never told")]
fn switching_on_needs_the_release_of_a_walker_that_leaves() {
    switch_on((Step::Leave, Weak::Stores));
}

#[test]
#[should_panic(expected = "never told")]
fn switching_on_needs_the_acquire_of_the_agent_that_looks_at_slots() {
    switch_on((Step::HasLeft, Weak::Loads));
}

/// A page is mapped where another one was written to: that is forgotten, and what is written now is not.
fn map_again(weak: Weakened) -> Vec<Found> {
    explore(move || {
        let world = World::new(weak, link(), 0);
        world.note();
        let walker = thread::spawn({
            let world = world.clone();
            move || {
                let _ = world.enter(SLOT, arm);
                let found = world.walk(HERE);
                if found == Found::ThePage {
                    world.note();
                }
                world.leave(SLOT);
                found
            }
        });
        assert!(world.take());
        world.publish(ENTRY, leaf());
        let found = walker.join().unwrap();
        assert_eq!(world.take(), found == Found::ThePage, "what is written to a new leaf is never told");
        found
    })
}

#[test]
fn a_new_leaf_begins_clean_and_loses_nothing() {
    assert_eq!(map_again(RIGHT), [Found::ThePage, Found::EmptyTable]);
}

#[test]
#[should_panic(expected = "never told")]
fn a_new_leaf_needs_the_release_of_the_leaf() {
    map_again((Step::Publish, Weak::Stores));
}

#[test]
#[should_panic(expected = "never told")]
fn a_new_leaf_needs_the_acquire_of_the_walk() {
    map_again((Step::Look, Weak::Loads));
}
