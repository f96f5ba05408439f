//! Records: the elements of arrays that lie beside a command's struct.
//!
//! A struct that has a pointer to an array in the uAPI has an offset here: into the payload, or, if the array comes in a
//! memfd, into that. Where a command gives an array back, it does so in the same place.
//!
//! Imports allowed: units, fields.

use super::field::Field;
use crate::units::{ByteLen, Iova};

/// An element of an array: little-endian, of a fixed size.
pub trait Record: Copy {
    /// Bytes of one element.
    const BYTES: usize;

    /// Reads an element; missing bytes are zero.
    fn load(bytes: &[u8]) -> Self;

    /// Writes an element, as far as `bytes` reach.
    fn store(self, bytes: &mut [u8]);
}

/// Reads an array; what is left behind the last whole element is ignored.
pub fn load_all<R: Record>(bytes: &[u8]) -> Vec<R> {
    bytes.chunks_exact(R::BYTES).map(R::load).collect()
}

/// Writes an array.
pub fn store_all<R: Record>(records: &[R]) -> Vec<u8> {
    let mut bytes = vec![0; records.len() * R::BYTES];
    for (record, place) in records.iter().zip(bytes.chunks_exact_mut(R::BYTES)) {
        record.store(place);
    }
    bytes
}

/// `iommu_iova_range`: two addresses, both inclusive, as a client gives them. They may be in the wrong order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IovaBounds {
    /// The first address.
    pub start: Iova,
    /// The last address.
    pub last: Iova,
}

impl Record for IovaBounds {
    const BYTES: usize = 16;

    fn load(bytes: &[u8]) -> Self {
        Self { start: Field::load(bytes, 0), last: Field::load(bytes, 8) }
    }

    fn store(self, bytes: &mut [u8]) {
        self.start.store(bytes, 0);
        self.last.store(bytes, 8);
    }
}

/// Data of HWPT_ALLOC with type [`HWPT_DATA_SOFTWARE`](super::own::HWPT_DATA_SOFTWARE): what the table of a software
/// device shall be. A client may have more or fewer bytes of it, by the size rules of commands; what is missing is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TableChoice {
    /// Must be 0.
    pub flags: u32,
    /// Must be 0.
    pub reserved: u32,
    /// The first address that is translated.
    pub start: Iova,
    /// The last one; 0 together with `start` 0 means all that the format translates.
    pub last: Iova,
    /// The sizes of leaves, as a bitmap; 0 means all that the format has.
    pub page_sizes: u64,
}

impl Record for TableChoice {
    const BYTES: usize = 32;

    fn load(bytes: &[u8]) -> Self {
        Self {
            flags: Field::load(bytes, 0),
            reserved: Field::load(bytes, 4),
            start: Field::load(bytes, 8),
            last: Field::load(bytes, 16),
            page_sizes: Field::load(bytes, 24),
        }
    }

    fn store(self, bytes: &mut [u8]) {
        self.flags.store(bytes, 0);
        self.reserved.store(bytes, 4);
        self.start.store(bytes, 8);
        self.last.store(bytes, 16);
        self.page_sizes.store(bytes, 24);
    }
}

/// Data of GET_HW_INFO with type [`HW_INFO_SOFTWARE`](super::own::HW_INFO_SOFTWARE): what tables of a software device can
/// be. A [`TableChoice`] asks for a part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TableAbilities {
    /// Number of the page-table format.
    pub format: u32,
    /// 0.
    pub flags: u32,
    /// The first address that can be translated.
    pub start: Iova,
    /// The last one.
    pub last: Iova,
    /// The sizes of leaves, as a bitmap.
    pub page_sizes: u64,
}

impl Record for TableAbilities {
    const BYTES: usize = 32;

    fn load(bytes: &[u8]) -> Self {
        Self {
            format: Field::load(bytes, 0),
            flags: Field::load(bytes, 4),
            start: Field::load(bytes, 8),
            last: Field::load(bytes, 16),
            page_sizes: Field::load(bytes, 24),
        }
    }

