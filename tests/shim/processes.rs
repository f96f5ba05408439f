//! Processes, threads and signals that use one open device at a time.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use libc::ENOENT;

use crate::device::{destroy, ioas_alloc, map_file, memory, open, unmap};
use crate::fixture::{Agent, eventually};
use crate::program::{Part, play, played, playing, shimmed};

pub(crate) const PARTS: &[Part] = &[
    ("forks", forks),
    ("killed children", killed_children),
    ("threads", threads),
    ("signals", signals),
    ("before main", before_main),
    ("killed", killed),
    ("agent gone", agent_gone),
];

/// The exit code of a child; minus the signal if one has ended it.
pub(crate) fn exit_code(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: the status is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child, "{}", io::Error::last_os_error());
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -libc::WTERMSIG(status) }
}

/// Runs `child` in a child that ends with its result.
pub(crate) fn fork(child: impl FnOnce() -> i32) -> libc::pid_t {
    // SAFETY: the child uses what was made for it, and ends without unwinding.
    match unsafe { libc::fork() } {
        0 => {
            let code = child();
            // SAFETY: the end of the child.
            unsafe { libc::_exit(code) }
        }
        child => child,
    }
}

/// Allocates and destroys; tells how often that went wrong.
fn churn(device: &impl AsRawFd, times: usize) -> i32 {
    let failed = (0..times).filter(|_| ioas_alloc(device).and_then(|id| destroy(device, id)).is_err());
    i32::try_from(failed.count().min(100)).unwrap()
}

#[test]
fn parent_and_children_share_an_open_device_and_never_their_answers() {
    play("forks");
}

fn forks() {
    let device = open();
    assert_eq!(ioas_alloc(&device), Ok(1));
    let children: Vec<_> = (0..4).map(|_| fork(|| churn(&device, 200))).collect();
    assert_eq!(churn(&device, 200), 0);
    assert_eq!(children.into_iter().map(exit_code).sum::<i32>(), 0);
    let child = fork(|| i32::from(destroy(&device, 1).is_err()));
    assert_eq!(exit_code(child), 0, "what the parent made is the child's as well");
    assert_eq!(destroy(&device, 1), Err(ENOENT), "the exit of a child ends nothing");
    assert_eq!(ioas_alloc(&device), Ok(1));
}

#[test]
fn a_child_that_is_killed_in_the_middle_disturbs_nobody() {
    play("killed children");
}

fn killed_children() {
    let device = open();
    for round in 0..8 {
        let child = fork(|| churn(&device, usize::MAX));
        thread::sleep(Duration::from_millis(round * 3));
        // SAFETY: the child was not waited for yet.
        assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0);
        assert_eq!(exit_code(child), -libc::SIGKILL);
        assert_eq!(churn(&device, 20), 0);
    }
}

#[test]
fn threads_have_a_channel_each_and_leave_none_behind() {
    play("threads");
}

fn threads() {
    let device = open();
    let before = open_descriptors();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..8).map(|_| scope.spawn(|| churn(&device, 100))).collect();
        assert_eq!(workers.into_iter().map(|worker| worker.join().unwrap()).sum::<i32>(), 0);
    });
    let many: Vec<File> = (0..9).map(|_| open()).collect();
    for device in many.iter().cycle().take(27) {
        assert_eq!(churn(device, 1), 0);
    }
    drop(many);
    thread::spawn(|| assert_eq!(churn(&open(), 1), 0)).join().unwrap();
    assert!(open_descriptors() <= before + 4, "channels are left: {before}, {}", open_descriptors());
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

static SIGNALLED: AtomicI32 = AtomicI32::new(-1);
static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn in_a_handler(_: libc::c_int) {
    struct Number(RawFd);
    impl AsRawFd for Number {
        fn as_raw_fd(&self) -> RawFd {
            self.0
        }
    }
    let device = Number(SIGNALLED.load(Ordering::Relaxed));
    HANDLED.fetch_add(u32::from(churn(&device, 1) == 0), Ordering::Relaxed);
}

