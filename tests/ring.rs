//! The example device: right sums while its buffers come and go.

use std::path::PathBuf;
use std::process::Command;

#[test]
fn the_device_of_the_example_sees_no_byte_after_its_unmap() {
    let folder = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples");
    let example: PathBuf = folder.join("ring");
    if !example.exists() {
        ioasd::skip!("the_device_of_the_example: cargo build --example ring first");
        return;
    }
    let output = Command::new(example).arg("1").output().unwrap();
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{complained}");
    assert!(said.contains("sums, all right"), "{said}{complained}");
}
