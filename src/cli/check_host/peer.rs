//! Whether the memory of another process can be pinned: a child registers a page with a ring, we take the ring over.
//!
//! Imports allowed: units, sys, `std`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use clap::Args;
use ioasd_client::units::{ByteLen, PAGE_SIZE};
use rustix::process::Pid;

use crate::cli::{Exit, with_causes};
use crate::sys::client_mapping::{ClientMapping, Part};
use crate::sys::failure::SysError;
use crate::sys::file_state::FileAccess;
use crate::sys::pidfd::PidFd;
use crate::sys::pin_ring::PinRing;
use crate::sys::{handed_ring, memfd, offers};

/// One page.
const PAGE: Part = Part { offset: ByteLen::new(0), length: ByteLen::new(PAGE_SIZE) };

/// The other process of `check-host` takes no flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct CheckHostPeerArgs;

/// The child: pins a page of its own, says which descriptor the ring is, and waits until it is let go.
pub fn check_host_peer(_: CheckHostPeerArgs) -> Exit {
    match pinned_page() {
        Ok(ring) => {
            let said = writeln!(io::stdout(), "{}", ring.number());
            let let_go = io::stdin().read(&mut [0]);
            if said.and(let_go.map(drop)).is_ok() { Exit::Ok } else { Exit::Failed }
        }
        Err(error) => {
            eprintln!("{error}");
            Exit::Failed
        }
    }
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
    #[error("the child could not pin a page: {0}")]
    Peer(String),
    #[error(transparent)]
    Refused(#[from] SysError),
}

/// Tries it.
pub(super) fn try_handover() -> Result<String, String> {
    hand_over().map_err(|error| with_causes(&error))
}

fn hand_over() -> Result<String, HandoverError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("check-host-peer").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let taken = take_from(&mut child);
    drop(child.stdin.take());
    let ended = child.wait_with_output()?;
    match taken {
        Ok(()) => Ok(format!("a child's pinned page was taken over{}", yama())),
        Err(_) if !ended.status.success() => {
            Err(HandoverError::Peer(String::from_utf8_lossy(&ended.stderr).trim().to_owned()))
        }
        Err(error) => Err(error),
    }
}

fn take_from(child: &mut Child) -> Result<(), HandoverError> {
    let mut said = String::new();
    if let Some(output) = &mut child.stdout {
        BufReader::new(output).read_line(&mut said)?;
    }
    let number = said.trim().parse().map_err(io::Error::other)?;
    let refused = |errno| SysError::Refused { call: "pidfd_open", object: "the child", errno };
    let process = PidFd::open(Pid::from_child(child)).map_err(refused)?;
    let scratch = memfd::create("ioasd-probe", PAGE.length)?;
    handed_ring::take(&process, number, &scratch)?;
    Ok(())
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
