//! The VFIO container commands, as a front end sends them: numbers as in VFIO, structs with a size as everywhere here.
//!
//! VFIO's own calls have no size but `argsz`, and some take a number instead of a struct; a front end translates.
//!
//! Imports allowed: units, ids, command.

use super::command::commands;
use crate::ids::IoasId;
use crate::units::{ByteLen, Iova, UserAddr};

/// VFIO_IOAS: tells the address space.
pub const VFIO_IOAS_GET: u16 = 0;
/// VFIO_IOAS: chooses it.
pub const VFIO_IOAS_SET: u16 = 1;
/// VFIO_IOAS: chooses none.
pub const VFIO_IOAS_CLEAR: u16 = 2;

/// CHECK_EXTENSION, SET_IOMMU: the first version of the interface, whose UNMAP_DMA may cut.
pub const VFIO_TYPE1: u32 = 1;
/// CHECK_EXTENSION, SET_IOMMU: the second one.
pub const VFIO_TYPE1V2: u32 = 3;
/// CHECK_EXTENSION: whether writes of devices are coherent with caches whatever the device asks for.
pub const VFIO_DMA_CC: u32 = 4;
/// CHECK_EXTENSION: whether UNMAP_DMA knows [`VFIO_UNMAP_ALL_FLAG`].
pub const VFIO_UNMAP_ALL: u32 = 9;

/// MAP_DMA: devices may read.
pub const VFIO_MAP_READ: u32 = 1;
/// MAP_DMA: devices may write.
pub const VFIO_MAP_WRITE: u32 = 2;
/// UNMAP_DMA: everything.
pub const VFIO_UNMAP_ALL_FLAG: u32 = 2;

commands! {
    /// Tells or chooses the address space that a container stands for.
    VfioIoas = 0x3b88 "VFIO_IOAS", min 12, size 12 {
        /// In or out: the address space.
        ioas_id: IoasId = 4,
        /// `VFIO_IOAS_*`.
        op: u16 = 8,
        /// Must be 0.
        reserved: u16 = 10,
    }

    /// Tells whether a feature is there.
    VfioCheckExtension = 0x3b65 "VFIO_CHECK_EXTENSION", min 16, size 16 {
        /// The feature.
        extension: u32 = 4,
        /// Out: what the ioctl returns.
        out_value: u32 = 8,
        /// Must be 0.
        reserved: u32 = 12,
    }

    /// Chooses a version of the interface.
    VfioSetIommu = 0x3b66 "VFIO_SET_IOMMU", min 8, size 8 {
        /// `VFIO_TYPE1*`.
        kind: u32 = 4,
    }

    /// Tells page sizes, and as payload the ranges of addresses that can be used.
    VfioGetInfo = 0x3b70 "VFIO_IOMMU_GET_INFO", min 24, size 24 {
        /// Must be 0.
        flags: u32 = 4,
        /// Out: sizes, as a bitmap.
        out_page_sizes: u64 = 8,
        /// Out: ranges in the payload.
        out_ranges: u32 = 16,
        /// Must be 0.
        reserved: u32 = 20,
    }

    /// Maps memory at a given address. Memory that is one file comes as with IOAS_MAP.
    VfioMapDma = 0x3b71 "VFIO_IOMMU_MAP_DMA", min 32, size 32 {
        /// `VFIO_MAP_*`.
        flags: u32 = 4,
        /// Start of the memory.
        vaddr: UserAddr = 8,
        /// Where to.
        iova: Iova = 16,
        /// Bytes.
        length: ByteLen = 24,
    }

    /// Unmaps. The struct comes back although it failed.
    VfioUnmapDma = 0x3b72 "VFIO_IOMMU_UNMAP_DMA", min 24, size 24 {
        /// [`VFIO_UNMAP_ALL_FLAG`].
        flags: u32 = 4,
        /// Start of the range.
        iova: Iova = 8,
        /// In: bytes; out: bytes that were unmapped.
        length: ByteLen = 16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::command::{Command, encode};

    #[test]
    fn structs_with_argsz_lie_as_in_vfio() {
        let map = VfioMapDma {
            flags: VFIO_MAP_READ,
            vaddr: UserAddr::new(1),
            iova: Iova::new(2),
            length: ByteLen::new(3),
        };
        let bytes = encode(&map);
        assert_eq!((bytes.len(), VfioMapDma::NUMBER), (32, 0x3b71));
        assert_eq!(
            bytes
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte != 0)
                .map(|(at, byte)| (at, *byte))
                .collect::<Vec<_>>(),
            [(0, 32), (4, 1), (8, 1), (16, 2), (24, 3)]
        );
    }
}
