//! What happens when a handler panics: the object is poisoned, everybody else goes on.
//!
//! Every handler that does more than move a value runs inside [`caught`] or [`caught_now`]. A panic of the ledger or of
//! a FanOut would leave tables or bills of many clients half written: those abort the agent ([`or_abort`]).
//!
//! Imports allowed: `std`, `futures_util`, refusal.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures_util::FutureExt;

use crate::error::{Coded, Errno};
use crate::storage::refusal::Refusal;

/// The code of refusals by objects that panicked.
const POISONED: &str = "object-poisoned";

/// Runs `work` to its end; a panic becomes a refusal.
///
/// # Errors
/// If `work` panics.
pub async fn caught<T>(object: &str, work: impl Future<Output = T>) -> Result<T, Refusal> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|_| poisoned(object))
}

/// Runs `work`; a panic becomes a refusal.
///
/// # Errors
/// If `work` panics.
pub fn caught_now<T>(object: &str, work: impl FnOnce() -> T) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| poisoned(object))
}

/// Runs `work`; a panic ends the agent, because nothing that shares this state can be trusted any more.
pub fn or_abort<T>(object: &str, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        tracing::error!(object, "panicked: the agent cannot go on");
        std::process::abort()
    })
}

/// The refusal of an object that panicked before.
#[must_use]
pub fn poisoned(object: &str) -> Refusal {
    let text = format!(
        "{object} failed inside the agent and is out of use: its memory stays pinned until it is closed"
    );
    Refusal::new(Errno::IO, POISONED, text)
}

/// Whether a refusal comes from an object that panicked.
#[must_use]
pub fn is_poisoned(refusal: &Refusal) -> bool {
    refusal.code() == POISONED
}
