//! Retirement: waits until the walkers of some domains have left what was unmapped.
//!
//! One grace period serves a whole UNMAP, whatever its size: each domain's epoch is advanced once, after its entries
//! were cleared, and then its slots are looked at until none holds an older one. Nobody else is held up meanwhile. The
//! end of its process, or of its export channel, ends the wait for a walker.
//!
//! A walker that does not leave is reported after a while, and after the deadline the policy says what happens: nothing,
//! or the request is answered while the grace period goes on, or the walker's process is killed. What was unmapped stays
//! pinned in any case until the walker has left or is dead.
//!
//! Imports allowed: domains::epoch, sys::pidfd, storage's refusals, journal, operation.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;

use super::journal::{Happening, Journal};
use super::operation::Operation;
use crate::domains::epoch::{Epoch, Epochs, Lagging};
use crate::error::Errno;
use crate::storage::refusal::Refusal;

/// Looks at the slots without sleeping this often first: a burst is short.
const SPINS: u32 = 64;

/// The first and the longest pause between two looks.
const PAUSES: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(5));

/// Walkers that a message names; more are counted.
const NAMED: usize = 8;

/// What is done about a walker that has not left by the deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HungPolicy {
    /// Nothing: the request waits on.
    #[default]
    Wait,
    /// The request is answered ETIMEDOUT; the range keeps retiring until the walker has left.
    Fail,
    /// Its process is killed. If that is not allowed, or the process is not known, the request waits on.
    Kill,
}

/// How walkers are waited for.
#[derive(Clone, Copy, Debug)]
pub struct HungSettings {
    /// When a walker that does not leave is reported.
    pub alarm_after: Duration,
    /// What is done about it.
    pub policy: HungPolicy,
    /// When it is done.
    pub deadline: Duration,
}

impl Default for HungSettings {
    fn default() -> Self {
        let (alarm_after, deadline) = (Duration::from_secs(10), Duration::from_secs(60));
        Self { alarm_after, policy: HungPolicy::Wait, deadline }
    }
}

/// The waiter of one arbiter.
#[derive(Debug)]
pub struct Retirement {
    settings: HungSettings,
    journal: Arc<Journal>,
}

impl Retirement {
    /// One that waits like this.
    #[must_use]
    pub fn new(settings: HungSettings) -> Self {
        Self { settings, journal: Arc::default() }
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
pub struct Grace {
    /// The domains.
    pub domains: Vec<Arc<Epochs>>,
    /// What waits for it.
    pub operation: Option<Arc<Operation>>,
}

impl Handler<Grace> for Retirement {
    type Result = LocalBoxFuture<'static, ()>;

    fn handle(&mut self, Grace { domains, operation }: Grace, _: &mut Self::Context) -> Self::Result {
        let begun = Begun::now(domains);
        let hung = Hung { settings: self.settings, journal: Arc::clone(&self.journal), operation };
        Box::pin(async move {
            if !begun.end_soon().await {
                hung.wait(&begun).await;
            }
        })
    }
}

/// The epochs of a grace period.
struct Begun(Vec<(Arc<Epochs>, Epoch)>);

impl Begun {
    fn now(domains: Vec<Arc<Epochs>>) -> Self {
        let begin = |epochs: Arc<Epochs>| {
            let epoch = epochs.advance();
            (epochs, epoch)
        };
        Self(domains.into_iter().map(begin).collect())
    }

    fn all_left(&self) -> bool {
        self.0.iter().all(|(epochs, epoch)| epochs.all_left(*epoch))
    }

    fn forget_dead(&self) {
        self.0.iter().for_each(|(epochs, epoch)| epochs.forget_dead(*epoch));
    }

    fn lagging(&self) -> Vec<Lagging> {
        self.0.iter().flat_map(|(epochs, epoch)| epochs.lagging(*epoch)).collect()
    }

    /// Whether everybody leaves within the time of a burst.
    async fn end_soon(&self) -> bool {
        for _ in 0..SPINS {
            if self.all_left() {
                return true;
            }
            tokio::task::yield_now().await;
        }
        false
    }
}

/// What is left to be done about those who do not leave.
struct Hung {
    settings: HungSettings,
    journal: Arc<Journal>,
    operation: Option<Arc<Operation>>,
}

impl Hung {
    async fn wait(self, begun: &Begun) {
        let since = Instant::now();
        let (mut pause, longest) = PAUSES;
        let (mut reported, mut acted) = (false, false);
        loop {
            begun.forget_dead();
            if begun.all_left() {
                break;
            }
            if !reported && since.elapsed() >= self.settings.alarm_after {
                reported = true;
                let walkers = names(&begun.lagging());
                self.note_trouble(Some(&format!("{walkers} does not leave")));
                self.tell(Happening::walkers_late(&walkers));
            }
            if !acted && since.elapsed() >= self.settings.deadline {
                acted = true;
                self.act(&begun.lagging());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
        self.note_trouble(None);
        if reported || acted {
            self.tell(Happening::walkers_left(since.elapsed()));
        }
    }

    fn note_trouble(&self, trouble: Option<&str>) {
        self.operation.iter().for_each(|operation| operation.note_trouble(trouble));
    }

    fn act(&self, lagging: &[Lagging]) {
        match self.settings.policy {
            HungPolicy::Wait => {}
            HungPolicy::Fail => self.fail(lagging),
            HungPolicy::Kill => lagging.iter().for_each(|walker| self.kill(walker)),
        }
    }

    fn fail(&self, lagging: &[Lagging]) {
        let Some(operation) = &self.operation else { return };
        let (walkers, deadline) = (names(lagging), self.settings.deadline);
        let text = format!(
            "{walkers} did not leave what was unmapped within {deadline:?}: let that process go on, or end it; what was \
             unmapped stays pinned and its addresses taken until then"
        );
        operation.answer_early(Refusal::new(Errno::TIMEDOUT, "walker-hung", text));
    }

    fn kill(&self, walker: &Lagging) {
        let killed = walker.process.as_ref().map(|process| process.kill());
        self.tell(match killed {
            Some(Ok(())) => Happening::walker_killed(walker),
            Some(Err(errno)) => Happening::walker_spared(walker, &errno),
            None => Happening::walker_spared(walker, &"no certain way to name it"),
        });
    }

    fn tell(&self, happening: Happening) {
        tracing::warn!("{}", happening.text);
        self.journal.tell(happening);
    }
}

/// The first of them by name.
fn names(walkers: &[Lagging]) -> String {
    let named: Vec<String> = walkers.iter().take(NAMED).map(Lagging::to_string).collect();
    match walkers.len().saturating_sub(named.len()) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
