//! Domains: IO page tables that are written.
//!
//! A software domain is a table of a real hardware format in an arena that other processes map and walk. One
//! [`table::Table`] is owned by one writer; nothing here knows actors, time or who pays.
//!
//! | file | what it is |
//! |---|---|
//! | [`arena`] | the memfd that holds the tables of one domain, and which of its pages are in use |
//! | [`epoch`] | who is walking: the agent's side of slots, epochs and generations |
//! | [`walker_faults`] | what walkers tell of their faults |
//! | [`spec`] | what a table shall be: format, aperture, page sizes |
//! | [`table`] | the table of one domain, and the trait its writer knows it by |
//! | [`batch`] | a batch of frames on its way into one table, all or nothing |
//! | [`map`], `unmap`, [`dirty`], `read_back`, `walk`, `check` | what a table can do, generic over the format |
//! | [`written`], `walker_log` | which pages were written to: what is known here, and what a walker logs |
//! | [`dirty_bitmap`] | which pages were written to, as a client is told |
//! | [`error`] | what can go wrong, with errno and code |
//!
//! Imports allowed: `sys`, `storage`, and the client crate's formats, layouts and units.

pub mod arena;
pub mod batch;
mod check;
pub mod dirty;
pub mod dirty_bitmap;
pub mod epoch;
pub mod error;
pub mod map;
mod read_back;
pub mod spec;
pub mod table;
mod unmap;
mod walk;
pub mod walker_faults;
mod walker_log;
pub mod written;
