//! Requests that are answered before they are over, because a walker does not leave.
//!
//! ```text
//!   request ──▶ … ──▶ Ioas waits for a grace period ──▶ Retirement: the deadline is over ──refusal──┐
//!      │                                                                                            │
//!      ├──◀── the answer, ETIMEDOUT, which names the walkers ◀──────────────────────────────────────┘
//!      └──▶ the rest of it goes on, and ends when the walkers have left
//! ```
//!
//! A request is one future, from the message to the answer, and whatever waits within it can find its [`Patience`]. Work
//! that belongs to no request, such as taking down the context of a dead client, has none and waits as long as it takes.
//!
//! Imports allowed: storage's refusals, `tokio`.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

use futures_util::future::{Either, LocalBoxFuture, select};
use tokio::sync::oneshot;

use crate::storage::refusal::Refusal;

tokio::task_local! {
    static REQUEST: Rc<Request>;
}

struct Request {
    command: Cell<&'static str>,
    patience: RefCell<Option<Patience>>,
}

/// Where to say that a request shall wait no longer.
#[derive(Debug)]
pub struct Patience(oneshot::Sender<Refusal>);

impl Patience {
    /// The request is answered now. One that has been answered meanwhile is left as it is.
    pub fn end(self, refusal: Refusal) {
        if self.0.send(refusal).is_err() {
            tracing::debug!("a request ended while its walkers were given up on");
        }
    }
}

/// The patience of the request that this is done for; each has it once.
#[must_use]
pub fn patience() -> Option<Patience> {
    REQUEST.try_with(|request| request.patience.take()).ok().flatten()
}

/// Notes which command the request is, for reports.
pub fn note_command(command: &'static str) {
    let noted = REQUEST.try_with(|request| request.command.set(command));
    tracing::trace!(?noted, command, "a request is understood");
}

/// How a request ended.
pub enum Ended<T> {
    /// It is over.
    Done(T),
    /// It is to be answered, and goes on.
    Late {
        /// The command, if one was noted.
        command: Option<&'static str>,
        /// The answer.
        refusal: Refusal,
        /// What is left to do.
        rest: LocalBoxFuture<'static, T>,
    },
}

/// Does the work of a request until it is over, or has lost its patience.
pub async fn until_late<T: 'static>(work: impl Future<Output = T> + 'static) -> Ended<T> {
    let (ended, impatient) = oneshot::channel();
    let patience = RefCell::new(Some(Patience(ended)));
    let request = Rc::new(Request { command: Cell::new(""), patience });
    let work: LocalBoxFuture<'static, T> = Box::pin(REQUEST.scope(Rc::clone(&request), work));
    match select(work, impatient).await {
        Either::Left((done, _)) => Ended::Done(done),
        Either::Right((Ok(refusal), rest)) => {
            let command = Some(request.command.get()).filter(|command| !command.is_empty());
            Ended::Late { command, refusal, rest }
        }
        Either::Right((Err(_), rest)) => Ended::Done(rest.await),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::error::Errno;

    fn refusal() -> Refusal {
        Refusal::new(Errno::TIMEDOUT, "test", "late")
    }

    #[test]
    fn what_loses_its_patience_is_answered_and_goes_on() {
        let (go_on, when) = oneshot::channel::<u32>();
        let work = async {
            note_command("TEST");
            patience().unwrap().end(refusal());
            when.await
        };
        let Some(Ended::Late { command, refusal: told, rest }) = until_late(work).now_or_never() else {
            panic!("it was not answered");
        };
        assert_eq!((command, told), (Some("TEST"), refusal()));
        go_on.send(7).unwrap();
        assert_eq!(rest.now_or_never(), Some(Ok(7)));
    }

    #[test]
    fn what_keeps_its_patience_or_passes_it_on_for_nothing_ends_as_it_ends() {
        assert!(matches!(until_late(async { 5 }).now_or_never(), Some(Ended::Done(5))));
        let passed_on = until_late(async {
            drop(patience());
            assert!(patience().is_none(), "each has it once");
            6
        });
        assert!(matches!(passed_on.now_or_never(), Some(Ended::Done(6))));
        assert!(patience().is_none(), "this is no request");
    }
}
