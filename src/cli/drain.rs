//! The end of an agent, step by step; each step is logged with the time it took.
//!
//! ```text
//!   signal ──▶ not ready, nobody is accepted
//!          ──▶ contexts may leave on their own, for `grace`          a second signal ends this step
//!          ──▶ those left are hung up on and taken down: domains detached, pages unpinned, for `close` at most
//!                                                                    a further signal ends this step
//! ```
//!
//! Taking down waits for walkers. One that never leaves does not keep the agent from ending: what is still pinned then is
//! told, and is the agent's exit code.
//!
//! Imports allowed: serve's engine, `futures_util`, `tokio::time`.

use std::pin::pin;
use std::time::Duration;

use actix_rt::time::{Instant, sleep, sleep_until};
use futures_util::future::{Either, select};
use futures_util::stream::{Stream, StreamExt};

use super::serve::Engine;

/// How often it is looked whether contexts are left.
const POLL: Duration = Duration::from_millis(2);

/// How long each step may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    /// For contexts to leave on their own.
    pub(super) grace: Duration,
    /// For those left to be taken down.
    pub(super) close: Duration,
}

/// Ends every context of `engine`. Each item of `signals` hurries.
pub(super) async fn drain(
    engine: &impl Engine,
    times: Times,
    signals: &mut (impl Stream<Item = ()> + Unpin),
) {
    let start = Instant::now();
    engine.stop_accepting();
    let contexts = engine.contexts();
    tracing::info!(contexts, grace = ?times.grace, "stopping: nobody is accepted any more, contexts may leave");
    let ended = emptied(engine, times.grace, signals).await;
    tracing::info!(contexts = engine.contexts(), took = ?start.elapsed(), ?ended, "the grace is over");
    let closing = Instant::now();
    engine.hang_up();
    let ended = emptied(engine, times.close, signals).await;
    match engine.contexts() {
        0 => tracing::info!(took = ?closing.elapsed(), "every context is taken down"),
        contexts => {
            let took = closing.elapsed();
            tracing::error!(
                contexts,
                ?took,
                ?ended,
                "contexts cannot be taken down: a walker does not leave, or an arbiter is stuck"
            );
        }
    }
}

/// Why a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// No context is left.
    Empty,
    /// Its time was over.
    Late,
    /// Another signal came.
    Hurried,
}

/// Waits until no context is left, the time is over, or a signal comes.
async fn emptied(
    engine: &impl Engine,
    patience: Duration,
    signals: &mut (impl Stream<Item = ()> + Unpin),
) -> Ended {
    let mut hurry = pin!(next_or_never(signals));
    let mut deadline = pin!(sleep_until(deadline(patience)));
    while engine.contexts() > 0 {
        let over = select(hurry.as_mut(), deadline.as_mut());
        match select(pin!(sleep(POLL)), over).await {
            Either::Left(_) => {}
            Either::Right((Either::Left(_), _)) => return Ended::Hurried,
            Either::Right((Either::Right(_), _)) => return Ended::Late,
        }
    }
    Ended::Empty
}

/// A time too far away to be told is far enough.
fn deadline(patience: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(u32::MAX as u64);
    Instant::now() + patience.min(FAR)
}

async fn next_or_never(signals: &mut (impl Stream<Item = ()> + Unpin)) {
    if signals.next().await.is_none() {
        std::future::pending::<()>().await;
    }
}
