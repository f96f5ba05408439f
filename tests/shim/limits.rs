//! Who may pin how much: RLIMIT_MEMLOCK of the process that maps, in every mode of accounting; and what an agent does that
//! may not look into a process.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use libc::{EFAULT, ENOMEM};

use crate::accesses::map_with;
use crate::device::{READABLE, Struct, WRITEABLE, ioas_alloc, open, unmap};
use crate::fixture::eventually;
use crate::kinds::{Kind, Memory};
use crate::mock::{PAGE, check_refs, mock_domain};
use crate::processes::{exit_code, fork};
use crate::program::{Part, play_with_mock, played, playing, shimmed};

pub(crate) const PARTS: &[Part] = &[
    ("limits of a user", of_a_user),
    ("limits of a process", of_a_process),
    ("limits of none", of_none),
    ("limits raised", raised),
    ("limits strangers", strangers),
];

/// Where memory is mapped.
const START: u64 = 0x100_0000;

/// Pages that a limited process may lock. The kernel counts some for each ring that holds pins of private memory.
const LIMIT: u64 = 32;

/// Whether processes of other users can be made, which is said if not.
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        ioasd::skip!("{test}: it takes root to be another user");
    }
    root
}

/// A user that nobody else is.
fn user() -> u32 {
    60_000 + std::process::id() % 4000
}

/// Runs `child` as `user`, who may lock so many pages.
fn fork_as(user: u32, pages: u64, child: impl FnOnce() -> i32) -> libc::pid_t {
    fork(|| {
        limit(pages, pages);
        // SAFETY: no memory is involved.
        let changed = unsafe { libc::setresgid(user, user, user) + libc::setresuid(user, user, user) };
        if changed == 0 { child() } else { 99 }
    })
}

fn limit(soft: u64, hard: u64) {
    let limit = libc::rlimit { rlim_cur: soft * PAGE, rlim_max: hard * PAGE };
    // SAFETY: the limit is ours.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }, 0);
}

fn map(device: &File, ioas: u32, memory: &[u8], iova: u64) -> i32 {
    map_with(device, ioas, memory, iova, READABLE | WRITEABLE).err().unwrap_or(0)
}

fn pages(memory: &Memory, first: usize, count: usize) -> &[u8] {
    &memory[first * 4096..(first + count) * 4096]
}

/// A device, an address space with a domain, and memory.
fn prepared(kind: Kind) -> (File, u32, Memory) {
    let device = open();
    let ioas = ioas_alloc(&device).unwrap();
    mock_domain(&device, ioas).unwrap();
    (device, ioas, kind.memory(64).unwrap())
}

#[test]
fn processes_of_one_user_share_a_limit() {
    if is_root("processes_of_one_user_share_a_limit") {
        play_with_mock("limits of a user");
    }
}

fn of_a_user() {
    for kind in [Kind::Private, Kind::PrivateFile, Kind::Memfd] {
        let (device, ioas, memory) = prepared(kind);
        let (told, mut tell) = std::io::pipe().unwrap();
        let (end, wait) = std::io::pipe().unwrap();
        let first = fork_as(user(), LIMIT, || {
            let mapped = map(&device, ioas, pages(&memory, 0, 12), START);
            tell.write_all(&[u8::try_from(mapped).unwrap()]).unwrap();
            // SAFETY: the child does not use it again, and ends without dropping it.
            unsafe { libc::close(std::os::fd::AsRawFd::as_raw_fd(&wait)) };
            i32::from((&end).read(&mut [0]).is_err())
        });
        let mut mapped = [9];
        (&told).read_exact(&mut mapped).unwrap();
        assert_eq!(mapped, [0], "{kind:?}");
        let second = fork_as(user(), LIMIT, || {
            let too_many = map(&device, ioas, pages(&memory, 20, 21), START << 1);
            let enough = map(&device, ioas, pages(&memory, 20, 10), START << 2);
            assert_eq!(unmap(&device, ioas, START << 2, 10 * PAGE), Ok(10 * PAGE));
            i32::from(too_many != ENOMEM) + 2 * i32::from(enough != 0)
        });
        assert_eq!(exit_code(second), 0, "{kind:?}: what another process of the user has pinned counts");
        let other = fork_as(user() + 1, LIMIT, || map(&device, ioas, pages(&memory, 30, 28), START << 3));
        assert_eq!(exit_code(other), 0, "{kind:?}: another user has another limit");
        drop(wait);
        assert_eq!(exit_code(first), 0);
        let more = || fork_as(user(), LIMIT, || map(&device, ioas, pages(&memory, 0, 24), START << 4));
        assert_eq!(exit_code(more()), ENOMEM, "{kind:?}: what a process has pinned outlives it");
        assert_eq!(unmap(&device, ioas, START, 12 * PAGE), Ok(12 * PAGE));
        // The kernel counts what a ring held until it has taken the ring apart, some time after it was closed.
        assert!(eventually(|| exit_code(more()) == 0), "{kind:?}: an unmap gives it back");
    }
}

