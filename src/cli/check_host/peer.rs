//! Whether the memory of another process can be pinned, and reached: a child registers a page with a ring, we take the
//! ring over; and it tells where bytes of its memory are, we read them.
//!
//! Imports allowed: units, sys, `std`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use clap::Args;
use ioasd_client::units::{ByteLen, PAGE_SIZE, UserAddr};
use rustix::process::Pid;

use crate::cli::{Exit, with_causes};
use crate::sys::client_mapping::{ClientMapping, Part};
use crate::sys::failure::SysError;
use crate::sys::file_state::FileAccess;
use crate::sys::pidfd::PidFd;
use crate::sys::pin_ring::PinRing;
use crate::sys::process_memory::ProcessMemory;
use crate::sys::{handed_ring, memfd, offers};

/// What pins of a process's memory take.
pub(super) const REMEDY: &str = "as for long-term pins, and the right to trace clients: the same user, \
     kernel.yama.ptrace_scope=0 or clients that allow it (PR_SET_PTRACER), or CAP_SYS_PTRACE";

/// Stands for a ring that could not be made.
const NO_RING: i32 = -1;

/// What the child has in its memory.
static BYTES: [u8; 16] = *b"ioasd-check-host";

/// One page.
const PAGE: Part = Part { offset: ByteLen::new(0), length: ByteLen::new(PAGE_SIZE) };

/// The other process of `check-host` takes no flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct CheckHostPeerArgs;

/// The child: pins a page of its own, says which descriptor the ring is and where it has bytes, and waits until it is let go.
pub fn check_host_peer(_: CheckHostPeerArgs) -> Exit {
    let ring = pinned_page();
    let number = ring.as_ref().map_or(NO_RING, PinRing::number);
    if let Err(error) = &ring {
        eprintln!("{error}");
    }
    let said = writeln!(io::stdout(), "{number} {}", BYTES.as_ptr().expose_provenance());
    let let_go = io::stdin().read(&mut [0]);
    if said.and(let_go.map(drop)).is_ok() && ring.is_ok() { Exit::Ok } else { Exit::Failed }
}

fn pinned_page() -> Result<PinRing, SysError> {
    let file = memfd::create("ioasd-probe", PAGE.length)?;
    memfd::allocate(&file, "ioasd-probe", PAGE.offset, PAGE.length)?;
    let mapping = ClientMapping::new(file.as_fd(), PAGE, FileAccess::ReadWrite)?;
    let ring = PinRing::new()?;
    ring.pin(0, &[(&mapping, PAGE)]).map(|_| ring)
}

/// Why the ring of another process was not taken over.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandoverError {
    #[error("no child to try it with")]
    Child(#[from] io::Error),
    #[error("the child has made no ring")]
    NoRing,
    #[error("the child could not pin a page: {0}")]
    Peer(String),
    #[error("the child has said or had something else")]
    Other,
    #[error(transparent)]
    Refused(#[from] SysError),
}

/// Tries it.
pub(super) fn try_handover() -> Result<String, String> {
    hand_over().map_err(|error| with_causes(&error))
}

/// Tries to read bytes of a child's memory.
pub(super) fn try_bytes() -> Result<&'static str, String> {
    let read = with_child(|process, told| {
        let memory = ProcessMemory::open(process)?;
        let mut bytes = [0; BYTES.len()];
        let read = memory.read(told.address, &mut bytes);
        read.map_err(|errno| SysError::Refused { call: "read", object: "a child's memory", errno })?;
        if bytes == BYTES { Ok(()) } else { Err(HandoverError::Other) }
    });
    read.map(|()| "a child's memory was read").map_err(|error| with_causes(&error))
}

fn hand_over() -> Result<String, HandoverError> {
    with_child(|process, told| {
        let scratch = memfd::create("ioasd-probe", PAGE.length)?;
        match told.ring {
            NO_RING => Err(HandoverError::NoRing),
            ring => Ok(handed_ring::take(process, ring, &scratch).map(drop)?),
        }
    })?;
    Ok(format!("a child's pinned page was taken over{}", yama()))
}

/// What a child says of itself.
struct Told {
    ring: i32,
    address: UserAddr,
}

fn with_child(attempt: impl FnOnce(&PidFd, Told) -> Result<(), HandoverError>) -> Result<(), HandoverError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("check-host-peer").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let tried = told_by(&mut child).and_then(|(process, told)| attempt(&process, told));
    drop(child.stdin.take());
    let ended = child.wait_with_output()?;
    match tried {
        Err(HandoverError::NoRing) => {
            Err(HandoverError::Peer(String::from_utf8_lossy(&ended.stderr).trim().to_owned()))
        }
        tried => tried,
    }
}

fn told_by(child: &mut Child) -> Result<(PidFd, Told), HandoverError> {
    let mut said = String::new();
    if let Some(output) = &mut child.stdout {
        BufReader::new(output).read_line(&mut said)?;
    }
    let (ring, address) = said.trim().split_once(' ').ok_or(HandoverError::Other)?;
    let ring = ring.parse().map_err(io::Error::other)?;
    let address = UserAddr::new(address.parse().map_err(io::Error::other)?);
    let refused = |errno| SysError::Refused { call: "pidfd_open", object: "the child", errno };
    let process = PidFd::open(Pid::from_child(child)).map_err(refused)?;
    Ok((process, Told { ring, address }))
}

/// A child may be traced where other processes may not.
fn yama() -> &'static str {
    match offers::number_in("/proc/sys/kernel/yama/ptrace_scope") {
        None | Some(0) => "",
        Some(_) => {
            "; kernel.yama.ptrace_scope restricts this to clients that allow it (PR_SET_PTRACER) or to CAP_SYS_PTRACE"
        }
    }
}
