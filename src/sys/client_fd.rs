//! A descriptor that came from a client. It is closed by a thread of its own.
//!
//! Closing can take long: the last descriptor of a large memfd frees all its memory, and a file of a FUSE server is not
//! closed before that server has answered, which may be never. So a client's descriptor is never closed where others
//! wait: dropping it hands it to a reaper. There are two, one for memory and one for everything else, so that a client
//! with a file that never closes delays nobody's memory.
//!
//! Imports allowed: file_state, `crossbeam_channel`.
#![expect(unsafe_code, reason = "a descriptor is taken out of what is being dropped")]

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::thread;

use crossbeam_channel::{Sender, unbounded};

use super::file_state::{self, FileKind};

/// A descriptor from a client. A clone is the same descriptor; it is closed after the last one.
#[derive(Clone, Debug)]
pub struct ClientFd(Arc<Reaped>);

/// What is handed to a reaper when it is dropped.
#[derive(Debug)]
struct Reaped(ManuallyDrop<OwnedFd>);

/// The threads that close.
struct Reapers {
    memory: Option<Sender<Garbage>>,
    other: Option<Sender<Garbage>>,
}

/// What is dropped where nobody waits.
type Garbage = Box<dyn Send>;

static REAPERS: OnceLock<Reapers> = OnceLock::new();

impl From<OwnedFd> for ClientFd {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(Reaped(ManuallyDrop::new(fd))))
    }
}

impl AsFd for ClientFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // SAFETY: this runs once, and nothing reads the field afterwards.
        reap(unsafe { ManuallyDrop::take(&mut self.0) });
    }
}

/// Hands a descriptor to its reaper.
fn reap(fd: OwnedFd) {
    let reapers = reapers();
    match file_state::kind(fd.as_fd()) {
        Ok(FileKind::Memory(_)) => hand_to(reapers.memory.as_ref(), fd),
        Ok(FileKind::Other) | Err(_) => hand_to(reapers.other.as_ref(), fd),
    }
}

/// Drops what keeps memory, which may take long, where nobody waits.
pub(super) fn reap_memory(garbage: impl Send + 'static) {
    hand_to(reapers().memory.as_ref(), garbage);
}

fn reapers() -> &'static Reapers {
    REAPERS.get_or_init(|| Reapers { memory: start("reap-memory"), other: start("reap-other") })
}

/// Without a reaper it is dropped here.
fn hand_to(reaper: Option<&Sender<Garbage>>, garbage: impl Send + 'static) {
    if let Some(reaper) = reaper {
        let refused = reaper.send(Box::new(garbage)).err();
        debug_assert!(refused.is_none(), "a reaper ended");
    }
}

fn start(name: &str) -> Option<Sender<Garbage>> {
    let (sender, garbage) = unbounded::<Garbage>();
    let reaper = thread::Builder::new().name(name.to_owned()).spawn(move || garbage.iter().for_each(drop));
    reaper.ok().map(|_| sender)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::pipe::pipe;

    use super::*;

    /// Whether the other end of a pipe is closed within a few seconds.
    fn hangs_up(end: &OwnedFd) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let mut waited = [rustix::event::PollFd::new(end, rustix::event::PollFlags::IN)];
            rustix::event::poll(
                &mut waited,
                Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 }),
            )
            .unwrap();
            if waited[0].revents().contains(rustix::event::PollFlags::HUP) {
                return true;
            }
        }
        false
    }

    #[test]
    fn a_dropped_descriptor_is_closed_soon() {
        let (reading, writing) = pipe().unwrap();
        drop(ClientFd::from(writing));
        assert!(hangs_up(&reading));
    }

    #[test]
    fn memory_is_closed_soon_too() {
        let file = memfd_create("ioasd-reaped-in-a-test", MemfdFlags::CLOEXEC).unwrap();
        drop(ClientFd::from(file));
        let named = || {
            let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
            open.filter_map(|entry| std::fs::read_link(entry.path()).ok())
                .any(|name| name.to_string_lossy().contains("ioasd-reaped-in-a-test"))
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while named() {
            assert!(Instant::now() < deadline, "the memfd stays open");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
