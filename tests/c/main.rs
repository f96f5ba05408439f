//! The library for C: programs built with it, as its users build them, and the header they are built against.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed test helper is a failed test")]

#[path = "../socket/fixture.rs"]
#[expect(dead_code, reason = "shared with tests/socket")]
mod fixture;
#[path = "../socket/noise.rs"]
mod noise;

mod header;
mod library;
mod programs;
