//! The agent through its socket: a real engine in this process, real memfds, real walkers, some of them in processes of
//! their own. Each test has an agent to itself, and no test may leave anything behind in it.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed test helper is a failed test")]
#![expect(clippy::indexing_slicing, reason = "a failed test helper is a failed test")]

mod accounts;
mod arena;
mod bad_files;
mod bad_frames;
mod bad_numbers;
mod cgroups;
mod channels;
mod chargers;
mod commands;
mod credits;
mod death;
mod devices;
mod dirty;
mod examples;
mod faults;
mod fixture;
mod formats;
#[path = "../strengths/group.rs"]
mod group;
mod helper;
mod hostile_rings;
mod hung;
mod hw_info;
mod hwpts;
mod iova_rules;
mod limits;
mod lists;
mod locked;
mod many;
mod memory;
mod metrics;
mod moving;
mod noise;
mod notices;
mod options;
mod passing;
mod processes;
mod python;
mod raw;
mod remapping;
mod rights;
mod together;
mod twisted;
mod walking;
