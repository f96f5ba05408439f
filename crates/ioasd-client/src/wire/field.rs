//! Fields: how one value lies in a struct of the wire.
//!
//! Reading takes bytes that are missing at the end as zero, which is the uAPI's rule for a struct that is shorter than
//! the one we know. Writing beyond the end writes nothing.
//!
//! Imports allowed: units, ids.

use crate::ids::{AccessId, DeviceId, HwptId, IoasId, ObjectId};
use crate::units::{ByteLen, Iova, UserAddr};

/// A value with a fixed little-endian form.
pub trait Field: Copy {
    /// Bytes of the form.
    const BYTES: usize;

    /// Reads the value at `offset`; missing bytes are zero.
    fn load(bytes: &[u8], offset: usize) -> Self;

    /// Writes the value at `offset`, as far as `bytes` reach.
    fn store(self, bytes: &mut [u8], offset: usize);
}

/// The `N` bytes at `offset`, zero where `bytes` has ended.
#[inline]
fn load_bytes<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut value = [0; N];
    for (to, from) in value.iter_mut().zip(bytes.iter().skip(offset)) {
        *to = *from;
    }
    value
}

#[inline]
fn store_bytes(value: &[u8], bytes: &mut [u8], offset: usize) {
    for (to, from) in bytes.iter_mut().skip(offset).zip(value) {
        *to = *from;
    }
}

macro_rules! integer_field {
    ($($integer:ty),*) => { $(
        impl Field for $integer {
            const BYTES: usize = size_of::<$integer>();

            #[inline]
            fn load(bytes: &[u8], offset: usize) -> Self {
                Self::from_le_bytes(load_bytes(bytes, offset))
            }

            #[inline]
            fn store(self, bytes: &mut [u8], offset: usize) {
                store_bytes(&self.to_le_bytes(), bytes, offset);
            }
        }
    )* };
}

macro_rules! wrapped_field {
    ($($wrapper:ty => $integer:ty),* $(,)?) => { $(
        impl Field for $wrapper {
            const BYTES: usize = size_of::<$integer>();

            #[inline]
            fn load(bytes: &[u8], offset: usize) -> Self {
                Self::new(<$integer>::load(bytes, offset))
            }

            #[inline]
            fn store(self, bytes: &mut [u8], offset: usize) {
                self.get().store(bytes, offset);
            }
        }
    )* };
}

integer_field!(u8, u16, u32, u64, i32);
wrapped_field!(
    Iova => u64,
    UserAddr => u64,
    ByteLen => u64,
    ObjectId => u32,
    IoasId => u32,
    HwptId => u32,
    DeviceId => u32,
    AccessId => u32,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_bytes_are_read_as_zero() {
        let bytes = [0x11, 0x22, 0x33];
        assert_eq!(u32::load(&bytes, 0), 0x0033_2211);
        assert_eq!(u16::load(&bytes, 2), 0x33);
        assert_eq!(u64::load(&bytes, 3), 0);
        assert_eq!(u64::load(&bytes, usize::MAX), 0);
    }

    #[test]
    fn what_lies_beyond_the_end_is_not_written() {
        let mut bytes = [0xff; 6];
        Iova::new(0x0102_0304_0506_0708).store(&mut bytes, 2);
        assert_eq!(bytes, [0xff, 0xff, 8, 7, 6, 5]);
    }
}
