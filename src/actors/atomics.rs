//! The atomics of the lock-free pieces, in one place: a model checker puts its own in their stead (`tests/models`).
//!
//! Imports allowed: `std`, `futures_util`.

pub(super) use std::sync::Arc;
pub(super) use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) use futures_util::task::AtomicWaker;
