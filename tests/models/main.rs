//! Lock-free pieces under a model checker: every interleaving, with weak memory.
//!
//! The latch is compiled here from its own source file, over loom's atomics instead of the real ones. What agent and
//! walkers do to shared memory is generic over its words, so that the models of walkers run the code itself.

#![expect(unreachable_pub, reason = "the pieces are public where they live")]
#![expect(clippy::unwrap_used, reason = "a failed helper of a model is a failed model")]

mod dirty;
mod faults;
mod memory;
mod walkers;
mod world;

mod atomics {
    pub(crate) use loom::sync::Arc;
    pub(crate) use loom::sync::atomic::{AtomicUsize, Ordering};

    /// Loom's waker with the signature of the real one.
    #[derive(Default)]
    pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

    impl AtomicWaker {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn register(&self, waker: &std::task::Waker) {
            self.0.register_by_ref(waker);
        }

        pub(crate) fn wake(&self) {
            self.0.wake();
        }
    }
}

#[path = "../../src/actors/latch.rs"]
mod latch;

use loom::sync::atomic::{AtomicUsize, Ordering};

use self::latch::latch;

/// Two workers, one of which drops its seat: the waiter wakes once both are done and sees both outcomes.
#[test]
fn the_waiter_of_a_latch_never_sleeps_through_the_last_seat() {
    let runs = std::sync::atomic::AtomicUsize::new(0);
    let counted = std::sync::Arc::new(runs);
    let count = std::sync::Arc::clone(&counted);
    loom::model(move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (mut seats, all) = latch(2);
        let dropped = seats.pop();
        let filled = seats.pop();
        let worker = loom::thread::spawn(move || {
            if let Some(seat) = filled {
                seat.fill(7);
            }
        });
        let other = loom::thread::spawn(move || drop(dropped));
        assert_eq!(loom::future::block_on(all), [Some(7), None]);
        assert!(worker.join().is_ok() && other.join().is_ok());
    });
    let runs = counted.load(std::sync::atomic::Ordering::Relaxed);
    assert!(runs > 10, "only {runs} interleavings were tried");
}

/// What a worker wrote before it filled its seat is seen by the waiter. Schedules with more than two preemptions are left
/// out: they take minutes.
#[test]
fn filling_a_seat_publishes_the_work_before_it() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let table = loom::sync::Arc::new(AtomicUsize::new(0));
        let (seats, all) = latch(2);
        let workers: Vec<_> = seats
            .into_iter()
            .map(|seat| {
                let table = loom::sync::Arc::clone(&table);
                loom::thread::spawn(move || {
                    table.fetch_add(1, Ordering::Relaxed);
                    seat.fill(());
                })
            })
            .collect();
        assert_eq!(loom::future::block_on(all).len(), 2);
        assert_eq!(table.load(Ordering::Relaxed), 2);
        assert!(workers.into_iter().all(|worker| worker.join().is_ok()));
    });
}
