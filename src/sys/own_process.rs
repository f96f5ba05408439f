//! What this process takes of the host: processor time, memory, threads, descriptors.
//!
//! Imports allowed: units, own_memory, rustix.

use std::fs;
use std::time::Duration;

use ioasd_client::units::ByteLen;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::own_memory;

/// What this process takes. What cannot be told is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnProcess {
    /// Processor time, of all threads.
    pub cpu: Duration,
    /// Memory that is there.
    pub resident: Option<ByteLen>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open descriptors.
    pub descriptors: Option<u64>,
    /// Descriptors that may be open; `None` without a limit.
    pub descriptors_max: Option<u64>,
}

impl OwnProcess {
    /// What it takes now.
    #[must_use]
    pub fn now() -> Self {
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = Duration::from_secs(u64::try_from(spent.tv_sec).unwrap_or(0));
        let (resident, threads) = own_memory::size().ok().unzip();
        Self {
            cpu: seconds + Duration::from_nanos(u64::try_from(spent.tv_nsec).unwrap_or(0)),
            resident,
            threads,
            descriptors: fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as u64),
            descriptors_max: getrlimit(Resource::Nofile).current,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_threads_and_descriptors_and_has_taken_time() {
        let process = OwnProcess::now();
        assert!(process.cpu > Duration::ZERO, "{process:?}");
        assert!(process.resident.is_some_and(|bytes| bytes.get() > 100_000), "{process:?}");
        assert!(process.threads.is_some_and(|threads| threads > 0), "{process:?}");
        assert!(process.descriptors.is_some_and(|open| open > 2), "{process:?}");
    }
}
