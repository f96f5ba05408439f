//! Records: the elements of arrays that lie beside a command's struct.
//!
//! A struct that has a pointer to an array in the uAPI has an offset here: into the payload, or, if the array comes in a
//! memfd, into that. Where a command gives an array back, it does so in the same place.
//!
//! Imports allowed: units, fields.

use super::field::Field;
use crate::units::Iova;

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

#[cfg(test)]
mod tests {
    use super::*;

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
