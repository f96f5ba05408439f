//! Any bytes as a reply of the agent.
#![no_main]

use ioasd_client::wire::fuzz::fuzz_reply;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzz_reply(bytes));
