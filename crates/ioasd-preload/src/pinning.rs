//! Pinning the program's memory when the agent asks for it: only a process can pin its own memory.
//!
//! The agent asks when a pin falls due, which may be in a call of another process, or in none. So a thread waits for it on
//! a memory channel: one for each lease with which memory was mapped that is no file, started then. It is no thread
//! of the C library, which does not know of it: it uses system calls alone, has every signal blocked, and does not keep a
//! program alive whose own threads have ended. A child after fork does not have it, and starts its own.
//!
//! To pin, it registers the range with a ring that is not enabled, and tells the ring's number. The agent takes the ring
//! and asks for the next thing, or for nothing; then the number is closed. Nothing else is ever done with the ring.
//!
//! Imports allowed: channels, lease, message, sys, thread, the client crate's wire, `libc`.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU64, Ordering};

use ioasd_client::wire::channels::{MemoryServe, PinMemory};
use ioasd_client::wire::command::Command;
use ioasd_client::wire::field::Field;
use ioasd_client::wire::frame::{Echo, REPLY_HEADER, REQUEST_HEADER, ReplyHead};

use crate::channels::{self, out_of_the_way};
use crate::lease::Lease;
use crate::memory::{Address, Range};
use crate::message::{Outbound, Packed, exchange};
use crate::sys::{self, Errno, Fd};
use crate::thread;

/// Leases of this process that are remembered to be served.
const SEATS: usize = 16;

/// How often a pin is tried again for which the limit was too low: the kernel unpins some time after a ring is closed.
const TRIES: u32 = 40;

/// How long that waits each time, in nanoseconds.
const PAUSE: i64 = 5_000_000;

/// `struct io_uring_params`: its length, where its flags are, and the flag of a ring that is not enabled.
const PARAMETERS: usize = 120;
const FLAGS: usize = 8;
const R_DISABLED: u32 = 1 << 6;

/// `IORING_REGISTER_BUFFERS`.
const REGISTER_BUFFERS: usize = 0;

/// Leases that are served by their process. Which ones is all that is known: of 64 bits that mean both.
static SERVED: [AtomicU64; SEATS] = [const { AtomicU64::new(0) }; SEATS];

/// What the thread is started with.
#[derive(Clone, Copy, Debug)]
struct Service {
    channel: c_int,
    inode: u64,
    mark: u64,
}

/// Has memory pinned that is mapped through `lease`, from now on. Where that is not possible, the agent does without.
pub(crate) fn serve(lease: Lease) {
    let mark = lease.key.mixed_with(sys::process());
    if SERVED.iter().any(|seat| seat.load(Ordering::Acquire) == mark) {
        return;
    }
    if let Ok(service) = open(lease, mark)
        && thread::start(run, service).is_ok()
    {
        sys::let_trace(lease.fd);
    }
    let empty = SERVED
        .iter()
        .find(|seat| seat.compare_exchange(0, mark, Ordering::AcqRel, Ordering::Relaxed).is_ok());
    if empty.is_none()
        && let Some(seat) = SERVED.iter().cycle().nth(usize::from(mark.to_le_bytes()[0]))
    {
        seat.store(mark, Ordering::Release);
    }
}

/// A memory channel, if a ring can be made at all. The limit for locked memory, which a ring counts against, may be another
/// when a pin is due.
fn open(lease: Lease, mark: u64) -> Result<Service, Errno> {
    match ring() {
        Ok(_) | Err(Errno::NOMEM) => {}
        Err(errno) => return Err(errno),
    }
    let argument = Packed::of(&MemoryServe::default());
    let reply = channels::call(lease, |channel| exchange(channel, Outbound::plain(&argument), None))?;
    let channel = out_of_the_way(reply.fd.ok_or(Errno::MFILE)?);
    let (_, inode) = sys::stat(channel.number())?.file;
    Ok(Service { channel: channel.into_number(), inode, mark })
}

/// The thread, until the agent hangs up, or the program has closed the channel.
extern "C" fn run(service: &Service) {
    let mut told: Option<c_int> = None;
    let mut message = [0; REQUEST_HEADER + PinMemory::SIZE];
    while service.is_ours() {
        let asked = sys::receive(service.channel, &mut message);
        if let Some(ring) = told.take() {
            sys::close(ring);
        }
        if !matches!(asked, Ok(bytes) if bytes == message.len()) {
            break;
        }
        let wanted = PinMemory::load(message.get(REQUEST_HEADER..).unwrap_or_default());
        if wanted.length.get() == 0 {
            continue;
        }
        let pinned = pin(&wanted);
        told = pinned.as_ref().ok().copied();
        if service.answer(Echo::of(&message), &wanted, pinned).is_err() {
            break;
        }
    }
    if let Some(ring) = told {
        sys::close(ring);
    }
    service.end();
}

impl Service {
    /// Whether the number of the channel still means the channel.
    fn is_ours(&self) -> bool {
        sys::stat(self.channel).is_ok_and(|found| found.file.1 == self.inode && found.is_socket())
    }

    fn answer(&self, echo: Echo, wanted: &PinMemory, pinned: Result<c_int, Errno>) -> Result<(), Errno> {
        let (ring, errno) = match pinned {
            Ok(ring) => (ring, 0),
            Err(errno) => (0, errno.raw_os_error()),
        };
        let mut answer = [0; REPLY_HEADER + PinMemory::SIZE];
        let (header, body) = answer.split_at_mut(REPLY_HEADER);
        let head = ReplyHead { echo, errno, body: PinMemory::SIZE, payload: 0 };
        head.store(header);
        u32::try_from(PinMemory::SIZE).unwrap_or_default().store(body, 0);
        PinMemory { out_ring: ring.cast_unsigned(), ..*wanted }.store(body);
        sys::send(self.channel, &answer)
    }

    fn end(&self) {
        if self.is_ours() {
            sys::close(self.channel);
        }
        for seat in &SERVED {
            let removed = seat.compare_exchange(self.mark, 0, Ordering::AcqRel, Ordering::Relaxed);
            if removed.is_ok() {
                return;
            }
        }
    }
}

fn ring() -> Result<Fd, Errno> {
    let mut parameters = [0_u8; PARAMETERS];
    R_DISABLED.store(&mut parameters, FLAGS);
    let place = Range::of_mut(&mut parameters).start.pointer().addr();
    sys::call(libc::SYS_io_uring_setup, [1, place, 0, 0]).map(sys::new_fd)
}

/// Pins, and gives the number of the ring that holds the pins.
fn pin(wanted: &PinMemory) -> Result<c_int, Errno> {
    let ring = out_of_the_way(ring()?);
    let len = usize::try_from(wanted.length.get()).map_err(|_| Errno::FAULT)?;
    let iovec = Range { start: Address(wanted.start.get()), len }.iovec();
    let place = (&raw const iovec).expose_provenance();
    let register = || {
        let ring = ring.number().cast_unsigned() as usize;
        sys::call(libc::SYS_io_uring_register, [ring, REGISTER_BUFFERS, place, 1])
    };
    let mut registered = register();
    for _ in 0..TRIES {
        if registered != Err(Errno::NOMEM) {
            break;
        }
        sys::sleep(PAUSE);
        registered = register();
    }
    registered.map(|_| ring.into_number())
}
