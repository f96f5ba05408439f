//! A ring that another process made: how pins of process memory are taken over.
//!
//! The other process registers its memory with a ring that is not enabled. We fetch the ring, give it one file of ours,
//! restrict it to reading and writing that file through the registered memory, and enable it; from then on its maker can
//! neither unregister the memory nor have us do anything else. Any refusal means that the ring is not taken.
//!
//! What it holds is what the kernel says it holds (`/proc/self/fdinfo`), not what its maker says.
//!
//! Imports allowed: units, failure, pidfd, rustix.
#![expect(unsafe_code, reason = "io_uring_register")]

use std::ffi::c_void;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;

use ioasd_client::units::{ByteLen, UserAddr};
use rustix::io::Errno;
use rustix::io_uring::{
    IoringOp, IoringRegisterOp, IoringRestrictionOp, IoringSqeFlags, io_uring_register, io_uring_restriction,
    register_or_sqe_op_or_sqe_flags_union,
};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::failure::SysError;
use super::pidfd::PidFd;

/// Takes descriptor `number` of `process`, a ring that is not enabled, gives it `scratch` as its only file, and
/// restricts and enables it.
///
/// # Errors
/// EPERM if this process may not trace the other; what else the kernel refuses.
pub fn take(process: &PidFd, number: RawFd, scratch: &OwnedFd) -> Result<OwnedFd, SysError> {
    let refused = |call| move |errno| SysError::Refused { call, object: "a ring of another process", errno };
    let ring = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).map_err(refused("pidfd_getfd"))?;
    let files = [scratch.as_raw_fd()];
    let registered = register(&ring, IoringRegisterOp::RegisterFiles, files.as_ptr().cast(), 1);
    registered.map_err(refused("io_uring_register(FILES)"))?;
    let rules = restrictions();
    let restricted = register(&ring, IoringRegisterOp::RegisterRestrictions, rules.as_ptr().cast(), 4);
    restricted.map_err(refused("io_uring_register(RESTRICTIONS)"))?;
    let enabled = register(&ring, IoringRegisterOp::RegisterEnableRings, ptr::null(), 0);
    enabled.map_err(refused("io_uring_register(ENABLE_RINGS)"))?;
    Ok(ring)
}

/// Bytes of the kernel's account of a ring that are read; an honest one has a few hundred.
const ACCOUNT_MAX: u64 = 16 << 10;

/// Requires that a ring that was taken holds `length` bytes from `start` on, and nothing else, and that no thread of the kernel
/// submits for it.
///
/// # Errors
/// EFAULT if it does not; what the kernel says of `/proc`.
pub fn require_holds(ring: &OwnedFd, (start, length): (UserAddr, ByteLen)) -> Result<(), SysError> {
    let refused = |errno| SysError::Refused {
        call: "a look at what is pinned",
        object: "a ring of another process",
        errno,
    };
    let mut account = String::new();
    let read = File::open(format!("/proc/self/fdinfo/{}", ring.as_raw_fd()))
        .and_then(|file| file.take(ACCOUNT_MAX).read_to_string(&mut account));
    read.map_err(|error| refused(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    match says_it_holds(&account, start.get(), length.get()) {
        true => Ok(()),
        false => Err(refused(Errno::FAULT)),
    }
}

fn says_it_holds(account: &str, start: u64, length: u64) -> bool {
    let mut lines = account.lines().skip_while(|line| !line.starts_with("SqThread:"));
    let no_thread = lines.next() == Some("SqThread:\t-1");
    let mut lines = lines.skip_while(|line| !line.starts_with("UserBufs:"));
    let one = lines.next() == Some("UserBufs:\t1");
    let buffer = format!("0: {start:#x}/{length}");
    no_thread && one && lines.next().is_some_and(|line| line.trim_start() == buffer)
}

/// Reading and writing registered memory, on fixed files only. No register operation passes but enabling, which a ring
/// that is not enabled allows by itself.
fn restrictions() -> [io_uring_restriction; 4] {
    let rule = |opcode, what| {
        let mut rule = io_uring_restriction::default();
        rule.opcode = opcode;
        rule.register_or_sqe_op_or_sqe_flags = what;
        rule
    };
    let operation =
        |sqe_op| rule(IoringRestrictionOp::SqeOp, register_or_sqe_op_or_sqe_flags_union { sqe_op });
    let fixed = IoringSqeFlags::FIXED_FILE;
    let flags = |opcode| rule(opcode, register_or_sqe_op_or_sqe_flags_union { sqe_flags: fixed });
    [
        operation(IoringOp::ReadFixed),
        operation(IoringOp::WriteFixed),
        flags(IoringRestrictionOp::SqeFlagsAllowed),
        flags(IoringRestrictionOp::SqeFlagsRequired),
    ]
}

fn register(
    ring: impl AsFd,
    operation: IoringRegisterOp,
    argument: *const c_void,
    count: u32,
) -> Result<u32, Errno> {
    // SAFETY: the argument is `count` of what the operation reads, and is read during the call only; nothing is
    // submitted to the ring here.
    unsafe { io_uring_register(ring, operation, argument, count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_holds_what_the_kernel_says_and_nothing_else() {
        let account = |thread, buffers| {
            format!(
                "pos:\t0\nSqThread:\t{thread}\nUserFiles:\t1\n    0: scratch\nUserBufs:\t{buffers}PollList:\n"
            )
        };
        let holds = |text: &str| says_it_holds(text, 0x7000, 8192);
        assert!(holds(&account("-1", "1\n    0: 0x7000/8192\n")));
        assert!(!holds(&account("77", "1\n    0: 0x7000/8192\n")), "a thread submits");
        assert!(!holds(&account("-1", "2\n    0: 0x7000/8192\n    1: 0x9000/4096\n")));
        for other in ["0\n", "1\n    0: 0x7000/4096\n", "1\n    0: 0x8000/8192\n", "1\n    0: <none>\n"] {
            assert!(!holds(&account("-1", other)), "{other}");
        }
        assert!(!holds("") && !holds("UserBufs:\t1\n    0: 0x7000/8192\n"));
    }
}
