//! Why a call did not succeed.
//!
//! Imports allowed: wire, `rustix::io::Errno`.

use rustix::io::Errno;

use crate::wire::frame::FrameError;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The agent understood the call and refused it.
    #[error("{command} refused ({code}): {text}")]
    Refused {
        /// Name of the command.
        command: &'static str,
        /// Its errno.
        errno: Errno,
        /// Stable, kebab-case name of the kind of error.
        code: String,
        /// The agent's explanation.
        text: String,
    },
    /// The socket failed.
    #[error("cannot {doing}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// Not now: the call would have to wait, and was asked not to. Nothing was sent.
    #[error("not now: {why}; receive answers first, or wait until the descriptor is ready")]
    NotNow {
        /// What it would wait for.
        why: &'static str,
    },
    /// The agent, or what claims to be it, does not keep to the protocol. Close the connection.
    #[error("the agent broke the protocol")]
    Protocol(#[source] ProtocolError),
}

/// How an answer breaks the protocol, or a call cannot be put into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The frame is broken, or a request does not fit into one.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The agent has closed the connection.
    #[error("the connection was closed before the answer came")]
    Closed,
    /// The answer belongs to another request.
    #[error("the answer is for command {command:#x}, tag {tag:#x}: another request than the one sent")]
    OtherRequest {
        /// Command it names.
        command: u32,
        /// Tag it has.
        tag: u64,
    },
    /// The struct that came back has another length than the one sent.
    #[error("{command} came back with a struct of {found} bytes instead of {wanted}")]
    Body {
        /// Name of the command.
        command: &'static str,
        /// Bytes sent.
        wanted: usize,
        /// Bytes that came back.
        found: usize,
    },
    /// The payload has another length than the answer says it should have.
    #[error("{command} came back with a payload of {found} bytes instead of {wanted}")]
    Payload {
        /// Name of the command.
        command: &'static str,
        /// What it should have.
        wanted: u64,
        /// What it has.
        found: usize,
    },
    /// Another number of descriptors than the answer should carry.
    #[error("{command} came back with {found} descriptors instead of {wanted}")]
    Descriptors {
        /// Name of the command.
        command: &'static str,
        /// What it should carry.
        wanted: u64,
        /// What it carries.
        found: usize,
    },
    /// Some descriptors of the answer could not be taken in.
    #[error("descriptors of the answer were lost: raise RLIMIT_NOFILE")]
    DescriptorsLost,
}

impl From<ProtocolError> for CallError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl From<FrameError> for CallError {
    fn from(error: FrameError) -> Self {
        Self::Protocol(ProtocolError::Frame(error))
    }
}

impl CallError {
    /// The errno a caller of the uAPI would see: the agent's, the socket's, EAGAIN, or EPROTO.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Refused { errno, .. } => *errno,
            Self::Io { source, .. } => *source,
            Self::NotNow { .. } => Errno::AGAIN,
            Self::Protocol(_) => Errno::PROTO,
        }
    }

    /// The agent's code, if it was the agent that refused.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Io { .. } | Self::NotNow { .. } | Self::Protocol(_) => None,
        }
    }
}
