//! An agent as a process of its own, for tests of what a process does: its configuration, its signals, its end.
//!
//! No binary of its own: those that use it name it as a module.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ioasd_client::connection::Connection;
use rustix::process::{Pid, Signal, kill_process};

/// How long anything may take that should happen at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The program, with nothing of its surroundings that it would look at.
pub(crate) fn ioasd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ioasd"));
    for variable in ["IOASD_SOCKET", "IOASD_CONFIG", "IOASD_LOG"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not so: {what}");
        sleep(Duration::from_millis(5));
    }
}

/// An agent with a folder for its files; killed if a test gives up on it.
pub(crate) struct Agent {
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
    /// One whose configuration says `server` of the server besides its socket, and then `rest`.
    pub(crate) fn start(server: &str, rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), server, rest);
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = ioasd();
        command.arg("serve").arg("--config").arg(folder.path().join("ioasd.toml")).stderr(log);
        let agent = Self { child: command.spawn().unwrap(), folder };
        wait_until("the agent is ready", || agent.status("/readyz") == Some(200));
        agent
    }

    /// One of its files: `ioasd.toml`, `ioasd.sock`, `admin.sock`, `log`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Changes what the file says besides where the agent listens.
    pub(crate) fn write(&self, rest: &str) {
        write(self.folder.path(), "", rest);
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::connect(&self.path("ioasd.sock")).unwrap()
    }

    /// What the admin server answers, if it does: status and body.
    pub(crate) fn ask(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(self.path("admin.sock")).ok()?;
        let head =
            "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\nConnection: close";
        write!(stream, "{method} {path} HTTP/1.1\r\n{head}\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    pub(crate) fn status(&self, path: &str) -> Option<u16> {
        self.ask("GET", path).map(|(status, _)| status)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end; gives the exit code and the log.
    pub(crate) fn ended(&mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        (code, std::fs::read_to_string(self.path("log")).unwrap())
    }
}

fn write(folder: &Path, server: &str, rest: &str) {
    let (socket, admin) = (folder.join("ioasd.sock"), folder.join("admin.sock"));
    let text = format!(
        "[server]\nsocket = {socket:?}\n{server}[admin]\nlisten = \"off\"\nsocket = {admin:?}\n{rest}"
    );
    std::fs::write(folder.join("ioasd.toml"), text).unwrap();
}
