//! Fault points: every place that can fail has a name here, and a test can make any of them fail.
//!
//! A place asks [`hit`] before it does what may fail. With nothing armed that is one relaxed load. A test arms the
//! points with [`Armed::nth`]: the n-th hit, counted over all points, then fails once. Sweeping n from 0 until a run
//! passes without a failure visits every point a scenario reaches.
//!
//! The plan is one per process, because a scenario spans threads; [`Armed`] keeps a process-wide lock, so two sweeps
//! never mix. Tests that arm points live in a test binary of their own, so that no other test is disturbed.
//!
//! Imports allowed: `std`, `parking_lot`. Everybody may import this module.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// A place that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Point {
    /// Allocating the runs of a batch.
    BatchAlloc,
    /// Allocating a chunk of the `pinned_pfns` cache.
    CacheAlloc,
    /// Allocating an IO page-table page.
    TableAlloc,
    /// Enlarging a table arena.
    ArenaGrow,
    /// Creating a memfd.
    MemfdCreate,
    /// Mapping memory.
    Mmap,
    /// Sealing a memfd.
    Seal,
    /// Asking for the state of a client's file.
    Fstat,
    /// Accepting a client.
    Accept,
    /// Receiving a message.
    SocketReceive,
    /// Sending a message.
    SocketSend,
    /// Having a descriptor watched.
    Watch,
    /// Asking `/proc` about a process.
    ProcRead,
    /// Creating a socket pair.
    SocketPair,
    /// Opening a pidfd, or taking one that came with a message.
    PidfdOpen,
    /// Asking for pidfds with messages.
    PassPidfd,
    /// Duplicating a descriptor.
    Dup,
    /// Reading or writing a client's file.
    FileIo,
    /// Making a ring that pins.
    RingSetup,
    /// Pinning through a ring.
    RingRegister,
    /// Bringing a mapping's pages in.
    Populate,
    /// Locking memory.
    Lock,
    /// Allocating holes of a client's file.
    FirstTouch,
    /// Reading physical frames.
    Pagemap,
    /// Assigning frames to a chunk of a file.
    FrameWindow,
    /// Pinning at the source.
    Pin,
    /// Reading back the frames of pages that are pinned already.
    Recall,
    /// Charging an account.
    Charge,
    /// Reserving an IOVA range.
    Reserve,
    /// Taking an object id.
    ObjectId,
    /// Handing a message to another actor.
    Mailbox,
    /// Starting an actor.
    ActorStart,
}

/// A named point failed because a test asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fault point {0:?} was told to fail")]
pub struct Injected(pub Point);

static ARMED: AtomicBool = AtomicBool::new(false);
static COUNTDOWN: AtomicU64 = AtomicU64::new(0);
static FIRED: Mutex<Option<Point>> = Mutex::new(None);
static SWEEP: Mutex<()> = Mutex::new(());

/// Passes, unless a test has armed this hit.
///
/// # Errors
/// [`Injected`] on the one hit that was armed.
#[inline]
pub fn hit(point: Point) -> Result<(), Injected> {
    if ARMED.load(Ordering::Relaxed) { count_down(point) } else { Ok(()) }
}

#[cold]
fn count_down(point: Point) -> Result<(), Injected> {
    let before = COUNTDOWN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if before != Ok(1) {
        return Ok(());
    }
    *FIRED.lock() = Some(point);
    Err(Injected(point))
}

/// Keeps the points armed; disarms them when dropped.
#[derive(Debug)]
pub struct Armed {
    _sweep: MutexGuard<'static, ()>,
}

impl Armed {
    /// Arms the `n`-th hit from now, counted from 0 over all points.
    #[must_use]
    pub fn nth(n: u64) -> Self {
        let sweep = SWEEP.lock();
        *FIRED.lock() = None;
        COUNTDOWN.store(n.saturating_add(1), Ordering::SeqCst);
        ARMED.store(true, Ordering::SeqCst);
        Self { _sweep: sweep }
    }

    /// Disarms and tells which point failed, if the run reached the armed hit.
    #[must_use]
    pub fn disarm(self) -> Option<Point> {
        ARMED.store(false, Ordering::SeqCst);
        *FIRED.lock()
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        ARMED.store(false, Ordering::SeqCst);
    }
}
