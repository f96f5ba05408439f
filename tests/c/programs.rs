//! C programs over the library, each in a process of its own, against an agent.

use std::ffi::OsStr;
use std::path::Path;

use crate::fixture::Agent;
use crate::library::{SANITIZERS, build, compiles, libraries, run, succeeded};

const DYNAMIC: [&str; 2] = ["-pthread", "-lioasd"];

/// Runs `program` on an agent of its own, which it must leave clean; gives what it said.
#[track_caller]
fn over_an_agent(program: &Path, more: &[&str]) -> String {
    let agent = Agent::start();
    let socket = agent.socket();
    let arguments: Vec<&OsStr> =
        [socket.as_os_str()].into_iter().chain(more.iter().map(OsStr::new)).collect();
    let said = succeeded(&run(program, &arguments));
    agent.assert_clean();
    said
}

#[track_caller]
fn the_device_works(program: &Path) {
    let said = over_an_agent(program, &["1"]);
    assert!(said.contains("sums, all right"), "{said}");
}

#[test]
fn a_device_in_c_sees_no_byte_after_its_unmap() {
    if !compiles("cc", &[]) {
        return ioasd::skip!("a_device_in_c_sees_no_byte_after_its_unmap: there is no cc here");
    }
    the_device_works(&build("device", "examples/device.c", &["-std=c99", "-pedantic", "-lioasd"]));
}

#[test]
fn every_call_does_from_c_what_its_header_says() {
    if !compiles("cc", &[]) {
        return ioasd::skip!("every_call_does_from_c_what_its_header_says: there is no cc here");
    }
    over_an_agent(&build("calls", "tests/c/calls.c", &DYNAMIC), &[]);
}

#[test]
fn misuse_from_c_is_an_errno() {
    if !compiles("cc", &[]) {
        return ioasd::skip!("misuse_from_c_is_an_errno: there is no cc here");
    }
    over_an_agent(&build("misuse", "tests/c/misuse.c", &DYNAMIC), &[]);
}

#[test]
fn threads_share_a_walker_and_never_a_stream() {
    if !compiles("cc", &[]) {
        return ioasd::skip!("threads_share_a_walker_and_never_a_stream: there is no cc here");
    }
    over_an_agent(&build("threads", "tests/c/threads.c", &DYNAMIC), &[]);
}

#[test]
fn sanitizers_find_nothing() {
    if !compiles("cc", &SANITIZERS) {
        return ioasd::skip!("sanitizers_find_nothing: there is no cc with sanitizers here");
    }
    let arguments = [&SANITIZERS[..], &DYNAMIC[..]].concat();
    the_device_works(&build("device-sanitized", "examples/device.c", &arguments));
    for program in ["calls", "misuse", "threads"] {
        let source = format!("tests/c/{program}.c");
        over_an_agent(&build(&format!("{program}-sanitized"), &source, &arguments), &[]);
    }
}

#[test]
fn a_program_may_be_linked_statically_as_pkg_config_says() {
    if !compiles("cc", &[]) {
        return ioasd::skip!("a_program_may_be_linked_statically_as_pkg_config_says: there is no cc here");
    }
    let described = std::fs::read_to_string(libraries().join("pkgconfig/ioasd.pc")).unwrap();
    let of = |key: &str| described.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    assert!(of("Libs: ").ends_with(" -lioasd") && of("Version: ").contains('.'), "{described}");
    let archive = libraries().join("libioasd.a");
    let archive = [archive.to_str().unwrap()];
    let arguments: Vec<&str> = archive.into_iter().chain(of("Libs.private: ").split(' ')).collect();
    the_device_works(&build("device-static", "examples/device.c", &arguments));
}
