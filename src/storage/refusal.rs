//! A refusal: an error on its way to the client, as every tier and actor passes it on.
//!
//! Typed errors live where they arise; once one has to cross to another tier or actor, what counts is its errno, its
//! stable code and its text. The first two never change on the way.
//!
//! Imports allowed: error.

use crate::error::{Coded, Errno};

/// Why an operation was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    errno: Errno,
    code: &'static str,
    text: String,
}

impl Refusal {
    /// A refusal that has no typed error of its own.
    #[must_use]
    pub fn new(errno: Errno, code: &'static str, text: impl Into<String>) -> Self {
        Self { errno, code, text: text.into() }
    }

    /// The same refusal, its text preceded by `context`.
    #[must_use]
    pub fn within(mut self, context: &str) -> Self {
        self.text = format!("{context}: {}", self.text);
        self
    }
}

impl Coded for Refusal {
    fn errno(&self) -> Errno {
        self.errno
    }

    fn code(&self) -> &'static str {
        self.code
    }
}

impl Refusal {
    /// The refusal that tells of `error`.
    #[must_use]
    pub fn of(error: &impl Coded) -> Self {
        Self { errno: error.errno(), code: error.code(), text: error.to_string() }
    }
}
