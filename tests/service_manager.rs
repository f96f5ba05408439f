//! The agent under a service manager: what it tells, and the sockets it inherits.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]

#[path = "agent_process/mod.rs"]
#[expect(dead_code, reason = "each test uses a part of it")]
mod agent_process;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use ioasd_client::connection::Connection;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
use rustix::process::{Pid, Signal, kill_process};

use agent_process::{PATIENCE, ioasd};

/// A service that a test starts: a folder for its files, its configuration, the manager's end of the conversation.
struct Service {
    folder: tempfile::TempDir,
    manager: UnixDatagram,
}

impl Service {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { folder, manager }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The agent with the clients' socket at `socket` and the admin socket at `admin`, started by `starter`.
    fn command(&self, mut starter: Command, socket: &Path, admin: &Path) -> Command {
        let config = self.path("ioasd.toml");
        std::fs::write(&config, format!("[admin]\nlisten = \"off\"\nsocket = {admin:?}\n")).unwrap();
        starter
            .args(["serve", "--log", "warn", "--config"])
            .arg(config)
            .arg("--socket")
            .arg(socket)
            .env("NOTIFY_SOCKET", self.path("notify"))
            .current_dir(self.folder.path());
        starter
    }

    fn said(&self) -> String {
        let mut message = [0; 512];
        let length = self.manager.recv(&mut message).unwrap();
        String::from_utf8(message.get(..length).unwrap().to_vec()).unwrap()
    }

    /// What is said up to a message that contains `wanted`.
    fn said_until(&self, wanted: &str) -> Vec<String> {
        let mut all = vec![self.said()];
        while !all.last().unwrap().contains(wanted) {
            all.push(self.said());
        }
        all
    }
}

/// Starts the agent with what is its standard input and output as descriptors 3 and 4, as a service manager does.
fn with_inherited(clients: OwnedFd, admin: OwnedFd) -> Command {
    let mut shell = Command::new("sh");
    let script = "exec 3<&0 4<&1 0</dev/null 1>/dev/null; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" \"$@\"";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_ioasd")]);
    shell.stdin(Stdio::from(clients)).stdout(Stdio::from(admin)).stderr(Stdio::piped());
    shell
}

fn seqpacket(path: &Path) -> OwnedFd {
    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    listen(&socket, 8).unwrap();
    socket
}

fn terminate(mut agent: Child) -> Output {
    kill_process(Pid::from_child(&agent), Signal::TERM).unwrap();
    let status = agent.wait().unwrap();
    let mut stderr = Vec::new();
    if let Some(mut pipe) = agent.stderr.take() {
        pipe.read_to_end(&mut stderr).unwrap();
    }
    Output { status, stdout: Vec::new(), stderr }
}

#[test]
fn the_manager_hears_ready_life_and_stopping_in_this_order() {
    let service = Service::new();
    let socket = service.path("ioasd.sock");
    let mut command = service.command(ioasd(), &socket, &service.path("admin.sock"));
    let agent = command.env("WATCHDOG_USEC", "300000").spawn().unwrap();
    assert_eq!(service.said(), "READY=1\n");
    let mut client = Connection::connect(&socket).unwrap();
    client.ioas_alloc().unwrap();
    let said = service.said_until("STATUS=serving: 1 contexts, 0 bytes pinned");
    let lives = said.iter().filter(|message| *message == "WATCHDOG=1\n").count();
    assert!(lives > 0, "{said:?}");
    service.said_until("WATCHDOG=1");
    let output = terminate(agent);
    assert_eq!(output.status.code(), Some(0));
    assert!(service.said_until("STOPPING=1").last().unwrap().contains("STATUS=stopping"));
}

#[test]
fn a_reload_is_told_with_its_time_and_then_that_it_is_done() {
    let service = Service::new();
    let agent = service.command(ioasd(), &service.path("s"), &service.path("a")).spawn().unwrap();
    assert_eq!(service.said(), "READY=1\n");
    kill_process(Pid::from_child(&agent), Signal::HUP).unwrap();
    let said = service.said_until("RELOADING=1").pop().unwrap();
    let time = said.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    assert!(time.parse::<u64>().unwrap() > 0, "{said}");
    service.said_until("READY=1");
    assert_eq!(terminate(agent).status.code(), Some(0));
}

#[test]
fn without_a_watchdog_no_sign_of_life_is_sent() {
    let service = Service::new();
    let agent = service.command(ioasd(), &service.path("s"), &service.path("a")).spawn().unwrap();
    assert_eq!(service.said(), "READY=1\n");
    terminate(agent);
    let said = service.said_until("STOPPING=1");
    assert!(!said.iter().any(|message| message.contains("WATCHDOG")), "{said:?}");
}

#[test]
fn clients_that_connect_before_the_agent_starts_are_served() {
    let service = Service::new();
    let (socket, admin) = (service.path("ioasd.sock"), service.path("admin.sock"));
    let inherited = with_inherited(seqpacket(&socket), UnixListener::bind(&admin).unwrap().into());
    let client = std::thread::spawn({
        let socket = socket.clone();
        move || Connection::connect(&socket).unwrap().ioas_alloc().is_ok()
    });
    let mut asking = UnixStream::connect(&admin).unwrap();
    asking.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let agent = service.command(inherited, &socket, &admin).spawn().unwrap();
    assert_eq!(service.said(), "READY=1\n");
    assert!(client.join().unwrap());
    let mut answer = String::new();
    asking.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("live\n"), "{answer}");
    let output = terminate(agent);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(socket.exists() && admin.exists(), "the sockets are the manager's");
}

#[test]
fn an_inherited_socket_that_no_setting_names_is_wrong_usage() {
    let service = Service::new();
    let (socket, admin) = (service.path("ioasd.sock"), service.path("admin.sock"));
    let inherited = with_inherited(seqpacket(&socket), UnixListener::bind(&admin).unwrap().into());
    let mut command = service.command(inherited, &service.path("other.sock"), &admin);
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("ioasd.sock is none that the configuration names"), "{said}");
}

#[test]
fn an_inherited_socket_of_the_wrong_type_is_named() {
    let service = Service::new();
    let (socket, admin) = (service.path("ioasd.sock"), service.path("admin.sock"));
    let stream = UnixListener::bind(&socket).unwrap();
    let inherited = with_inherited(stream.into(), UnixListener::bind(&admin).unwrap().into());
    let output = service.command(inherited, &socket, &admin).spawn().unwrap().wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("ListenSequentialPacket="), "{said}");
}
