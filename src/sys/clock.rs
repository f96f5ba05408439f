//! The clocks of the host: one that never jumps, which processes agree on, and one that people read.
//!
//! Imports allowed: the client crate's layout, `rustix`.

use std::time::{Duration, SystemTime};

use ioasd_client::layout::Nanoseconds;
use rustix::time::{ClockId, clock_gettime};

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// The one that never jumps.
    pub monotonic: Nanoseconds,
    /// The one that people read.
    pub system: SystemTime,
}

impl Clocks {
    /// What they show now.
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let part = |part: i64| u64::try_from(part).unwrap_or(0);
        let monotonic = part(now.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(now.tv_nsec));
        Self { monotonic: Nanoseconds(monotonic), system: SystemTime::now() }
    }

    /// What people read when the other clock showed `at`, which is not later than now.
    #[must_use]
    pub fn system_at(&self, at: Nanoseconds) -> SystemTime {
        let ago = Duration::from_nanos(self.monotonic.0.saturating_sub(at.0));
        self.system.checked_sub(ago).unwrap_or(self.system)
    }
}
