//! Memory control groups of tests, where this host lets them be made.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// How long the kernel may take to see that a group is empty.
const PATIENCE: Duration = Duration::from_secs(20);

/// A memory control group, gone when it is dropped.
pub(crate) struct Group {
    folder: PathBuf,
    usage: &'static str,
}

impl Group {
    /// One of that name that may have `max` bytes and no swap; else why there is none.
    pub(crate) fn new(name: &str, max: u64) -> Result<Self, String> {
        let unified = ("/sys/fs/cgroup", "memory.max", "memory.swap.max", "memory.current");
        let of_memory =
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.swappiness", "memory.usage_in_bytes");
        let mut why = String::new();
        for (root, limit, no_swap, usage) in [unified, of_memory] {
            let folder = Path::new(root).join(format!("ioasd-{name}-{}", std::process::id()));
            if let Err(error) = fs::create_dir(&folder) {
                why += &format!("{}: {error}; ", folder.display());
                continue;
            }
            let group = Self { folder, usage };
            match group.set(limit, max).and_then(|()| group.set(no_swap, 0)) {
                Ok(()) => return Ok(group),
                Err(error) => why += &error,
            }
        }
        Err(why)
    }

    fn set(&self, key: &str, value: u64) -> Result<(), String> {
        let written = fs::write(self.folder.join(key), value.to_string());
        written.map_err(|error| format!("{}/{key}: {error}; ", self.folder.display()))
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Bytes that it has.
    pub(crate) fn usage(&self) -> u64 {
        fs::read_to_string(self.folder.join(self.usage)).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while fs::remove_dir(&self.folder).is_err() {
            if Instant::now() > deadline {
                assert!(thread::panicking(), "{} stays", self.folder.display());
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}
