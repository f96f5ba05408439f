//! How long requests took to be answered, by command: histograms with fixed bounds.
//!
//! A request costs three relaxed additions, however many pages it moves. Commands come from a fixed set and are found by
//! the address of their name in a table that only grows, without a lock.
//!
//! Imports allowed: `std`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper bounds of the buckets, in microseconds. One more bucket has no bound.
pub const BOUNDS_MICROS: [u64; 17] = [
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 1_000_000,
    10_000_000,
];

/// Commands that have a histogram of their own; more than there are.
const COMMANDS_MAX: usize = 64;

/// The histogram of one command.
#[derive(Debug)]
struct Latency {
    command: &'static str,
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    nanos: AtomicU64,
}

impl Latency {
    fn new(command: &'static str) -> Self {
        Self { command, buckets: [const { AtomicU64::new(0) }; _], nanos: AtomicU64::new(0) }
    }

    fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn read(&self) -> LatencyReport {
        let buckets = self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let sum = Duration::from_nanos(self.nanos.load(Ordering::Relaxed));
        LatencyReport { command: self.command, buckets, sum }
    }
}

/// What the requests for one command took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyReport {
    /// The command.
    pub command: &'static str,
    /// How many were not slower than each bound and slower than the one before, and how many slower than all.
    pub buckets: [u64; BOUNDS_MICROS.len() + 1],
    /// What all took together.
    pub sum: Duration,
}

/// What requests took.
#[derive(Debug)]
pub struct Latencies(Box<[OnceLock<Latency>; COMMANDS_MAX]>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Box::new([const { OnceLock::new() }; COMMANDS_MAX]))
    }
}

impl Latencies {
    /// A request for `command` was answered.
    pub fn record(&self, command: &'static str, took: Duration) {
        if let Some(latency) = self.find(command) {
            latency.record(took);
        }
    }

    /// The histogram of `command`: the first place from its own on that is its, or nobody's yet.
    fn find(&self, command: &'static str) -> Option<&Latency> {
        let own = (command.as_ptr() as usize / 8) % COMMANDS_MAX;
        let (before, from) = self.0.split_at_checked(own)?;
        let mut places = from.iter().chain(before);
        places.find_map(|place| {
            let latency = place.get_or_init(|| Latency::new(command));
            (latency.command == command).then_some(latency)
        })
    }

    /// All histograms, by command.
    #[must_use]
    pub fn list(&self) -> Vec<LatencyReport> {
        let mut list: Vec<LatencyReport> =
            self.0.iter().filter_map(OnceLock::get).map(Latency::read).collect();
        list.sort_unstable_by_key(|report| report.command);
        // A name may have two addresses in one program.
        list.dedup_by(|next, kept| {
            let same = next.command == kept.command;
            if same {
                kept.add(next);
            }
            same
        });
        list
    }
}

impl LatencyReport {
    fn add(&mut self, other: &Self) {
        for (sum, more) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += more;
        }
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn each_request_is_in_the_bucket_of_the_first_bound_that_it_does_not_pass() {
        let latencies = Latencies::default();
        for micros in [0, 5, 6, 10, 1_000_000, 10_000_001] {
            latencies.record("MAP", MICRO * micros);
        }
        latencies.record("DESTROY", MICRO * 3);
        let [destroy, map] = &latencies.list()[..] else { panic!("{latencies:?}") };
        assert_eq!((destroy.command, destroy.sum), ("DESTROY", MICRO * 3));
        assert_eq!((map.buckets[0], map.buckets[1], map.buckets[15], map.buckets[17]), (2, 2, 1, 1));
        assert_eq!((map.buckets.iter().sum::<u64>(), map.sum), (6, MICRO * 11_000_022));
    }

    #[test]
    fn more_names_than_places_lose_nothing_but_the_last_names() {
        let latencies = Latencies::default();
        let names: Vec<&'static str> = (0..80).map(|number| &*format!("command {number}").leak()).collect();
        names.iter().for_each(|name| latencies.record(name, MICRO));
        names.iter().for_each(|name| latencies.record(name, MICRO));
        let list = latencies.list();
        assert_eq!(list.len(), COMMANDS_MAX);
        assert!(list.iter().all(|report| report.buckets[0] == 2), "{list:?}");
    }

    #[test]
    fn no_request_is_lost_when_threads_record_together() {
        let latencies = Latencies::default();
        std::thread::scope(|scope| {
            for command in ["MAP", "UNMAP", "MAP", "COPY"] {
                let latencies = &latencies;
                scope.spawn(move || (0..1000).for_each(|_| latencies.record(command, MICRO)));
            }
        });
        let counts: Vec<u64> = latencies.list().iter().map(|report| report.buckets[0]).collect();
        assert_eq!(counts, [1000, 2000, 1000]);
    }
}
