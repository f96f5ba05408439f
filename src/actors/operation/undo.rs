//! Undoing: whether an operation has a way back, and whether somebody wants it to go there.
//!
//! ```text
//!   NotYet ──begin(Yes)──▶ Possible ──ask──▶ Asked      looked at between two batches
//!      └──────begin(No)───────┴────────────────┴──▶ Past    what takes away must come to its end
//! ```
//!
//! Imports allowed: errors.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::{Coded, Errno};

/// Whether what begins can be undone on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undoable {
    /// It has a way back.
    Yes,
    /// It must come to its end.
    No,
}

/// Who wants an operation undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canceller {
    /// An operator.
    Operator,
    /// Nobody waits for it any more.
    HangUp,
}

/// An operation was undone because somebody asked for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct CancelledError {
    /// What it was.
    pub command: &'static str,
    /// Who asked.
    pub by: Canceller,
}

impl fmt::Display for CancelledError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, by } = self;
        match by {
            Canceller::Operator => write!(
                f,
                "{command} was cancelled by an operator before it was complete: what it had done is undone, ask again"
            ),
            Canceller::HangUp => write!(f, "{command} was cancelled because its client is gone"),
        }
    }
}

impl Coded for CancelledError {
    fn errno(&self) -> Errno {
        Errno::CANCELED
    }

    fn code(&self) -> &'static str {
        "operation-cancelled"
    }
}

/// Why an operation cannot be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FixedError {
    /// It has done nothing yet.
    #[error("there is nothing of it yet that could be undone: try again, or let it end")]
    NotYet,
    /// It takes something away.
    #[error(
        "it takes away what may be gone from tables already, and must come to its end: see what it waits for"
    )]
    TakesAway,
}

const NOT_YET: u8 = 0;
const POSSIBLE: u8 = 1;
const PAST: u8 = 2;
const ASKED_BY_OPERATOR: u8 = 3;
const ASKED_BY_HANG_UP: u8 = 4;

/// Where an operation stands. One writer takes it from step to step, and anybody may ask.
#[derive(Debug, Default)]
pub(super) struct Undo(AtomicU8);

impl Undo {
    /// Something begins.
    pub(super) fn begin(&self, undoable: Undoable) {
        match undoable {
            Undoable::No => self.0.store(PAST, Ordering::Release),
            Undoable::Yes => {
                let from = self.0.compare_exchange(NOT_YET, POSSIBLE, Ordering::AcqRel, Ordering::Acquire);
                tracing::trace!(?from, "what begins can be undone");
            }
        }
    }

    /// Somebody wants it undone. Asking again changes nothing.
    pub(super) fn ask(&self, by: Canceller) -> Result<(), FixedError> {
        let asked = match by {
            Canceller::Operator => ASKED_BY_OPERATOR,
            Canceller::HangUp => ASKED_BY_HANG_UP,
        };
        match self.0.compare_exchange(POSSIBLE, asked, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(found) => fixed(found).map_or(Ok(()), Err),
        }
    }

    /// Why it has no way back, if it has none.
    pub(super) fn fixed(&self) -> Option<FixedError> {
        fixed(self.0.load(Ordering::Acquire))
    }

    /// Who wants it undone, if anybody does.
    pub(super) fn asked(&self) -> Option<Canceller> {
        match self.0.load(Ordering::Acquire) {
            ASKED_BY_OPERATOR => Some(Canceller::Operator),
            ASKED_BY_HANG_UP => Some(Canceller::HangUp),
            _ => None,
        }
    }
}

const fn fixed(state: u8) -> Option<FixedError> {
    match state {
        NOT_YET => Some(FixedError::NotYet),
        PAST => Some(FixedError::TakesAway),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_undone_is_asked_for_once_and_what_takes_away_never() {
        let undo = Undo::default();
        assert_eq!(undo.ask(Canceller::Operator), Err(FixedError::NotYet));
        undo.begin(Undoable::Yes);
        assert_eq!((undo.asked(), undo.fixed()), (None, None));
        assert_eq!(undo.ask(Canceller::Operator), Ok(()));
        assert_eq!(undo.ask(Canceller::HangUp), Ok(()), "asking again changes nothing");
        assert_eq!(undo.asked(), Some(Canceller::Operator));
        undo.begin(Undoable::No);
        assert_eq!((undo.ask(Canceller::Operator), undo.asked()), (Err(FixedError::TakesAway), None));
        undo.begin(Undoable::Yes);
        assert_eq!(undo.fixed(), Some(FixedError::TakesAway), "part of it is past");
    }
}
