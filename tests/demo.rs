//! The program as people run it: `ioasd demo` shows the whole path, `ioasd serve` ends when it is told to.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

/// The program, which keeps its temporary files and sockets in `folder`.
fn ioasd(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ioasd"));
    command.env("TMPDIR", folder).current_dir(folder).stdin(Stdio::null());
    for variable in ["IOASD_SOCKET", "IOASD_CONFIG", "IOASD_LOG"] {
        command.env_remove(variable);
    }
    command
}

fn demo(folder: &Path, arguments: &[&str]) -> Output {
    ioasd(folder).arg("demo").args(arguments).output().unwrap()
}

fn is_empty(folder: &Path) -> bool {
    folder.read_dir().unwrap().next().is_none()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not so: {what}");
        sleep(Duration::from_millis(5));
    }
}

fn exit_status(child: &mut Child) -> ExitStatus {
    let mut status = None;
    wait_until("the process has ended", || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

#[test]
fn the_demo_shows_every_byte_through_three_tables_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), &["--size", "4MiB", "--domains", "3"]);
    let (said, complaints) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{}\n{said}{complaints}", output.status);
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("demo: ok, 4 MiB pinned once, read right and written through 3 IO"), "{said}");
    let lines = |needle: &str| said.lines().filter(|line| line.contains(needle)).count();
    assert_eq!((lines("all right, checksum"), lines("wrote its own page"), lines("was gone")), (3, 3, 3));
    assert_eq!((lines("in one piece"), lines("scattered"), lines("second address space")), (1, 1, 2));
    assert_eq!((lines("by the kernel: VmPin "), lines(", mapped 4 MiB, tables ")), (1, 3));
    assert_eq!(complaints, "");
    assert!(is_empty(folder.path()), "files are left");
}

/// Ends the demo if a test fails while it is held.
struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        if kill_process(Pid::from_child(&self.0), Signal::TERM).is_ok() {
            drop(self.0.wait());
        }
    }
}

#[test]
fn a_held_demo_can_be_walked_with_the_commands_it_prints_and_ends_well_on_ctrl_c() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = ioasd(folder.path());
    command.args(["demo", "--size", "8MiB", "--domains", "2", "--hold"]).stdout(Stdio::piped());
    let mut demo = Held(command.spawn().unwrap());
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let shown: Vec<String> = lines.by_ref().take_while(|line| !line.starts_with("Ctrl-C")).collect();
    let walks: Vec<&str> = shown
        .iter()
        .map(|line| line.trim())
        .filter(|line| line.contains("walk?") || line.contains(" walk "))
        .collect();
    let [page, ctl] = walks[..] else { panic!("{shown:#?}") };
    let words: Vec<&str> = ctl.split(' ').collect();
    let walked = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let table = String::from_utf8(walked.stdout).unwrap();
    assert!(walked.status.success() && table.contains("leaf"), "{table}");
    let answer = get(page.strip_prefix("http://").unwrap());
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"kind\": \"leaf\""), "{answer}");
    kill_process(Pid::from_child(&demo.0), Signal::INT).unwrap();
    assert_eq!(exit_status(&mut demo.0).code(), Some(0));
    assert!(lines.any(|line| line.starts_with("demo: ok, 8 MiB pinned once")));
    assert!(is_empty(folder.path()), "files are left");
}

/// The whole answer to a GET of `address/path`.
fn get(url: &str) -> String {
    let (address, path) = url.split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_size_that_cannot_be_shown_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let output = demo(folder.path(), &["--size", "8KiB", "--domains", "2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("--size 8192"));
}

#[test]
fn an_interrupted_demo_takes_its_processes_and_files_along() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = ioasd(folder.path());
    let mut demo = command
        .args(["demo", "--size", "256MiB"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the demo has begun", || !is_empty(folder.path()));
    kill_process(Pid::from_child(&demo), Signal::TERM).unwrap();
    assert_eq!(exit_status(&mut demo).code(), Some(1));
    assert!(is_empty(folder.path()), "files are left");
}

#[test]
fn sigterm_ends_the_agent_with_exit_code_0_and_removes_its_sockets() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, config) = (folder.path().join("ioasd.sock"), folder.path().join("ioasd.toml"));
    std::fs::write(&config, "[admin]\nlisten = \"off\"\nsocket = \"off\"\n[log]\nfilter = \"warn\"\n")
        .unwrap();
    let mut command = ioasd(folder.path());
    let mut agent =
        command.arg("serve").arg("--config").arg(&config).arg("--socket").arg(&socket).spawn().unwrap();
    let connected = || ioasd_client::connection::Connection::connect(&socket).ok();
    let mut client = None;
    wait_until("the agent answers", || {
        client = connected();
        client.is_some()
    });
    client.unwrap().ioas_alloc().unwrap();
    kill_process(Pid::from_child(&agent), Signal::TERM).unwrap();
    assert_eq!(exit_status(&mut agent).code(), Some(0));
    assert!(!socket.exists() && connected().is_none());
}
