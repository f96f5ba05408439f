//! Passive storage.

pub mod area;
pub mod pfn;