#[test]
fn a_signal_handler_may_use_the_device_in_the_middle_of_a_call() {
    play("signals");
}

fn signals() {
    let device = open();
    SIGNALLED.store(device.as_raw_fd(), Ordering::Relaxed);
    let handler: extern "C" fn(libc::c_int) = in_a_handler;
    // SAFETY: the handler only does what a program may do with its device.
    unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) };
    // SAFETY: no arguments.
    let target = unsafe { libc::pthread_self() };
    thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..200 {
                // SAFETY: the thread waits for this one.
                assert_eq!(unsafe { libc::pthread_kill(target, libc::SIGUSR1) }, 0);
                thread::sleep(Duration::from_micros(300));
            }
        });
        assert_eq!(churn(&device, 2000), 0);
    });
    assert!(HANDLED.load(Ordering::Relaxed) > 10, "the handler has hardly run");
}

/// What a static initialiser of this binary has opened.
static EARLY: OnceLock<i32> = OnceLock::new();

extern "C" fn initialiser() {
    if std::env::var_os("IOASD_TEST_EARLY").is_some() {
        // SAFETY: the path is a C string.
        EARLY.get_or_init(|| unsafe { libc::open(c"/dev/iommu".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) });
    }
}

#[used]
// SAFETY: the section holds addresses of functions that run before `main`.
#[unsafe(link_section = ".init_array")]
static INITIALISER: extern "C" fn() = initialiser;

#[test]
fn a_static_initialiser_may_open_the_device() {
    let agent = Agent::start();
    let mut program = playing("before main");
    program.env("IOASD_TEST_EARLY", "yes");
    played(&shimmed(program, &agent.socket()).output().unwrap());
    agent.assert_clean();
}

fn before_main() {
    let device = *EARLY.get().expect("the initialiser has run");
    assert!(device >= 0, "the device was not opened");
    // SAFETY: it was opened for us.
    let device: File = unsafe { std::os::fd::FromRawFd::from_raw_fd(device) };
    assert_eq!(ioas_alloc(&device), Ok(1));
}

#[test]
fn a_program_that_is_killed_leaves_nothing_behind() {
    let agent = Agent::start();
    let mut program = shimmed(playing("killed"), &agent.socket());
    let mut child = program.stdout(std::process::Stdio::null()).spawn().unwrap();
    assert!(eventually(|| agent.snapshot().pages.len() == 3), "the program has not mapped");
    child.kill().unwrap();
    child.wait().unwrap();
    agent.assert_clean();
}

fn killed() {
    let (device, file) = (open(), memory(0x3000));
    let ioas = ioas_alloc(&device).unwrap();
    for _ in 0..3 {
        map_file(&device, ioas, &file, 0x3000).unwrap();
    }
    thread::sleep(crate::fixture::PATIENCE);
}

#[test]
fn a_program_whose_agent_goes_gets_an_error_and_one_line() {
    let mut agent = Agent::start();
    let mut program = shimmed(playing("agent gone"), &agent.socket());
    let pipes = std::process::Stdio::piped;
    let child = program.stdout(pipes()).stderr(pipes()).spawn().unwrap();
    assert!(eventually(|| agent.snapshot().pages.len() == 1), "the program has not mapped");
    agent.stop();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr).matches("ioasd: ").count(), 1);
    played(&output);
}

fn agent_gone() {
    let (device, file) = (open(), memory(0x3000));
    let ioas = ioas_alloc(&device).unwrap();
    let iova = map_file(&device, ioas, &file, 0x3000).unwrap();
    assert!(eventually(|| ioas_alloc(&device) == Err(libc::ENODEV)), "the agent is still there");
    assert_eq!(unmap(&device, ioas, iova, 0x3000), Err(libc::ENODEV));
    assert_eq!(
        std::fs::OpenOptions::new().read(true).open("/dev/iommu").unwrap_err().raw_os_error(),
        Some(ENOENT)
    );
}
