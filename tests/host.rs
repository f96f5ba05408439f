//! The host as the agent reads it: a process that locks memory shows up with what it locked.
#![expect(clippy::unwrap_used, reason = "a failed test helper is a failed test")]
#![expect(unsafe_code, reason = "a child locks memory for the test to find")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

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
