//! Client memory whose every byte tells its place, and short ways to map it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ioasd_client::calls::{FileSlice, Iommu, Placement};
use ioasd_client::connection::Connection;
use ioasd_client::error::CallError;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::{DeviceId, HwptId, IoasId};
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, Permission};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use crate::fixture::Agent;

/// A memfd, filled and sealed against shrinking.
pub(crate) struct Memory {
    fd: OwnedFd,
    pages: u64,
}

impl Memory {
    /// `pages` pages.
    pub(crate) fn new(pages: u64) -> Self {
        Self::named("client", pages)
    }

    /// `pages` pages of a memfd whose name the kernel shows for each of its descriptors.
    pub(crate) fn named(name: &str, pages: u64) -> Self {
        let fd = empty_memfd(name, pages);
        write_at(&fd, 0, &Self::bytes(0, pages * PAGE_SIZE));
        fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW).unwrap();
        Self { fd, pages }
    }

    /// Its size.
    pub(crate) const fn size(&self) -> u64 {
        self.pages * PAGE_SIZE
    }

    /// What it was filled with: `length` bytes at `offset`.
    pub(crate) fn bytes(offset: u64, length: u64) -> Vec<u8> {
        (offset..offset + length).map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]).collect()
    }

    /// A slice of it.
    pub(crate) fn slice(&self, offset: u64, length: u64) -> FileSlice<'_> {
        slice(self.fd.as_fd(), offset, length)
    }

    /// All of it.
    pub(crate) fn whole(&self) -> FileSlice<'_> {
        self.slice(0, self.size())
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A memfd of `pages` pages, all of them holes, without seals.
pub(crate) fn empty_memfd(name: &str, pages: u64) -> OwnedFd {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, pages * PAGE_SIZE).unwrap();
    fd
}

/// Writes all of `bytes`.
pub(crate) fn write_at(fd: impl AsFd, offset: u64, bytes: &[u8]) {
    assert_eq!(rustix::io::pwrite(fd, bytes, offset), Ok(bytes.len()));
}

/// Reads `length` bytes.
pub(crate) fn read_at(fd: impl AsFd, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    assert_eq!(rustix::io::pread(fd, &mut bytes, offset), Ok(length));
    bytes
}

/// A slice of any file.
pub(crate) const fn slice(file: BorrowedFd<'_>, offset: u64, length: u64) -> FileSlice<'_> {
    FileSlice { file, offset: ByteLen::new(offset), length: ByteLen::new(length) }
}

/// A fixed placement.
pub(crate) const fn at(iova: u64) -> Placement {
    Placement::Fixed(Iova::new(iova))
}

/// The `length` addresses from `start`.
pub(crate) fn range(start: u64, length: u64) -> IovaRange {
    IovaRange::from_length(Iova::new(start), ByteLen::new(length)).unwrap()
}

/// Maps for reading and writing.
pub(crate) fn map(
    client: &mut Connection,
    ioas: IoasId,
    slice: FileSlice<'_>,
    placement: Placement,
) -> Result<u64, CallError> {
    client.map_file(ioas, slice, Permission::ReadWrite, placement).map(Iova::get)
}

/// Makes a device and attaches it.
pub(crate) fn attach_new(client: &mut Connection, ioas: IoasId, iommu: Iommu) -> (DeviceId, HwptId) {
    let device = client.device_create(FormatId::AmdV1, iommu).unwrap();
    let hwpt = client.device_attach(device, ioas).unwrap();
    (device, hwpt)
}

/// A client with an address space on which a device sits.
pub(crate) fn client_with_domain(agent: &Agent) -> (Connection, IoasId, HwptId) {
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    let (_, hwpt) = attach_new(&mut client, ioas, Iommu::Shared);
    (client, ioas, hwpt)
}

/// Another client, which nothing that the first one does may disturb.
pub(crate) struct Bystander {
    client: Connection,
    ioas: IoasId,
    memory: Memory,
}

impl Bystander {
    pub(crate) fn new(agent: &Agent) -> Self {
        let (client, ioas, _) = client_with_domain(agent);
        Self { client, ioas, memory: Memory::new(3) }
    }

    /// Asserts that it can map and unmap.
    #[track_caller]
    pub(crate) fn goes_on(&mut self) {
        let iova = map(&mut self.client, self.ioas, self.memory.whole(), Placement::Any).unwrap();
        let unmapped = self.client.unmap(self.ioas, range(iova, self.memory.size())).unwrap();
        assert_eq!(unmapped.get(), self.memory.size());
    }
}
