//! What lies where in the memory that the agent and its walkers share.
//!
//! Three kinds of memfd, all made by the agent:
//!
//! * an **arena** holds the tables of one domain. Its first page is the [`ArenaHeader`] and four live words; the tables
//!   follow. Only the agent writes it.
//! * a **slots** memfd belongs to one walker. Each of its threads has one slot, in which it says since which epoch it
//!   has been looking at tables, and a ring of the faults it met. Only the walker writes it.
//! * a **dirty log** belongs to one walker of a domain whose writes can be tracked. Its walker sets bits, the agent clears
//!   them.
//!
//! A [`FrameWindow`] tells which frames are which pages of which backing file. [`protocol`] has the steps by which both
//! sides change and look at the words.
//!
//! Imports allowed: units, formats.

mod arena_header;
mod dirty_log;
mod fault_ring;
mod frame_window;
pub mod protocol;
mod slots;

pub use arena_header::{
    ALIVE_OFFSET, ArenaHeader, BootId, EPOCH_OFFSET, FIRST_EPOCH, GENERATION_OFFSET, HEADER_BYTES,
    HEADER_WORDS, HeaderError, IS_ALIVE, IS_DEAD, IS_LOGGED, WINDOWS_OFFSET,
};
pub use dirty_log::{LogBits, LogShape, LogWord};
pub use fault_ring::{
    Access, COUNTS_OFFSET, FaultKind, Nanoseconds, OPENED_OFFSET, RECORD_BYTES, RECORD_WORDS, RECORDS,
    WALKER_BYTES, WalkerFault, count_fault, latest_record, read_record, record_offset, write_record,
};
pub use frame_window::{FrameWindow, WINDOW_BYTES, WindowError};
pub use slots::{OUTSIDE, SLOT_BYTES, SLOTS, SLOTS_BYTES, SlotIndex};
