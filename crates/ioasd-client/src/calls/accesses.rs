//! Accesses: ACCESS_CREATE, ACCESS_PIN, ACCESS_UNPIN, ACCESS_RW.
//!
//! Imports allowed: connection, error, ids, units, wire.

use super::{no_descriptors, only_descriptor, require_payload};
use crate::connection::Connection;
use crate::error::CallError;
use crate::ids::{AccessId, IoasId};
use crate::notices::NoticeChannel;
use crate::units::{ByteLen, Iova, IovaRange};
use crate::wire::command::Command;
use crate::wire::own::{
    ACCESS_MAY_PIN, ACCESS_NOTICES, ACCESS_WRITE, AccessAttach, AccessCreate, AccessDetach, AccessPin,
    AccessReplace, AccessRw, AccessUnpin,
};

/// What an access may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// Read and write only.
    Bytes,
    /// Pin as well; needs page-aligned areas.
    Pinning,
}

impl AccessKind {
    const fn flags(self) -> u32 {
        match self {
            Self::Bytes => 0,
            Self::Pinning => ACCESS_MAY_PIN,
        }
    }
}

/// What a pin is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinIntent {
    /// Reads only.
    Read,
    /// Writes, too.
    Write,
}

/// Accesses.
impl Connection {
    /// Makes an access of `ioas`.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn access_create(&mut self, ioas: IoasId, kind: AccessKind) -> Result<AccessId, CallError> {
        let create = AccessCreate { flags: kind.flags(), ioas_id: ioas, ..AccessCreate::default() };
        Ok(self.call(&create, &[], &[], no_descriptors)?.value.out_access_id)
    }

    /// Makes an access of `ioas` that is told what to let go of, and gives the channel that tells it.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn access_create_with_notices(
        &mut self,
        ioas: IoasId,
        kind: AccessKind,
    ) -> Result<(AccessId, NoticeChannel), CallError> {
        let flags = kind.flags() | ACCESS_NOTICES;
        let create = AccessCreate { flags, ioas_id: ioas, ..AccessCreate::default() };
        let answer = self.call(&create, &[], &[], |_| 1)?;
        let channel = NoticeChannel::from_fd(only_descriptor(AccessCreate::NAME, answer.fds)?);
        Ok((answer.value.out_access_id, channel))
    }

    /// Attaches an access that is attached to nothing.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn access_attach(&mut self, access: AccessId, ioas: IoasId) -> Result<(), CallError> {
        let attach = AccessAttach { flags: 0, access_id: access, ioas_id: ioas };
        self.call(&attach, &[], &[], no_descriptors).map(|_| ())
    }

    /// Moves an access to another address space, once it has let go of everything in the old one: it is sent a notice.
    ///
    /// # Errors
    /// [`CallError::Refused`], EDEADLK if it does not let go; the socket's. The access stays where it is then.
    pub fn access_replace(&mut self, access: AccessId, ioas: IoasId) -> Result<(), CallError> {
        let replace = AccessReplace { flags: 0, access_id: access, ioas_id: ioas };
        self.call(&replace, &[], &[], no_descriptors).map(|_| ())
    }

    /// Detaches an access, once it has let go of everything: it is sent a notice.
    ///
    /// # Errors
    /// [`CallError::Refused`], EDEADLK if it does not let go; the socket's. The access stays attached then.
    pub fn access_detach(&mut self, access: AccessId) -> Result<(), CallError> {
        let detach = AccessDetach { access_id: access, ..AccessDetach::default() };
        self.call(&detach, &[], &[], no_descriptors).map(|_| ())
    }

    /// Pins the pages behind `range`.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn access_pin(
        &mut self,
        access: AccessId,
        range: IovaRange,
        intent: PinIntent,
    ) -> Result<(), CallError> {
        let flags = match intent {
            PinIntent::Read => 0,
            PinIntent::Write => ACCESS_WRITE,
        };
        let (iova, length) = (range.start(), range.length());
        let pin = AccessPin { flags, access_id: access, reserved: 0, iova, length };
        self.call(&pin, &[], &[], no_descriptors).map(|_| ())
    }

    /// Lets go of what was pinned with the same range.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn access_unpin(&mut self, access: AccessId, range: IovaRange) -> Result<(), CallError> {
        let (iova, length) = (range.start(), range.length());
        let unpin = AccessUnpin { access_id: access, iova, length, ..AccessUnpin::default() };
        self.call(&unpin, &[], &[], no_descriptors).map(|_| ())
    }

    /// Fills `into` with the memory at `iova`, at most 60 KiB.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn access_read(&mut self, access: AccessId, iova: Iova, into: &mut [u8]) -> Result<(), CallError> {
        let length = ByteLen::new(into.len() as u64);
        let rw = AccessRw { access_id: access, iova, length, ..AccessRw::default() };
        let payload = self.call(&rw, &[], &[], no_descriptors)?.payload;
        require_payload("ACCESS_RW", length.get(), &payload)?;
        into.copy_from_slice(&payload);
        Ok(())
    }

    /// Writes `from` to the memory at `iova`, at most 60 KiB.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn access_write(&mut self, access: AccessId, iova: Iova, from: &[u8]) -> Result<(), CallError> {
        let length = ByteLen::new(from.len() as u64);
        let rw = AccessRw { flags: ACCESS_WRITE, access_id: access, reserved: 0, iova, length };
        self.call(&rw, &[], from, no_descriptors).map(|_| ())
    }
}
