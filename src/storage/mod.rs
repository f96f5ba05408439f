//! Passive storage.

pub mod area;
pub mod pfn;
pub mod source;
