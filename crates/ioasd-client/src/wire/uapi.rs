//! The iommufd commands: numbers, structs and flags as in the uAPI of Linux 7.3.
//!
//! The structs say where fields lie, not what they may hold; the agent checks that in the order of the kernel.
//!
//! Arrays ([`super::record`]) lie in the payload, or in one memfd that comes with the message; the pointer of the uAPI is
//! an offset in either.
//!
//! IOAS_MAP_FILE: the file comes with the message. `fd` is an index into the descriptors of the message; it must be 0,
//! and the message must carry exactly one.
//!
//! Imports allowed: units, ids, command.

use super::command::commands;
use crate::ids::{DeviceId, HwptId, IoasId, ObjectId};
use crate::units::{ByteLen, Iova, UserAddr};

/// MAP, MAP_FILE, COPY: the client chooses the IOVA.
pub const MAP_FIXED_IOVA: u32 = 1;
/// MAP, MAP_FILE, COPY: devices may write.
pub const MAP_WRITEABLE: u32 = 2;
/// MAP, MAP_FILE, COPY: devices may read.
pub const MAP_READABLE: u32 = 4;
/// GET_HW_INFO: `data_type` names what is wanted.
pub const HW_INFO_TYPE_VALID: u32 = 1;
/// HWPT_ALLOC: it can be the parent of nested HWPTs.
pub const HWPT_NEST_PARENT: u32 = 1;
/// HWPT_ALLOC: it records what devices write.
pub const HWPT_DIRTY_TRACKING: u32 = 2;
/// HWPT_ALLOC: `fault_id` names a queue for its faults.
pub const HWPT_FAULT_ID_VALID: u32 = 4;
/// HWPT_ALLOC: it can be attached to a PASID.
pub const HWPT_PASID: u32 = 8;
/// GET_HW_INFO: HWPTs can record what the device writes.
pub const HW_CAP_DIRTY_TRACKING: u64 = 1;
/// GET_HW_INFO: the device does not translate by itself.
pub const HW_CAP_NO_ATS: u64 = 8;
/// HWPT_SET_DIRTY_TRACKING: begins; without it, tracking ends.
pub const DIRTY_TRACKING_ENABLE: u32 = 1;
/// HWPT_GET_DIRTY_BITMAP: what is reported stays dirty.
pub const DIRTY_BITMAP_NO_CLEAR: u32 = 1;
/// HWPT_ALLOC: there are no data.
pub const HWPT_DATA_NONE: u32 = 0;
/// VEVENTQ_ALLOC: events that a queue can keep at most.
pub const VEVENTQ_DEPTH_MAX: u32 = 1 << 19;
/// HWPT_INVALIDATE: where the entries begin if there are none.
pub const NOWHERE: ByteLen = ByteLen::new(u64::MAX);
/// HWPT_INVALIDATE: entries that one call can have.
pub const INVALIDATE_ENTRIES_MAX: u32 = 1 << 19;
/// HWPT_INVALIDATE: bytes that one entry can have.
pub const INVALIDATE_ENTRY_MAX: u32 = 4096;
/// VIOMMU_ALLOC, VEVENTQ_ALLOC, HW_QUEUE_ALLOC: no type.
pub const TYPE_NONE: u32 = 0;
/// OPTION: whether the address space of a process pays for its pins, not its user.
pub const OPTION_RLIMIT_MODE: u32 = 0;
/// OPTION: whether domains may use leaves larger than a page.
pub const OPTION_HUGE_PAGES: u32 = 1;
/// OPTION: changes the option.
pub const OPTION_SET: u16 = 0;
/// OPTION: tells the option.
pub const OPTION_GET: u16 = 1;

