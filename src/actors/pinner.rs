//! Pinner: tier 3. Hands blocking work on page sources to a bounded pool of threads.
//!
//! The pool is one per agent, its queue one bounded crossbeam channel. Each arbiter has a Pinner actor in front of it,
//! so that asking for a pin never crosses arbiters. Sources that wait for a client's process have threads of their own, so
//! that only their like wait for one that takes its time. A permit for each place in the queue is taken before a job is sent;
//! the channel is therefore never found full.
//!
//! Imports allowed: storage, messages, guard, load.

use std::sync::Arc;
use std::thread;

use actix::prelude::*;
use crossbeam_channel::{Receiver, Sender, bounded};
use futures_util::future::LocalBoxFuture;
use ioasd_client::units::{ByteLen, IndexRange};
use tokio::sync::oneshot;

use super::guard::{caught_now, poisoned};
use super::load::Permits;
use super::messages::tiers::Failable;
use crate::error::{Coded, Errno};
use crate::fault_points::{self, Point};
use crate::storage::pfn::PfnBatch;
use crate::storage::refusal::Refusal;
use crate::storage::source::{PageSource, SourceError};
use crate::storage::step::Transfer;

/// Work on one source.
#[derive(Debug)]
pub enum PinWork {
    /// Pin from the start of the range.
    Pin(IndexRange, PfnBatch),
    /// Tell the frames of pinned pages.
    Recall(IndexRange, PfnBatch),
    /// Let go of pins.
    Unpin(IndexRange),
    /// Move bytes.
    Transfer(Transfer),
}

/// What came of it.
#[derive(Debug)]
pub enum PinDone {
    /// Of `Pin` and `Recall`.
    Frames(PfnBatch, Failable),
    /// Of `Unpin`.
    Unpinned,
    /// Of `Transfer`.
    Transferred(Result<Vec<u8>, Refusal>),
    /// The source panicked, or the pool is gone.
    Lost(Refusal),
}

/// Asks for work on a source.
#[derive(Message)]
#[rtype(result = "PinDone")]
pub struct PinRequest {
    /// The source.
    pub source: Arc<dyn PageSource>,
    /// The work.
    pub work: PinWork,
}

struct Job {
    request: PinRequest,
    reply: oneshot::Sender<PinDone>,
}

/// The threads that may block.
#[derive(Clone, Debug)]
pub struct PinPool {
    queue: Sender<Job>,
    places: Permits,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} of {}", self.request.work, self.request.source.name())
    }
}

impl PinPool {
    /// Starts `threads` threads over a queue of `places`; `name` is what they are called.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(name: &str, threads: usize, places: usize) -> std::io::Result<Self> {
        let (queue, jobs) = bounded(places);
        for number in 0..threads.max(1) {
            let jobs = jobs.clone();
            thread::Builder::new().name(format!("{name}-{number}")).spawn(move || work_off(&jobs))?;
        }
        Ok(Self { queue, places: Permits::new(places) })
    }

    /// The places of its queue.
    #[must_use]
    pub const fn places(&self) -> &Permits {
        &self.places
    }

    async fn carry_out(self, request: PinRequest) -> PinDone {
        let Ok(_place) = self.places.semaphore().acquire().await else {
            return PinDone::Lost(poisoned("the pin pool"));
        };
        let (reply, done) = oneshot::channel();
        if self.queue.try_send(Job { request, reply }).is_err() {
            return PinDone::Lost(poisoned("the pin pool"));
        }
        done.await.unwrap_or_else(|_| PinDone::Lost(poisoned("a page source")))
    }
}

/// Ends when every sender is gone. A client that no longer waits still gets its work done: a pin it asked for is known
/// only to who asked, but movements always wait.
fn work_off(jobs: &Receiver<Job>) {
    for Job { request, reply } in jobs {
        let done = caught_now("a page source", || carry_out(request));
        let unheard = reply.send(done.unwrap_or_else(PinDone::Lost)).is_err();
        debug_assert!(!unheard, "a movement stopped waiting for its pin");
    }
}

