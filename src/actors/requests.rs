//! How many requests were answered, by command and result, and how long they took.
//!
//! Both names come from fixed sets (the command table, the stable codes of errors), so the number of counts is bounded.
//!
//! Imports allowed: `std`, `dashmap`, latencies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;

use super::latencies::Latencies;

/// The result under which a request that succeeded is counted.
pub const OK: &str = "ok";

/// Counts of answered requests; they only grow.
#[derive(Debug, Default)]
pub struct RequestCounts {
    counts: DashMap<(&'static str, &'static str), AtomicU64>,
    latencies: Latencies,
}

/// One count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestCount {
    /// The command.
    pub command: &'static str,
    /// [`OK`], or the stable code of the error.
    pub result: &'static str,
    /// Requests answered so.
    pub count: u64,
}

impl RequestCounts {
    /// Counts one request for `command`, answered with `result`: [`OK`] or the stable code of the error.
    pub fn record(&self, command: &'static str, result: &'static str, took: Duration) {
        self.latencies.record(command, took);
        let key = (command, result);
        if let Some(count) = self.counts.get(&key) {
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.counts.entry(key).or_default().fetch_add(1, Ordering::Relaxed);
    }

    /// How long requests took.
    #[must_use]
    pub const fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// All counts, by command, then result.
    #[must_use]
    pub fn list(&self) -> Vec<RequestCount> {
        let mut list: Vec<_> = self.counts.iter().map(|entry| read(*entry.key(), entry.value())).collect();
        list.sort_unstable_by_key(|count| (count.command, count.result));
        list
    }
}

fn read((command, result): (&'static str, &'static str), count: &AtomicU64) -> RequestCount {
    RequestCount { command, result, count: count.load(Ordering::Relaxed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_of_command_and_result_has_its_own_count() {
        let counts = RequestCounts::default();
        counts.record("IOAS_MAP_FILE", OK, Duration::ZERO);
        counts.record("IOAS_MAP_FILE", "iova-taken", Duration::ZERO);
        counts.record("IOAS_MAP_FILE", OK, Duration::ZERO);
        counts.record("DESTROY", OK, Duration::ZERO);
        let list: Vec<_> = counts.list().into_iter().map(|c| (c.command, c.result, c.count)).collect();
        assert_eq!(list, [("DESTROY", OK, 1), ("IOAS_MAP_FILE", "iova-taken", 1), ("IOAS_MAP_FILE", OK, 2)]);
    }

    #[test]
    fn no_request_is_lost_when_threads_count_together() {
        let counts = RequestCounts::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| counts.record("IOAS_UNMAP", OK, Duration::ZERO)));
            }
        });
        assert_eq!(counts.list()[0].count, 4000);
    }
}
