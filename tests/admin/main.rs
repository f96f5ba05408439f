//! The admin server of an agent at work, asked through its socket and over TCP; and `ioasd ctl` as a process.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed test helper is a failed test")]

mod changes;
mod ctl;
mod doors;
mod events;
mod explain;
mod faults;
mod fixture;
mod gaps;
mod http;
mod lists;
mod openapi;
mod operations;
mod refusals;
mod scale;
mod streams;
mod stuck;
mod walks;
