//! The host as the agent reads it: a process that locks memory shows up with what it locked.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]
#![expect(unsafe_code, reason = "a child locks memory for the test to find")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use ioasd::sys::host::HostProcess;
use ioasd::sys::host::scan::{Budget, HostScan, Roots};
use rustix::mm::{MapFlags, ProtFlags, mlock, mmap_anonymous};

const LOCKED: usize = 64 << 10;
const ROLE: &str = "IOASD_TEST_LOCKER";

/// This test is also the child: with [`ROLE`] set it locks memory, says so, and stays until its input ends.
#[test]
fn a_process_that_locks_memory_shows_up_and_goes() {
    if std::env::var_os(ROLE).is_some() {
        return lock_and_stay();
    }
    let everything = Budget { processes: usize::MAX, cgroups: 1 };
    let mut scan = HostScan::new(Roots::default(), everything);
    let mut child = locker();
    let found = look_for(&mut scan, &child).unwrap();
    assert!(found.held.locked.get() >= LOCKED as u64, "{found:?}");
    assert_eq!(found.uid, rustix::process::geteuid());
    assert!(found.cgroup.is_some_and(|group| group.starts_with('/')));
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(look_for(&mut scan, &child), None);
}

/// An agent without a single client, its folder, and its admin socket.
struct Agent {
    process: Child,
    folder: tempfile::TempDir,
}

impl Agent {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (config, admin) = (folder.path().join("ioasd.toml"), folder.path().join("admin.sock"));
        std::fs::write(&config, format!("[admin]\nlisten = \"off\"\nsocket = {admin:?}\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_ioasd"));
        command.args(["serve", "--log", "warn", "--config"]).arg(&config);
        let process = command.arg("--socket").arg(folder.path().join("ioasd.sock")).spawn().unwrap();
        Self { process, folder }
    }

    /// What `ioasd ctl` prints, as soon as the agent answers.
    fn ctl(&self, arguments: &[&str]) -> String {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ioasd"));
            command.arg("ctl").args(arguments).arg("--admin").arg(self.folder.path().join("admin.sock"));
            let output = command.output().unwrap();
            if output.status.success() {
                return String::from_utf8(output.stdout).unwrap();
            }
            assert!(Instant::now() < end, "{}", String::from_utf8_lossy(&output.stderr));
            sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[test]
fn an_agent_without_clients_shows_who_locks_memory() {
    let mut child = locker();
    let agent = Agent::start();
    let json = agent.ctl(&["host", "--json"]);
    let pid = format!("\"pid\": {},", child.id());
    let row = json.split('{').find(|row| row.contains(&pid)).unwrap_or_else(|| panic!("no {pid} in {json}"));
    assert!(
        row.contains(&format!("\"locked_bytes\": {LOCKED}")) && row.contains("\"via\": \"other\""),
        "{row}"
    );
    let table = agent.ctl(&["host"]);
    let line = table.lines().find(|line| line.trim_start().starts_with(&child.id().to_string()));
    assert!(line.is_some_and(|line| line.contains("64 KiB")), "{table}");
    assert!(table.contains("not told: the kernel has no counter of long-term pins"), "{table}");
    drop(child.stdin.take());
    child.wait().unwrap();
}

fn look_for(scan: &mut HostScan, child: &Child) -> Option<HostProcess> {
    let seen = scan.refresh().unwrap();
    assert_eq!(seen.coverage.unread, 0);
    let pid = i32::try_from(child.id()).unwrap();
    seen.processes.into_iter().find(|process| process.pid.as_raw_pid() == pid)
}

fn locker() -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_process_that_locks_memory_shows_up_and_goes", "--nocapture"]).env(ROLE, "1");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    let locked = said.map(Result::unwrap).find(|line| line.ends_with("locked"));
    assert!(locked.is_some(), "the child did not lock its memory");
    child
}

fn lock_and_stay() {
    let flags = MapFlags::PRIVATE;
    // SAFETY: a mapping of our own at an address that the kernel chooses; it stays until the process ends.
    unsafe {
        let memory = mmap_anonymous(std::ptr::null_mut(), LOCKED, ProtFlags::READ, flags).unwrap();
        mlock(memory, LOCKED).unwrap();
    }
    println!("locked");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}
