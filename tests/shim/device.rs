//! `/dev/iommu` as a program sees it: `open`, `ioctl`, and structs as the uAPI lays them out. Written from the
//! specification, not from the crates under test.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// The path.
pub(crate) const DEVICE: &str = "/dev/iommu";

pub(crate) const DESTROY: u32 = 0x3b80;
pub(crate) const IOAS_ALLOC: u32 = 0x3b81;
pub(crate) const ALLOW_IOVAS: u32 = 0x3b82;
pub(crate) const COPY: u32 = 0x3b83;
pub(crate) const IOVA_RANGES: u32 = 0x3b84;
pub(crate) const MAP: u32 = 0x3b85;
pub(crate) const UNMAP: u32 = 0x3b86;
pub(crate) const OPTION: u32 = 0x3b87;
pub(crate) const HWPT_ALLOC: u32 = 0x3b89;
pub(crate) const INVALIDATE: u32 = 0x3b8d;
pub(crate) const FAULT_QUEUE_ALLOC: u32 = 0x3b8e;
pub(crate) const MAP_FILE: u32 = 0x3b8f;
pub(crate) const VIOMMU_ALLOC: u32 = 0x3b90;
pub(crate) const VDEVICE_ALLOC: u32 = 0x3b91;
pub(crate) const CHANGE_PROCESS: u32 = 0x3b92;
pub(crate) const VEVENTQ_ALLOC: u32 = 0x3b93;
pub(crate) const HW_QUEUE_ALLOC: u32 = 0x3b94;
pub(crate) const TEST: u32 = 0x3ba0;

pub(crate) const FIXED: u32 = 1;
pub(crate) const WRITEABLE: u32 = 2;
pub(crate) const READABLE: u32 = 4;

/// Opens the device for reading and writing, closed on exec as the standard library does.
pub(crate) fn open() -> File {
    OpenOptions::new().read(true).write(true).open(DEVICE).unwrap()
}

/// `ioctl`.
pub(crate) fn raw(fd: RawFd, command: u32, argument: *mut libc::c_void) -> Result<i32, i32> {
    // SAFETY: the kernel, or the shim, checks the address.
    match unsafe { libc::ioctl(fd, command.into(), argument) } {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap()),
        value => Ok(value),
    }
}

/// A struct of the uAPI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Struct(Vec<u8>);

impl Struct {
    /// So many bytes, the first four of which say so.
    pub(crate) fn new(size: u32) -> Self {
        Self(vec![0; size as usize]).u32(0, size)
    }

    pub(crate) fn u16(mut self, offset: usize, value: u16) -> Self {
        self.0[offset..offset + 2].copy_from_slice(&value.to_ne_bytes());
        self
    }

    pub(crate) fn u32(mut self, offset: usize, value: u32) -> Self {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    pub(crate) fn u64(mut self, offset: usize, value: u64) -> Self {
        self.0[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    pub(crate) fn pointer<T>(self, offset: usize, value: &mut [T]) -> Self {
        self.u64(offset, value.as_mut_ptr().expose_provenance() as u64)
    }

    pub(crate) fn get_u32(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.0[offset..offset + 4].try_into().unwrap())
    }

    pub(crate) fn get_u64(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.0[offset..offset + 8].try_into().unwrap())
    }

    /// Its bytes.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Gives it to the device.
    pub(crate) fn call(&mut self, device: &impl AsRawFd, command: u32) -> Result<(), i32> {
        assert_eq!(raw(device.as_raw_fd(), command, self.0.as_mut_ptr().cast())?, 0);
        Ok(())
    }
}

/// IOAS_ALLOC.
pub(crate) fn ioas_alloc(device: &impl AsRawFd) -> Result<u32, i32> {
    let mut alloc = Struct::new(12);
    alloc.call(device, IOAS_ALLOC)?;
    Ok(alloc.get_u32(8))
}

/// DESTROY.
pub(crate) fn destroy(device: &impl AsRawFd, id: u32) -> Result<(), i32> {
    Struct::new(8).u32(4, id).call(device, DESTROY)
}

/// IOAS_MAP_FILE wherever there is room.
pub(crate) fn map_file(
    device: &impl AsRawFd,
    ioas: u32,
    file: &impl AsRawFd,
    length: u64,
) -> Result<u64, i32> {
    let mut map = map_file_struct(ioas, file.as_raw_fd(), length);
    map.call(device, MAP_FILE)?;
    Ok(map.get_u64(32))
}

/// The struct of IOAS_MAP_FILE, from the file's start.
pub(crate) fn map_file_struct(ioas: u32, file: RawFd, length: u64) -> Struct {
    let map = Struct::new(40).u32(4, READABLE | WRITEABLE).u32(8, ioas);
    map.u32(12, file.cast_unsigned()).u64(24, length)
}

/// IOAS_UNMAP; tells the bytes unmapped.
pub(crate) fn unmap(device: &impl AsRawFd, ioas: u32, iova: u64, length: u64) -> Result<u64, i32> {
    let mut unmap = Struct::new(24).u32(4, ioas).u64(8, iova).u64(16, length);
    unmap.call(device, UNMAP)?;
    Ok(unmap.get_u64(16))
}

/// A memfd of so many bytes, all of them there.
pub(crate) fn memory(length: u64) -> File {
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"program".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "memfd_create: {}", io::Error::last_os_error());
    // SAFETY: the descriptor is new and ours.
    let file: File = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) };
    io::Write::write_all(&mut &file, &vec![0x5a; usize::try_from(length).unwrap()]).unwrap();
    file
}

/// Addresses of two pages, of which only the first can be used.
pub(crate) fn page_before_nothing() -> *mut u8 {
    let anywhere = std::ptr::null_mut();
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping where the kernel likes it.
    let start = unsafe { libc::mmap(anywhere, 8192, access, kind, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    // SAFETY: nobody uses the mapping yet.
    assert_eq!(unsafe { libc::mprotect(start.wrapping_byte_add(4096), 4096, libc::PROT_NONE) }, 0);
    start.cast()
}

/// Shared memory of the program: of a file, or of none that it has.
pub(crate) fn shared(file: Option<&File>, length: u64) -> &'static mut [u8] {
    let length = usize::try_from(length).unwrap();
    let (fd, anonymous) = file.map_or((-1, libc::MAP_ANONYMOUS), |file| (file.as_raw_fd(), 0));
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | anonymous);
    // SAFETY: a new mapping where the kernel likes it.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, kind, fd, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    // SAFETY: the mapping is ours and stays.
    unsafe { std::slice::from_raw_parts_mut(start.cast(), length) }
}
