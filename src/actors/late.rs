//! The operation that work is done for, wherever it is done; and requests that are answered before they are over, because a
//! walker does not leave.
//!
//! ```text
//!   request ──▶ … ──▶ Ioas waits for a grace period ──▶ Retirement: the deadline is over ──refusal──┐
//!      │                                                                                            │
//!      ├──◀── the answer, ETIMEDOUT, which names the walkers ◀──────────────────────────────────────┘
//!      └──▶ the rest of it goes on, and ends when the walkers have left
//! ```
//!
//! A request is one future, from the message to the answer, and whatever waits within it finds its [`Operation`] with
//! [`current`]. It is listed from the first time that it has to wait: one that never has to costs the list nothing.
//!
//! Imports allowed: operation, registry, storage's refusals, `tokio`.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use futures_util::future::{Either, LocalBoxFuture, select};
use tokio::sync::oneshot;

use super::figures::ContextStats;
use super::number::Number;
use super::operation::Operation;
use super::registry::Registry;
use crate::storage::refusal::Refusal;

tokio::task_local! {
    static OPERATION: Arc<Operation>;
}

/// The operation that this is done for.
#[must_use]
pub fn current() -> Option<Arc<Operation>> {
    OPERATION.try_with(Arc::clone).ok()
}

/// Notes something of the operation that this is done for.
pub fn note(note: impl FnOnce(&Operation)) {
    let noted = OPERATION.try_with(|operation| note(operation));
    tracing::trace!(?noted, "work is noted");
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

/// Does the work of a request of `context` until it is over, or must be answered. It comes boxed, because it is large, and
/// would be copied whole from one layer to the next.
pub async fn until_late<T: 'static>(
    registry: Arc<Registry>,
    context: Number<ContextStats>,
    work: LocalBoxFuture<'static, T>,
) -> Ended<T> {
    let (early, answer) = oneshot::channel();
    let operation = Arc::new(Operation::new(context, Instant::now()).answered_through(early));
    let shown = Arc::clone(&operation);
    let work: LocalBoxFuture<'static, T> = Box::pin(async move { listed(&registry, shown, work).await });
    match select(work, answer).await {
        Either::Left((done, _)) => Ended::Done(done),
        Either::Right((Ok(refusal), rest)) => Ended::Late { command: operation.command(), refusal, rest },
        Either::Right((Err(_), rest)) => Ended::Done(rest.await),
    }
}

/// Does the work of `operation`, which is listed while it waits.
pub async fn listed<T>(registry: &Registry, operation: Arc<Operation>, mut work: LocalBoxFuture<'_, T>) -> T {
    let shown = Arc::clone(&operation);
    let work = async {
        let at_once = poll_fn(|context| {
            Poll::Ready(match work.as_mut().poll(context) {
                Poll::Ready(done) => Some(done),
                Poll::Pending => None,
            })
        });
        if let Some(done) = at_once.await {
            return done;
        }
        let _listed = registry.register_operation(shown);
        work.await
    };
    OPERATION.scope(operation, work).await
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use futures_util::FutureExt;

    use super::*;
    use crate::error::Errno;

    fn refusal() -> Refusal {
        Refusal::new(Errno::TIMEDOUT, "test", "late")
    }

    fn until_late<T: 'static>(
        registry: &Arc<Registry>,
        work: impl Future<Output = T> + 'static,
    ) -> Option<Ended<T>> {
        super::until_late(Arc::clone(registry), Number::new(1), work.boxed_local()).now_or_never()
    }

    #[test]
    fn what_must_be_answered_is_answered_and_goes_on_and_is_listed_until_its_end() {
        let registry = Registry::new();
        let (go_on, when) = oneshot::channel::<u32>();
        let work = async {
            note(|operation| operation.note_command("TEST"));
            note(|operation| operation.answer_early(refusal()));
            when.await
        };
        let Some(Ended::Late { command, refusal: told, rest }) = until_late(&registry, work) else {
            panic!("it was not answered");
        };
        assert_eq!((command, told), (Some("TEST"), refusal()));
        let [listed] = &registry.operations()[..] else { panic!("it is not listed") };
        assert_eq!((listed.stats.command(), listed.stats.is_answered()), (Some("TEST"), true));
        go_on.send(7).unwrap();
        assert_eq!(rest.now_or_never(), Some(Ok(7)));
        assert!(registry.operations().is_empty());
    }

    #[test]
    fn what_never_waits_is_never_listed_and_what_is_no_request_has_no_operation() {
        let registry = Registry::new();
        let seen = Arc::clone(&registry);
        let work = async move {
            assert!(current().is_some() && seen.operations().is_empty());
            5
        };
        assert!(matches!(until_late(&registry, work), Some(Ended::Done(5))));
        assert!(current().is_none(), "this is no request");
    }
}
