//! Passive storage: no actor, no clock, no I/O, no unsafe.

pub mod area;
mod carry;
pub mod counts;
mod ending;
mod fill;
pub mod frame_window;
pub mod interval_tree;
pub mod io_pagetable;
pub mod ioas;
pub mod iova_allocator;
pub mod ledger;
pub mod movement;
pub mod pages;
pub mod pfn;
mod pfn_chunk;
mod pin_access;
pub mod pinned_pfns;
mod reader;
pub mod refusal;
mod release;
pub mod source;
pub mod span;
pub mod step;
mod transfer;
mod unfill;
mod unpin_access;

pub use reader::Tuning;
