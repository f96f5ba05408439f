//! What can go wrong, each with its errno and its code.
//!
//! Imports allowed: error and walker of the client crate, rustix.

use ioasd_client::error::{CallError, ProtocolError};
use ioasd_client::walker::{AttachError, FaultKind, NoSlot, OpenError, WalkFault};
use rustix::io::Errno;

/// Why a function did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The agent refused, or the socket failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A domain cannot be opened, or no more be learned of it.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// All slots of the walker are taken.
    #[error(transparent)]
    NoSlot(#[from] NoSlot),
    /// Memory was not reached.
    #[error(transparent)]
    Fault(#[from] WalkFault),
    /// Memory was not reached, and the agent was asked about it already.
    #[error("what lies at {iova} was learned of before and cannot be used: the file ends before it, or may not be written", iova = .0.iova)]
    NotLearned(WalkFault),
    /// There was no fault.
    #[error("no fault since the burst began")]
    NoFault,
    /// The function was called in a wrong way.
    #[error(transparent)]
    Misuse(#[from] Misuse),
    /// A system call failed.
    #[error("cannot {0}: {1}")]
    Sys(&'static str, Errno),
    /// A bug.
    #[error("a bug in libioasd; standard error has the details")]
    Panicked,
}

/// How a function was called in a wrong way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misuse {
    /// A pointer is null.
    #[error("the argument {0} is a null pointer")]
    Null(&'static str),
    /// An argument is none of those it may be.
    #[error("the argument {0} must be {1}")]
    Argument(&'static str, &'static str),
    /// A handle or descriptor is not open.
    #[error("the {0} is not open: it was closed, or never was one")]
    NotOpen(&'static str),
    /// A stream of another thread, or of the process before `fork`.
    #[error("the stream belongs to another thread, or to the process that forked; open one for each thread")]
    OtherThread,
    /// Outside of a burst.
    #[error("the stream is in no burst; call ioasd_enter first")]
    NotInBurst,
    /// Inside a burst.
    #[error("the stream is in a burst; call ioasd_leave first")]
    InBurst,
    /// No file was missing.
    #[error("the last burst met no memory that is not known; ioasd_learn is for -EAGAIN")]
    NothingToLearn,
    /// Waiting for the agent, which may wait for this thread.
    #[error("this thread is in a burst, and the agent may have to wait for its end; call ioasd_leave first")]
    WouldDeadlock,
    /// Nothing to be received.
    #[error("no notice waits; poll the descriptor, or wait with IOASD_NOTICES_WAIT")]
    NoNotice,
    /// A word that is not one.
    #[error("the {bytes} bytes at {iova:#x} are not aligned to their length")]
    Misaligned {
        /// Where.
        iova: u64,
        /// How many.
        bytes: usize,
    },
}

impl Failure {
    /// What the caller gets, negated.
    pub(crate) const fn errno(&self) -> Errno {
        match self {
            Self::Call(error) | Self::Attach(AttachError::Call(error)) => call_errno(error),
            Self::Attach(error) => attach_errno(error),
            Self::NoSlot(NoSlot) => Errno::MFILE,
            Self::Fault(fault) => fault_errno(fault.kind),
            Self::NotLearned(_) => Errno::FAULT,
            Self::NoFault => Errno::NODATA,
            Self::Misuse(misuse) => misuse.errno(),
            Self::Sys(_, errno) => *errno,
            Self::Panicked => Errno::NOTRECOVERABLE,
        }
    }

    /// The name of the kind of error; it does not change between versions.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Call(error) | Self::Attach(AttachError::Call(error)) => call_code(error),
            Self::Attach(AttachError::NoChannel) => "no-channel",
            Self::Attach(AttachError::Open(OpenError::Sys { .. })) | Self::Sys(..) => "system-call-failed",
            Self::Attach(AttachError::Open(_) | AttachError::Window(_)) => "not-a-domain",
            Self::NoSlot(NoSlot) => "no-slot",
            Self::Fault(fault) => fault_code(fault.kind),
            Self::NotLearned(_) => "fault-not-exported",
            Self::NoFault => "no-fault",
            Self::Misuse(misuse) => misuse.code(),
            Self::Panicked => "bug",
        }
    }
}

const fn call_errno(error: &CallError) -> Errno {
    match error {
        CallError::Protocol(ProtocolError::Closed) => Errno::CONNRESET,
        other => other.errno(),
    }
}

const fn attach_errno(error: &AttachError) -> Errno {
    match error {
        AttachError::Open(OpenError::Sys { errno, .. }) => *errno,
        AttachError::Open(OpenError::Geometry(_)) => Errno::OPNOTSUPP,
        AttachError::Open(_) | AttachError::Window(_) | AttachError::Call(_) => Errno::PROTO,
        AttachError::NoChannel => Errno::BADF,
    }
}

fn call_code(error: &CallError) -> &str {
    match error {
        CallError::Refused { code, .. } => code,
        CallError::Io { .. } => "system-call-failed",
        CallError::NotNow { .. } => "not-now",
        CallError::Protocol(ProtocolError::Closed) => "hung-up",
        CallError::Protocol(_) => "protocol-broken",
    }
}

const fn fault_errno(kind: FaultKind) -> Errno {
    match kind {
        FaultKind::NotExported => Errno::AGAIN,
        FaultKind::Dead => Errno::NODEV,
        FaultKind::NotPresent | FaultKind::Permission | FaultKind::Malformed | FaultKind::OutsideAperture => {
            Errno::FAULT
        }
    }
}

const fn fault_code(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::NotPresent => "fault-not-present",
        FaultKind::Permission => "fault-permission",
        FaultKind::Malformed => "fault-malformed",
        FaultKind::NotExported => "fault-not-exported",
        FaultKind::OutsideAperture => "fault-outside-aperture",
        FaultKind::Dead => "fault-dead",
    }
}

impl Misuse {
    const fn errno(self) -> Errno {
        match self {
            Self::Null(_) | Self::Argument(..) | Self::NothingToLearn | Self::Misaligned { .. } => {
                Errno::INVAL
            }
            Self::NotOpen(_) => Errno::BADF,
            Self::OtherThread => Errno::PERM,
            Self::NotInBurst => Errno::BADFD,
            Self::InBurst => Errno::BUSY,
            Self::WouldDeadlock => Errno::DEADLK,
            Self::NoNotice => Errno::AGAIN,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Null(_) => "null-argument",
            Self::Argument(..) => "bad-argument",
            Self::NotOpen(_) => "not-open",
            Self::OtherThread => "other-thread",
            Self::NotInBurst => "not-in-burst",
            Self::InBurst => "in-burst",
            Self::NothingToLearn => "nothing-to-learn",
            Self::WouldDeadlock => "would-deadlock",
            Self::NoNotice => "not-now",
            Self::Misaligned { .. } => "misaligned",
        }
    }
}
