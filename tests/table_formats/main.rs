//! Tables of every format: the entries of the specifications, the borders of every leaf size, and random maps and unmaps
//! against a model, all read by a second walker that shares no code with the first.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, unreachable_pub, reason = "a test")]

mod decoders;
mod fixture;
mod leaves;
mod logged;
mod model;
mod random;
mod second_walker;
mod sizes;
mod worked;
