//! An operation: a request at work, or the end of a context, as others see it while it lasts.
//!
//! Whoever does the work notes what is being done, how far it has come and what it waits for; the admin API reads that
//! from its own thread, and may ask that the work be undone. Noting is a relaxed store, or a lock that nobody holds for
//! longer than a moment. What never has to wait is over before anybody could see it, and is not even listed (see `late`).
//!
//! | file | what it is |
//! |---|---|
//! | `undo` | whether it has a way back, and whether somebody wants it to go there |
//! | `words` | what it does, what it waits for |
//! | [`watching`] | what the steps of a movement say of it |
//!
//! Imports allowed: units, errors, number, figures, storage's orders and refusals, `tokio::sync`.

mod undo;
pub mod watching;
mod words;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, IovaRange, PAGE_SIZE};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use self::undo::Undo;
pub use self::undo::{CancelledError, Canceller, FixedError, Undoable};
pub use self::words::{Doing, Waiting};
use super::figures::{ContextStats, IoasStats};
use super::number::Number;
use crate::storage::refusal::Refusal;

/// The command under which the end of a context is listed.
pub const CLOSE: &str = "CLOSE";

/// What it is about.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The object that the request named first.
    pub object: Option<ObjectId>,
    /// The address space at work.
    pub ioas: Option<Number<IoasStats>>,
    /// The addresses.
    pub range: Option<IovaRange>,
    /// What is wrong with what it waits for.
    pub trouble: Option<String>,
}

/// How far it has come with what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Done.
    pub done: ByteLen,
    /// All there is to do, if that is known.
    pub total: Option<ByteLen>,
}

/// One operation.
#[derive(Debug)]
pub struct Operation {
    /// The context it is for.
    pub context: Number<ContextStats>,
    since: Instant,
    command: OnceLock<&'static str>,
    subject: Mutex<Subject>,
    doing: AtomicU8,
    waiting: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    undo: Undo,
    early: Mutex<Option<oneshot::Sender<Refusal>>>,
    answered: AtomicBool,
    outcome: OnceLock<&'static str>,
    over: Notify,
}

impl Operation {
    /// One that begins.
    #[must_use]
    pub fn new(context: Number<ContextStats>, since: Instant) -> Self {
        let (command, subject, early, outcome, over) = Default::default();
        let (done, total, undo, answered) = Default::default();
        Self {
            context,
            since,
            command,
            subject,
            doing: AtomicU8::new(Doing::Beginning as u8),
            waiting: AtomicU8::new(Waiting::Turn as u8),
            done,
            total,
            undo,
            early,
            answered,
            outcome,
            over,
        }
    }

    /// The same, which can be answered through `early` before it is over.
    #[must_use]
    pub fn answered_through(self, early: oneshot::Sender<Refusal>) -> Self {
        Self { early: Mutex::new(Some(early)), ..self }
    }

    /// Notes the command, once it is understood.
    pub fn note_command(&self, command: &'static str) {
        let noted = self.command.set(command);
        tracing::trace!(?noted, command, "a request is understood");
    }

