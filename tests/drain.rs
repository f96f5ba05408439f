//! The end of an agent as a process: what SIGTERM and SIGINT do, and what a second one does.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ioasd_client::calls::{ExportChannel, FileSlice, Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::formats::FormatId;
use ioasd_client::units::{ByteLen, Iova, Permission};
use ioasd_client::walker::Walker;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

/// An agent; killed if a test gives up on it.
struct Agent {
    folder: tempfile::TempDir,
    child: Child,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        assert!(killed.is_ok() || self.child.try_wait().is_ok());
    }
}

impl Agent {
    /// An agent whose contexts may take `drain` to leave and `close` to be taken down.
    fn start(drain: &str, close: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let admin = folder.path().join("admin.sock");
        let config = folder.path().join("ioasd.toml");
        let text = format!(
            "[server]\ndrain_timeout = {drain:?}\nclose_timeout = {close:?}\n[admin]\nlisten = \"off\"\nsocket = {admin:?}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ioasd"));
        for variable in ["IOASD_SOCKET", "IOASD_CONFIG", "IOASD_LOG"] {
            command.env_remove(variable);
        }
        let socket = folder.path().join("ioasd.sock");
        command.arg("serve").arg("--config").arg(&config).arg("--socket").arg(socket);
        let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let agent = Self { folder, child };
        wait_until("the agent is ready", || agent.status("/readyz") == Some(200));
        agent
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("ioasd.sock")
    }

    fn connect(&self) -> Connection {
        Connection::connect(&self.socket()).unwrap()
    }

    /// What the admin server answers, if it does.
    fn status(&self, path: &str) -> Option<u16> {
        let mut stream = UnixStream::connect(self.folder.path().join("admin.sock")).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sends a signal and waits until the agent has begun to stop.
    fn begin_to_stop(&self, signal: Signal) {
        self.signal(signal);
        wait_until("the agent is not ready any more", || self.status("/readyz") == Some(503));
        assert_eq!(self.status("/livez"), Some(200));
        wait_until("nobody is accepted", || Connection::connect(&self.socket()).is_err());
    }

    /// Waits for its end; gives the exit code and the log.
    fn ended(&mut self) -> (Option<i32>, String) {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().code(), log)
    }
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not so: {what}");
        sleep(Duration::from_millis(5));
    }
}

fn memory() -> OwnedFd {
    let file = memfd_create("drain-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    assert_eq!(rustix::io::pwrite(&file, &[7; 0x4000], 0), Ok(0x4000));
    fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    file
}

/// Maps four pages into a new table; gives the export channel of its domain.
fn map_and_export(client: &mut Connection) -> OwnedFd {
    let ioas = client.ioas_alloc().unwrap();
    let device = client.device_create(FormatId::AmdV1, Iommu::Own).unwrap();
    let hwpt = client.device_attach(device, ioas).unwrap();
    let file = memory();
    let slice = FileSlice { file: file.as_fd(), offset: ByteLen::new(0), length: ByteLen::new(0x4000) };
    client.map_file(ioas, slice, Permission::ReadWrite, Placement::Fixed(Iova::new(0x1000))).unwrap();
    client.domain_export(hwpt).unwrap()
}

#[test]
fn contexts_may_leave_on_their_own_and_work_until_then() {
    let mut agent = Agent::start("1h", "1h");
    let mut client = agent.connect();
    drop(map_and_export(&mut client));
    agent.begin_to_stop(Signal::TERM);
    client.ioas_alloc().unwrap();
    drop(client);
    let (code, log) = agent.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("the grace is over") && log.contains("Empty"), "{log}");
    assert!(!agent.socket().exists());
}

#[test]
fn a_second_signal_skips_the_grace_and_those_left_are_hung_up_on() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let mut agent = Agent::start("1h", "1h");
        let mut client = agent.connect();
        drop(map_and_export(&mut client));
        agent.begin_to_stop(first);
        client.ioas_alloc().unwrap();
        agent.signal(second);
        let (code, log) = agent.ended();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("Hurried") && log.contains("every context is taken down"), "{log}");
        assert!(client.ioas_alloc().is_err(), "it was hung up on");
    }
}

#[test]
fn when_the_grace_is_over_those_left_are_hung_up_on() {
    let mut agent = Agent::start("50ms", "1h");
    let mut client = agent.connect();
    drop(map_and_export(&mut client));
    agent.signal(Signal::TERM);
    let (code, log) = agent.ended();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("Late"), "{log}");
    assert!(client.ioas_alloc().is_err());
}

#[test]
fn a_walker_that_never_leaves_does_not_keep_the_agent_but_is_its_exit_code() {
    let mut agent = Agent::start("0s", "200ms");
    let mut client = agent.connect();
    let walker = Walker::attach(ExportChannel::from_fd(map_and_export(&mut client))).unwrap();
    let mut stream = walker.stream().unwrap();
    let burst = stream.enter();
    agent.signal(Signal::TERM);
    let (code, log) = agent.ended();
    assert_eq!(code, Some(4), "{log}");
    assert!(log.contains("contexts cannot be taken down"), "{log}");
    assert!(log.contains("0x4000 bytes were still pinned at the end"), "{log}");
    drop(burst);
}
