//! Times of one case, and what they say: half are below the median, a tenth below p10, nine tenths below p90, all but one of a
//! hundred below p99.
//!
//! What runs in this process is measured in the time that its threads spend on processors, all of them together, so that
//! other programs count little; nothing is gained there by doing two things at once. What crosses to another process is
//! measured by the clock on the wall.
//!
//! Imports allowed: `std`, rustix.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds for one unit, one for each time it was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    /// One more measurement: `units` units took `time`.
    pub(super) fn add(&mut self, time: Duration, units: u64) {
        self.add_value(time.as_secs_f64() * 1e9 / units.max(1) as f64);
    }

    /// One more measurement, computed from others.
    pub(super) fn add_value(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The measurements, in the order they were made.
    pub(super) fn values(&self) -> &[f64] {
        &self.0
    }

    /// The value below which `percent` of the measurements lie; 0 without any.
    pub(super) fn quantile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let place = sorted.len().saturating_sub(1) * percent.min(100) / 100;
        sorted.get(place).copied().unwrap_or(0.0)
    }
}

/// Runs `work` and tells how long it took by the clock on the wall.
pub(super) fn timed_by_the_wall<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

/// Runs `work` and tells how long this process worked.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = processor_time();
    let result = work();
    (processor_time().saturating_sub(start), result)
}

/// Runs `work` and tells how long this thread worked: for what others of this process do meanwhile.
pub(super) fn timed_alone<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = spent(ClockId::ThreadCPUTime);
    let result = work();
    (spent(ClockId::ThreadCPUTime).saturating_sub(start), result)
}

/// Awaits `work` and tells how long this process worked from now.
pub(super) async fn timed_async<T>(work: impl Future<Output = T>) -> (Duration, T) {
    let start = processor_time();
    let result = work.await;
    (processor_time().saturating_sub(start), result)
}

/// What all threads of this process have spent on processors.
fn processor_time() -> Duration {
    spent(ClockId::ProcessCPUTime)
}

fn spent(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_taken_from_what_was_measured() {
        let mut samples = Samples::default();
        assert_eq!(samples.quantile(50), 0.0);
        for nanoseconds in [500, 100, 400, 200, 300] {
            samples.add(Duration::from_nanos(nanoseconds * 10), 10);
        }
        let quantiles = [0, 10, 50, 90, 100].map(|percent| samples.quantile(percent).round());
        assert_eq!(quantiles, [100.0, 100.0, 300.0, 400.0, 500.0]);
    }
}
