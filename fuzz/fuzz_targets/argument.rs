//! Any bytes as the argument of every command.
#![no_main]

use ioasd_client::wire::fuzz::fuzz_argument;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzz_argument(bytes));
