//! `ioasd check-host` as people run it: as whoever runs the tests, and without capabilities under a small limit.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]

use std::process::{Command, Output};
use std::thread;

use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use serde_json::Value;

/// What must have a line, on every host.
const FEATURES: [&str; 18] = [
    "long-term pins",
    "locked memory",
    "RLIMIT_MEMLOCK",
    "no swap",
    "strength auto",
    "process memory",
    "io_uring for all",
    "ptrace scope",
    "bytes of processes",
    "process_vm_writev",
    "physical frames",
    "huge pages",
    "RLIMIT_NOFILE",
    "vm.max_map_count",
    "/dev/iommu",
    "VFIO",
    "cgroup memory",
    "kernel",
];

fn check_host(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ioasd")).arg("check-host").args(arguments).output().unwrap()
}

/// The same in a child that has lost `lost` and may lock 64 KiB. Whoever is not root has nothing to lose.
fn check_host_without(lost: &'static [CapabilitySet]) -> Output {
    let limited = move || {
        for capability in lost {
            let dropped = remove_capability_from_bounding_set(*capability);
            assert!(dropped.is_ok() || !rustix::process::geteuid().is_root());
        }
        let script = "ulimit -l 64 && exec \"$0\" check-host --json";
        Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_ioasd")]).output().unwrap()
    };
    thread::spawn(limited).join().unwrap()
}

fn parsed(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report.get("features").unwrap().as_array().unwrap().clone()
}

fn finding<'a>(features: &'a [Value], name: &str) -> &'a Value {
    features.iter().find(|finding| finding["feature"] == name).unwrap()
}

#[test]
fn every_feature_has_a_line_whoever_asks_and_nothing_fails() {
    let output = check_host(&[]);
    let (said, complaints) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{said}{complaints}");
    for feature in FEATURES {
        let lines: Vec<&str> = said.lines().filter(|line| line.starts_with(feature)).collect();
        assert_eq!(lines.len(), 1, "{feature}:\n{said}");
        let rest = lines[0][feature.len()..].trim_start();
        assert!(rest.starts_with("yes ") || rest.starts_with("no "), "{said}");
    }
    assert_eq!(complaints, "");
}

#[test]
fn json_says_the_same_and_what_is_missing_has_a_remedy() {
    let features = parsed(&check_host(&["--json"]));
    let names: Vec<&str> = features.iter().map(|finding| finding["feature"].as_str().unwrap()).collect();
    assert_eq!(names, FEATURES);
    for finding in &features {
        assert_eq!(finding["available"].as_bool().unwrap(), finding["remedy"].is_null(), "{finding}");
        assert!(!finding["found"].as_str().unwrap().is_empty(), "{finding}");
    }
}

#[test]
fn without_capabilities_the_limit_binds_and_frames_are_not_shown() {
    let features = parsed(&check_host_without(&[CapabilitySet::IPC_LOCK, CapabilitySet::SYS_ADMIN]));
    let memlock = finding(&features, "RLIMIT_MEMLOCK");
    assert_eq!(memlock["available"], false, "{memlock}");
    assert!(memlock["found"].as_str().unwrap().starts_with("65536 bytes"), "{memlock}");
    let frames = finding(&features, "physical frames");
    assert_eq!(frames["available"], false, "{frames}");
    assert!(frames["remedy"].as_str().unwrap().contains("CAP_SYS_ADMIN"), "{frames}");
    let auto = finding(&features, "strength auto");
    if auto["available"] == true && finding(&features, "locked memory")["available"] == true {
        assert!(auto["found"].as_str().unwrap().contains("RLIMIT_MEMLOCK: 65536 bytes"), "{auto}");
    }
}
