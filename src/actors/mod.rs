//! Actors: one a file, thin. A handler validates, calls the machine or the operation that holds the rules, and replies.
//!
//! **Awaited sends go down this picture only**; upward there are replies and notices. An actor that awaits keeps serving
//! (no `wait` on its own context across a send). This is what excludes deadlock.
//!
//! ```text
//!  client ── socket ──▶ ClientContext ─▶ Ioas ─▶ Pages ─┬─▶ Pinner    tier 3: a bounded pool of threads
//!                                                       ├─▶ PfnCache  tier 1: frames that accesses hold
//!                                                       └─▶ FanOut    tier 2: writes the tables of its arbiter's domains
//!                         │          ├─▶ Retirement   waits for walkers
//!                         │          └─▶ Access       takes notices to a software user
//!                         └─▶ Domain ─▶ FanOut         control face of a table; serves export channels
//!  HTTP ── admin ──▶ registry (dashmap of figures and inboxes) ── questions with a deadline ──▶ Ioas, Pages, FanOut
//! ```
//!
//! ClientContext, Ioas, Pages and the FanOut of one arbiter share a thread. They reach each other through cells handed over
//! when an actor starts, not by messages: an operation that has to wait for nothing is over in the wake-up that brought
//! it. What is awaited goes down all the same, and no cell stays borrowed across an await.
//!
//! | file | what it is |
//! |---|---|
//! | [`engine`], [`agent`], [`contexts`] | starting and stopping; what contexts share; ending one from outside |
//! | [`client_context`], [`objects`] | one open of the agent: socket, credits, object ids, operations |
//! | [`ioas`], [`access`], [`retirement`] | one address space; notices; grace periods |
//! | [`policy`] | which tenant a process belongs to, and what that may do |
//! | [`pages`], [`pages_handle`], [`payer`] | one pages object: runs movements and carries their steps; who pays for it |
//! | [`pinner`], [`pfn_cache`], [`fan_out`], [`tables`], [`domain`] | the tiers |
//! | [`latch`], [`credits`], [`shards`] | the fan-out path: seats, credits, owners of tables |
//! | [`guard`] | what a panic costs |
//! | [`auditor`] | what the agent says is held, beside what the kernel counts |
//! | [`registry`], [`number`], [`figures`], [`requests`], [`latencies`], [`journal`], [`frame_service`] | shared, lock-light state |
//! | [`operation`], [`late`] | a request at work, as others see it and may cancel it; answered before it is over |
//! | [`leases`] | closing is over for whoever looks |
//! | [`mock_hardware`] | what the test command needs beyond one context |
//! | [`inbox`], [`view`], [`load`] | how reports ask an object's owner; what the admin server may look at; how busy the tiers are |
//! | [`messages`] | what travels between actors |
//!
//! Imports allowed: storage, sys, sources, domains, units, errors.

pub mod access;
pub mod agent;
mod atomics;
pub mod auditor;
pub mod client_context;
pub mod contexts;
pub mod credits;
pub mod domain;
pub mod engine;
pub mod exported_files;
pub mod fan_out;
mod fault_channel;
pub mod figures;
pub mod frame_service;
pub mod guard;
pub mod handover;
pub mod inbox;
pub mod ioas;
pub mod journal;
pub mod latch;
#[cfg(test)]
mod latch_tests;
pub mod late;
pub mod latencies;
pub mod leases;
pub mod load;
pub mod messages;
pub mod mock_hardware;
pub mod number;
pub mod objects;
pub mod operation;
pub mod pages;
pub mod pages_handle;
pub mod payer;
pub mod pfn_cache;
pub mod pinner;
pub mod policy;
pub mod registry;
pub mod requests;
pub mod retirement;
pub mod rights;
pub mod shards;
pub mod tables;
pub mod view;

/// Messages that may wait for an actor.
const MAILBOX: usize = 256;
