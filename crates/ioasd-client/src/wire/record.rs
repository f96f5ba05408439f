//! Records: the elements of arrays that lie beside a command's struct.
//!
//! A struct that has a pointer to an array in the uAPI has an offset here: into the payload, or, if the array comes in a
//! memfd, into that. Where a command gives an array back, it does so in the same place.
//!
//! Imports allowed: units, fields, command.

use super::command::{FieldPlace, covers_from};
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

/// A record of the protocol, with what its documentation says.
pub trait Declared: Record {
    /// Its name.
    const NAME: &'static str;
    /// What it is.
    const NOTE: &'static str;
    /// Where each field lies, in order; they cover it without holes.
    const FIELDS: &'static [FieldPlace];
}

/// Sees every record of the protocol as a type.
pub trait RecordVisitor {
    /// Called once for each record.
    fn visit<R: Declared>(&mut self);
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

/// Declares records: for each a struct, its [`Record`] and a compile-time check of its offsets.
macro_rules! records {
    ($(
        $(#[doc = $note:literal])*
        $record:ident, bytes $bytes:literal {
            $( $(#[doc = $field_note:literal])* $field:ident: $kind:ty = $offset:literal ),* $(,)?
        }
    )*) => {
        $(
            $(#[doc = $note])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
            pub struct $record {
                $( $(#[doc = $field_note])* pub $field: $kind, )*
            }

            impl Declared for $record {
                const NAME: &'static str = stringify!($record);
                const NOTE: &'static str = concat!($($note),*);
                const FIELDS: &'static [FieldPlace] = &[ $(
                    FieldPlace {
                        name: stringify!($field),
                        offset: $offset,
                        bytes: <$kind as Field>::BYTES,
                        note: concat!($($field_note),*),
                    },
                )* ];
            }

            impl Record for $record {
                const BYTES: usize = $bytes;

                fn load(bytes: &[u8]) -> Self {
                    Self { $( $field: Field::load(bytes, $offset), )* }
                }

                fn store(self, bytes: &mut [u8]) {
                    $( Field::store(self.$field, bytes, $offset); )*
                }
            }

            const _: () = assert!(
                covers_from(<$record as Declared>::FIELDS, 0, $bytes) && $bytes % 8 == 0,
                concat!("the fields of ", stringify!($record), " do not cover it, or an array of it is not aligned"),
            );
        )*

        /// Shows every record to `visitor`.
        pub fn visit_all<V: RecordVisitor>(visitor: &mut V) {
            $( visitor.visit::<$record>(); )*
        }
    };
}

records! {
    /// `iommu_iova_range`: two addresses, both inclusive, as a client gives them. They may be in the wrong order.
    IovaBounds, bytes 16 {
        /// The first address.
        start: Iova = 0,
        /// The last address.
        last: Iova = 8,
    }

    /// A fault of a walker, on a fault channel.
    ToldFault, bytes 64 {
        /// Its number in the domain.
        number: u64 = 0,
        /// The address.
        iova: Iova = 8,
        /// The last entry read on the way; 0 if none was.
        entry: u64 = 16,
        /// When, in nanoseconds since 1970.
        at: u64 = 24,
        /// How often in a row the same was met.
        times: u64 = 32,
        /// The walker, by its number in the domain.
        walker: u64 = 40,
        /// Its process; 0 if that is not certain.
        pid: u32 = 48,
        /// [`ACCESS_WRITE`](super::own::ACCESS_WRITE), or 0 for a read.
        access: u32 = 52,
        /// Why: 0 not present, 1 permission, 2 malformed, 3 not exported, 4 outside of the aperture, 5 dead.
        cause: u32 = 56,
        /// The level of that entry, 0 at the leaf.
        level: u32 = 60,
    }

    /// Data of HWPT_ALLOC with type [`HWPT_DATA_SOFTWARE`](super::own::HWPT_DATA_SOFTWARE): what the table of a software
    /// device shall be. A client may have more or fewer bytes of it, by the size rules of commands; what is missing is zero.
    TableChoice, bytes 32 {
        /// Must be 0.
        flags: u32 = 0,
        /// Must be 0.
        reserved: u32 = 4,
        /// The first address that is translated.
        start: Iova = 8,
        /// The last one; 0 together with `start` 0 means all that the format translates.
        last: Iova = 16,
        /// The sizes of leaves, as a bitmap; 0 means all that the format has.
        page_sizes: u64 = 24,
    }

    /// Data of GET_HW_INFO with type [`HW_INFO_SOFTWARE`](super::own::HW_INFO_SOFTWARE): what tables of a software device can
    /// be. A [`TableChoice`] asks for a part of it.
    TableAbilities, bytes 32 {
        /// Number of the page-table format.
        format: u32 = 0,
        /// 0.
        flags: u32 = 4,
        /// The first address that can be translated.
        start: Iova = 8,
        /// The last one.
        last: Iova = 16,
        /// The sizes of leaves, as a bitmap.
        page_sizes: u64 = 24,
    }

    /// One range of IOAS_MAP_FILES. It comes back with `iova` and `errno` filled in.
    MapRange, bytes 40 {
        /// `MAP_*`.
        flags: u32 = 0,
        /// Index of the file among the descriptors of the message.
        fd: u32 = 4,
        /// Offset in the file.
        start: ByteLen = 8,
        /// Bytes.
        length: ByteLen = 16,
        /// In if fixed, out.
        iova: Iova = 24,
        /// Out: 0, or why this range is not mapped.
        errno: u32 = 32,
        /// Must be 0.
        reserved: u32 = 36,
    }

    /// One range of IOAS_UNMAP_RANGES. It comes back with `length` and `errno` filled in.
    UnmapRange, bytes 24 {
        /// Start of the range.
        iova: Iova = 0,
        /// In: bytes of the range; out: bytes that were unmapped, if it went well.
        length: ByteLen = 8,
        /// Out: 0, or why not all of this range was unmapped.
        errno: u32 = 16,
        /// Must be 0.
        reserved: u32 = 20,
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
