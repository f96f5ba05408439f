//! Messages that travel between actors. They live apart from the actors, so that no actor imports another's file for a
//! message.
//!
//! Imports allowed: units, storage, domains, inbox.

pub mod dispatch;
pub mod ioas;
pub mod questions;
pub mod tiers;
