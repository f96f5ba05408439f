//! What a `struct ioasd_stream` is: a shell around a stream of the client crate and the burst it is in.
//!
//! ```text
//!   inside   the thread whose burst is open, else NOBODY    the one word that translating looks at before anything else
//!   owner    the thread that opened it, NOBODY when closed
//!   stream, burst, …                                        touched by the owner alone
//! ```
//!
//! Shells are never freed but used again, so that a pointer to one always leads to these two words, whatever its holder
//! has closed meanwhile. What was closed and is open again is somebody's stream, as with descriptors.
//!
//! Imports allowed: error, handles, mark; error and walker of the client crate, rustix.
#![expect(unsafe_code, reason = "a burst beside the stream it borrows, and pointers from C")]
#![expect(clippy::disallowed_types, reason = "a library that others link takes no dependency for a lock")]

use std::cell::{Cell, UnsafeCell};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ioasd_client::error::CallError;
use ioasd_client::walker::{Asked, AttachError, Burst, FaultKind, Stream, WalkFault};
use rustix::io::Errno;

use crate::error::{Failure, Misuse};
use crate::handles::lock;
use crate::mark::{NOBODY, count_forks, this_thread};

/// The right of one thread to translate in a walker's domain.
///
/// It belongs to the thread that opened it, which alone may use it and must close it; any other gets -EPERM, and so does
/// the child of a fork(). Open one for each thread that translates.
pub struct StreamHandle {
    inside: AtomicUsize,
    owner: AtomicUsize,
    /// Above `stream` in every way: dropped first, for it borrows from it.
    burst: UnsafeCell<Option<Burst<'static>>>,
    stream: UnsafeCell<Option<Stream>>,
    fault: Cell<Option<WalkFault>>,
    asked: Cell<Asked>,
}

// SAFETY: threads share the two atomics. Everything else is touched only after one of them was found to hold the mark of
// the calling thread, which it alone writes there.
unsafe impl Sync for StreamHandle {}

/// All shells there are, and which of them are closed.
struct Shells {
    all: Vec<&'static StreamHandle>,
    closed: Vec<&'static StreamHandle>,
}

static SHELLS: Mutex<Shells> = Mutex::new(Shells { all: Vec::new(), closed: Vec::new() });

/// That the calling thread is in no burst, whose end the agent might wait for before it answers.
pub(crate) fn this_thread_is_outside() -> Result<(), Misuse> {
    let mark = this_thread();
    let inside = lock(&SHELLS).all.iter().any(|shell| shell.inside.load(Ordering::Relaxed) == mark);
    if inside { Err(Misuse::WouldDeadlock) } else { Ok(()) }
}

impl Shells {
    fn take(&mut self) -> &'static StreamHandle {
        self.closed.pop().unwrap_or_else(|| {
            let shell: &'static StreamHandle = Box::leak(Box::new(StreamHandle::closed()));
            self.all.push(shell);
            shell
        })
    }
}

impl StreamHandle {
    const fn closed() -> Self {
        Self {
            inside: AtomicUsize::new(NOBODY),
            owner: AtomicUsize::new(NOBODY),
            burst: UnsafeCell::new(None),
            stream: UnsafeCell::new(None),
            fault: Cell::new(None),
            asked: Cell::new(Asked::NONE),
        }
    }

