//! Typed calls: one method for each command.
//!
//! | family | calls |
//! |---|---|
//! | address spaces | `ioas_alloc`, `map_file`, `unmap`, `unmap_all`, `copy`, `destroy` |
//! | devices | `device_create`, `device_attach`, `device_detach`, `domain_export` |
//! | accesses | `access_create`, `access_pin`, `access_unpin`, `access_read`, `access_write` |
//! | export channel | [`ExportChannel::open`] |
//!
//! Imports allowed: connection, error, ids, units, wire.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::connection::Connection;
use crate::error::{CallError, ProtocolError};
use crate::ids::{AccessId, DeviceId, HwptId, IoasId, ObjectId};
use crate::units::{ByteLen, Iova, IovaRange, Permission};
use crate::wire::own::{
    ACCESS_MAY_PIN, ACCESS_WRITE, AccessCreate, AccessPin, AccessRw, AccessUnpin, DEVICE_OWN_IOMMU,
    DeviceAttach, DeviceCreate, DeviceDetach, DeviceFormat, DomainExport, FRAME_WINDOW_BYTES,
    WALKER_OPEN_FDS, WalkerOpen,
};
use crate::wire::uapi::{
    Destroy, IoasAlloc, IoasCopy, IoasMapFile, IoasUnmap, MAP_FIXED_IOVA, MAP_READABLE, MAP_WRITEABLE,
};

/// Who chooses the IOVA of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The caller.
    Fixed(Iova),
    /// The agent.
    Any,
}

impl Placement {
    const fn iova(self) -> Iova {
        match self {
            Self::Fixed(iova) => iova,
            Self::Any => Iova::new(0),
        }
    }

    const fn flags(self, permission: Permission) -> u32 {
        let fixed = match self {
            Self::Fixed(_) => MAP_FIXED_IOVA,
            Self::Any => 0,
        };
        let readable = if permission.can_read() { MAP_READABLE } else { 0 };
        let writable = if permission.can_write() { MAP_WRITEABLE } else { 0 };
        fixed | readable | writable
    }
}

/// Which IOMMU a software device is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iommu {
    /// The one all such devices share: on one address space they use one domain together.
    Shared,
    /// One of its own: it gets a domain of its own.
    Own,
}

/// What an access may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// Read and write only.
    Bytes,
    /// Pin as well; needs page-aligned areas.
    Pinning,
}

/// What a pin is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinIntent {
    /// Reads only.
    Read,
    /// Writes, too.
    Write,
}

/// A slice of a file.
#[derive(Clone, Copy, Debug)]
pub struct FileSlice<'fd> {
    /// The file.
    pub file: BorrowedFd<'fd>,
    /// Offset of the first byte.
    pub offset: ByteLen,
    /// Number of bytes.
    pub length: ByteLen,
}

/// No descriptors are expected with an answer.
fn no_descriptors<C>(_: &C) -> u64 {
    0
}

/// Address spaces.
impl Connection {
    /// Makes an IO address space.
    ///
    /// # Errors
    /// [`CallError::Refused`] as IOAS_ALLOC; the socket's.
    pub fn ioas_alloc(&mut self) -> Result<IoasId, CallError> {
        let answer = self.call(&IoasAlloc::default(), &[], &[], no_descriptors)?;
        Ok(answer.value.out_ioas_id)
    }

    /// Maps a slice of a file and gives its IOVA.
    ///
    /// # Errors
    /// [`CallError::Refused`] as IOAS_MAP_FILE; the socket's.
    pub fn map_file(
        &mut self,
        ioas: IoasId,
        slice: FileSlice<'_>,
        permission: Permission,
        placement: Placement,
    ) -> Result<Iova, CallError> {
        let map = IoasMapFile {
            flags: placement.flags(permission),
            ioas_id: ioas,
            fd: 0,
            start: slice.offset,
            length: slice.length,
            iova: placement.iova(),
        };
        let answer = self.call(&map, &[slice.file], &[], no_descriptors)?;
        Ok(answer.value.iova)
    }

    /// Removes the areas within `range`, which must not cut any, and gives the bytes that were unmapped.
    ///
    /// # Errors
    /// [`CallError::Refused`] as IOAS_UNMAP; the socket's.
    pub fn unmap(&mut self, ioas: IoasId, range: IovaRange) -> Result<ByteLen, CallError> {
        let unmap = IoasUnmap { ioas_id: ioas, iova: range.start(), length: range.length() };
        Ok(self.call(&unmap, &[], &[], no_descriptors)?.value.length)
    }

    /// Removes every area and gives the bytes that were unmapped.
    ///
    /// # Errors
    /// [`CallError::Refused`] as IOAS_UNMAP; the socket's.
    pub fn unmap_all(&mut self, ioas: IoasId) -> Result<ByteLen, CallError> {
        self.unmap(ioas, IovaRange::ALL)
    }