commands! {
    /// Destroys an object of any kind. Nothing is copied back.
    Destroy = 0x3b80 "DESTROY", min 8, size 8 {
        /// The object.
        id: ObjectId = 4,
    }

    /// Makes an IO address space.
    IoasAlloc = 0x3b81 "IOAS_ALLOC", min 12, size 12 {
        /// Must be 0.
        flags: u32 = 4,
        /// Out: the new address space.
        out_ioas_id: IoasId = 8,
    }

    /// Replaces the ranges to which automatic placement is confined. Nothing is copied back.
    IoasAllowIovas = 0x3b82 "IOAS_ALLOW_IOVAS", min 24, size 24 {
        /// The address space.
        ioas_id: IoasId = 4,
        /// Ranges in the array; none lifts the restriction.
        num_iovas: u32 = 8,
        /// Must be 0.
        reserved: u32 = 12,
        /// Where the array of [`super::record::IovaBounds`] begins.
        allowed_iovas: ByteLen = 16,
    }

    /// Shows a range of one address space in another.
    IoasCopy = 0x3b83 "IOAS_COPY", min 40, size 40 {
        /// `MAP_*`.
        flags: u32 = 4,
        /// Where to.
        dst_ioas_id: IoasId = 8,
        /// Where from.
        src_ioas_id: IoasId = 12,
        /// Bytes.
        length: ByteLen = 16,
        /// In if fixed, out.
        dst_iova: Iova = 24,
        /// Start of the source range.
        src_iova: Iova = 32,
    }

    /// Tells which addresses nobody has reserved, and what every area must be aligned to. With EMSGSIZE, too, the struct
    /// and as many ranges as fit come back.
    IoasIovaRanges = 0x3b84 "IOAS_IOVA_RANGES", min 32, size 32 {
        /// The address space.
        ioas_id: IoasId = 4,
        /// In: ranges that the array can take; out: ranges there are.
        num_iovas: u32 = 8,
        /// Must be 0.
        reserved: u32 = 12,
        /// Where the array of [`super::record::IovaBounds`] begins, if it is to be written into a memfd.
        allowed_iovas: ByteLen = 16,
        /// Out: the alignment.
        out_iova_alignment: u64 = 24,
    }

    /// Maps memory of the calling process.
    IoasMap = 0x3b85 "IOAS_MAP", min 40, size 40 {
        /// `MAP_*`.
        flags: u32 = 4,
        /// The address space.
        ioas_id: IoasId = 8,
        /// Must be 0.
        reserved: u32 = 12,
        /// Start of the memory.
        user_va: UserAddr = 16,
        /// Bytes.
        length: ByteLen = 24,
        /// In if fixed, out.
        iova: Iova = 32,
    }

    /// Removes whole areas. (0, 2^64-1) means all of them.
    IoasUnmap = 0x3b86 "IOAS_UNMAP", min 24, size 24 {
        /// The address space.
        ioas_id: IoasId = 4,
        /// Start of the range.
        iova: Iova = 8,
        /// In: bytes of the range; out: bytes that were unmapped.
        length: ByteLen = 16,
    }

    /// Changes or tells an option.
    ///
    /// The value comes back, and nothing but the value was changed.
    IommuOption = 0x3b87 "OPTION", min 24, size 24 {
        /// `OPTION_RLIMIT_MODE` or `OPTION_HUGE_PAGES`.
        option_id: u32 = 4,
        /// `OPTION_SET` or `OPTION_GET`.
        op: u16 = 8,
        /// Must be 0.
        reserved: u16 = 10,
        /// The address space, or 0 for an option of the context.
        object_id: ObjectId = 12,
        /// In to set, out.
        value: u64 = 16,
    }

    /// Makes a domain for a device and fills it.
    HwptAlloc = 0x3b89 "HWPT_ALLOC", min 24, size 48 {
        /// `HWPT_*`.
        flags: u32 = 4,
        /// The device whose IOMMU will walk it.
        dev_id: DeviceId = 8,
        /// The address space that it shows.
        pt_id: ObjectId = 12,
        /// Out: the new HWPT.
        out_hwpt_id: HwptId = 16,
        /// Must be 0.
        reserved: u32 = 20,
        /// What the data are: none, or [`super::own::HWPT_DATA_SOFTWARE`].
        data_type: u32 = 24,
        /// Bytes of data.
        data_len: u32 = 28,
        /// Where the data begin.
        data_uptr: ByteLen = 32,
        /// The fault queue, if flagged.
        fault_id: ObjectId = 40,
        /// Not looked at.
        reserved2: u32 = 44,
    }

    /// Tells what the IOMMU of a device can do. Data come back as payload, or in a memfd: as many bytes as there is room for,
    /// zero behind what there is to tell.
    GetHwInfo = 0x3b8a "GET_HW_INFO", min 32, size 40 {
        /// `HW_INFO_TYPE_VALID`.
        flags: u32 = 4,
        /// The device.
        dev_id: DeviceId = 8,
        /// In: bytes there is room for; out: bytes there are to tell.
        data_len: u32 = 12,
        /// Where the data begin, if they are to be written into a memfd.
        data_uptr: ByteLen = 16,
        /// In: the type wanted, if flagged, 0 for any; out: what the data are.
        data_type: u32 = 24,
        /// Out: bits of a PASID.
        out_max_pasid_log2: u8 = 28,
        /// Must be 0.
        reserved: u8 = 29,
        /// Must be 0.
        reserved2: u16 = 30,
        /// Out: `HW_CAP_*`.
        out_capabilities: u64 = 32,
    }

    /// Begins or ends the tracking of what devices write. When it begins everything is clean. Nothing is copied back.
    HwptSetDirtyTracking = 0x3b8b "HWPT_SET_DIRTY_TRACKING", min 16, size 16 {
        /// `DIRTY_TRACKING_ENABLE`.
        flags: u32 = 4,
        /// The HWPT.
        hwpt_id: HwptId = 8,
        /// Not looked at.
        reserved: u32 = 12,
    }

    /// Tells which pages of a range were written to, one bit a page. A part of the bitmap comes as payload, at most
    /// [`super::own::DIRTY_PART_MAX`] bytes, and goes back with the bits set besides those that were: ask part by part, from
    /// the first on, with the same struct but for `data`. Without the flag, what is reported is clean from then on.
    HwptGetDirtyBitmap = 0x3b8c "HWPT_GET_DIRTY_BITMAP", min 48, size 48 {
        /// The HWPT.
        hwpt_id: HwptId = 4,
        /// `DIRTY_BITMAP_NO_CLEAR`.
        flags: u32 = 8,
        /// Must be 0.
        reserved: u32 = 12,
        /// Start of the range: the page of bit 0.
        iova: Iova = 16,
        /// Bytes of the range.
        length: ByteLen = 24,
        /// Bytes that a bit stands for.
        page_size: ByteLen = 32,
        /// Bytes of the bitmap before the payload.
        data: ByteLen = 40,
    }

    /// Drops what a nested HWPT, or a vIOMMU, has cached. The struct comes back also with an error.
    HwptInvalidate = 0x3b8d "HWPT_INVALIDATE", min 32, size 32 {
        /// The nested HWPT or vIOMMU.
        hwpt_id: ObjectId = 4,
        /// Where the entries begin; all ones if there are none.
        data_uptr: ByteLen = 8,
        /// What the entries are.
        data_type: u32 = 16,
        /// Bytes of an entry.
        entry_len: u32 = 20,
        /// In: entries; out: entries carried out.
        entry_num: u32 = 24,
        /// Must be 0.
        reserved: u32 = 28,
    }

    /// Makes a queue of faults; its descriptor is the one of the reply, see [`super::events`].
    FaultQueueAlloc = 0x3b8e "FAULT_QUEUE_ALLOC", min 16, size 16 {
        /// Must be 0.
        flags: u32 = 4,
        /// Out: the new queue.
        out_fault_id: ObjectId = 8,
        /// Not looked at: where a front end puts the number of the descriptor.
        out_fault_fd: u32 = 12,
    }

    /// Maps a file.
    IoasMapFile = 0x3b8f "IOAS_MAP_FILE", min 40, size 40 {
        /// `MAP_*`.
        flags: u32 = 4,
        /// The address space.
        ioas_id: IoasId = 8,
        /// Index of the file among the descriptors of the message: 0.
        fd: i32 = 12,
        /// Offset in the file.
        start: ByteLen = 16,
        /// Bytes.
        length: ByteLen = 24,
        /// In if fixed, out.
        iova: Iova = 32,
    }

    /// Makes a vIOMMU: a slice of a device's IOMMU, for a guest. Its data come back as payload, or in the memfd.
    ViommuAlloc = 0x3b90 "VIOMMU_ALLOC", min 24, size 40 {
        /// Must be 0.
        flags: u32 = 4,
        /// What it is.
        kind: u32 = 8,
        /// A device behind the IOMMU.
        dev_id: DeviceId = 12,
        /// What the guest's tables are nested in.
        hwpt_id: HwptId = 16,
        /// Out: the new vIOMMU.
        out_viommu_id: ObjectId = 20,
        /// Bytes of data.
        data_len: u32 = 24,
        /// Not looked at.
        reserved: u32 = 28,
        /// Where the data begin.
        data_uptr: ByteLen = 32,
    }

    /// Makes a device known to a vIOMMU, under the number that the guest has for it.
    VdeviceAlloc = 0x3b91 "VDEVICE_ALLOC", min 24, size 24 {
        /// The vIOMMU.
        viommu_id: ObjectId = 4,
        /// The device.
        dev_id: DeviceId = 8,
        /// Out: the new vDEVICE.
        out_vdevice_id: ObjectId = 12,
        /// The guest's number.
        virt_id: u64 = 16,
    }

    /// Makes a hardware queue in memory of a guest, which cannot be unmapped while the queue is there.
    HwQueueAlloc = 0x3b94 "HW_QUEUE_ALLOC", min 40, size 40 {
        /// Must be 0.
        flags: u32 = 4,
        /// The vIOMMU.
        viommu_id: ObjectId = 8,
        /// What it is.
        kind: u32 = 12,
        /// Which of the vIOMMU's it is.
        index: u32 = 16,
        /// Out: the new queue.
        out_hw_queue_id: ObjectId = 20,
        /// Where its memory begins, in the address space below the vIOMMU.
        iova: Iova = 24,
        /// Bytes.
        length: ByteLen = 32,
    }

    /// Makes a queue for the events of one type of a vIOMMU; its descriptor is the one of the reply, see [`super::events`].
    VeventqAlloc = 0x3b93 "VEVENTQ_ALLOC", min 28, size 32 {
        /// Must be 0.
        flags: u32 = 4,
        /// The vIOMMU.
        viommu_id: ObjectId = 8,
        /// What its events are.
        kind: u32 = 12,
        /// How many it keeps.
        depth: u32 = 16,
        /// Out: the new queue.
        out_veventq_id: ObjectId = 20,
        /// Not looked at: where a front end puts the number of the descriptor.
        out_veventq_fd: u32 = 24,
        /// Must be 0.
        reserved: u32 = 28,
    }

    /// Tells physical addresses, for devices without IOMMU. There are none, so it is not supported.
    IoasNoiommuGetPa = 0x3b95 "IOAS_NOIOMMU_GET_PA", min 40, size 40 {
        /// Not looked at.
        flags: u32 = 4,
        /// Not looked at.
        ioas_id: IoasId = 8,
        /// Not looked at.
        reserved: u32 = 12,
        /// Not looked at.
        iova: Iova = 16,
        /// Not looked at.
        length: ByteLen = 24,
        /// Not looked at.
        out_phys: u64 = 32,
    }

    /// Lets the sender pay for all that the context has mapped.
    IoasChangeProcess = 0x3b92 "IOAS_CHANGE_PROCESS", min 8, size 8 {
        /// Must be 0.
        reserved: u32 = 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::command::{Argument, Command, encode};

    #[test]
    fn map_file_lies_as_in_the_uapi() {
        let map = IoasMapFile {
            flags: 7,
            ioas_id: IoasId::new(3),
            fd: -1,
            start: ByteLen::new(0x1000),
            length: ByteLen::new(0x2000),
            iova: Iova::new(0x1234_5678_9abc_def0),
        };
        let bytes = encode(&map);
        assert_eq!(bytes.len(), 40);
        assert_eq!(bytes[..16], [40, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(bytes[16..24], 0x1000_u64.to_le_bytes());
        assert_eq!(bytes[24..32], 0x2000_u64.to_le_bytes());
        assert_eq!(bytes[32..], 0x1234_5678_9abc_def0_u64.to_le_bytes());
        assert_eq!(Argument::new(&bytes).decode::<IoasMapFile>().unwrap().value, map);
    }

    #[test]
    fn offsets_are_those_of_the_uapi() {
        let offsets = |fields: &[crate::wire::command::FieldPlace]| -> Vec<_> {
            fields.iter().map(|field| (field.name, field.offset)).collect()
        };
        let copy = [
            ("flags", 4),
            ("dst_ioas_id", 8),
            ("src_ioas_id", 12),
            ("length", 16),
            ("dst_iova", 24),
            ("src_iova", 32),
        ];
        assert_eq!(offsets(IoasCopy::FIELDS), copy);
        assert_eq!(offsets(IoasUnmap::FIELDS), [("ioas_id", 4), ("iova", 8), ("length", 16)]);
        assert_eq!(offsets(Destroy::FIELDS), [("id", 4)]);
    }
}
