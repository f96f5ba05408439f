//! What ioasd and its clients must agree on, and the client itself.

pub mod units;
