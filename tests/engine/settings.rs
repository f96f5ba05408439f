//! How much a run does, from the environment, and how it says where it failed.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which sequences run.
#[derive(Clone, Copy, Debug)]
pub enum Seeds {
    /// The one of this seed.
    One(u64),
    /// Those of the seeds from 0 on.
    Many {
        /// How many.
        count: u64,
    },
}

/// As many sequences as make up the steps asked for, or the one asked for.
pub fn seeds(all_steps: u64, steps: u64) -> Seeds {
    match (number("IOASD_ORACLE_SEED"), number("IOASD_ORACLE_STEPS")) {
        (Some(seed), _) => Seeds::One(seed),
        (None, wanted) => Seeds::Many { count: wanted.unwrap_or(all_steps).div_ceil(steps) },
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}: give a number")))
}

/// Prints where the test is, if a single sequence is repeated and `IOASD_ORACLE_TRACE` asks for it.
pub fn note(at: &impl Debug) {
    static TRACE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    if *TRACE.get_or_init(|| std::env::var_os("IOASD_ORACLE_TRACE").is_some()) {
        println!("{at:?}");
    }
}

impl Seeds {
    /// Runs each of them; a panic names its seed.
    pub fn for_each_on_all_cores(self, run: impl Fn(u64) + Sync) {
        let count = match self {
            Self::One(seed) => return run(seed),
            Self::Many { count } => count,
        };
        let next = AtomicU64::new(0);
        let work = || {
            while let seed = next.fetch_add(1, Ordering::Relaxed)
                && seed < count
            {
                let named = NamesSeed { seed, next: &next };
                run(seed);
                drop(named);
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }
}

/// Says which sequence failed, and lets no other begin.
struct NamesSeed<'a> {
    seed: u64,
    next: &'a AtomicU64,
}

impl Drop for NamesSeed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed: repeat it with IOASD_ORACLE_SEED={}", self.seed);
            self.next.store(u64::MAX / 2, Ordering::Relaxed);
        }
    }
}
