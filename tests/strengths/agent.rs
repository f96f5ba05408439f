//! An agent in a process of its own, that may lock as much as a test says.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use tempfile::TempDir;

/// How long anything may take that should happen at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much the agent may lock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lock {
    /// So many KiB, without CAP_IPC_LOCK.
    Kibibytes(u64),
    /// As much as whoever runs the tests.
    Anything,
}

pub(crate) struct Agent {
    folder: TempDir,
    child: Child,
}

impl Agent {
    /// Starts one whose pins have `strength`; `None`, loudly, if this host cannot do that.
    pub(crate) fn start(test: &str, strength: &str, lock: Lock) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mut agent = spawn(folder, &format!("strength = \"{strength}\"\n"), (lock, None));
        let deadline = Instant::now() + PATIENCE;
        while agent.get("/readyz").is_none() {
            if agent.child.try_wait().unwrap().is_some() {
                let said = agent.complaints();
                assert!(said.contains("not possible") || said.contains("nothing can hold"), "{said}");
                ioasd::skip!("{test} at {strength}: {said}");
                return None;
            }
            assert!(Instant::now() < deadline, "the agent is not ready");
            thread::sleep(Duration::from_millis(5));
        }
        Some(agent)
    }

    /// Starts one in a control group.
    pub(crate) fn in_group(group: &Path, engine: &str) -> Self {
        let agent = spawn(tempfile::tempdir().unwrap(), engine, (Lock::Anything, Some(group)));
        let deadline = Instant::now() + PATIENCE;
        while agent.get("/readyz").is_none() {
            assert!(Instant::now() < deadline, "the agent is not ready");
            thread::sleep(Duration::from_millis(5));
        }
        agent
    }

    /// The signal that ends it.
    pub(crate) fn ended_by(&mut self) -> Option<i32> {
        self.wait().signal()
    }

    /// Starts one with `engine` in its configuration and tells why it ends.
    pub(crate) fn refuses_to_start(what: &str, engine: &str, lock: Lock) -> String {
        let mut agent = spawn(tempfile::tempdir().unwrap(), engine, (lock, None));
        let status = agent.wait();
        assert!(!status.success(), "{what}: the agent ended well");
        agent.complaints()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("ioasd.sock")
    }

    fn get(&self, target: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.folder.path().join("admin.sock")).ok()?;
        write!(stream, "GET {target} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.starts_with("HTTP/1.1 200").then_some(answer)
    }

    fn sample(&self, series: &str) -> u64 {
        let metrics = self.get("/metrics").unwrap();
        let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap().parse().unwrap()
    }

    /// Bytes that it says the kernel holds at `strength`.
    pub(crate) fn held(&self, strength: &str) -> u64 {
        self.sample(&format!("ioasd_held_bytes{{strength=\"{strength}\"}}"))
    }

    /// Bytes that it says are pinned at `strength`.
    pub(crate) fn pinned(&self, strength: &str) -> u64 {
        self.sample(&format!("ioasd_pinned_bytes{{strength=\"{strength}\"}}"))
    }

    /// Bytes that the kernel says it holds at `strength`.
    pub(crate) fn kernel(&self, strength: &str) -> u64 {
        let field = if strength == "locked" { "VmLck:" } else { "VmPin:" };
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let row = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        row.trim().strip_suffix(" kB").unwrap().trim().parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn has_swap(&self) -> bool {
        assert!(self.get("/livez").is_some());
        std::fs::read_to_string("/proc/swaps").unwrap().lines().count() > 1
    }

    /// Waits until it holds nothing, by its own word and the kernel's, then ends it.
    pub(crate) fn ends_with_nothing(mut self) {
        let deadline = Instant::now() + PATIENCE;
        let left =
            |agent: &Self| agent.sample("ioasd_pages") + agent.kernel("longterm") + agent.kernel("locked");
        while left(&self) > 0 {
            assert!(Instant::now() < deadline, "something is held for nobody");
            thread::sleep(Duration::from_millis(5));
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        assert!(self.wait().success());
    }

    fn wait(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the agent does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn complaints(&mut self) -> String {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait().map(drop));
        assert!(killed.is_ok() || thread::panicking());
    }
}

fn spawn(folder: TempDir, engine: &str, (lock, group): (Lock, Option<&Path>)) -> Agent {
    let config = folder.path().join("ioasd.toml");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let text = format!(
        "[server]\nsocket = {:?}\n[admin]\nlisten = \"off\"\nsocket = {:?}\n[log]\nfilter = \"warn\"\n[engine]\n{engine}",
        at("ioasd.sock"),
        at("admin.sock")
    );
    std::fs::write(&config, text).unwrap();
    let join =
        group.map(|group| format!("echo $$ > {}/cgroup.procs && ", group.display())).unwrap_or_default();
    let child = thread::spawn(move || serve(&config, lock, &join)).join().unwrap();
    Agent { folder, child }
}

/// A thread without the capability has children without it.
fn serve(config: &Path, lock: Lock, join: &str) -> Child {
    let limit = match lock {
        Lock::Anything => String::new(),
        Lock::Kibibytes(kibibytes) => {
            let dropped = remove_capability_from_bounding_set(CapabilitySet::IPC_LOCK);
            assert!(dropped.is_ok() || !rustix::process::geteuid().is_root());
            format!("ulimit -l {kibibytes} && ")
        }
    };
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{join}{limit}exec \"$0\" serve --config \"$1\""))
        .arg(env!("CARGO_BIN_EXE_ioasd"))
        .arg(config);
    command.env_remove("IOASD_SOCKET").env_remove("IOASD_LOG");
    command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}
