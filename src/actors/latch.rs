//! A latch: one seat for each worker, and a future that is ready when every seat is filled or dropped.
//!
//! Filling a seat and counting down are lock-free. A seat that is dropped unfilled, because its worker is gone or
//! panicked, counts as failed. Whoever brings the count to zero wakes the waiter.
//!
//! Imports allowed: atomics.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use super::atomics::{Arc, AtomicUsize, AtomicWaker, Ordering};

struct Latch<T> {
    outcomes: Box<[OnceLock<T>]>,
    left: AtomicUsize,
    waiter: AtomicWaker,
}

/// The place of one worker.
pub struct Seat<T> {
    latch: Arc<Latch<T>>,
    place: usize,
}

/// Ready when no seat is left: the outcomes in the order of the seats, `None` for one that was dropped.
#[must_use = "a latch does nothing for who does not wait"]
pub struct AllSeats<T> {
    latch: Arc<Latch<T>>,
}

/// A latch with `seats` seats.
pub fn latch<T>(seats: usize) -> (Vec<Seat<T>>, AllSeats<T>) {
    let outcomes = (0..seats).map(|_| OnceLock::new()).collect();
    let latch = Arc::new(Latch { outcomes, left: AtomicUsize::new(seats), waiter: AtomicWaker::new() });
    let seats = (0..seats).map(|place| Seat { latch: Arc::clone(&latch), place }).collect();
    (seats, AllSeats { latch })
}

impl<T> fmt::Debug for Seat<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seat({})", self.place)
    }
}

impl<T> Seat<T> {
    /// Leaves the outcome and counts down.
    pub fn fill(self, outcome: T) {
        if let Some(place) = self.latch.outcomes.get(self.place) {
            let first = place.set(outcome).is_ok();
            debug_assert!(first, "a seat was filled twice");
        }
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        if self.latch.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.latch.waiter.wake();
        }
    }
}

impl<T: Clone> Future for AllSeats<T> {
    type Output = Vec<Option<T>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.latch.waiter.register(context.waker());
        if self.latch.left.load(Ordering::Acquire) > 0 {
            return Poll::Pending;
        }
        Poll::Ready(self.latch.outcomes.iter().map(|outcome| outcome.get().cloned()).collect())
    }
}