    /// The command, once it is understood.
    #[must_use]
    pub fn command(&self) -> Option<&'static str> {
        self.command.get().copied()
    }

    /// How long it has been going on.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Notes which object the request named.
    pub fn note_object(&self, object: ObjectId) {
        self.subject.lock().object.get_or_insert(object);
    }

    /// Notes the addresses that it is about.
    pub fn note_range(&self, range: IovaRange) {
        self.subject.lock().range = Some(range);
    }

    /// What it is about.
    #[must_use]
    pub fn subject(&self) -> Subject {
        self.subject.lock().clone()
    }

    /// Work on `ioas` begins, over `bytes` as far as that is known.
    pub fn begin(&self, ioas: Number<IoasStats>, undoable: Undoable, bytes: ByteLen) {
        self.subject.lock().ioas = Some(ioas);
        self.doing.store(Doing::Beginning as u8, Ordering::Relaxed);
        self.wait_for(Waiting::Turn);
        self.done.store(0, Ordering::Relaxed);
        self.total.store(bytes.get(), Ordering::Relaxed);
        self.undo.begin(undoable);
    }

    /// Something is done from now on. What was done before is all that there is to take back, and what is undone stays so.
    pub fn turn_to(&self, doing: Doing) {
        let before = self.doing();
        if before == doing || before == Doing::Undoing && doing.takes_back() {
            return;
        }
        self.doing.store(doing as u8, Ordering::Relaxed);
        if before != Doing::Beginning {
            self.total.store(self.done.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// What is being done.
    #[must_use]
    pub fn doing(&self) -> Doing {
        let doing = Doing::ALL.get(usize::from(self.doing.load(Ordering::Relaxed)));
        doing.copied().unwrap_or(Doing::Beginning)
    }

    /// It waits from now on.
    pub fn wait_for(&self, waiting: Waiting) {
        self.waiting.store(waiting as u8, Ordering::Relaxed);
    }

    /// What it waits for.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        let waiting = Waiting::ALL.get(usize::from(self.waiting.load(Ordering::Relaxed)));
        waiting.copied().unwrap_or(Waiting::Turn)
    }

    /// So many more pages are done.
    pub fn advance(&self, pages: u64) {
        self.done.fetch_add(pages.saturating_mul(PAGE_SIZE), Ordering::Relaxed);
    }

    /// How far it has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        let total = (total > 0).then_some(total);
        Progress {
            done: ByteLen::new(total.map_or(done, |total| done.min(total))),
            total: total.map(ByteLen::new),
        }
    }

    /// Asks that it be undone. Asking again changes nothing.
    ///
    /// # Errors
    /// If it has no way back.
    pub fn cancel(&self, by: Canceller) -> Result<(), FixedError> {
        self.undo.ask(by)
    }

    /// Why it cannot be cancelled, if it cannot.
    #[must_use]
    pub fn fixed(&self) -> Option<FixedError> {
        self.undo.fixed()
    }

    /// Why it is to be undone, if somebody asked for that.
    #[must_use]
    pub fn cancelled(&self) -> Option<Refusal> {
        let command = || self.command().unwrap_or("a request");
        self.undo.asked().map(|by| Refusal::of(&CancelledError { command: command(), by }))
    }

    /// Something is wrong with what it waits for.
    pub fn note_trouble(&self, trouble: Option<&str>) {
        self.subject.lock().trouble = trouble.map(str::to_owned);
    }

    /// The request is answered now, and goes on. One that has been answered meanwhile is left as it is.
    pub fn answer_early(&self, refusal: Refusal) {
        let early = self.early.lock().take();
        if early.is_some_and(|early| early.send(refusal).is_ok()) {
            self.answered.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the client has its answer already.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// It is over; `outcome` is `ok`, or the stable code of why not.
    pub fn end(&self, outcome: &'static str) {
        self.outcome.get_or_init(|| outcome);
        self.over.notify_waiters();
    }

    /// Waits until it is over; tells its outcome.
    pub async fn ended(&self) -> &'static str {
        loop {
            let over = self.over.notified();
            if let Some(outcome) = self.outcome.get() {
                return outcome;
            }
            over.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::error::{Coded, Errno};

    fn operation() -> Operation {
        let operation = Operation::new(Number::new(1), Instant::now());
        operation.note_command("TEST");
        operation
    }

    fn begin(operation: &Operation, undoable: Undoable, pages: u64) {
        operation.begin(Number::new(2), undoable, ByteLen::new(pages * PAGE_SIZE));
    }

    fn pages(operation: &Operation) -> (u64, Option<u64>) {
        let Progress { done, total } = operation.progress();
        (done.get() / PAGE_SIZE, total.map(|total| total.get() / PAGE_SIZE))
    }

    #[test]
    fn what_the_client_is_told_of_its_cancelled_request_names_the_command() {
        let operation = operation();
        begin(&operation, Undoable::Yes, 1);
        assert_eq!(operation.cancelled(), None);
        assert_eq!(operation.cancel(Canceller::Operator), Ok(()));
        let refusal = operation.cancelled().unwrap();
        assert_eq!((refusal.errno(), refusal.code()), (Errno::CANCELED, "operation-cancelled"));
        assert!(refusal.to_string().starts_with("TEST was cancelled by an operator"), "{refusal}");
    }

    #[test]
    fn what_is_undone_goes_back_over_what_was_done() {
        let operation = operation();
        begin(&operation, Undoable::Yes, 10);
        operation.turn_to(Doing::Filling);
        operation.advance(6);
        for doing in [Doing::Undoing, Doing::TakingOut, Doing::LettingGo] {
            operation.turn_to(doing);
            operation.advance(2);
            assert_eq!(operation.doing(), Doing::Undoing);
        }
        assert_eq!(pages(&operation), (6, Some(6)));
    }

    #[test]
    fn what_was_done_is_all_there_is_to_let_go_of() {
        let operation = operation();
        assert_eq!(pages(&operation), (0, None));
        begin(&operation, Undoable::No, 10);
        operation.turn_to(Doing::TakingOut);
        operation.advance(3);
        operation.turn_to(Doing::TakingOut);
        operation.advance(4);
        assert_eq!(pages(&operation), (7, Some(10)));
        operation.turn_to(Doing::LettingGo);
        assert_eq!((pages(&operation), operation.doing()), ((0, Some(7)), Doing::LettingGo));
        operation.advance(9);
        assert_eq!(pages(&operation), (7, Some(7)), "more than all is all");
    }

    #[test]
    fn whoever_waits_for_the_end_is_told_the_first_outcome_also_afterwards() {
        let operation = operation();
        let mut waits = Box::pin(operation.ended());
        assert_eq!((&mut waits).now_or_never(), None);
        operation.end("ok");
        operation.end("late");
        assert_eq!(waits.now_or_never(), Some("ok"));
        assert_eq!(operation.ended().now_or_never(), Some("ok"));
    }
}
