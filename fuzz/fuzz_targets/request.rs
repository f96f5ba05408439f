//! Any bytes as a request of a client.
#![no_main]

use ioasd_client::wire::fuzz::fuzz_request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| fuzz_request(bytes));
