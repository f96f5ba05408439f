//! `/dev/iommu` as a program uses it, with mock hardware: for figures of what programs get.
//!
//! It is opened and called through the C library, so that a shim before that is used. Memory that is mapped stays as long as
//! the process does: nothing can be written to memory that is something else by then.
//!
//! Imports allowed: units, the client crate's wire, rustix.
#![expect(unsafe_code, reason = "ioctl, and memory that is reached by its address")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use ioasd_client::ids::{IoasId, ObjectId};
use ioasd_client::units::{ByteLen, Iova, UserAddr};
use ioasd_client::wire::command::{Command, encode};
use ioasd_client::wire::mock::{ACCESS_WRITE, OP_ACCESS_RW, OP_CREATE_ACCESS, OP_MOCK_DOMAIN, TestCmd};
use ioasd_client::wire::uapi::{Destroy, IoasAlloc, IoasMap, IoasUnmap, MAP_READABLE, MAP_WRITEABLE};
use rustix::io::Errno;
use rustix::io_uring::{
    IoringRegisterOp, IoringSetupFlags, io_uring_params, io_uring_register, io_uring_setup, iovec,
};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// The id of no object.
const NOTHING: ObjectId = ObjectId::new(0x7fff_ffff);

/// The open device.
#[derive(Debug)]
pub struct Device(File);

/// Private memory of the program, which stays.
#[derive(Debug)]
pub struct Memory {
    start: NonNull<u8>,
    length: usize,
}

/// Which way an access moves bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From what is mapped.
    Read,
    /// To what is mapped.
    Write,
}

impl Device {
    /// Opens it.
    ///
    /// # Errors
    /// If there is none.
    pub fn open() -> io::Result<Self> {
        File::options().read(true).write(true).open("/dev/iommu").map(Self)
    }

    fn call<C: Command>(&self, command: &C) -> Result<C, Errno> {
        let mut bytes = encode(command);
        // SAFETY: the struct is as long as it says; what it points to is memory of this process that stays, or nothing.
        let answer = unsafe { libc::ioctl(self.0.as_raw_fd(), C::NUMBER.into(), bytes.as_mut_ptr()) };
        match answer {
            0 => Ok(C::load(&bytes)),
            _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        }
    }

    /// Asks for the least there is: to destroy what is not there.
    ///
    /// # Errors
    /// If it is there, or cannot be asked.
    pub fn null(&self) -> Result<(), Errno> {
        match self.call(&Destroy { id: NOTHING }) {
            Err(Errno::NOENT) => Ok(()),
            other => other.and(Err(Errno::EXIST)),
        }
    }

    /// An address space with a mock device.
    ///
    /// # Errors
    /// What the device says.
    pub fn address_space(&self) -> Result<IoasId, Errno> {
        let ioas = self.call(&IoasAlloc::default())?.out_ioas_id;
        self.call(&TestCmd { op: OP_MOCK_DOMAIN, id: ioas.get(), ..TestCmd::default() })?;
        Ok(ioas)
    }

    /// An access that moves bytes.
    ///
    /// # Errors
    /// What the device says.
    pub fn access(&self, ioas: IoasId) -> Result<OwnedFd, Errno> {
        let made = self.call(&TestCmd { op: OP_CREATE_ACCESS, id: ioas.get(), ..TestCmd::default() })?;
        // SAFETY: the descriptor is new, and nobody else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(made.field(16)) })
    }

    /// Maps the beginning of `memory`; tells where.
    ///
    /// # Errors
    /// What the device says; EFAULT if it is shorter.
    pub fn map(&self, ioas: IoasId, memory: &Memory, length: ByteLen) -> Result<Iova, Errno> {
        let user_va = memory.address(length)?;
        let flags = MAP_READABLE | MAP_WRITEABLE;
        Ok(self.call(&IoasMap { flags, ioas_id: ioas, user_va, length, ..IoasMap::default() })?.iova)
    }

    /// Unmaps it.
    ///
    /// # Errors
    /// What the device says.
    pub fn unmap(&self, ioas: IoasId, iova: Iova, length: ByteLen) -> Result<(), Errno> {
        self.call(&IoasUnmap { ioas_id: ioas, iova, length }).map(drop)
    }

    /// Moves bytes between what is mapped and the beginning of `beside`.
    ///
    /// # Errors
    /// What the device says; EFAULT if `beside` is shorter.
    pub fn transfer(
        &self,
        access: &OwnedFd,
        (iova, length): (Iova, ByteLen),
        beside: &Memory,
        way: Way,
    ) -> Result<(), Errno> {
        let id = access.as_raw_fd().cast_unsigned();
        let (at_16, at_24, at_32) = (iova.get(), length.get(), beside.address(length)?.get());
        let at_40 = if way == Way::Write { ACCESS_WRITE.into() } else { 0 };
        self.call(&TestCmd { op: OP_ACCESS_RW, id, at_16, at_24, at_32, at_40, ..TestCmd::default() })
            .map(drop)
    }
}

impl Memory {
    /// So many bytes, all of them touched.
    ///
    /// # Errors
    /// Without memory.
    pub fn new(length: ByteLen) -> Result<Self, Errno> {
        let length = usize::try_from(length.get()).map_err(|_| Errno::NOMEM)?;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping where the kernel likes it.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), length, rights, MapFlags::PRIVATE) }?;
        let memory = Self { start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?, length };
        memory.fill(1);
        Ok(memory)
    }

    /// Fills it.
    pub fn fill(&self, byte: u8) {
        // SAFETY: the mapping is ours, stays, and is only reached through this type and the kernel.
        unsafe { ptr::write_bytes(self.start.as_ptr(), byte, self.length) };
    }

    /// Whether the first bytes, so many, are all `byte`.
    #[must_use]
    pub fn is_all(&self, length: ByteLen, byte: u8) -> bool {
        let length = usize::try_from(length.get()).unwrap_or(usize::MAX).min(self.length);
        // SAFETY: as in `fill`; within the mapping.
        (0..length).all(|at| unsafe { self.start.as_ptr().add(at).read() } == byte)
    }

    fn address(&self, length: ByteLen) -> Result<UserAddr, Errno> {
        let fits = length.get() <= self.length as u64;
        fits.then(|| UserAddr::new(self.start.as_ptr().expose_provenance() as u64)).ok_or(Errno::FAULT)
    }
}

/// Bare pins: a ring that has memory registered, and nothing else.
#[derive(Debug)]
pub struct BarePins(OwnedFd);

impl BarePins {
    /// A ring without any.
    ///
    /// # Errors
    /// Where there are no rings.
    pub fn new() -> Result<Self, Errno> {
        let mut parameters = io_uring_params::default();
        parameters.flags = IoringSetupFlags::R_DISABLED;
        // SAFETY: the parameters are a valid structure; the ring's memory is never mapped.
        unsafe { io_uring_setup(1, &mut parameters) }.map(Self)
    }

    /// Pins the beginning of `memory`.
    ///
    /// # Errors
    /// ENOMEM beyond the limit for locked memory; EFAULT if it is shorter.
    pub fn pin(&self, memory: &Memory, length: ByteLen) -> Result<(), Errno> {
        memory.address(length)?;
        let iov_len = usize::try_from(length.get()).map_err(|_| Errno::FAULT)?;
        let place = iovec { iov_base: memory.start.as_ptr().cast(), iov_len };
        // SAFETY: one vector is read during the call; pinning keeps pages, it neither reads nor writes them.
        let pinned = unsafe {
            io_uring_register(&self.0, IoringRegisterOp::RegisterBuffers, (&raw const place).cast(), 1)
        };
        pinned.map(drop)
    }
}