    fn store(self, bytes: &mut [u8]) {
        self.format.store(bytes, 0);
        self.flags.store(bytes, 4);
        self.start.store(bytes, 8);
        self.last.store(bytes, 16);
        self.page_sizes.store(bytes, 24);
    }
}

/// One range of IOAS_MAP_FILES. It comes back with `iova` and `errno` filled in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MapRange {
    /// `MAP_*`.
    pub flags: u32,
    /// Index of the file among the descriptors of the message.
    pub fd: u32,
    /// Offset in the file.
    pub start: ByteLen,
    /// Bytes.
    pub length: ByteLen,
    /// In if fixed, out.
    pub iova: Iova,
    /// Out: 0, or why this range is not mapped.
    pub errno: u32,
    /// Must be 0.
    pub reserved: u32,
}

impl Record for MapRange {
    const BYTES: usize = 40;

    fn load(bytes: &[u8]) -> Self {
        Self {
            flags: Field::load(bytes, 0),
            fd: Field::load(bytes, 4),
            start: Field::load(bytes, 8),
            length: Field::load(bytes, 16),
            iova: Field::load(bytes, 24),
            errno: Field::load(bytes, 32),
            reserved: Field::load(bytes, 36),
        }
    }

    fn store(self, bytes: &mut [u8]) {
        self.flags.store(bytes, 0);
        self.fd.store(bytes, 4);
        self.start.store(bytes, 8);
        self.length.store(bytes, 16);
        self.iova.store(bytes, 24);
        self.errno.store(bytes, 32);
        self.reserved.store(bytes, 36);
    }
}

/// One range of IOAS_UNMAP_RANGES. It comes back with `length` and `errno` filled in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UnmapRange {
    /// Start of the range.
    pub iova: Iova,
    /// In: bytes of the range; out: bytes that were unmapped, if it went well.
    pub length: ByteLen,
    /// Out: 0, or why not all of this range was unmapped.
    pub errno: u32,
    /// Must be 0.
    pub reserved: u32,
}

impl Record for UnmapRange {
    const BYTES: usize = 24;

    fn load(bytes: &[u8]) -> Self {
        Self {
            iova: Field::load(bytes, 0),
            length: Field::load(bytes, 8),
            errno: Field::load(bytes, 16),
            reserved: Field::load(bytes, 20),
        }
    }

    fn store(self, bytes: &mut [u8]) {
        self.iova.store(bytes, 0);
        self.length.store(bytes, 8);
        self.errno.store(bytes, 16);
        self.reserved.store(bytes, 20);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte of a record belongs to a field, and comes back.
    fn assert_covered<R: Record + PartialEq + std::fmt::Debug>() {
        let bytes: Vec<u8> = (1..).take(R::BYTES).collect();
        let mut again = vec![0; R::BYTES];
        R::load(&bytes).store(&mut again);
        assert_eq!(again, bytes);
        assert_eq!(R::BYTES % 8, 0, "records of an array stay aligned");
    }

    #[test]
    fn every_byte_of_a_record_belongs_to_a_field() {
        assert_covered::<IovaBounds>();
        assert_covered::<TableChoice>();
        assert_covered::<TableAbilities>();
        assert_covered::<MapRange>();
        assert_covered::<UnmapRange>();
    }

    #[test]
    fn an_array_lies_as_in_the_uapi_and_comes_back_the_same() {
        let bounds = |start, last| IovaBounds { start: Iova::new(start), last: Iova::new(last) };
        let all = [bounds(1, 2), bounds(u64::MAX, 0)];
        let bytes = store_all(&all);
        assert_eq!(bytes[..9], [1, 0, 0, 0, 0, 0, 0, 0, 2]);
        assert_eq!(bytes.len(), 32);
        assert_eq!(load_all::<IovaBounds>(&bytes), all);
        assert_eq!(load_all::<IovaBounds>(&bytes[..31]), all[..1]);
    }
}
