//! ioasd's own commands, numbers 0x3bc0 to 0x3bcf: devices, domains for other processes, accesses.
//!
//! They obey the same rules as the uAPI's. DOMAIN_EXPORT answers with one descriptor, an *export channel*: a connected
//! socket on which WALKER_OPEN and WALKER_FILE are the commands. Whoever holds it may open the domain, also in another process.
//!
//! Imports allowed: units, ids, command, frame.

use super::FRAME_MAX;
use super::command::{Command, commands};
use super::frame::REPLY_HEADER;
use crate::ids::{AccessId, DeviceId, HwptId, IoasId, ObjectId};
use crate::units::{ByteLen, Iova};

/// DEVICE_CREATE: the device is behind an IOMMU of its own and shares no domain with others.
pub const DEVICE_OWN_IOMMU: u32 = 1;
/// IOAS_MAP_FILES, IOAS_UNMAP_RANGES: the last descriptor of the message is the memfd in which the array lies.
pub const ARRAY_IN_MEMFD: u32 = 1;
/// GET_HW_INFO: the data are a [`TableAbilities`](super::record::TableAbilities) of a software device.
pub const HW_INFO_SOFTWARE: u32 = 0x494f_0001;
/// HWPT_ALLOC: the data are a [`TableChoice`](super::record::TableChoice) for a software device.
pub const HWPT_DATA_SOFTWARE: u32 = 0x494f_0001;
/// ACCESS_CREATE: the access may pin, not only read and write.
pub const ACCESS_MAY_PIN: u32 = 1;
/// ACCESS_CREATE: the access gets notices; its notice channel is the one descriptor of the reply.
pub const ACCESS_NOTICES: u32 = 2;
/// ACCESS_PIN, ACCESS_RW: towards the memory.
pub const ACCESS_WRITE: u32 = 1;
/// Bytes one ACCESS_RW can carry at most.
pub const ACCESS_RW_MAX: usize = 60 * 1024;
/// Bytes of a dirty bitmap that one message can carry at most.
pub const DIRTY_PART_MAX: usize = 32 * 1024;
/// Bytes of one record in the payload of WALKER_OPEN's reply.
pub const FRAME_WINDOW_BYTES: usize = 32;
/// Descriptors that precede the backing files in WALKER_OPEN's reply: arena, slots.
pub const WALKER_OPEN_FDS: usize = 2;
/// A dirty log follows the slots in WALKER_OPEN's reply: writes to the domain can be tracked.
pub const WALKER_LOG: u32 = 1;

const _: () = assert!(
    REPLY_HEADER + AccessRw::SIZE + ACCESS_RW_MAX <= FRAME_MAX,
    "the largest access does not fit into a frame"
);

