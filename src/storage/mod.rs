//! Storage: the rules of the engine. No actor, no clock, no I/O, no unsafe.
//!
//! | file | the kernel's name | what it is |
//! |---|---|---|
//! | [`pfn`] | pfn_batch | runs of frames, and the bounded batch that carries them |
//! | [`interval_tree`], [`span`] | interval_tree, double_span | overlapping intervals; which of several trees covers a page |
//! | [`pinned_pfns`] (`pfn_chunk`) | pinned_pfns xarray | tier 1 |
//! | [`source`] | | tier 3: what a source must offer |
//! | [`pages`], [`counts`] | iopt_pages; npages, npinned, last_npinned | the book of one pages object; its three counts |
//! | [`movement`], [`order`], [`step`] | | machines that move frames between the tiers; what they are asked, their steps |
//! | `reader`, `fill`, `unfill`, `carry`, `release` | pfn_reader, iopt_area_fill, unfill | the machines |
//! | `pin_access`, `unpin_access`, `transfer`, `ending` | iopt_pages_fill_xarray, rw | the machines for accesses |
//! | [`area`], [`io_pagetable`], [`iova_allocator`] | iopt_area, io_pagetable | the IOVA map |
//! | [`ioas`] | iommufd_ioas | operations over one IOVA map, its domains and accesses |
//! | [`ledger`] | pin accounting | the tree of accounts: who uses what, and what binds them |
//! | [`extents`] | | a set of pages as runs |
//! | [`frame_window`] | | the agent's one frame space |
//! | [`refusal`] | | an error on its way to the client |
//!
//! Imports allowed: units, error, fault_points; nothing else of ours.

pub mod among;
pub mod area;
mod carry;
pub mod counts;
mod ending;
pub mod extents;
mod fill;
pub mod frame_window;
pub mod interval_tree;
pub mod io_pagetable;
pub mod ioas;
pub mod iova_allocator;
pub mod ledger;
pub mod movement;
pub mod order;
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
mod split_shown;
pub mod step;
mod transfer;
mod unfill;
mod unpin_access;

pub use reader::Tuning;
