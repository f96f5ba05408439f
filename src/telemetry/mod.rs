//! What the agent tells of itself: log lines and metrics.
//!
//! `catalogue` is the one table of all metrics: the help texts and `docs/metrics.md` are made from it. `metrics` fills
//! a scrape from the registry, with the sums that `books` and `distinct` make and what only `text` can write; `host` adds what the kernel tells of the whole host. `logging` sets up `tracing`.
//!
//! Imports allowed: units, `storage::source`, `sys::{host, opener}`, `actors::{figures, registry, requests}`.

mod books;
pub mod catalogue;
mod distinct;
pub mod host;
pub mod logging;
pub mod metrics;
mod quotas;
mod text;
