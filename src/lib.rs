//! ioasd: a host agent that owns DMA address spaces.

pub mod fault_points;
pub mod storage;
