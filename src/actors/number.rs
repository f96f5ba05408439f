//! Numbers of registered objects: one type a kind, so that two kinds cannot be confused.
//!
//! Imports allowed: `std` only.

use std::fmt;
use std::marker::PhantomData;

/// The number of a registered object, unique among its kind for the life of the agent.
///
/// It is not an object id of the uAPI: those are per context and used again.
pub struct Number<S>(u64, PhantomData<fn() -> S>);

impl<S> Number<S> {
    /// Number `raw`.
    pub(super) const fn new(raw: u64) -> Self {
        Self(raw, PhantomData)
    }

    /// The number, for reports.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl<S> Clone for Number<S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Number<S> {}

impl<S> PartialEq for Number<S> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<S> Eq for Number<S> {}

impl<S> fmt::Debug for Number<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}
