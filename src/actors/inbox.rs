//! Inboxes: how reports ask the owner of an object.
//!
//! An object's figures carry an inbox beside them. Its address is weak: being listed keeps nothing alive. At most
//! [`WAITING_MAX`] questions wait for one object, and each is waited for no longer than [`PATIENCE`]; a question that is
//! given up keeps its place until the owner drops it, so a stuck owner collects no more than that.
//!
//! Imports allowed: `actix`, `tokio::time`.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::{Message, WeakRecipient};

/// Questions that may wait for one object.
pub const WAITING_MAX: u32 = 8;

/// How long an answer is waited for.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// What can be asked.
pub trait Ask: Send + 'static {
    /// What comes back.
    type Answer: Send + 'static;
}

/// A question on its way.
#[derive(Message)]
#[rtype(result = "Q::Answer")]
pub struct Question<Q: Ask> {
    /// What is asked.
    pub asked: Q,
    _place: Place,
}

/// A place in an inbox; free again when dropped.
struct Place(Arc<AtomicU32>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The object has ended.
    #[error("it has ended")]
    Gone,
    /// Earlier questions wait still.
    #[error("{WAITING_MAX} earlier questions wait for it still")]
    Busy,
    /// Its owner did not answer in time.
    #[error("its owner does not answer within {} s", PATIENCE.as_secs())]
    Late,
}

/// Reaches the owner of one object.
pub struct Inbox<Q: Ask> {
    owner: OnceLock<WeakRecipient<Question<Q>>>,
    waiting: Arc<AtomicU32>,
}

impl<Q: Ask> Default for Inbox<Q> {
    fn default() -> Self {
        Self { owner: OnceLock::new(), waiting: Arc::default() }
    }
}

impl<Q: Ask> Inbox<Q> {
    /// From now on `owner` is asked.
    pub fn open(&self, owner: impl Into<WeakRecipient<Question<Q>>>) {
        let opened_before = self.owner.set(owner.into()).is_err();
        debug_assert!(!opened_before, "an inbox has one owner");
    }

    /// Asks the owner.
    ///
    /// # Errors
    /// If there is no owner any more, too many wait for it, or it does not answer in time.
    pub async fn ask(&self, asked: Q) -> Result<Q::Answer, NoAnswer> {
        let owner = self.owner.get().and_then(WeakRecipient::upgrade).ok_or(NoAnswer::Gone)?;
        let question = Question { asked, _place: self.take_place()? };
        match tokio::time::timeout(PATIENCE, owner.send(question)).await {
            Ok(answer) => answer.map_err(|_| NoAnswer::Gone),
            Err(_) => Err(NoAnswer::Late),
        }
    }

    fn take_place(&self) -> Result<Place, NoAnswer> {
        let place = Place(Arc::clone(&self.waiting));
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        if before < WAITING_MAX { Ok(place) } else { Err(NoAnswer::Busy) }
    }
}

impl<Q: Ask> fmt::Debug for Inbox<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use actix::prelude::*;

    use super::*;

    #[derive(Debug)]
    struct Twice(u32);

    impl Ask for Twice {
        type Answer = u32;
    }

    struct Owner;

    impl Actor for Owner {
        type Context = Context<Self>;
    }

    impl Handler<Question<Twice>> for Owner {
        type Result = MessageResult<Question<Twice>>;

        fn handle(&mut self, question: Question<Twice>, _: &mut Self::Context) -> Self::Result {
            MessageResult(question.asked.0 * 2)
        }
    }

    fn opened(owner: &Addr<Owner>) -> Inbox<Twice> {
        let inbox = Inbox::default();
        inbox.open(owner.downgrade().recipient());
        inbox
    }

    #[actix_rt::test]
    async fn the_owner_answers_while_it_lives_and_is_not_kept_alive() {
        let owner = Owner.start();
        let inbox = opened(&owner);
        assert_eq!(inbox.ask(Twice(21)).await, Ok(42));
        drop(owner);
        actix_rt::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(inbox.ask(Twice(1)).await, Err(NoAnswer::Gone));
        assert_eq!(Inbox::<Twice>::default().ask(Twice(1)).await, Err(NoAnswer::Gone));
    }

    #[actix_rt::test]
    async fn a_stuck_owner_collects_no_more_questions_than_it_has_places() {
        let arbiter = Arbiter::new();
        let (go_on, stuck) = std::sync::mpsc::channel::<()>();
        let owner = Owner::start_in_arbiter(&arbiter.handle(), |_| Owner);
        let inbox = opened(&owner);
        assert_eq!(inbox.ask(Twice(1)).await, Ok(2));
        let (begun, when_begun) = tokio::sync::oneshot::channel();
        arbiter.spawn(async move {
            begun.send(()).expect("awaited");
            assert!(stuck.recv().is_err(), "the sender is only dropped");
        });
        when_begun.await.expect("the arbiter runs");
        let asked = (0..WAITING_MAX).map(|_| inbox.ask(Twice(1)));
        let answers = futures_util::future::join_all(asked).await;
        assert!(answers.iter().all(|answer| *answer == Err(NoAnswer::Late)), "{answers:?}");
        assert_eq!(inbox.ask(Twice(1)).await, Err(NoAnswer::Busy));
        drop(go_on);
        while inbox.waiting.load(Ordering::Relaxed) > 0 {
            actix_rt::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(inbox.ask(Twice(2)).await, Ok(4));
        arbiter.stop();
    }
}
