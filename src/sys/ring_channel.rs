//! Moving bytes of another process through a ring that it made and we have taken over.
//!
//! ```text
//!   memory ──WRITE_FIXED──▶ scratch ──pread──▶ us          us ──pwrite──▶ scratch ──READ_FIXED──▶ memory
//! ```
//!
//! The memory is what was registered with the ring: it is reached also when its process has unmapped it, or has ended.
//!
//! The ring stays hostile: its maker may write to all of it, at any time. What we ask for may never be looked at, and what we
//! are told may be made up. So offsets in the shared memory are those of a ring of our own, nobody waits in the kernel, every
//! wait has a deadline, an answer is only believed to be one, and the scratch file, sealed at its size, is this ring's alone: whoever forges an
//! answer gets what it has put there itself. A ring that failed once is never used again.
//!
//! Imports allowed: units, failure, handed_ring, memfd, file_io, pidfd, rustix.
#![expect(unsafe_code, reason = "io_uring_enter, and memory shared with another process")]

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ioasd_client::units::{ByteLen, UserAddr};
use rustix::io::Errno;
use rustix::io_uring::{
    IoringEnterFlags, IoringOp, IoringSetupFlags, IoringSqeFlags, io_uring_enter, io_uring_params,
    io_uring_setup,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::failure::SysError;
use super::memfd::{self, Seals};
use super::pidfd::PidFd;
use super::{file_io, handed_ring};

/// Entries of a ring that can be taken over.
pub const ENTRIES: u32 = 1;

/// Bytes that move at once.
const SCRATCH: usize = 256 << 10;

/// What moving that much may take.
const DEADLINE: Duration = Duration::from_secs(2);

/// How long to wait between two looks whether it is done; at first it mostly is.
const SHORTEST_PAUSE: Duration = Duration::from_micros(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// Where the kernel has the entries that are submitted: `IORING_OFF_SQES`.
const ENTRIES_OFFSET: u64 = 0x1000_0000;

/// Words of 8 bytes of such an entry.
const ENTRY_WORDS: usize = 8;

/// Bytes of an entry that is completed.
const DONE_BYTES: u32 = 16;

/// The ring, and what bytes go through.
#[derive(Debug)]
pub struct RingChannel {
    ring: OwnedFd,
    scratch: OwnedFd,
    shared: Option<Shared>,
    failed: bool,
}

/// What both sides write to.
#[derive(Debug)]
struct Shared {
    rings: Mapped,
    entries: Mapped,
    layout: Layout,
    /// What the last entry was recognised by.
    last: u64,
}

/// Which way bytes move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    FromMemory,
    ToMemory,
}

impl RingChannel {
    /// Takes descriptor `number` of `process`, a ring that is not enabled and has `memory` registered.
    ///
    /// # Errors
    /// As [`handed_ring::take`], and [`handed_ring::require_holds`].
    pub fn take(process: &PidFd, number: RawFd, memory: (UserAddr, ByteLen)) -> Result<Self, SysError> {
        const NAME: &str = "ioasd-scratch";
        let scratch = memfd::create(NAME, ByteLen::new(SCRATCH as u64))?;
        memfd::seal(&scratch, NAME, Seals::FixedSize)?;
        let ring = handed_ring::take(process, number, &scratch)?;
        handed_ring::require_holds(&ring, memory)?;
        Ok(Self { ring, scratch, shared: None, failed: false })
    }

    /// Fills `into` from the memory at `start`.
    ///
    /// # Errors
    /// EFAULT where nothing is registered; EIO if the ring does not do what it is asked.
    pub fn read(&mut self, start: UserAddr, into: &mut [u8]) -> Result<(), Errno> {
        let mut at = start.get();
        for piece in into.chunks_mut(SCRATCH) {
            self.move_piece(Way::FromMemory, at, piece.len())?;
            file_io::read_exact_at(self.scratch.as_fd(), ByteLen::new(0), piece)?;
            at = at.wrapping_add(piece.len() as u64);
        }
        Ok(())
    }

    /// Writes `from` to the memory at `start`.
    ///
    /// # Errors
    /// As [`RingChannel::read`].
    pub fn write(&mut self, start: UserAddr, from: &[u8]) -> Result<(), Errno> {
        let mut at = start.get();
        for piece in from.chunks(SCRATCH) {
            file_io::write_all_at(self.scratch.as_fd(), ByteLen::new(0), piece)?;
            self.move_piece(Way::ToMemory, at, piece.len())?;
            at = at.wrapping_add(piece.len() as u64);
        }
        Ok(())
    }

    fn move_piece(&mut self, way: Way, at: u64, length: usize) -> Result<(), Errno> {
        if self.failed {
            return Err(Errno::IO);
        }
        let length = u32::try_from(length).map_err(|_| Errno::INVAL)?;
        let moved = self.submit_and_wait(way, at, length);
        self.failed = !matches!(moved, Ok(()) | Err(Errno::FAULT));
        moved
    }

    fn submit_and_wait(&mut self, way: Way, at: u64, length: u32) -> Result<(), Errno> {
        let shared = match &mut self.shared {
            Some(shared) => shared,
            none => none.insert(Shared::new(&self.ring)?),
        };
        let tag = shared.put(way, at, length);
        submit(&self.ring)?;
        let (begun, mut pause) = (Instant::now(), SHORTEST_PAUSE);
        loop {
            if let Some(moved) = shared.take(tag) {
                return outcome(moved, length);
            }
            if begun.elapsed() >= DEADLINE {
                return Err(Errno::IO);
            }
            thread::sleep(pause);
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }
}

/// The kernel reaches nothing beyond what was registered.
fn outcome(moved: i32, wanted: u32) -> Result<(), Errno> {
    match moved {
        moved if u32::try_from(moved) == Ok(wanted) => Ok(()),
        moved if moved == -Errno::FAULT.raw_os_error() => Err(Errno::FAULT),
        _ => Err(Errno::IO),
    }
}

/// Submits one entry, and waits for nothing: where a hostile ring makes the kernel believe that its completions have
/// overflowed and cannot be taken, a wait in the kernel never ends, whatever its deadline, and its thread cannot be killed.
fn submit(ring: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: what is submitted, by us or by the ring's maker, can only be what the ring is restricted to: moves between
    // its maker's registered memory and our scratch file.
    let submitted = unsafe { io_uring_enter(ring, 1, 0, IoringEnterFlags::empty()) };
    submitted.map(drop)
}

impl Shared {
    fn new(ring: &OwnedFd) -> Result<Self, Errno> {
        let layout = Layout::of_this_kernel()?;
        let rings = Mapped::new(ring, layout.bytes(), 0)?;
        let entries = Mapped::new(ring, ENTRY_WORDS * 8, ENTRIES_OFFSET)?;
        Ok(Self { rings, entries, layout, last: 0 })
    }

    /// Puts the one entry in its place, behind whatever is there.
    fn put(&mut self, way: Way, at: u64, length: u32) -> u64 {
        self.last += 1;
        let operation = match way {
            Way::FromMemory => IoringOp::WriteFixed,
            Way::ToMemory => IoringOp::ReadFixed,
        };
        let first = u64::from(operation as u8) | u64::from(IoringSqeFlags::FIXED_FILE.bits()) << 8;
        let words = [first, 0, at, u64::from(length), self.last, 0, 0, 0];
        for (place, word) in words.into_iter().enumerate() {
            self.entries.word(place).store(word, Ordering::Relaxed);
        }
        self.rings.half(self.layout.index).store(0, Ordering::Relaxed);
        let tail = self.rings.half(self.layout.submitted);
        tail.store(tail.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        self.last
    }

    /// What came of the entry `tag`, if anything did; takes what else lies before it.
    fn take(&self, tag: u64) -> Option<i32> {
        let (head, tail) = (self.rings.half(self.layout.head), self.rings.half(self.layout.tail));
        for _ in 0..self.layout.done_entries {
            let at = head.load(Ordering::Relaxed);
            if at == tail.load(Ordering::Acquire) {
                return None;
            }
            let place = self.layout.done + at % self.layout.done_entries * DONE_BYTES;
            let found = self.rings.word(place as usize / 8).load(Ordering::Relaxed);
            let moved = self.rings.half(place + 8).load(Ordering::Relaxed);
            head.store(at.wrapping_add(1), Ordering::Release);
            if found == tag {
                return Some(moved.cast_signed());
            }
        }
        None
    }
}

/// Where things are in the memory of a ring, in bytes: as the kernel says of a ring of our own.
#[derive(Clone, Copy, Debug)]
struct Layout {
    submitted: u32,
    index: u32,
    head: u32,
    tail: u32,
    done: u32,
    done_entries: u32,
}

impl Layout {
    fn of_this_kernel() -> Result<Self, Errno> {
        static FOUND: OnceLock<Layout> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(*found);
        }
        let mut parameters = io_uring_params::default();
        parameters.flags = IoringSetupFlags::R_DISABLED;
        // SAFETY: the parameters are a valid structure; the ring is closed unused.
        drop(unsafe { io_uring_setup(ENTRIES, &mut parameters) }?);
        let (submit, done) = (parameters.sq_off, parameters.cq_off);
        let found = Self {
            submitted: submit.tail,
            index: submit.array,
            head: done.head,
            tail: done.tail,
            done: done.cqes,
            done_entries: parameters.cq_entries.max(1),
        };
        Ok(*FOUND.get_or_init(|| found))
    }

    const fn bytes(self) -> usize {
        let behind_done = self.done + self.done_entries * DONE_BYTES;
        let behind_index = self.index + 4;
        if behind_done > behind_index { behind_done as usize } else { behind_index as usize }
    }
}

/// Memory of a ring, mapped here.
#[derive(Debug)]
struct Mapped {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to its value, and is only looked at through atomics.
unsafe impl Send for Mapped {}

impl Mapped {
    fn new(ring: &OwnedFd, length: usize, offset: u64) -> Result<Self, Errno> {
        // SAFETY: a new mapping where the kernel likes it; the kernel refuses what the ring does not have.
        let base = unsafe {
            let rights = ProtFlags::READ | ProtFlags::WRITE;
            mmap(ptr::null_mut(), length, rights, MapFlags::SHARED | MapFlags::POPULATE, ring, offset)?
        };
        Ok(Self { base: NonNull::new(base.cast()).ok_or(Errno::FAULT)?, length })
    }

    /// The 4 bytes at `offset`.
    fn half(&self, offset: u32) -> &AtomicU32 {
        let offset = offset as usize;
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.length, "outside of a ring");
        // SAFETY: 1. in bounds and aligned, as asserted; 2. mapped as long as `self` lives; 3. whoever else writes there
        // does so from another process, which atomics allow for.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    /// Word `index` of 8 bytes.
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!((index + 1) * 8 <= self.length, "outside of a ring");
        // SAFETY: as in `half`.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(index * 8).cast()) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing that was borrowed from it is left.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
        debug_assert!(unmapped.is_ok(), "a mapping could not be given back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_whole_length_or_an_error() {
        assert_eq!(outcome(512, 512), Ok(()));
        assert_eq!(outcome(-Errno::FAULT.raw_os_error(), 512), Err(Errno::FAULT));
        for made_up in [0, 511, 513, i32::MAX, i32::MIN, -1] {
            assert_eq!(outcome(made_up, 512), Err(Errno::IO), "{made_up}");
        }
    }
}
