//! The oracle over the real actors: the same operations and the same model as in `tests/engine`, but carried by
//! ClientContext's operations, Ioas, Pages, PfnCache, Pinner, FanOut, Domain and Retirement, into AMD v1 tables whose
//! bytes are read back after every step.
//!
//! `IOASD_ACTOR_SEQUENCES` sets how many sequences run, `IOASD_ORACLE_SEED` repeats the one of that seed.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    unreachable_pub,
    dead_code,
    reason = "a test, which shares files with another"
)]

#[path = "../engine/access_rules.rs"]
mod access_rules;
#[path = "../engine/generator.rs"]
mod generator;
#[path = "../engine/model.rs"]
mod model;
#[path = "../engine/ops.rs"]
mod ops;
#[path = "../engine/placing.rs"]
mod placing;
#[path = "../engine/rules.rs"]
mod rules;

mod panics;
mod paying;
mod sequences;
mod source;
mod system;
