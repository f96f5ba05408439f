//! What a request took, and the line of the log that each request leaves at debug: whose, which command, what came of it,
//! how long it took.
//!
//! When debug is off nothing is formatted. A request has one line, however many pages it moves.
//!
//! Imports allowed: actors' context state, refusal, `tracing`.

use std::time::Instant;

use crate::actors::client_context::state::ClientState;
use crate::actors::requests::OK;
use crate::error::Coded;
use crate::storage::refusal::Refusal;

/// A request that will leave a line, if anybody wants to read it.
pub(super) struct Line {
    since: Instant,
}

impl Line {
    /// A request begins.
    pub(super) fn begin() -> Self {
        Self { since: Instant::now() }
    }

    /// A request was answered.
    pub(super) fn end(self, client: &ClientState, command: &'static str, refusal: Option<&Refusal>) {
        let took = self.since.elapsed();
        client.record(command, refusal.map_or(OK, Coded::code), took);
        let context = client.number().get();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        match refusal {
            None => tracing::debug!(context, command, result = OK, micros, "request"),
            Some(refusal) => {
                tracing::debug!(context, command, result = refusal.code(), micros, %refusal, "request");
            }
        }
    }
}
