//! Models of agent and walkers: publication, unmap, cached translations, recycling, slots that change hands.
//!
//! Each model says what must never be seen, and what is seen in some interleaving, so that it is known to try something.
//! It is run once as the code is, and once for each step it depends on with that step weakened, when it must fail.

use std::rc::Rc;

use ioasd_client::layout::{EPOCH_OFFSET, protocol};
use ioasd_client::units::Iova;
use loom::cell::UnsafeCell;
use loom::thread;

use crate::memory::{Eye, Weak, Words, X86};
use crate::world::{
    ENTRY, Found, HERE, ROOT_HERE, ROOT_THERE, SLOT, Step, THERE, Weakened, World, explore, leaf, link,
    other_leaf,
};

pub(crate) const RIGHT: Weakened = (Step::None, Weak::Nothing);

/// Words of an Arm-like machine: only a fence is a fence.
pub(crate) fn arm(eye: Eye<'_>) -> Eye<'_> {
    eye
}

/// The agent takes a page away and lets others write it once the slot has left; a walker reads it meanwhile.
fn unmap(weak: Weakened, x86: bool) -> Vec<(Found, bool)> {
    explore(move || {
        let world = World::new(weak, link(), leaf());
        let walker = thread::spawn({
            let world = world.clone();
            move || {
                let _ = if x86 { world.enter(SLOT, X86) } else { world.enter(SLOT, arm) };
                let found = world.walk(HERE);
                if found == Found::ThePage {
                    world.read_page();
                }
                world.leave(SLOT);
                found
            }
        });
        let left = take_away(&world);
        (walker.join().unwrap(), left)
    })
}

#[test]
fn no_page_is_touched_after_its_unmap_was_answered() {
    let seen = unmap(RIGHT, false);
    for tried in [(Found::ThePage, true), (Found::ThePage, false), (Found::EmptyTable, true)] {
        assert!(seen.contains(&tried), "{tried:?} is not among {seen:?}");
    }
    assert_eq!(unmap(RIGHT, true), seen);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn unmap_needs_the_fence_of_a_walker_that_enters() {
    unmap((Step::Enter, Weak::Fences), false);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn unmap_needs_an_exchange_that_is_a_fence_where_there_is_no_other() {
    unmap((Step::Enter, Weak::Fences), true);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn unmap_needs_the_fence_after_the_epoch_began() {
    unmap((Step::BeginEpoch, Weak::Fences), false);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn unmap_needs_the_release_of_a_walker_that_leaves() {
    unmap((Step::Leave, Weak::Stores), false);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn unmap_needs_the_acquire_of_the_agent_that_looks_at_slots() {
    unmap((Step::HasLeft, Weak::Loads), false);
}

/// The agent's side: takes the page away, and uses it for something else if the walker has left. Tells whether it had.
fn take_away(world: &World) -> bool {
    world.clear(ENTRY);
    let epoch = world.begin_epoch();
    let left = world.has_left(SLOT, epoch);
    if left {
        world.reuse_page();
    }
    left
}

/// The same, with a walker that keeps its translation for a second burst of the same generation, and does not walk again.
fn cached(weak: Weakened) -> Vec<(bool, bool)> {
    explore(move || {
        let world = World::new(weak, link(), leaf());
        let walker = thread::spawn({
            let world = world.clone();
            move || {
                let first = world.enter(SLOT, arm);
                let found = world.walk(HERE);
                world.leave(SLOT);
                let second = world.enter(SLOT, arm);
                let hit = found == Found::ThePage && second.generation == first.generation;
                if hit {
                    world.read_page();
                }
                world.leave(SLOT);
                hit
            }
        });
        let left = take_away(&world);
        (walker.join().unwrap(), left)
    })
}

#[test]
fn a_translation_that_was_kept_is_not_used_after_its_unmap_was_answered() {
    assert_eq!(cached(RIGHT).len(), 4, "both are tried with both");
}

#[test]
#[should_panic(expected = "Causality violation")]
fn kept_translations_need_the_fence_of_a_walker_that_enters() {
    cached((Step::Enter, Weak::Fences));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn kept_translations_need_the_fence_after_the_epoch_began() {
    cached((Step::BeginEpoch, Weak::Fences));
}

/// The agent writes a page and a table that nobody knows, and links the table; a walker looks meanwhile.
fn publish_table(weak: Weakened) -> Vec<Found> {
    explore(move || {
        let world = World::new(weak, 0, 0);
        let walker = reader(&world, HERE);
        world.fill_page();
        world.fill_table(leaf());
        world.publish(ROOT_HERE, link());
        walker.join().unwrap()
    })
}

/// The same with an entry of a table that is linked.
fn publish_leaf(weak: Weakened) -> Vec<Found> {
    explore(move || {
        let world = World::new(weak, link(), 0);
        let walker = reader(&world, HERE);
        world.fill_page();
        world.publish(ENTRY, leaf());
        walker.join().unwrap()
    })
}

/// A walker that reads the page if it finds it.
fn reader(world: &World, iova: Iova) -> thread::JoinHandle<Found> {
    let world = world.clone();
    thread::spawn(move || {
        let _ = world.enter(SLOT, arm);
        let found = world.walk(iova);
        if found == Found::ThePage {
            world.read_page();
        }
        world.leave(SLOT);
        found
    })
}

#[test]
fn a_table_is_seen_whole_or_not_at_all() {
    assert_eq!(publish_table(RIGHT), [Found::Nothing, Found::ThePage]);
    assert_eq!(publish_leaf(RIGHT), [Found::ThePage, Found::EmptyTable]);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_table_needs_the_release_of_its_link() {
    publish_table((Step::Publish, Weak::Stores));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_table_needs_the_acquire_of_the_walk() {
    publish_table((Step::Look, Weak::Loads));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn what_is_behind_a_leaf_needs_the_release_of_the_leaf() {
    publish_leaf((Step::Publish, Weak::Stores));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn what_is_behind_a_leaf_needs_the_acquire_of_the_walk() {
    publish_leaf((Step::Look, Weak::Loads));
}

/// The agent unlinks a table and, once an epoch has begun that the slot has left for, fills it again for another address.
/// `begun_by_another`: a thread of its own begins the epoch, as the waiter of the arbiter may.
fn recycle(weak: Weakened, begun_by_another: bool) -> Vec<(Found, bool)> {
    explore(move || {
        let world = World::new(weak, link(), leaf());
        let walker = thread::spawn({
            let world = world.clone();
            move || {
                let _ = world.enter(SLOT, arm);
                let found = world.walk(HERE);
                world.leave(SLOT);
                found
            }
        });
        let other = begun_by_another.then(|| {
            let world = world.clone();
            thread::spawn(move || world.begin_epoch())
        });
        world.clear(ENTRY);
        world.clear(ROOT_HERE);
        let epoch = world.after_unlinking();
        let begun = match &other {
            None => world.begin_epoch() >= epoch,
            Some(_) => protocol::look(&world.arena.at(EPOCH_OFFSET)) >= epoch,
        };
        let reused = begun && world.has_left(SLOT, epoch);
        if reused {
            world.fill_table(other_leaf());
            world.publish(ROOT_THERE, link());
            assert_eq!(world.walk(THERE), Found::AnotherPage);
        }
        let found = walker.join().unwrap();
        assert_ne!(found, Found::AnotherPage, "a recycled table was seen through an old link");
        if let Some(other) = other {
            other.join().unwrap();
        }
        (found, reused)
    })
}

#[test]
fn no_table_is_seen_after_it_was_recycled() {
    let seen = recycle(RIGHT, false);
    for tried in
        [(Found::ThePage, true), (Found::ThePage, false), (Found::EmptyTable, true), (Found::Nothing, true)]
    {
        assert!(seen.contains(&tried), "{tried:?} is not among {seen:?}");
    }
}

#[test]
fn no_table_is_seen_after_it_was_recycled_in_an_epoch_that_another_thread_began() {
    let seen = recycle(RIGHT, true);
    assert!(seen.iter().any(|(_, reused)| *reused) && seen.iter().any(|(_, reused)| !*reused), "{seen:?}");
}

#[test]
#[should_panic(expected = "Causality violation")]
fn recycling_needs_the_fence_of_a_walker_that_enters() {
    recycle((Step::Enter, Weak::Fences), false);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn recycling_needs_the_release_of_a_walker_that_leaves() {
    recycle((Step::Leave, Weak::Stores), false);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn recycling_needs_the_fence_after_the_unlinking() {
    recycle((Step::AfterUnlinking, Weak::Fences), true);
}

/// A table is recycled as above, and a walker keeps the way to it for a second burst of the same generation.
fn kept_way(weak: Weakened) -> Vec<(Option<Found>, bool)> {
    explore(move || {
        let world = World::new(weak, link(), leaf());
        let walker = thread::spawn({
            let world = world.clone();
            move || {
                let first = world.enter(SLOT, arm);
                let way = world.way(HERE);
                world.leave(SLOT);
                let second = world.enter(SLOT, arm);
                let way = way.filter(|_| second.generation == first.generation);
                let found = way.map(|way| world.walk_from(way, HERE));
                world.leave(SLOT);
                found
            }
        });
        world.clear(ENTRY);
        world.clear(ROOT_HERE);
        let epoch = world.after_unlinking();
        let reused = world.begin_epoch() >= epoch && world.has_left(SLOT, epoch);
        if reused {
            world.fill_table(other_leaf());
            world.publish(ROOT_THERE, link());
        }
        let found = walker.join().unwrap();
        assert_ne!(found, Some(Found::AnotherPage), "a recycled table was seen by a way that was kept");
        (found, reused)
    })
}

#[test]
fn no_table_is_seen_by_a_way_that_was_kept_after_it_was_recycled() {
    let seen = kept_way(RIGHT);
    for tried in [
        (Some(Found::ThePage), true),
        (Some(Found::EmptyTable), true),
        (Some(Found::ThePage), false),
        (None, true),
    ] {
        assert!(seen.contains(&tried), "{tried:?} is not among {seen:?}");
    }
}

#[test]
#[should_panic(expected = "Causality violation")]
fn kept_ways_need_the_fence_of_a_walker_that_enters() {
    kept_way((Step::Enter, Weak::Fences));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn kept_ways_need_the_release_of_a_walker_that_leaves() {
    kept_way((Step::Leave, Weak::Stores));
}

/// One thread gives its slot back, another takes it and reads a page that is being unmapped.
fn slots_change_hands(weak: Weakened) -> Vec<u32> {
    explore(move || {
        let world = World::new(weak, link(), leaf());
        let taken = Words::new([(0, 0)]);
        let owners = Rc::new([UnsafeCell::new(()), UnsafeCell::new(())]);
        let visit = move |world: World, taken: Words, owners: Rc<[UnsafeCell<()>; 2]>| {
            let slot = protocol::take_slot(&taken.weak_at(0, world.of(Step::TakeSlot))).unwrap();
            owners.get(slot.get() as usize).unwrap().with_mut(|_| ());
            let _ = world.enter(slot, arm);
            if world.walk(HERE) == Found::ThePage {
                world.read_page();
            }
            world.leave(slot);
            owners.get(slot.get() as usize).unwrap().with_mut(|_| ());
            protocol::give_slot_back(&taken.weak_at(0, world.of(Step::GiveSlotBack)), slot);
            slot
        };
        let threads = [(); 2].map(|()| {
            let (world, taken, owners) = (world.clone(), taken.clone(), Rc::clone(&owners));
            thread::spawn(move || visit(world, taken, owners))
        });
        let [first, second] = threads.map(|thread| thread.join().unwrap());
        first.get().max(second.get())
    })
}

#[test]
fn a_slot_has_one_thread_at_a_time() {
    assert_eq!(slots_change_hands(RIGHT), [0, 1], "one slot after the other, and both at once");
}

#[test]
#[should_panic(expected = "Causality violation")]
fn slots_need_the_acquire_of_who_takes_them() {
    slots_change_hands((Step::TakeSlot, Weak::Loads));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn slots_need_the_release_of_who_gives_them_back() {
    slots_change_hands((Step::GiveSlotBack, Weak::Stores));
}

/// A walker that was told which file a frame names, and forgets it under another number of windows. The agent gives the frame
/// to another file and publishes it. Whether the walker found the leaf, under which number, and whether it was published.
fn renew(weak: Weakened) -> Vec<(Found, u64, bool)> {
    explore(move || {
        let world = World::new(weak, link(), 0);
        let walker = thread::spawn({
            let world = world.clone();
            move || {
                let entered = world.enter(SLOT, arm);
                let found = world.walk(HERE);
                world.leave(SLOT);
                (found, entered.windows)
            }
        });
        world.renew_windows();
        let epoch = world.begin_epoch();
        let given = world.has_left(SLOT, epoch);
        if given {
            world.publish(ENTRY, leaf());
        }
        let (found, windows) = walker.join().unwrap();
        assert!(found != Found::ThePage || windows > 0, "a frame was taken for the file it named before");
        (found, windows, given)
    })
}

#[test]
fn no_frame_is_taken_for_the_file_that_it_named_before() {
    let seen = renew(RIGHT);
    for tried in [(Found::ThePage, 1, true), (Found::EmptyTable, 0, false), (Found::EmptyTable, 0, true)] {
        assert!(seen.contains(&tried), "{tried:?} is not among {seen:?}");
    }
}

#[test]
#[should_panic(expected = "a frame was taken for the file it named before")]
fn renewing_needs_the_fence_of_a_walker_that_enters() {
    renew((Step::Enter, Weak::Fences));
}

#[test]
#[should_panic(expected = "a frame was taken for the file it named before")]
fn renewing_needs_the_fence_after_the_epoch_began() {
    renew((Step::BeginEpoch, Weak::Fences));
}
