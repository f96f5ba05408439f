//! ioasd: a host agent that owns DMA address spaces.

pub mod error;
pub mod fault_points;
pub mod storage;
