//! The live contexts by the number they are listed under, and whether new ones are admitted: what ends a context from
//! outside, as if its client had hung up.
//!
//! Imports allowed: client_context, number, figures.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::Addr;
use parking_lot::Mutex;

use super::client_context::{ClientContext, HangUp};
use super::figures::ContextStats;
use super::number::Number;

/// The live contexts.
#[derive(Default)]
pub struct Contexts {
    all: Mutex<BTreeMap<u64, Addr<ClientContext>>>,
    draining: AtomicBool,
}

impl Contexts {
    /// One more.
    pub(super) fn add(&self, number: Number<ContextStats>, context: Addr<ClientContext>) {
        let mut all = self.all.lock();
        all.retain(|_, context| context.connected());
        all.insert(number.get(), context);
    }

    /// Contexts that are not taken down yet.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.lock().values().filter(|context| context.connected()).count()
    }

    /// Whether context `number` is not taken down yet.
    #[must_use]
    pub fn lives(&self, number: Number<ContextStats>) -> bool {
        self.all.lock().get(&number.get()).is_some_and(Addr::connected)
    }

    /// Ends context `number` as if its client had hung up; does not wait for it.
    pub fn evict(&self, number: Number<ContextStats>) {
        let context = self.all.lock().get(&number.get()).cloned();
        context.iter().for_each(hang_up);
    }

    /// Ends every context there is, as if its client had hung up; waits for none of them.
    pub fn hang_up(&self) {
        let contexts: Vec<Addr<ClientContext>> = self.all.lock().values().cloned().collect();
        contexts.iter().filter(|context| context.connected()).for_each(hang_up);
    }

    /// From now on nobody who connects is served, or everybody again.
    pub fn set_draining(&self, draining: Draining) {
        self.draining.store(draining == Draining::Yes, Ordering::Relaxed);
    }

    /// Whether nobody who connects is served.
    #[must_use]
    pub fn draining(&self) -> Draining {
        if self.draining.load(Ordering::Relaxed) { Draining::Yes } else { Draining::No }
    }
}

/// Whether nobody who connects is served, while those who are served go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draining {
    /// Nobody is.
    Yes,
    /// Everybody is.
    No,
}

fn hang_up(context: &Addr<ClientContext>) {
    if let Err(error) = context.try_send(HangUp) {
        tracing::debug!(%error, "a context was not told to end");
    }
}

impl fmt::Debug for Contexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contexts").field("draining", &self.draining).finish_non_exhaustive()
    }
}
