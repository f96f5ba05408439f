//! What memory of processes takes besides rings: the switches of the kernel, and the ways to a process's bytes.
//!
//! Imports allowed: units, sys, the peer.

use std::os::fd::AsFd;

use ioasd_client::units::{ByteLen, PAGE_SIZE};

use super::Finding;
use super::peer;
use crate::sys::client_mapping::{ClientMapping, Part};
use crate::sys::failure::SysError;
use crate::sys::file_state::FileAccess;
use crate::sys::{memfd, offers};

const PAGE: Part = Part { offset: ByteLen::new(0), length: ByteLen::new(PAGE_SIZE) };

const RINGS: &str = "for processes that pin their memory: sysctl kernel.io_uring_disabled=0, or =1 with the group of \
                     agent and clients in kernel.io_uring_group; containers need a seccomp profile with io_uring, too";
const TRACING: &str = "for clients of other users, or that do not allow it themselves: CAP_SYS_PTRACE for the agent, or \
                       sysctl kernel.yama.ptrace_scope=0";
const BYTES: &str = "for private memory that cannot be pinned, and for what a process may do with its memory: the same user, \
                     or CAP_SYS_PTRACE; /proc mounted without hidepid";
const VECTORS: &str = "only for speed, and to write huge pages: allow process_vm_readv and process_vm_writev in the seccomp profile";

/// Everything about other processes.
pub(super) fn findings() -> Vec<Finding> {
    let memory = Finding::tried("process memory", peer::try_handover(), peer::REMEDY);
    let bytes = Finding::tried("bytes of processes", peer::try_bytes(), BYTES);
    let switch = |path| offers::number_in(path);
    vec![
        memory,
        rings(switch("/proc/sys/kernel/io_uring_disabled")),
        tracing(switch("/proc/sys/kernel/yama/ptrace_scope")),
        bytes,
        Finding::tried("process_vm_writev", vectors(), VECTORS),
    ]
}

/// What `kernel.io_uring_disabled` says.
fn rings(switch: Option<u64>) -> Finding {
    const FEATURE: &str = "io_uring for all";
    match switch {
        None => Finding::yes(FEATURE, "this kernel has no switch for it"),
        Some(0) => Finding::yes(FEATURE, "kernel.io_uring_disabled is 0: every process may make rings"),
        Some(1) => Finding::no(
            FEATURE,
            "kernel.io_uring_disabled is 1: only CAP_SYS_ADMIN and one group make rings; memory of others is copied",
            RINGS,
        ),
        Some(other) => {
            Finding::no(FEATURE, format!("kernel.io_uring_disabled is {other}: nobody makes rings"), RINGS)
        }
    }
}

/// What `kernel.yama.ptrace_scope` says.
fn tracing(scope: Option<u64>) -> Finding {
    const FEATURE: &str = "ptrace scope";
    match scope {
        None => Finding::yes(FEATURE, "no Yama: processes of the same user are reached"),
        Some(0) => {
            Finding::yes(FEATURE, "kernel.yama.ptrace_scope is 0: processes of the same user are reached")
        }
        Some(1) => Finding::yes(
            FEATURE,
            "kernel.yama.ptrace_scope is 1: of the same user, programs under the shim are reached, which allow it \
             (PR_SET_PTRACER)",
        ),
        Some(2) => Finding::no(
            FEATURE,
            "kernel.yama.ptrace_scope is 2: only an agent with CAP_SYS_PTRACE reaches processes",
            TRACING,
        ),
        Some(other) => Finding::no(
            FEATURE,
            format!(
                "kernel.yama.ptrace_scope is {other}: nobody reaches processes; shared files are mapped all the same"
            ),
            "boot with another value: this one cannot be changed any more",
        ),
    }
}

fn vectors() -> Result<&'static str, SysError> {
    let file = memfd::create("ioasd-probe", PAGE.length)?;
    let mapping = ClientMapping::new(file.as_fd(), PAGE, FileAccess::ReadWrite)?;
    mapping.write(PAGE, &[1]).map(|()| "a byte was written by address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_switch_says_who_is_reached() {
        assert!([None, Some(0)].into_iter().all(|switch| rings(switch).available));
        assert!([Some(1), Some(2)].into_iter().all(|switch| !rings(switch).available));
        assert!([None, Some(0), Some(1)].into_iter().all(|scope| tracing(scope).available));
        assert!([Some(2), Some(3)].into_iter().all(|scope| tracing(scope).remedy.is_some()));
        assert!(tracing(Some(2)).found.contains("CAP_SYS_PTRACE"));
    }
}