    /// A shell for `stream`, which the calling thread owns.
    pub(crate) fn open(stream: Stream) -> &'static Self {
        count_forks();
        stream.hold_back();
        let shell = lock(&SHELLS).take();
        // SAFETY: it was closed, so no other thread touches it, and no burst borrows from what is there.
        unsafe { *shell.stream.get() = Some(stream) };
        shell.fault.set(None);
        shell.asked.set(Asked::NONE);
        shell.owner.store(this_thread(), Ordering::Relaxed);
        shell
    }

    /// The shell that C has a pointer to.
    ///
    /// # Safety
    /// The pointer is null, or [`StreamHandle::open`] gave it, however long ago.
    #[inline]
    pub(crate) unsafe fn at<'a>(pointer: *mut Self) -> Result<&'a Self, Misuse> {
        // SAFETY: shells are not freed.
        unsafe { pointer.as_ref() }.ok_or(Misuse::Null("stream"))
    }

    /// Ends the burst, if there is one, and lets go of the stream.
    pub(crate) fn close(&'static self) -> Result<(), Misuse> {
        self.owned()?;
        if self.inside.load(Ordering::Relaxed) != NOBODY {
            self.leave()?;
        }
        self.outside()?.settle();
        // SAFETY: the calling thread owns it, and no burst borrows from it.
        unsafe { *self.stream.get() = None };
        self.owner.store(NOBODY, Ordering::Relaxed);
        lock(&SHELLS).closed.push(self);
        Ok(())
    }

    /// Begins a burst.
    #[inline]
    pub(crate) fn enter(&self) -> Result<(), Misuse> {
        let stream = self.outside()?;
        if self.fault.replace(None).is_some_and(can_be_learned) {
            stream.settle();
            stream.hold_back();
        }
        // SAFETY: the calling thread owns it.
        unsafe { *self.burst.get() = Some(stream.enter()) };
        self.inside.store(this_thread(), Ordering::Relaxed);
        Ok(())
    }

    /// Ends the burst.
    #[inline]
    pub(crate) fn leave(&self) -> Result<(), Misuse> {
        self.burst()?;
        self.inside.store(NOBODY, Ordering::Relaxed);
        // SAFETY: the calling thread was inside, so it owns it; the reference found above is not used any more.
        unsafe { *self.burst.get() = None };
        if !self.fault.get().is_some_and(can_be_learned) {
            self.asked.set(Asked::NONE);
        }
        Ok(())
    }

    /// The burst that the calling thread is in.
    #[inline]
    pub(crate) fn burst(&self) -> Result<&Burst<'static>, Misuse> {
        self.inside().ok_or_else(|| self.why_not_inside())
    }

    /// The same, without saying why there is none.
    #[inline(always)]
    pub(crate) fn inside(&self) -> Option<&Burst<'static>> {
        if self.inside.load(Ordering::Relaxed) != this_thread() {
            return None;
        }
        // SAFETY: the calling thread is inside, so it owns the burst, which it alone can end.
        unsafe { &*self.burst.get() }.as_ref()
    }

    /// The stream, outside of any burst.
    fn outside(&self) -> Result<&'static mut Stream, Misuse> {
        self.owned()?;
        if self.inside.load(Ordering::Relaxed) != NOBODY {
            return Err(Misuse::InBurst);
        }
        // SAFETY: the calling thread owns it, and no burst borrows from it. It stays where it is until the owner closes it,
        // which ends the burst before. Callers do not keep it, but in a burst.
        unsafe { &mut *self.stream.get() }.as_mut().ok_or(Misuse::NotOpen("stream"))
    }

    /// Asks the agent about the fault that ended the last burst. If nothing is mapped there any more, the next burst finds
    /// that by itself.
    pub(crate) fn learn(&self) -> Result<(), Failure> {
        let stream = self.outside()?;
        let fault = self.fault.get().filter(|fault| can_be_learned(*fault));
        let fault = fault.ok_or(Misuse::NothingToLearn)?;
        let mut asked = self.asked.get();
        let may_be_asked = asked.once_more(fault.iova);
        self.asked.set(asked);
        if !may_be_asked {
            return Err(Failure::NotLearned(fault));
        }
        match stream.learn(fault.iova) {
            Ok(()) | Err(AttachError::Call(CallError::Refused { errno: Errno::NOENT, .. })) => {}
            Err(error) => return Err(error.into()),
        }
        self.fault.set(None);
        stream.hold_back();
        Ok(())
    }

    /// Keeps a fault for who asks.
    #[cold]
    pub(crate) fn faulted(&self, fault: WalkFault) -> Failure {
        self.fault.set(Some(fault));
        fault.into()
    }

    /// The last fault since the last burst began.
    pub(crate) fn last_fault(&self) -> Result<Option<WalkFault>, Misuse> {
        self.owned()?;
        Ok(self.fault.get())
    }

    fn owned(&self) -> Result<(), Misuse> {
        match self.owner.load(Ordering::Relaxed) {
            NOBODY => Err(Misuse::NotOpen("stream")),
            owner if owner == this_thread() => Ok(()),
            _ => Err(Misuse::OtherThread),
        }
    }

    #[cold]
    fn why_not_inside(&self) -> Misuse {
        self.owned().err().unwrap_or(Misuse::NotInBurst)
    }
}

/// Whether a file that is not known yet may be all that is missing.
fn can_be_learned(fault: WalkFault) -> bool {
    fault.kind == FaultKind::NotExported
}
