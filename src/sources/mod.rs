//! Sources: where pages come from. They turn syscalls into storage's `PageSource`.
//!
//! Imports allowed: sys, storage.

pub mod file;
pub mod frames;
