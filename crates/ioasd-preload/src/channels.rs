//! The channels of the calling thread: one for each lease it uses, a few at most.
//!
//! Two that shared a channel would take each other's replies, so nobody shares one:
//!
//! * not threads: the channels are thread-local, and closed when the thread ends;
//! * not a child after fork: a channel remembers the process that opened it, and another process opens its own;
//! * not a signal handler that interrupts a call: the channel of that call is in use, the handler's call takes another.
//!
//! Programs close descriptors they do not know, or put others in their place. So a channel is used, or closed, only
//! after a look at what its number means now.
//!
//! Opening a channel is one request over the lease, which is shared by all who hold it. That does no harm: the replies
//! of such requests are all alike.
//!
//! Imports allowed: lease, message, report, sys, the client crate's wire, `libc`.

#![expect(unsafe_code, reason = "channels are kept as numbers")]

use std::array;
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

use ioasd_client::wire::channels::ChannelOpen;

use crate::lease::{Lease, LeaseKey};
use crate::message::{Failure, Inbound, Outbound, Packed, exchange};
use crate::report;
use crate::sys::{self, Errno, Fd};

/// Channels that a thread keeps.
const SEATS: usize = 4;

/// Channels get numbers from here on, or from half the limit if that is less: out of the way of programs that count on
/// low ones.
const FLOOR_MAX: u64 = 1 << 12;

/// No key of the thread library.
const NO_KEY: u32 = u32::MAX;

/// Under this key a thread has something exactly if it has channels.
static KEY: AtomicU32 = AtomicU32::new(NO_KEY);

/// A channel.
#[derive(Clone, Copy, Debug)]
struct Held {
    lease: LeaseKey,
    fd: c_int,
    /// The socket, by its number in the kernel.
    inode: u64,
    process: i32,
}

#[derive(Clone, Copy, Debug)]
enum Seat {
    Empty,
    Idle(Held),
    InUse,
}

thread_local! {
    static TABLE: [Cell<Seat>; SEATS] = const { [const { Cell::new(Seat::Empty) }; SEATS] };
}

/// Has the channels of every thread closed when it ends.
pub(crate) fn prepare() {
    let mut key = 0;
    // SAFETY: the key is written before it is read, and the function may be called when a thread ends.
    if unsafe { libc::pthread_key_create(&raw mut key, Some(close_all)) } == 0 {
        KEY.store(key, Ordering::Relaxed);
    }
}

extern "C" fn close_all(_: *mut c_void) {
    let closed = TABLE.try_with(|table| {
        for seat in table {
            if let Seat::Idle(held) = seat.replace(Seat::Empty) {
                held.close();
            }
        }
    });
    debug_assert!(closed.is_ok(), "the table needs no destructor");
}

/// Carries out one request over a channel of this thread to `lease`.
///
/// # Errors
/// What the kernel refuses; ENODEV if the agent has gone.
pub(crate) fn call(
    lease: Lease,
    mut run: impl FnMut(c_int) -> Result<Inbound, Failure>,
) -> Result<Inbound, Errno> {
    let kept = take_idle(lease.key);
    if let Some((place, held)) = kept {
        match held.run(Some(place), &mut run) {
            Err(Failure::NotSent) => {}
            outcome => return settled(outcome),
        }
    }
    let held = Held::open(lease).or_else(|failure| settled(Err(failure)))?;
    settled(held.run(free_place(), &mut run))
}

/// What a program is told of a failure.
///
/// # Errors
/// What the kernel refuses; ENODEV if the agent has gone.
pub(crate) fn settled<T>(outcome: Result<T, Failure>) -> Result<T, Errno> {
    outcome.map_err(|failure| match failure {
        Failure::Refused(errno) => errno,
        Failure::NotSent | Failure::Lost => {
            report::agent_gone();
            Errno::NODEV
        }
    })
}

/// Takes the idle channel to a lease, if this thread has one.
fn take_idle(lease: LeaseKey) -> Option<(usize, Held)> {
    let found = (0..SEATS).find_map(|place| match look(place) {
        Seat::Idle(held) if held.lease == lease => Some((place, held)),
        _ => None,
    });
    let (place, held) = found?;
    put(place, Seat::InUse);
    if held.is_ours() && held.process == sys::process() {
        return Some((place, held));
    }
    held.close();
    put(place, Seat::Empty);
    None
}

/// Makes room for one more channel; `None` if all are in use by calls that were interrupted.
fn free_place() -> Option<usize> {
    let seats: [Seat; SEATS] = array::from_fn(look);
    let empty = seats.iter().position(|seat| matches!(seat, Seat::Empty));
    let place = empty.or_else(|| seats.iter().position(|seat| matches!(seat, Seat::Idle(_))))?;
    if let Seat::Idle(held) = look(place) {
        held.close();
    }
    put(place, Seat::InUse);
    Some(place)
}

fn look(place: usize) -> Seat {
    TABLE.try_with(|table| table.get(place).map(Cell::get)).ok().flatten().unwrap_or(Seat::InUse)
}

fn put(place: usize, seat: Seat) {
    let there = TABLE.try_with(|table| table.get(place).map(|cell| cell.set(seat)));
    debug_assert!(there.is_ok(), "the table needs no destructor");
}

impl Held {
    /// Opens a channel.
    fn open(lease: Lease) -> Result<Self, Failure> {
        let argument = Packed::of(&ChannelOpen::default());
        let reply = exchange(lease.fd, Outbound::plain(&argument), None)?;
        if reply.errno != 0 {
            return Err(Failure::Refused(Errno::from_raw_os_error(reply.errno)));
        }
        let channel = reply.fd.ok_or(Failure::Refused(Errno::MFILE))?;
        Self::new(lease.key, out_of_the_way(channel)).map_err(Failure::Refused)
    }

    fn new(lease: LeaseKey, channel: Fd) -> Result<Self, Errno> {
        let (_, inode) = sys::stat(channel.number())?.file;
        Ok(Self { lease, fd: channel.into_number(), inode, process: sys::process() })
    }

    /// Runs a request; afterwards the channel is kept at `place`, unless it is of no use any more.
    fn run(
        self,
        place: Option<usize>,
        run: &mut impl FnMut(c_int) -> Result<Inbound, Failure>,
    ) -> Result<Inbound, Failure> {
        let outcome = run(self.fd);
        let usable = !matches!(outcome, Err(Failure::NotSent | Failure::Lost));
        match place {
            Some(place) if usable => keep(place, self),
            Some(place) => {
                put(place, Seat::Empty);
                self.close();
            }
            None => self.close(),
        }
        outcome
    }

    /// Whether its number still means the socket it meant.
    fn is_ours(self) -> bool {
        sys::stat(self.fd).is_ok_and(|found| found.file.1 == self.inode && found.is_socket())
    }

    fn close(self) {
        if self.is_ours() {
            drop(Fd::owning(self.fd));
        }
    }
}

fn keep(place: usize, held: Held) {
    put(place, Seat::Idle(held));
    let key = KEY.load(Ordering::Relaxed);
    if key != NO_KEY {
        // SAFETY: the key exists; what it holds is only compared with null.
        let kept = unsafe { libc::pthread_setspecific(key, std::ptr::dangling()) };
        debug_assert_eq!(kept, 0, "a thread's channels will not be closed at its end");
    }
}

/// The same under a high number, if there is one.
pub(crate) fn out_of_the_way(channel: Fd) -> Fd {
    let floor = c_int::try_from((sys::descriptor_limit() / 2).min(FLOOR_MAX)).unwrap_or_default();
    sys::duplicate_from(&channel, floor).unwrap_or(channel)
}
