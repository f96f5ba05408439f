//! What ioasd and its clients must agree on, and the client itself.
//!
//! | module | what it is |
//! |---|---|
//! | [`units`] | one type a quantity |
//! | [`ids`] | object ids |
//! | [`wire`] | frames and commands on the socket |
//! | [`connection`], [`calls`], [`error`] | the blocking client |
//! | [`pipeline`] | the client that does not wait: many requests under way |
//! | [`notices`] | what accesses are asked to let go of |
//! | [`lease`] | what keeps a context alive and opens channels |
//! | [`formats`] | page-table formats, bit by bit |
//! | [`layout`] | what agent and walkers share in memory: arena header, slots, frame windows |
//! | [`mapping`] | shared memory as atomics |
//! | [`walker`] | the read side of a software domain: translates IOVAs without any message |
//!
//! The agent depends on this crate, never the reverse. No actix, no tokio.

pub mod calls;
pub mod connection;
pub mod error;
pub mod formats;
pub mod ids;
pub mod layout;
pub mod lease;
pub mod mapping;
pub mod notices;
pub mod pipeline;
mod transport;
pub mod units;
pub mod walker;
pub mod wire;
