//! The oracle: the engine over tiers in memory, against a naive model.
//!
//! ```text
//!   generator ──op──▶ model                        the rules, page by page (model, rules, placing)
//!             └─op──▶ world ──▶ engine ──▶ driver  the engine, its movements step by step
//!                                            └──▶  memory, tables: tiers that panic when they are misused
//! ```
//!
//! Imports allowed: the model and the generator import nothing of ours but units.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    unreachable_pub,
    reason = "a test"
)]

mod access_rules;
mod concurrent;
mod driver;
mod generator;
mod link;
mod memory;
mod model;
mod moves;
mod ops;
mod placing;
mod rules;
mod sequences;
mod settings;
mod tables;
mod unpins;
mod world;
