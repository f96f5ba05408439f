//! What ioasd and its clients must agree on, and the client itself.

pub mod calls;
pub mod connection;
pub mod error;
pub mod formats;
pub mod ids;
pub mod layout;
pub mod mapping;
pub mod units;
pub mod walker;
pub mod wire;
