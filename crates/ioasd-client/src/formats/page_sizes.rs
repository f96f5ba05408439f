//! The sizes that leaves of a table may have: iommufd's `pgsize_bitmap`.
//!
//! Imports allowed: nothing.

use std::fmt;

/// A set of powers of two: bit `n` stands for leaves of 2^n bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageSizes(u64);

impl PageSizes {
    /// The sizes whose bits are set.
    #[must_use]
    pub const fn new(bitmap: u64) -> Self {
        Self(bitmap)
    }

    /// The bitmap.
    #[must_use]
    pub const fn bitmap(self) -> u64 {
        self.0
    }

    /// Whether there is no size at all.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether leaves of 2^`size_lg2` bytes are possible.
    #[must_use]
    pub const fn contains(self, size_lg2: u32) -> bool {
        size_lg2 < u64::BITS && self.0 >> size_lg2 & 1 == 1
    }

    /// Whether every size of `other` is one of these.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// The sizes up to `bytes`.
    #[must_use]
    pub const fn up_to(self, bytes: u64) -> Self {
        Self(self.0 & (bytes | bytes.saturating_sub(1)))
    }

    /// Bytes in the smallest leaf: everything mapped is a multiple of it. 0 if there is no size.
    #[must_use]
    pub const fn smallest(self) -> u64 {
        self.0 & self.0.wrapping_neg()
    }

    /// log2 of the largest size that divides `addresses` and is not above `length`. `addresses` is the IOVA and the output
    /// address, bitwise ored.
    #[inline]
    #[must_use]
    pub const fn largest_for(self, addresses: u64, length: u64) -> Option<u32> {
        let aligned = addresses ^ addresses.wrapping_sub(1);
        (self.0 & aligned & low_bits(length)).checked_ilog2()
    }

    /// log2 of the smallest size above 2^`size_lg2`.
    #[inline]
    #[must_use]
    pub const fn next_above(self, size_lg2: u32) -> Option<u32> {
        let above = self.0 & !low_bits(1 << size_lg2);
        if above == 0 { None } else { Some(above.trailing_zeros()) }
    }
}

/// All bits up to the highest of `value`.
#[inline]
const fn low_bits(value: u64) -> u64 {
    match value.checked_ilog2() {
        Some(highest) => u64::MAX >> (u64::BITS - 1 - highest),
        None => 0,
    }
}

impl fmt::Display for PageSizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: PageSizes = PageSizes::new(1 << 12 | 1 << 21 | 1 << 30);

    #[test]
    fn the_largest_size_divides_the_addresses_and_fits() {
        assert_eq!(SIZES.largest_for(0x20_0000, 0x20_0000), Some(21));
        assert_eq!(SIZES.largest_for(0x20_0000, 0x1f_f000), Some(12));
        assert_eq!(SIZES.largest_for(0x20_1000, 1 << 40), Some(12));
        assert_eq!(SIZES.largest_for(0, u64::MAX), Some(30));
        assert_eq!(SIZES.largest_for(0x800, 0x1000), None);
        assert_eq!(SIZES.largest_for(0x1000, 0xfff), None);
        assert_eq!(SIZES.largest_for(0, 0), None);
    }

    #[test]
    fn sizes_are_compared_as_sets() {
        assert_eq!((SIZES.smallest(), PageSizes::new(0).smallest()), (0x1000, 0));
        assert_eq!(
            (SIZES.next_above(12), SIZES.next_above(21), SIZES.next_above(30)),
            (Some(21), Some(30), None)
        );
        assert_eq!(SIZES.up_to(0x1000), PageSizes::new(0x1000));
        assert_eq!(SIZES.up_to(0xfff), PageSizes::new(0));
        assert!(SIZES.covers(PageSizes::new(1 << 21)) && !SIZES.covers(PageSizes::new(1 << 13)));
        assert!(SIZES.contains(21) && !SIZES.contains(22) && !SIZES.contains(64));
        assert_eq!(PageSizes::new(1 << 63).next_above(62), Some(63));
    }
}
