//! A client in another language, written from `docs/protocol.md` alone.

use std::process::Command;

use crate::fixture::{Agent, eventually};
use crate::memory::Bystander;

#[test]
fn a_client_in_python_allocates_maps_pins_gets_a_notice_and_unmaps() {
    let agent = Agent::start();
    let mut bystander = Bystander::new(&agent);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/socket/client.py");
    let Ok(output) = Command::new("python3").arg("-I").arg(script).arg(agent.socket()).output() else {
        ioasd::skip!("a_client_in_python: python3 is not installed");
        return;
    };
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    assert_eq!(output.stdout, b"done\n", "{complaint}");
    assert!(eventually(|| agent.snapshot().contexts.len() == 1), "it left a context");
    bystander.goes_on();
}
