//! What the agent writes while it serves: one line a request at debug, none a page, nothing when nobody asks.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]

use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use ioasd_client::calls::{FileSlice, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, Permission};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::process::{Pid, Signal, kill_process};

const BYTES: u64 = 16 << 20;

/// Runs a session of four requests, one of them refused, under the filter; tells what was written.
fn written(filter: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let (socket, config) = (folder.path().join("ioasd.sock"), folder.path().join("ioasd.toml"));
    std::fs::write(&config, "[admin]\nlisten = \"off\"\n[log]\nformat = \"json\"\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ioasd"));
    command.args(["serve", "--log", filter, "--config"]).arg(&config).arg("--socket").arg(&socket);
    let agent = command.env_remove("JOURNAL_STREAM").stderr(Stdio::piped()).spawn().unwrap();
    session(connected(&socket));
    kill_process(Pid::from_child(&agent), Signal::TERM).unwrap();
    let output = agent.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect()
}

fn connected(socket: &std::path::Path) -> Connection {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        match Connection::connect(socket) {
            Ok(connection) => return connection,
            Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn session(mut agent: Connection) {
    let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, BYTES).unwrap();
    let slice = FileSlice { file: file.as_fd(), offset: ByteLen::new(0), length: ByteLen::new(BYTES) };
    let ioas = agent.ioas_alloc().unwrap();
    agent.map_file(ioas, slice, Permission::ReadWrite, Placement::Any).unwrap();
    agent.destroy(ObjectId::new(4711)).unwrap_err();
    agent.destroy(ioas).unwrap();
}

#[test]
fn a_request_leaves_one_line_at_debug_however_many_pages_it_moves() {
    let lines = written("off,ioasd::uapi=debug");
    let about = |command: &str, result: &str| {
        let (command, result) = (format!("\"command\":\"{command}\""), format!("\"result\":\"{result}\""));
        lines.iter().filter(|line| line.contains(&command) && line.contains(&result)).count()
    };
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!((about("IOAS_ALLOC", "ok"), about("IOAS_MAP_FILE", "ok"), about("DESTROY", "ok")), (1, 1, 1));
    let refused: Vec<_> = lines.iter().filter(|line| line.contains("\"refusal\":\"")).collect();
    assert!(refused.len() == 1 && refused.iter().all(|line| line.contains("DESTROY")), "{refused:?}");
    assert!(
        lines.iter().all(|line| line.contains("\"context\":1,") && line.contains("\"micros\":")),
        "{lines:?}"
    );
}

#[test]
fn at_info_requests_leave_nothing_and_start_and_stop_are_told() {
    let lines = written("info");
    assert!(!lines.iter().any(|line| line.contains("\"command\"")), "{lines:?}");
    let told = |message: &str| lines.iter().any(|line| line.contains(&format!("\"message\":\"{message}")));
    assert!(told("serving") && told("stopping"), "{lines:?}");
}

#[test]
fn the_filter_is_changed_while_the_agent_runs_and_comes_back_and_the_configuration_tells_its_sources() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, admin) = (folder.path().join("ioasd.sock"), folder.path().join("admin.sock"));
    let config = folder.path().join("ioasd.toml");
    let text = format!("[admin]\nlisten = \"off\"\nsocket = {admin:?}\n[log]\nformat = \"json\"\n");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ioasd"));
    command.args(["serve", "--log", "warn", "--config"]).arg(&config).arg("--socket").arg(&socket);
    let agent = command.env_remove("JOURNAL_STREAM").stderr(Stdio::piped()).spawn().unwrap();
    let first = connected(&socket);
    let ctl = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ioasd"));
        let output = command.args(["ctl", "--json", "--admin"]).arg(&admin).args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let filter = || serde_json::from_str::<serde_json::Value>(&ctl(&["log"]).1).unwrap();
    assert!(!ctl(&["log", "ioasd=loud"]).0);
    assert_eq!(filter()["filter"], "warn");
    let (done, answer) = ctl(&["log", "off,ioasd::uapi=debug", "--for", "1h"]);
    assert!(
        done && answer.contains("\"before\": \"warn\"") && answer.contains("\"reverts_to\": \"warn\""),
        "{answer}"
    );
    session(first);
    assert!(ctl(&["log", "error", "--for", "1s"]).0);
    while filter()["filter"] != "warn" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(filter()["reverts_at"], serde_json::Value::Null);
    let settings = ctl(&["config"]).1;
    let settings: serde_json::Value = serde_json::from_str(&settings).unwrap();
    let find =
        |key: &str| settings["items"].as_array().unwrap().iter().find(|row| row["key"] == key).unwrap();
    let source = |key: &str| find(key)["source"].as_str().unwrap();
    assert_eq!([source("filter"), source("format"), source("drain_timeout")], ["flag", "file", "default"]);
    assert_eq!(find("format")["origin"], format!("{}:5", config.display()));
    kill_process(Pid::from_child(&agent), Signal::TERM).unwrap();
    let output = agent.wait_with_output().unwrap();
    let lines = String::from_utf8(output.stderr).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("\"command\"")).count(), 4, "{lines}");
}
