//! ioasd: a host agent that owns DMA address spaces.

pub mod actors;
pub mod admin;
pub mod cli;
pub mod config;
pub mod domains;
pub mod error;
pub mod fault_points;
pub mod sources;
pub mod storage;
pub mod sys;
pub mod telemetry;
pub mod uapi;
