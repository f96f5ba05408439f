//! ioasd: a host agent that owns DMA address spaces.
//!
//! Programs hand it memory; it pins the pages once, charges them once, and writes their frame numbers into as many IO page
//! tables as need them. It is the object model of Linux iommufd as an actor service.
//!
//! | module | what it is | may import |
//! |---|---|---|
//! | [`storage`] | the rules: passive machines and books | error, fault_points |
//! | [`sys`] | every syscall | error, fault_points |
//! | [`sources`] | where pages come from | sys, storage |
//! | [`domains`] | IO page tables that are written | sys, storage |
//! | [`actors`] | carry the machines' steps as messages | all of the above |
//! | [`uapi`] | commands over a socket | actors and below |
//! | [`telemetry`], [`admin`] | metrics, logs, HTTP | actors (its registry) |
//! | [`config`] | the configuration file and its precedence | value types of admin, telemetry, storage |
//! | [`cli`] | one file a subcommand | everything |
//! | [`error`], [`fault_points`] | errno and code of errors; places that tests can make fail | everybody may import them |
//! | [`mod@skip`] | how a test says that it cannot run here | tests alone import it |
//!
//! Units, wire frames, page-table formats and shared layouts live in the client crate, [`ioasd_client`], because both
//! sides must agree on them. `tests/architecture.rs` keeps the rule.

pub mod actors;
pub mod admin;
pub mod cli;
pub mod config;
pub mod domains;
pub mod error;
pub mod fault_points;
pub mod skip;
pub mod sources;
pub mod storage;
pub mod sys;
pub mod telemetry;
pub mod uapi;

/// The examples of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