fn carry_out(PinRequest { source, work }: PinRequest) -> PinDone {
    match work {
        PinWork::Pin(range, mut batch) => {
            let result = injected(&*source, range, Point::Pin).and_then(|()| source.pin(range, &mut batch));
            PinDone::Frames(batch, refused(result))
        }
        PinWork::Recall(range, mut batch) => {
            let result =
                injected(&*source, range, Point::Recall).and_then(|()| source.recall(range, &mut batch));
            PinDone::Frames(batch, refused(result))
        }
        PinWork::Unpin(range) => {
            source.unpin(range);
            PinDone::Unpinned
        }
        PinWork::Transfer(transfer) => PinDone::Transferred(refused(move_bytes(&*source, transfer))),
    }
}

/// Carries work out where it was asked for, if it can neither wait for anybody nor take long; else gives it back.
pub(super) fn carry_out_now(source: &dyn PageSource, work: PinWork) -> Result<PinDone, PinWork> {
    match work {
        PinWork::Pin(range, mut batch) => {
            let pinned = injected(source, range, Point::Pin)
                .map_or_else(|error| Some(Err(error)), |()| source.pin_now(range, &mut batch));
            match pinned {
                Some(result) => Ok(PinDone::Frames(batch, refused(result))),
                None => Err(PinWork::Pin(range, batch)),
            }
        }
        PinWork::Unpin(range) => {
            source.unpin_now(range).map(|()| PinDone::Unpinned).ok_or(PinWork::Unpin(range))
        }
        work @ (PinWork::Recall(..) | PinWork::Transfer(_)) => Err(work),
    }
}

fn injected(source: &dyn PageSource, range: IndexRange, point: Point) -> Result<(), SourceError> {
    fault_points::hit(point).map_err(|injected| SourceError {
        source_name: source.name(),
        index: range.first(),
        reason: injected.to_string(),
        errno: injected.errno(),
        code: injected.code(),
    })
}

fn move_bytes(source: &dyn PageSource, transfer: Transfer) -> Result<Vec<u8>, SourceError> {
    match transfer {
        Transfer::Read { offset, length } => read(source, offset, length),
        Transfer::Write { offset, bytes } => source.write(offset, &bytes).map(|()| Vec::new()),
    }
}

fn read(source: &dyn PageSource, offset: ByteLen, length: ByteLen) -> Result<Vec<u8>, SourceError> {
    let too_long = |_| SourceError {
        source_name: source.name(),
        index: ioasd_client::units::PageIndex::containing(offset),
        reason: format!("{length} bytes do not fit in memory"),
        errno: Errno::NOMEM,
        code: "read-too-long",
    };
    let mut bytes = vec![0; usize::try_from(length.get()).map_err(too_long)?];
    source.read(offset, &mut bytes)?;
    Ok(bytes)
}

fn refused<T>(result: Result<T, SourceError>) -> Result<T, Refusal> {
    result.map_err(|error| Refusal::of(&error))
}

/// The pools as the actors of one arbiter see them.
#[derive(Debug)]
pub struct Pinner {
    prompt: PinPool,
    waiting: PinPool,
}

impl Pinner {
    /// A face of two pools: one for sources that wait for nobody, and one for those that wait for a client's process.
    #[must_use]
    pub const fn new(prompt: PinPool, waiting: PinPool) -> Self {
        Self { prompt, waiting }
    }
}

impl Actor for Pinner {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(super::MAILBOX);
    }
}

impl Handler<PinRequest> for Pinner {
    type Result = LocalBoxFuture<'static, PinDone>;

    fn handle(&mut self, request: PinRequest, _: &mut Self::Context) -> Self::Result {
        let pool = if request.source.waits_for_its_client() { &self.waiting } else { &self.prompt };
        Box::pin(pool.clone().carry_out(request))
    }
}
