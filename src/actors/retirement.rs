//! Retirement: waits until the walkers of some domains have left what was unmapped.
//!
//! One grace period serves a whole UNMAP, whatever its size: each domain's epoch is advanced once, after its entries
//! were cleared, and then its slots are looked at until none holds an older one. Nobody else is held up meanwhile. The
//! policy is `wait`: a walker that does not leave is reported and waited for; its death ends the wait, because the
//! export channel hangs up and the walker is forgotten.
//!
//! Imports allowed: domains::epoch, journal.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::LocalBoxFuture;

use super::journal::{Happening, Journal};
use crate::domains::epoch::{Epoch, Epochs};

/// Looks at the slots without sleeping this often first: a burst is short.
const SPINS: u32 = 64;

/// The first and the longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(5));

/// The waiter of one arbiter.
#[derive(Debug)]
pub struct Retirement {
    alarm_after: Duration,
    journal: Arc<Journal>,
}

impl Retirement {
    /// Reports a walker that has not left after `alarm_after`.
    #[must_use]
    pub fn new(alarm_after: Duration) -> Self {
        Self { alarm_after, journal: Arc::default() }
    }

    /// The same, reporting to `journal` too.
    #[must_use]
    pub fn telling(self, journal: Arc<Journal>) -> Self {
        Self { journal, ..self }
    }
}

impl Actor for Retirement {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(super::MAILBOX);
    }
}

/// Answered when every walker has left what these domains no longer map.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Grace(pub Vec<Arc<Epochs>>);

impl Handler<Grace> for Retirement {
    type Result = LocalBoxFuture<'static, ()>;

    fn handle(&mut self, Grace(domains): Grace, _: &mut Self::Context) -> Self::Result {
        let (alarm_after, journal) = (self.alarm_after, Arc::clone(&self.journal));
        let begun: Vec<(Arc<Epochs>, Epoch)> = domains
            .into_iter()
            .map(|epochs| {
                let epoch = epochs.advance();
                (epochs, epoch)
            })
            .collect();
        Box::pin(async move {
            for (epochs, epoch) in begun {
                wait(&epochs, epoch, alarm_after, &journal).await;
            }
        })
    }
}

async fn wait(epochs: &Epochs, epoch: Epoch, alarm_after: Duration, journal: &Journal) {
    for _ in 0..SPINS {
        if epochs.all_left(epoch) {
            return;
        }
        tokio::task::yield_now().await;
    }
    let (mut pause, longest) = PAUSES;
    let mut alarm = Some(tokio::time::Instant::now() + alarm_after);
    while !epochs.all_left(epoch) {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
        if alarm.is_some_and(|at| tokio::time::Instant::now() >= at) {
            alarm = None;
            let walkers = epochs.lagging(epoch);
            tracing::warn!(?walkers, "walkers do not leave what was unmapped; waiting on");
            journal.tell(Happening::walkers_late(walkers));
        }
    }
}
