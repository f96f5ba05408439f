//! Walkers that are in a burst nearly all the time, each in a thread.
//!
//! Imports allowed: cpus, the client crate's walker.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use ioasd_client::units::{ByteLen, Iova, PAGE_SIZE};
use ioasd_client::walker::{Access, Walker};

use super::BenchError;
use super::cpus::{OneCpu, keep_to};

/// Addresses looked up in a burst.
const LOOKED_UP: u64 = 64;

/// The threads, on the CPUs that the bench leaves free; on its own if there is no other.
pub(super) struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<(), BenchError>>>,
}

impl Busy {
    /// Starts a thread for each walker.
    pub(super) fn start<'w>(
        bench: &OneCpu,
        walkers: impl Iterator<Item = &'w Walker>,
    ) -> Result<Self, BenchError> {
        let stop = Arc::new(AtomicBool::new(false));
        let others = bench.others();
        let start = |walker: &Walker| {
            let (walker, stop) = (walker.clone(), Arc::clone(&stop));
            thread::Builder::new().spawn(move || {
                keep_to(&others)?;
                bursts(&walker, &stop)
            })
        };
        let threads = walkers.map(start).collect::<Result<_, _>>();
        Ok(Self { threads: threads.map_err(BenchError::io("start a thread"))?, stop })
    }

    /// Ends them all.
    pub(super) fn end(self) -> Result<(), BenchError> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| BenchError::Lost)?)
    }
}

/// Looks up addresses, most of them of nothing, in short bursts.
fn bursts(walker: &Walker, stop: &AtomicBool) -> Result<(), BenchError> {
    let mut stream = walker.stream().map_err(|_| BenchError::Lost)?;
    while !stop.load(Ordering::Relaxed) {
        let burst = stream.enter();
        for page in 0..LOOKED_UP {
            let iova = Iova::new(page * PAGE_SIZE);
            black_box(burst.slice(iova, ByteLen::new(1), Access::Read).is_ok());
        }
    }
    Ok(())
}