    /// Shows a range of one address space in another (or the same) as well, and gives its IOVA there.
    ///
    /// # Errors
    /// [`CallError::Refused`] as IOAS_COPY; the socket's.
    pub fn copy(
        &mut self,
        (source, range): (IoasId, IovaRange),
        (target, placement): (IoasId, Placement),
        permission: Permission,
    ) -> Result<Iova, CallError> {
        let copy = IoasCopy {
            flags: placement.flags(permission),
            dst_ioas_id: target,
            src_ioas_id: source,
            length: range.length(),
            dst_iova: placement.iova(),
            src_iova: range.start(),
        };
        Ok(self.call(&copy, &[], &[], no_descriptors)?.value.dst_iova)
    }

    /// Destroys an object.
    ///
    /// # Errors
    /// [`CallError::Refused`] as DESTROY; the socket's.
    pub fn destroy(&mut self, id: impl Into<ObjectId>) -> Result<(), CallError> {
        self.call_without_reply(&Destroy { id: id.into() })
    }
}

/// Devices and their domains.
impl Connection {
    /// Makes a software device that walks tables of `format`.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn device_create(&mut self, format: DeviceFormat, iommu: Iommu) -> Result<DeviceId, CallError> {
        let flags = match iommu {
            Iommu::Shared => 0,
            Iommu::Own => DEVICE_OWN_IOMMU,
        };
        let create = DeviceCreate { flags, format: format.number(), ..DeviceCreate::default() };
        Ok(self.call(&create, &[], &[], no_descriptors)?.value.out_device_id)
    }

    /// Attaches a device to an address space and gives the HWPT that serves it.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn device_attach(&mut self, device: DeviceId, ioas: IoasId) -> Result<HwptId, CallError> {
        let attach = DeviceAttach { flags: 0, device_id: device, pt_id: ioas.into() };
        let answer = self.call(&attach, &[], &[], no_descriptors)?;
        Ok(HwptId::new(answer.value.pt_id.get()))
    }

    /// Detaches a device.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn device_detach(&mut self, device: DeviceId) -> Result<(), CallError> {
        let detach = DeviceDetach { device_id: device, ..DeviceDetach::default() };
        self.call(&detach, &[], &[], no_descriptors).map(|_| ())
    }

    /// Exports the domain behind `hwpt`: whoever holds the channel may open it as a walker ([`ExportChannel`]).
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn domain_export(&mut self, hwpt: HwptId) -> Result<OwnedFd, CallError> {
        let export = DomainExport { hwpt_id: hwpt, ..DomainExport::default() };
        let mut answer = self.call(&export, &[], &[], |_| 1)?;
        let missing = ProtocolError::Descriptors { command: "DOMAIN_EXPORT", wanted: 1, found: 0 };
        answer.fds.pop().ok_or_else(|| missing.into())
    }
}

/// Accesses.
impl Connection {
    /// Makes an access of `ioas`.
    ///
    /// # Errors
    /// [`CallError::Refused`]; the socket's.
    pub fn access_create(&mut self, ioas: IoasId, kind: AccessKind) -> Result<AccessId, CallError> {
        let flags = match kind {
            AccessKind::Bytes => 0,
            AccessKind::Pinning => ACCESS_MAY_PIN,
        };
        let create = AccessCreate { flags, ioas_id: ioas, ..AccessCreate::default() };
        Ok(self.call(&create, &[], &[], no_descriptors)?.value.out_access_id)
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

/// The right to open one domain as a walker, in this process or another.
#[derive(Debug)]
pub struct ExportChannel(Connection);

/// What a walker needs: all of it comes from the agent and is checked by whoever maps it.
#[derive(Debug)]
pub struct DomainParts {
    /// The table arena.
    pub arena: OwnedFd,
    /// This walker's slots.
    pub slots: OwnedFd,
    /// Frame windows, 32 bytes each.
    pub windows: Vec<u8>,
    /// The backing files, by the index the windows use.
    pub files: Vec<OwnedFd>,
}

impl ExportChannel {
    /// Takes over the descriptor that [`Connection::domain_export`] gave.
    #[must_use]
    pub fn from_fd(channel: OwnedFd) -> Self {
        Self(Connection::from_fd(channel))
    }

    /// Opens the domain. Each call makes another walker, with slots of its own.
    ///
    /// # Errors
    /// [`CallError::Refused`], EMFILE if the domain has more backing files than a message can carry; the socket's.
    pub fn open(&mut self) -> Result<DomainParts, CallError> {
        let expected = |open: &WalkerOpen| u64::from(open.out_files) + WALKER_OPEN_FDS as u64;
        let answer = self.0.call(&WalkerOpen::default(), &[], &[], expected)?;
        let windows_bytes = u64::from(answer.value.out_windows) * FRAME_WINDOW_BYTES as u64;
        require_payload("WALKER_OPEN", windows_bytes, &answer.payload)?;
        let mut fds = answer.fds.into_iter();
        let (Some(arena), Some(slots)) = (fds.next(), fds.next()) else {
            let wanted = WALKER_OPEN_FDS as u64;
            return Err(ProtocolError::Descriptors { command: "WALKER_OPEN", wanted, found: 0 }.into());
        };
        Ok(DomainParts { arena, slots, windows: answer.payload, files: fds.collect() })
    }
}

fn require_payload(command: &'static str, wanted: u64, payload: &[u8]) -> Result<(), ProtocolError> {
    if payload.len() as u64 == wanted {
        return Ok(());
    }
    Err(ProtocolError::Payload { command, wanted, found: payload.len() })
}
