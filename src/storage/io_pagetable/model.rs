//! A naive model of a table, and random operations that hold the two against each other.
//!
//! `bytes` is the model: one entry for each byte of a small address universe, and lists searched from end to end. It
//! imports units only and knows nothing of the table. `run` drives both and compares every result, every errno and the
//! whole state after every step.

mod bytes;
mod run;
