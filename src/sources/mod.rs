//! Sources: where pages come from. They turn syscalls into storage's `PageSource`.
//!
//! | file | what it is |
//! |---|---|
//! | [`mod@file`] | a client's file as a source |
//! | [`process`], [`upcall`] | memory of a process as a source; how the process is asked to pin |
//! | [`owned_file`], [`absent`] | shared memory of a process, which is a file; memory that cannot be reached |
//! | [`backing`] | what is behind a pages object, besides pins |
//! | [`presence`] | whether its pages are there; first touch |
//! | [`strength`], [`pin_host`] | which strengths this host can do, which one a source gets; what all sources share |
//! | `hold`, `slots`, `ring_pool` | what holds pins: locks, and slots of rings |
//! | [`pinned_places`] | which pages of its file a source has pinned, for reports |
//! | `physical` | physical frames of long-term pins |
//! | `kept_file`, `kept_mapping` | what is kept of a file between pins |
//! | [`frames`] | what a source asks of the frame space |
//!
//! Imports allowed: sys, storage.

pub mod absent;
pub mod backing;
pub mod dma_buf;
pub mod file;
pub mod frames;
mod hold;
mod kept_file;
mod kept_mapping;
pub mod owned_file;
mod physical;
pub mod pin_host;
pub mod pinned_places;
pub mod presence;
pub mod process;
mod ring_pool;
mod slots;
pub mod strength;
pub mod upcall;