commands! {
    /// Makes a software device.
    DeviceCreate = 0x3bc0 "DEVICE_CREATE", min 16, size 16 {
        /// [`DEVICE_OWN_IOMMU`].
        flags: u32 = 4,
        /// The page-table format it walks: [`FormatId::number`](crate::formats::FormatId::number).
        format: u32 = 8,
        /// Out: the new device.
        out_device_id: DeviceId = 12,
    }

    /// Attaches a device to an address space.
    DeviceAttach = 0x3bc1 "DEVICE_ATTACH", min 16, size 16 {
        /// Must be 0.
        flags: u32 = 4,
        /// The device.
        device_id: DeviceId = 8,
        /// In: an address space, or a HWPT; out: the HWPT that now serves the device.
        pt_id: ObjectId = 12,
    }

    /// Detaches a device from whatever it is attached to.
    DeviceDetach = 0x3bc2 "DEVICE_DETACH", min 16, size 16 {
        /// Must be 0.
        flags: u32 = 4,
        /// The device.
        device_id: DeviceId = 8,
        /// Must be 0.
        reserved: u32 = 12,
    }

    /// Makes an export channel of a domain; it is the one descriptor of the reply.
    DomainExport = 0x3bc3 "DOMAIN_EXPORT", min 16, size 16 {
        /// Must be 0.
        flags: u32 = 4,
        /// The HWPT that wraps the domain.
        hwpt_id: HwptId = 8,
        /// Must be 0.
        reserved: u32 = 12,
    }

    /// Opens the domain of an export channel as a walker.
    ///
    /// The reply carries `out_windows` frame windows as payload (32 bytes each: first pfn u64, pages u64, file index
    /// u32, flags u32, file page u64) and the descriptors of arena, slots, the dirty log if there is one, and `out_files`
    /// backing files, in index order.
    WalkerOpen = 0x3bc4 "WALKER_OPEN", min 16, size 16 {
        /// In: must be 0; out: [`WALKER_LOG`].
        flags: u32 = 4,
        /// Out: windows in the payload.
        out_windows: u32 = 8,
        /// Out: backing files among the descriptors.
        out_files: u32 = 12,
    }

    /// Makes an access of an address space.
    AccessCreate = 0x3bc5 "ACCESS_CREATE", min 16, size 16 {
        /// [`ACCESS_MAY_PIN`], [`ACCESS_NOTICES`].
        flags: u32 = 4,
        /// The address space.
        ioas_id: IoasId = 8,
        /// Out: the new access.
        out_access_id: AccessId = 12,
    }

    /// Pins the pages behind a range.
    AccessPin = 0x3bc6 "ACCESS_PIN", min 32, size 32 {
        /// [`ACCESS_WRITE`].
        flags: u32 = 4,
        /// The access.
        access_id: AccessId = 8,
        /// Must be 0.
        reserved: u32 = 12,
        /// Start of the range.
        iova: Iova = 16,
        /// Bytes.
        length: ByteLen = 24,
    }

    /// Lets go of what ACCESS_PIN pinned with the same range.
    AccessUnpin = 0x3bc7 "ACCESS_UNPIN", min 32, size 32 {
        /// Must be 0.
        flags: u32 = 4,
        /// The access.
        access_id: AccessId = 8,
        /// Must be 0.
        reserved: u32 = 12,
        /// Start of the range.
        iova: Iova = 16,
        /// Bytes.
        length: ByteLen = 24,
    }

    /// Reads or writes the memory behind a range. Bytes to write are the request's payload, bytes read the reply's.
    AccessRw = 0x3bc8 "ACCESS_RW", min 32, size 32 {
        /// [`ACCESS_WRITE`].
        flags: u32 = 4,
        /// The access.
        access_id: AccessId = 8,
        /// Must be 0.
        reserved: u32 = 12,
        /// Start of the range.
        iova: Iova = 16,
        /// Bytes, at most [`ACCESS_RW_MAX`].
        length: ByteLen = 24,
    }

    /// Attaches a device, which is attached already, to something else instead.
    DeviceReplace = 0x3bc9 "DEVICE_REPLACE", min 16, size 16 {
        /// Must be 0.
        flags: u32 = 4,
        /// The device.
        device_id: DeviceId = 8,
        /// In: an address space, or a HWPT; out: the HWPT that now serves the device.
        pt_id: ObjectId = 12,
    }

    /// Attaches an access that is attached to nothing.
    AccessAttach = 0x3bca "ACCESS_ATTACH", min 16, size 16 {
        /// Must be 0.
        flags: u32 = 4,
        /// The access.
        access_id: AccessId = 8,
        /// The address space.
        ioas_id: IoasId = 12,
    }

    /// Moves an access to another address space, once it has let go of everything in the old one.
    AccessReplace = 0x3bcb "ACCESS_REPLACE", min 16, size 16 {
        /// Must be 0.
        flags: u32 = 4,
        /// The access.
        access_id: AccessId = 8,
        /// The address space.
        ioas_id: IoasId = 12,
    }

    /// Detaches an access, once it has let go of everything.
    AccessDetach = 0x3bcc "ACCESS_DETACH", min 16, size 16 {
        /// Must be 0.
        flags: u32 = 4,
        /// The access.
        access_id: AccessId = 8,
        /// Must be 0.
        reserved: u32 = 12,
    }

    /// Maps many ranges of files, one after the other in the order of the array, each with its own outcome. A range that
    /// fails leaves the others as they are. The array comes back with the outcomes.
    IoasMapFiles = 0x3bcd "IOAS_MAP_FILES", min 32, size 32 {
        /// [`ARRAY_IN_MEMFD`].
        flags: u32 = 4,
        /// The address space.
        ioas_id: IoasId = 8,
        /// Ranges in the array.
        num_ranges: u32 = 12,
        /// Where the array of [`MapRange`](super::record::MapRange) begins.
        ranges: ByteLen = 16,
        /// Out: ranges that were mapped.
        out_done: u32 = 24,
        /// Must be 0.
        reserved: u32 = 28,
    }

    /// Unmaps many ranges, one after the other in the order of the array, each with its own outcome. A range that fails
    /// leaves the others as they are. The array comes back with the outcomes. All IOVAs are free when the reply comes, and
    /// not before: a range that is unmapped twice in one array is busy the second time.
    IoasUnmapRanges = 0x3bce "IOAS_UNMAP_RANGES", min 32, size 32 {
        /// [`ARRAY_IN_MEMFD`].
        flags: u32 = 4,
        /// The address space.
        ioas_id: IoasId = 8,
        /// Ranges in the array.
        num_ranges: u32 = 12,
        /// Where the array of [`UnmapRange`](super::record::UnmapRange) begins.
        ranges: ByteLen = 16,
        /// Out: ranges that were unmapped.
        out_done: u32 = 24,
        /// Must be 0.
        reserved: u32 = 28,
    }

    /// On an export channel: the file behind an address, for a walker that met a page of a file, or of a part of it, that it
    /// does not know yet.
    ///
    /// The reply carries `out_windows` frame windows as payload, as WALKER_OPEN's, all of file index 0, and the file as its
    /// one descriptor.
    WalkerFile = 0x3bcf "WALKER_FILE", min 24, size 24 {
        /// Must be 0.
        flags: u32 = 4,
        /// Out: windows in the payload.
        out_windows: u32 = 8,
        /// Must be 0.
        reserved: u32 = 12,
        /// The address.
        iova: Iova = 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::command::Visitor;

    struct Numbers(Vec<u32>);

    impl Visitor for Numbers {
        fn visit<C: Command>(&mut self) {
            assert_eq!(C::MIN, C::SIZE, "{}: a first version has one size", C::NAME);
            self.0.push(C::NUMBER);
        }
    }

    #[test]
    fn own_numbers_are_consecutive_in_their_range() {
        let mut numbers = Numbers(Vec::new());
        visit_all(&mut numbers);
        assert_eq!(numbers.0, (0x3bc0..=0x3bcf).collect::<Vec<_>>());
    }
}
