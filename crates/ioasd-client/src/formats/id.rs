//! Which formats there are, as numbers and names, and the one place that leads from a number to the bits.
//!
//! Imports allowed: formats.

use super::{AmdV1, AmdV1Granule2K, ArmS2, Format, Geometry, PageSizes, RiscV, VtdSs};

/// Which format a table is in, as a number that is written down: in DEVICE_CREATE and in the header of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum FormatId {
    /// AMD v1 host page tables, 4 levels.
    AmdV1 = 1,
    /// AMD v1 with a granule of 2 KiB, 3 levels: for tests of mappings smaller than a page.
    AmdV1Granule2K = 2,
    /// Intel VT-d second stage, 4 levels.
    VtdSs = 3,
    /// Arm VMSAv8-64 stage 2, 4 KiB granule, 4 levels.
    ArmS2 = 4,
    /// RISC-V Sv48.
    RiscVSv48 = 5,
    /// RISC-V Sv57.
    RiscVSv57 = 6,
}

/// What shall be done with a format that is known only by its number.
pub trait FormatVisitor {
    /// What comes of it.
    type Output;

    /// Does it.
    fn visit<F: Format>(self) -> Self::Output;
}

impl FormatId {
    /// All formats.
    pub const ALL: [Self; 6] =
        [Self::AmdV1, Self::AmdV1Granule2K, Self::VtdSs, Self::ArmS2, Self::RiscVSv48, Self::RiscVSv57];

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The format with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.number() == number)
    }

    /// The name used in configuration, reports and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AmdV1 => "amd-v1",
            Self::AmdV1Granule2K => "amd-v1-2k",
            Self::VtdSs => "vtd-ss",
            Self::ArmS2 => "arm-s2",
            Self::RiscVSv48 => "riscv-sv48",
            Self::RiscVSv57 => "riscv-sv57",
        }
    }

    /// The format with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Does something with the bits of the format.
    #[inline]
    pub fn visit<V: FormatVisitor>(self, visitor: V) -> V::Output {
        match self {
            Self::AmdV1 => visitor.visit::<AmdV1<4>>(),
            Self::AmdV1Granule2K => visitor.visit::<AmdV1Granule2K>(),
            Self::VtdSs => visitor.visit::<VtdSs<4>>(),
            Self::ArmS2 => visitor.visit::<ArmS2>(),
            Self::RiscVSv48 => visitor.visit::<RiscV<4>>(),
            Self::RiscVSv57 => visitor.visit::<RiscV<5>>(),
        }
    }

    /// Its geometry, with everything it can translate as the aperture.
    #[must_use]
    pub fn geometry(self) -> Geometry {
        self.visit(OfGeometry)
    }

    /// Every size that its leaves can have.
    #[must_use]
    pub fn page_sizes(self) -> PageSizes {
        self.visit(OfPageSizes)
    }
}

struct OfGeometry;

impl FormatVisitor for OfGeometry {
    type Output = Geometry;

    fn visit<F: Format>(self) -> Geometry {
        Geometry::of::<F>()
    }
}

struct OfPageSizes;

impl FormatVisitor for OfPageSizes {
    type Output = PageSizes;

    fn visit<F: Format>(self) -> PageSizes {
        F::PAGE_SIZES
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_format_is_its_number_and_its_name_and_back() {
        for format in FormatId::ALL {
            assert_eq!(FormatId::from_number(format.number()), Some(format));
            assert_eq!(FormatId::from_name(format.name()), Some(format));
            assert_eq!(format.geometry().format, format, "the bits belong to another number");
        }
        let numbers: BTreeSet<u32> = FormatId::ALL.into_iter().map(FormatId::number).collect();
        assert_eq!(numbers, (1..=6).collect());
        assert_eq!((FormatId::from_number(0), FormatId::from_number(7)), (None, None));
        assert_eq!(FormatId::from_name("amd-v2"), None);
    }

    #[test]
    fn page_sizes_are_those_of_the_specifications() {
        let sizes = |format: FormatId| format.page_sizes().bitmap();
        let set = |bits: &[u32]| bits.iter().fold(0, |bitmap, bit| bitmap | 1_u64 << bit);
        assert_eq!(sizes(FormatId::AmdV1), 0x0000_7f7f_ffff_f000, "2^12 to 2^46 without 2^39");
        assert_eq!(sizes(FormatId::AmdV1Granule2K), 0x1f_ffff_f800, "2^11 to 2^36");
        assert_eq!(AmdV1::<6>::PAGE_SIZES.bitmap(), 0x000f_ff7f_ffff_f000, "all that any level holds");
        assert_eq!(sizes(FormatId::VtdSs), set(&[12, 21, 30]));
        assert_eq!(sizes(FormatId::ArmS2), set(&[12, 16, 21, 25, 30, 34]));
        assert_eq!(sizes(FormatId::RiscVSv48), set(&[12, 16, 21, 30, 39]));
        assert_eq!(sizes(FormatId::RiscVSv57), set(&[12, 16, 21, 30, 39, 48]));
        assert_eq!(RiscV::<3>::PAGE_SIZES.bitmap(), set(&[12, 16, 21, 30]));
    }
}
