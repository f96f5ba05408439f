//! The iommufd commands: numbers, structs and flags as in the uAPI of Linux 7.3.
//!
//! The structs say where fields lie, not what they may hold; the agent checks that in the order of the kernel.
//!
//! IOAS_MAP_FILE: the file comes with the message. `fd` is an index into the descriptors of the message; it must be 0,
//! and the message must carry exactly one.
//!
//! Imports allowed: units, ids, command.

use super::command::commands;
use crate::ids::{IoasId, ObjectId};
use crate::units::{ByteLen, Iova, UserAddr};

/// MAP, MAP_FILE, COPY: the client chooses the IOVA.
pub const MAP_FIXED_IOVA: u32 = 1;
/// MAP, MAP_FILE, COPY: devices may write.
pub const MAP_WRITEABLE: u32 = 2;
/// MAP, MAP_FILE, COPY: devices may read.
pub const MAP_READABLE: u32 = 4;

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
