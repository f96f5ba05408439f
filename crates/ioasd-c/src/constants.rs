//! Numbers that callers pass, and what they stand for.
//!
//! Imports allowed: units, formats, walker of the client crate; boundary.

use ioasd_client::formats::{FormatId, Rights};
use ioasd_client::units::Permission;
use ioasd_client::walker::Access;

use crate::error::Misuse;

/// The interface that this header describes. A program that loads the library itself (dlopen()) compares it with what
/// ioasd_abi() answers; for others the name libioasd.so.0 says the same.
pub const IOASD_ABI: u32 = 0;

/// Memory may be read, or is to be read.
pub const IOASD_READ: u32 = 1;

/// Memory may be written, or is to be written.
pub const IOASD_WRITE: u32 = 2;

/// For ioasd_device_create(): the device is behind an IOMMU of its own, so that it gets a domain of its own.
pub const IOASD_DEVICE_OWN_IOMMU: u32 = 1;

/// For ioasd_access_create(): the access may pin; its areas must then be aligned to pages.
pub const IOASD_ACCESS_MAY_PIN: u32 = 1;

/// For ioasd_stream_open(): the stream remembers the pages it came to last. Good for devices that go through memory in
/// order or come back to the same pages; not for accesses at random to more than 4 MiB.
pub const IOASD_STREAM_IOTLB: u32 = 1;

/// For ioasd_notices_receive(): wait until a notice comes.
pub const IOASD_NOTICES_WAIT: u32 = 1;

/// Page-table formats, for ioasd_device_create(). A device that is software may take any; IOASD_FORMAT_AMD_V1 has most
/// sizes of leaves.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum Format {
    /// AMD v1 host page tables, 4 levels.
    AmdV1 = 1,
    /// AMD v1 with a granule of 2 KiB, 3 levels: for tests of mappings smaller than a page.
    AmdV1_2k = 2,
    /// Intel VT-d second stage, 4 levels.
    VtdSs = 3,
    /// Arm VMSAv8-64 stage 2, granule of 4 KiB, 4 levels.
    ArmS2 = 4,
    /// RISC-V Sv48.
    RiscvSv48 = 5,
    /// RISC-V Sv57.
    RiscvSv57 = 6,
}

const SAME: [(Format, FormatId); FormatId::ALL.len()] = [
    (Format::AmdV1, FormatId::AmdV1),
    (Format::AmdV1_2k, FormatId::AmdV1Granule2K),
    (Format::VtdSs, FormatId::VtdSs),
    (Format::ArmS2, FormatId::ArmS2),
    (Format::RiscvSv48, FormatId::RiscVSv48),
    (Format::RiscvSv57, FormatId::RiscVSv57),
];

const _: () = {
    let mut rest: &[(Format, FormatId)] = &SAME;
    while let [(here, there), others @ ..] = rest {
        assert!(*here as u32 == there.number(), "a format has two numbers");
        rest = others;
    }
};

/// The format with this number.
pub(crate) fn format(number: u32) -> Result<FormatId, Misuse> {
    FormatId::from_number(number).ok_or(Misuse::Argument("format", "one of enum ioasd_format"))
}

/// What devices may do.
pub(crate) const fn permission(flags: u32) -> Result<Permission, Misuse> {
    const BOTH: u32 = IOASD_READ | IOASD_WRITE;
    match flags {
        IOASD_READ => Ok(Permission::Read),
        IOASD_WRITE => Ok(Permission::Write),
        BOTH => Ok(Permission::ReadWrite),
        _ => Err(Misuse::Argument("permission", "IOASD_READ, IOASD_WRITE or both")),
    }
}

/// The flags of what tables allow.
#[inline]
pub(crate) const fn flags(rights: Rights) -> u32 {
    rights.bits() as u32
}

const _: () = assert!(flags(Rights::of(1, 1, 2)) == IOASD_READ && flags(Rights::of(2, 1, 2)) == IOASD_WRITE);

/// What is to be done with memory.
#[inline]
pub(crate) const fn access(flags: u32) -> Result<Access, Misuse> {
    match flags {
        IOASD_READ => Ok(Access::Read),
        IOASD_WRITE => Ok(Access::Write),
        _ => Err(Misuse::Argument("access", "IOASD_READ or IOASD_WRITE")),
    }
}

/// Whether the only flag there is is set.
pub(crate) const fn only_flag<T: Copy>(flags: u32, flag: u32, set: T, clear: T) -> Result<T, Misuse> {
    match flags {
        0 => Ok(clear),
        flags if flags == flag => Ok(set),
        _ => Err(Misuse::Argument("flags", "0 or the flag that the header names")),
    }
}