#[test]
fn in_the_other_mode_each_process_has_its_own_limit() {
    if is_root("in_the_other_mode_each_process_has_its_own_limit") {
        play_with_mock("limits of a process");
    }
}

/// Files only: of what processes pin themselves the kernel counts all of a user's together. A container has that mode.
fn of_a_process() {
    let memory = Kind::Memfd.memory(64).unwrap();
    let device = File::options().read(true).write(true).open("/dev/vfio/vfio").unwrap();
    let ioas = ioas_alloc(&device).unwrap();
    mock_domain(&device, ioas).unwrap();
    for round in 0..3 {
        let child = fork_as(user(), LIMIT, || {
            let fits = map(&device, ioas, pages(&memory, 0, 20), START + round * 64 * PAGE);
            let too_many = map(&device, ioas, pages(&memory, 20, 13), START << 3);
            i32::from(fits != 0) + 2 * i32::from(too_many != ENOMEM)
        });
        assert_eq!(exit_code(child), 0, "round {round}");
    }
}

#[test]
fn whoever_may_lock_anything_has_no_limit() {
    if is_root("whoever_may_lock_anything_has_no_limit") {
        play_with_mock("limits of none");
    }
}

fn of_none() {
    limit(1, 1);
    for kind in [Kind::Private, Kind::Memfd] {
        let (device, ioas, memory) = prepared(kind);
        assert_eq!(map(&device, ioas, &memory, START), 0, "{kind:?}");
    }
}

#[test]
fn the_limit_is_that_of_the_moment() {
    if is_root("the_limit_is_that_of_the_moment") {
        play_with_mock("limits raised");
    }
}

/// A refused map leaves nothing, and succeeds once the limit allows it; what is copied again costs nothing.
fn raised() {
    for kind in [Kind::Private, Kind::Memfd] {
        let (device, ioas, memory) = prepared(kind);
        let child = fork(|| {
            limit(LIMIT, 64);
            let user = user();
            // SAFETY: no memory is involved.
            assert_eq!(unsafe { libc::setresuid(user, user, user) }, 0);
            let refused = map(&device, ioas, pages(&memory, 0, 33), START);
            let left = check_refs(&device, pages(&memory, 0, 33), 0);
            limit(40, 64);
            let mapped = map(&device, ioas, pages(&memory, 0, 33), START);
            let copy = Struct::new(40).u32(4, READABLE).u32(8, ioas).u32(12, ioas).u64(16, 33 * PAGE);
            let copied = copy.u64(32, START).call(&device, crate::device::COPY);
            i32::from(refused != ENOMEM)
                + 2 * i32::from(left.is_err())
                + 4 * i32::from(mapped != 0)
                + 8 * i32::from(copied.is_err())
        });
        assert_eq!(exit_code(child), 0, "{kind:?}");
    }
}

/// `ioasd serve` with mock hardware, as a user who may look into nobody.
fn serve_as_nobody(folder: &Path) -> Option<Child> {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_ioasd"));
    serve.args(["serve", "--mock", "--admin", "off", "--log", "debug", "--socket"]).arg(folder.join("s"));
    serve.uid(65534).gid(65534).current_dir(folder).env("XDG_RUNTIME_DIR", folder);
    let child = serve.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    child.ok().filter(|_| eventually(|| folder.join("s").exists()))
}

#[test]
fn an_agent_that_may_not_look_into_a_process_takes_its_files_only_and_says_why() {
    const TEST: &str = "an_agent_that_may_not_look_into_a_process_takes_its_files_only_and_says_why";
    if !is_root(TEST) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let Some(mut agent) = serve_as_nobody(folder.path()) else {
        ioasd::skip!("{TEST}: another user cannot run the program from where it was built");
        return;
    };
    let output = shimmed(playing("limits strangers"), &folder.path().join("s")).output().unwrap();
    agent.kill().unwrap();
    let said = String::from_utf8(agent.wait_with_output().unwrap().stderr).unwrap();
    played(&output);
    let reason = "the agent cannot reach into the process";
    assert!(said.contains(reason) && said.contains("CAP_SYS_PTRACE"), "{said}");
}

fn strangers() {
    let (device, ioas, private) = prepared(Kind::Private);
    assert_eq!(map(&device, ioas, &private, START), EFAULT);
    let file = Kind::Memfd.memory(4).unwrap();
    assert_eq!(map(&device, ioas, &file, START), 0, "what is a file is passed");
    let lazy = ioas_alloc(&device).unwrap();
    assert_eq!(map(&device, lazy, &private, START), 0, "nobody looks");
    assert_eq!(mock_domain(&device, lazy).err(), Some(EFAULT));
}
