//! Which process sent each message of a socket, as a handle.
//!
//! A pid in a message is only a number: its process may have ended by the time we look, and the number may be another
//! process's by then. A handle that the kernel makes while it hands over the message (`SO_PASSPIDFD`, Linux 6.5) names
//! the sender for sure, but costs a descriptor a message. So:
//!
//! ```text
//!   first message ── its handle comes with it ──▶ known; the next messages come without
//!   same pid again ── the known process still lives ──▶ it is the same process
//!   another pid ── handles come with every message from now on
//! ```
//!
//! The one message in between, and every first one on an older kernel, is named by its number only if that proves
//! something: the process that has the number now was there already when the socket was last seen empty, so it had the
//! number when the message was sent. Else the message has no process: whoever sent it counts as nobody privileged.
//!
//! Imports allowed: error, fault_points, sys::socket, sys::pidfd, rustix.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

use super::pidfd::PidFd;
use super::socket::{Credentials, PassPidfd, Received, receive_with, set_pass_pidfd};
use crate::error::Coded;
use crate::fault_points::{self, Point};

/// Where in `/proc/<pid>/stat`, counted from behind the name, the start time stands.
const START_TIME: usize = 19;

/// Who sent a message.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Process, user and group by the word of the kernel, as of when it was sent.
    pub credentials: Credentials,
    /// The process itself, if that is certain. Whoever reads something about it asks afterwards whether it still lives.
    pub process: Option<Arc<PidFd>>,
}

/// The senders of one socket.
#[derive(Debug)]
pub struct Senders {
    known: Option<Arc<PidFd>>,
    handles: Handles,
    /// Time since boot at which the socket was last seen empty.
    empty_at: Option<Duration>,
}

/// When handles come with messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handles {
    /// Until the first sender is known.
    UntilKnown,
    /// Not any more: one process uses this socket.
    NotAnyMore,
    /// Always: several processes use this socket, or there are few messages.
    Always,
    /// Never: the kernel has none.
    Never,
}

impl Senders {
    /// Those of `socket`, from which nothing was received yet.
    #[must_use]
    pub fn new(socket: BorrowedFd<'_>) -> Self {
        Self::asking(socket, Handles::UntilKnown)
    }

    /// The same of a socket with few messages, each of which has its handle where the kernel has them.
    #[must_use]
    pub fn of_each(socket: BorrowedFd<'_>) -> Self {
        Self::asking(socket, Handles::Always)
    }

    fn asking(socket: BorrowedFd<'_>, handles: Handles) -> Self {
        let asked = set_pass_pidfd(socket, PassPidfd::On);
        let handles = asked.map_or(Handles::Never, |()| handles);
        Self { known: None, handles, empty_at: None }
    }

    /// Receives one message from `socket`, and tells who sent it.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; what the kernel says otherwise.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        buffer: &mut [u8],
    ) -> io::Result<(Received, Option<Sender>)> {
        let pass = match self.handles {
            Handles::UntilKnown | Handles::Always => PassPidfd::On,
            Handles::NotAnyMore | Handles::Never => PassPidfd::Off,
        };
        let mut received = receive_with(socket, buffer, pass).inspect_err(|error| self.note_empty(error))?;
        let passed = received.pidfd.take();
        let sender = received.credentials.map(|credentials| {
            let passed = passed.zip(credentials.pid).and_then(|(fd, pid)| PidFd::passed(fd, pid).ok());
            let process = credentials.pid.and_then(|pid| self.name(pid, passed));
            self.adjust(socket, credentials.pid);
            Sender { credentials, process }
        });
        Ok((received, sender))
    }

    fn note_empty(&mut self, error: &io::Error) {
        if error.kind() == io::ErrorKind::WouldBlock {
            self.empty_at = Some(since_boot());
        }
    }

    /// The process that `pid` named when the message was sent.
    fn name(&mut self, pid: Pid, passed: Option<PidFd>) -> Option<Arc<PidFd>> {
        match (passed, &self.known) {
            (Some(passed), _) => self.known = Some(Arc::new(passed)),
            (None, Some(known)) if known.pid() == pid => {}
            (None, _) => {
                let proved = PidFd::open(pid).ok().filter(|process| was_there(process, self.empty_at));
                return proved.map(Arc::new);
            }
        }
        self.known.clone()
    }

    /// Asks for handles, or no longer, after a message from `pid`. A refusal leaves everything as it is: a message
    /// without its handle is named by number.
    fn adjust(&mut self, socket: BorrowedFd<'_>, pid: Option<Pid>) {
        let of_known = pid.is_some() && self.known.as_ref().map(|known| known.pid()) == pid;
        let (next, pass) = match (self.handles, of_known) {
            (Handles::UntilKnown, true) => (Handles::NotAnyMore, PassPidfd::Off),
            (Handles::NotAnyMore, false) => (Handles::Always, PassPidfd::On),
            _ => return,
        };
        if set_pass_pidfd(socket, pass).is_ok() {
            self.handles = next;
        }
    }
}

fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// Whether the process that has the number now had it already at `moment`.
fn was_there(process: &PidFd, moment: Option<Duration>) -> bool {
    let started = started(process.pid()).ok().flatten();
    let earlier = started.zip(moment).is_some_and(|(started, moment)| started < moment);
    earlier && process.has_exited() == Ok(false)
}

/// When a process started, after boot, rounded up to the kernel's tick.
fn started(pid: Pid) -> io::Result<Option<Duration>> {
    fault_points::hit(Point::ProcRead).map_err(|injected| injected.errno())?;
    Ok(start_time(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid()))?))
}

fn start_time(stat: &str) -> Option<Duration> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let ticks: u64 = behind_name.split_whitespace().nth(START_TIME)?.parse().ok()?;
    let second = rustix::param::clock_ticks_per_second();
    let nanoseconds = u128::from(ticks).checked_add(1)?.checked_mul(1_000_000_000)? / u128::from(second);
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};
    use std::process::{Child, Command, Stdio};
    use std::thread::sleep;

    use rustix::process::getpid;

    use super::*;
    use crate::sys::socket::{pair, send};

    fn next(senders: &mut Senders, socket: &OwnedFd) -> Sender {
        senders.receive(socket.as_fd(), &mut [0; 64]).unwrap().1.unwrap()
    }

    /// A process that sends one message on its standard output, later, and stays until its input is closed.
    fn other_process(socket: &OwnedFd) -> Child {
        Command::new("sh")
            .args(["-c", "sleep 0.05; printf x; exec cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::from(socket.try_clone().unwrap()))
            .spawn()
            .unwrap()
    }

    fn wait_for_message(socket: &OwnedFd) {
        use rustix::event::{PollFd, PollFlags, poll};
        poll(&mut [PollFd::new(socket, PollFlags::IN)], None).unwrap();
    }

    #[test]
    fn the_only_sender_is_known_after_its_first_message() {
        let (own, given) = pair().unwrap();
        let mut senders = Senders::new(own.as_fd());
        for turn in 0..3 {
            send(given.as_fd(), &[b"x"], &[]).unwrap();
            let process = next(&mut senders, &own).process.unwrap();
            assert_eq!((process.pid(), process.has_exited()), (getpid(), Ok(false)), "message {turn}");
        }
        assert_eq!(senders.handles, Handles::NotAnyMore);
    }

    #[test]
    fn a_second_process_is_told_from_the_first_and_stays_known_after_its_end() {
        let (own, given) = pair().unwrap();
        let mut senders = Senders::new(own.as_fd());
        send(given.as_fd(), &[b"x"], &[]).unwrap();
        assert_eq!(next(&mut senders, &own).process.unwrap().pid(), getpid());
        let mut child = other_process(&given);
        wait_for_message(&own);
        let other = next(&mut senders, &own);
        let pid = Pid::from_child(&child);
        assert_eq!((other.credentials.pid, other.process.is_none()), (Some(pid), true), "nothing was proved");
        assert_eq!(senders.handles, Handles::Always);
        drop(child.stdin.take());
        child.wait().unwrap();
        let mut second = other_process(&given);
        wait_for_message(&own);
        drop(second.stdin.take());
        second.wait().unwrap();
        let ended = next(&mut senders, &own).process.unwrap();
        assert_eq!((ended.pid(), ended.has_exited()), (Pid::from_child(&second), Ok(true)));
    }

    #[test]
    fn a_number_proves_its_process_only_if_that_was_there_before_the_message() {
        let (own, given) = pair().unwrap();
        let mut senders = Senders { known: None, handles: Handles::Never, empty_at: None };
        sleep(Duration::from_millis(30));
        send(given.as_fd(), &[b"x"], &[]).unwrap();
        assert!(next(&mut senders, &own).process.is_none(), "the socket was never seen empty");
        let empty = senders.receive(own.as_fd(), &mut [0; 64]).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        send(given.as_fd(), &[b"x"], &[]).unwrap();
        assert_eq!(next(&mut senders, &own).process.unwrap().pid(), getpid());
    }

    #[test]
    fn the_start_of_a_process_is_behind_its_name_and_before_now() {
        let row = |name| format!("7 ({name}) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 250 20 21");
        let second = rustix::param::clock_ticks_per_second();
        let expected = Duration::from_nanos(251 * 1_000_000_000 / second);
        assert_eq!(start_time(&row("cat")), Some(expected));
        assert_eq!(start_time(&row("a) S 9 (b")), Some(expected));
        assert_eq!(start_time("7 cat S"), None);
        sleep(Duration::from_millis(20));
        assert!(started(getpid()).unwrap().unwrap() < since_boot());
    }
}
