//! A ring that another process made: how pins of process memory are taken over.
//!
//! The other process registers its memory with a ring that is not enabled. We fetch the ring, give it one file of ours,
//! restrict it to reading and writing that file through the registered memory, and enable it; from then on its maker can
//! neither unregister the memory nor have us do anything else. Any refusal means that the ring is not taken.
//!
//! Imports allowed: failure, pidfd, rustix.
#![expect(unsafe_code, reason = "io_uring_register")]

use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;

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
