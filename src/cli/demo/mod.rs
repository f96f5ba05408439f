//! `ioasd demo`: the whole path on this machine, each part in a process of its own.
//!
//! ```text
//! demo ──starts──▶ agent (ioasd serve, private sockets)
//!   │                ▲ uAPI
//!   └────starts──▶ client: a memfd, two IOASes, N devices ──starts──▶ device × N, each with an export channel as stdin
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `director` | the order of events, seen from the demo's own process |
//! | [`client`], [`device`] | the two other roles |
//! | `agent` | the agent's configuration, start and readiness |
//! | `family`, `speech` | child processes, and what they say on their standard output |
//! | `plan`, `pattern`, `memory` | how much, who owns which page, what stands in it, and where |
//! | `holding` | what can hold the memory here, and what that means |
//! | `figures` | the agent's metrics, understood |
//! | `invitation` | what to look at while the demo stays up |
//! | `kernel_view` | what the kernel says the agent holds |
//! | `folder` | a private folder that does not outlive the demo |
//!
//! Imports allowed: everything.

mod agent;
pub mod client;
pub mod device;
mod director;
mod family;
mod figures;
pub(super) mod folder;
mod holding;
mod invitation;
mod kernel_view;
mod memory;
mod pattern;
mod plan;
mod speech;

use std::error::Error;

use self::director::DemoError;
use self::plan::Plan;
use super::{DemoArgs, Exit, with_causes};

/// Shows the whole path and checks every byte of it.
pub fn demo(args: &DemoArgs) -> Exit {
    ended(Plan::new(args).map_err(DemoError::from).and_then(director::direct), "demo", DemoError::exit)
}

/// Says on standard error why `who` failed.
fn ended<E: Error>(outcome: Result<(), E>, who: &str, exit: impl FnOnce(&E) -> Exit) -> Exit {
    match outcome {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("{who}: {}", with_causes(&error));
            exit(&error)
        }
    }
}
