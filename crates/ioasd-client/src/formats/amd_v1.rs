//! AMD v1 host page tables, and their variant with a granule of 2 KiB.
//!
//! Source of the bits: AMD I/O Virtualization Technology (IOMMU) Specification, publication 48882, section 2.2.3 "I/O
//! Page Tables for Host Translations", tables "Page Table Level Parameters" and "Example Page Size Encodings".
//!
//! ```text
//!  63  62  61  60  59 58   52 51                        12 11     9 8 7 6 5 4  1  0
//! | - | IW| IR| FC| U| rsvd  | address, or address + size | NextLvl | - |D|A| -  |PR|
//! ```
//!
//! `NextLevel` is 0 for a leaf of the size of one entry, 7 for a leaf with its size coded in the address, and else the
//! 1-based level of the table pointed to, which is the 0-based level of the entry that points. Levels are never
//! skipped: a pointer that skips is malformed here, although hardware may follow it.
//!
//! A coded size is one bit above the lowest zero of the address field; below that zero all bits are ones. The leaf fills
//! as many entries as its size takes, all the same.
//!
//! `FC` is set in every leaf: walkers read memory through the caches of the CPU, whatever a request says.
//!
//! The variant is for tests of mappings smaller than a page, and what the kernel's mock IOMMU uses: the address field
//! holds the address in units of the granule, `FC` is not used.
//!
//! Imports allowed: units, formats.

use super::{Copies, Entry, Format, FormatId, INDEX_LG2, Level, PageSizes, Rights, TableAddr};
use crate::units::{Permission, PhysAddr};

const PRESENT: u64 = 1;
const NEXT_LEVEL_SHIFT: u32 = 9;
/// The bits that say what an entry is.
const KIND: u64 = 7 << NEXT_LEVEL_SHIFT | PRESENT;
const CODED_LEAF: u64 = KIND;
/// Where the address field begins, and the bits of an address that it holds.
const FIELD_SHIFT: u32 = 12;
const FIELD_LG2: u32 = 40;
const ADDRESS_MASK: u64 = ((1 << FIELD_LG2) - 1) << FIELD_SHIFT;
const LEAF_RESERVED: u64 = 0x1f << 52;
const TABLE_RESERVED: u64 = 0x1ff << 52;
/// Set by hardware in the copy of a leaf's entry that it used for a write.
const DIRTY: u64 = 1 << 6;
const FORCE_COHERENT: u64 = 1 << 60;
const READ: u64 = 1 << 61;
const WRITE: u64 = 1 << 62;

/// The granule of the format proper.
const GRANULE_LG2: u32 = 12;

/// The highest level that may hold leaves: the sixth level of a 6-level table holds none.
const HIGHEST_LEAF_LEVEL: u32 = 4;

/// Leaves of 512 GiB are never written: some hardware misreads them (as Linux notes it).
const SIZE_NOT_USED: u64 = 1 << 39;

/// AMD v1 with `LEVELS` levels, 1 to 6: the mode of the device table entry.
#[derive(Clone, Copy, Debug)]
pub struct AmdV1<const LEVELS: u32, const GRANULE_LG2: u32 = 12>;

/// AMD v1 with a granule of 2 KiB and the three levels of the kernel's mock IOMMU.
pub type AmdV1Granule2K = AmdV1<3, 11>;

impl<const LEVELS: u32, const GRANULE: u32> AmdV1<LEVELS, GRANULE> {
    /// The address field holds addresses shifted by this, so that its lowest bit counts granules.
    const SHIFT: u32 = FIELD_SHIFT - GRANULE;
    const ALWAYS: u64 = if GRANULE == GRANULE_LG2 { FORCE_COHERENT | PRESENT } else { PRESENT };
    const NOT_USED: u64 = if GRANULE == GRANULE_LG2 { SIZE_NOT_USED } else { 0 };

    /// A leaf is smaller than half of what the table translates, and leaves at least one bit of address.
    const SIZES: u64 = {
        let (half, output) = (Self::IOVA_LG2 - 1, Self::OUTPUT_LG2);
        let below = if half < output { half } else { output };
        (u64::MAX >> (u64::BITS - below)) & (u64::MAX << GRANULE) & !Self::NOT_USED
    };

    /// The size is one bit above the lowest zero of the address field; the bits up to that zero are not address.
    fn decode_coded_leaf(entry: u64, level: Level) -> Entry {
        let ones = (entry >> FIELD_SHIFT & (u64::MAX >> (u64::BITS - FIELD_LG2))).trailing_ones();
        let (size_lg2, item_lg2) = (GRANULE + ones + 1, Self::item_lg2(level));
        if ones + 1 >= FIELD_LG2 || size_lg2 <= item_lg2 || size_lg2 >= item_lg2 + INDEX_LG2 {
            return Entry::Malformed;
        }
        let phys = (entry & ADDRESS_MASK) >> Self::SHIFT & !((1 << size_lg2) - 1);
        leaf_of_size(entry, phys, size_lg2, level)
    }
}

impl<const LEVELS: u32, const GRANULE: u32> Format for AmdV1<LEVELS, GRANULE> {
    const ID: FormatId = if GRANULE == GRANULE_LG2 { FormatId::AmdV1 } else { FormatId::AmdV1Granule2K };
    const LEVELS: u32 = LEVELS;
    const GRANULE_LG2: u32 = GRANULE;
    const IOVA_LG2: u32 = if LEVELS >= 6 { 64 } else { GRANULE + INDEX_LG2 * LEVELS };
    const OUTPUT_LG2: u32 = FIELD_LG2 + GRANULE;
    const PAGE_SIZES: PageSizes = PageSizes::new(Self::SIZES);
    const COPIES: Copies = Copies::Identical;
    const DIRTY: u64 = DIRTY;

    #[inline]
    fn leaf(phys: PhysAddr, size_lg2: u32, permission: Permission) -> u64 {
        let rights = match permission {
            Permission::Read => READ,
            Permission::Write => WRITE,
            Permission::ReadWrite => READ | WRITE,
            Permission::Neither => 0,
        };
        let size = if size_lg2 == Self::item_lg2(Self::level_of(size_lg2)) {
            0
        } else {
            ((1_u64 << (size_lg2 - 1 + Self::SHIFT)) - (1 << FIELD_SHIFT)) | CODED_LEAF
        };
        phys.get() << Self::SHIFT | size | rights | Self::ALWAYS
    }

    #[inline]
    fn advance(bytes: u64) -> u64 {
        bytes << Self::SHIFT
    }

    #[inline]
    fn table(address: TableAddr, level: Level) -> u64 {
        let next_level = u64::from(level.get()) << NEXT_LEVEL_SHIFT;
        address.get() << Self::SHIFT | next_level | READ | WRITE | PRESENT
    }

    #[inline]
    fn decode(entry: u64, level: Level) -> Entry {
        let next_level = u64::from(level.get()) << NEXT_LEVEL_SHIFT;
        if level > Level::LEAF && entry & (TABLE_RESERVED | KIND) == next_level | PRESENT {
            let address = TableAddr::new((entry & ADDRESS_MASK) >> Self::SHIFT);
            return Entry::Table { address, rights: rights(entry) };
        }
        match entry & KIND {
            PRESENT => {
                let phys = (entry & ADDRESS_MASK) >> Self::SHIFT;
                leaf_of_size(entry, phys, Self::item_lg2(level), level)
            }
            CODED_LEAF => Self::decode_coded_leaf(entry, level),
            kind if kind & PRESENT == 0 => Entry::Absent,
            _ => Entry::Malformed,
        }
    }
}

#[inline]
fn leaf_of_size(entry: u64, phys: u64, size_lg2: u32, level: Level) -> Entry {
    let misplaced = level.get() > HIGHEST_LEAF_LEVEL || phys & ((1 << size_lg2) - 1) != 0;
    if misplaced || entry & LEAF_RESERVED != 0 {
        return Entry::Malformed;
    }
    Entry::Leaf { phys: PhysAddr::new(phys), size_lg2, rights: rights(entry) }
}

#[inline]
fn rights(entry: u64) -> Rights {
    Rights::of(entry, READ, WRITE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Geometry;
    use crate::units::Iova;

    type Mode4 = AmdV1<4>;
    type Mode6 = AmdV1<6>;

    fn leaf(phys: u64, size_lg2: u32, permission: Option<Permission>) -> Entry {
        let rights = match permission {
            None | Some(Permission::Neither) => Rights::NONE,
            Some(Permission::Read) => Rights::of(READ, READ, WRITE),
            Some(Permission::Write) => Rights::of(WRITE, READ, WRITE),
            Some(Permission::ReadWrite) => Rights::ALL,
        };
        Entry::Leaf { phys: PhysAddr::new(phys), size_lg2, rights }
    }

    /// Checks pointers and indexes of a worked example; `(level, index, entry)` from the top down.
    fn check_tables<F: Format>(iova: u64, steps: &[(u32, usize, u64)]) {
        for (depth, (level, index, entry)) in steps.iter().copied().enumerate() {
            let (level, next) = (Level::new(level), TableAddr::new(0x1_0000_1000 + 0x1000 * depth as u64));
            assert_eq!(F::index(Iova::new(iova), level), index, "index at level {level}");
            assert_eq!(F::table(next, level), entry, "pointer at level {level}");
            assert_eq!(F::decode(entry, level), Entry::Table { address: next, rights: Rights::ALL });
        }
    }

    #[test]
    fn worked_example_a1_four_levels_read_write() {
        let iova = 0x1234_5678_9000;
        let tables = [
            (3, 0x24, 0x6000_0001_0000_1601),
            (2, 0xd1, 0x6000_0001_0000_2401),
            (1, 0xb3, 0x6000_0001_0000_3201),
        ];
        check_tables::<Mode4>(iova, &tables);
        assert_eq!(Mode4::index(Iova::new(iova), Level::LEAF), 0x189);
        let entry = Mode4::leaf(PhysAddr::new(0xab_cdef_0000), 12, Permission::ReadWrite);
        assert_eq!(entry, 0x7000_00ab_cdef_0001);
        assert_eq!(Mode4::decode(entry, Level::LEAF), leaf(0xab_cdef_0000, 12, Some(Permission::ReadWrite)));
    }

    #[test]
    fn worked_example_a8_six_levels_last_page_read_only() {
        let iova = 0xffff_ffff_ffff_f000;
        let tables = [
            (5, 0x7f, 0x6000_0001_0000_1a01),
            (4, 0x1ff, 0x6000_0001_0000_2801),
            (3, 0x1ff, 0x6000_0001_0000_3601),
            (2, 0x1ff, 0x6000_0001_0000_4401),
            (1, 0x1ff, 0x6000_0001_0000_5201),
        ];
        check_tables::<Mode6>(iova, &tables);
        let entry = Mode6::leaf(PhysAddr::new(0xf_ffff_ffff_f000), 12, Permission::Read);
        assert_eq!(entry, 0x300f_ffff_ffff_f001);
        assert_eq!(Mode6::decode(entry, Level::LEAF), leaf(0xf_ffff_ffff_f000, 12, Some(Permission::Read)));
        assert_eq!(Geometry::of::<Mode6>().aperture, crate::units::IovaRange::ALL);
    }

    /// The first entry of a leaf as it must be, and back; `iova` is the first address, `indexes` what it fills.
    #[track_caller]
    fn check_leaf<F: Format>(expected: u64, leaf: Leaf, indexes: std::ops::RangeInclusive<usize>) {
        let Leaf { iova, phys, size_lg2, permission, ignored } = leaf;
        let (phys, level) = (PhysAddr::new(phys), F::level_of(size_lg2));
        assert_eq!(F::leaf(phys, size_lg2, permission) & !ignored, expected & !ignored, "{expected:#x}");
        let rights = Rights::of(expected, READ, WRITE);
        assert_eq!(F::decode(expected, level), Entry::Leaf { phys, size_lg2, rights });
        let copies = 1_usize << (size_lg2 - F::item_lg2(level));
        let first = F::index(Iova::new(iova), level);
        assert_eq!(first..=first + copies - 1, indexes);
    }

    #[derive(Clone, Copy)]
    struct Leaf {
        iova: u64,
        phys: u64,
        size_lg2: u32,
        permission: Permission,
        /// Bits of the example that are not ours to write.
        ignored: u64,
    }

    #[test]
    fn worked_examples_a2_to_a7_large_and_coded_leaves() {
        use Permission::{Read, ReadWrite, Write};
        let leaf = |iova, phys, size_lg2, permission| Leaf {
            iova,
            phys,
            size_lg2,
            permission,
            ignored: FORCE_COHERENT | 1 << 6,
        };
        check_leaf::<AmdV1<3>>(0x2000_0000_8765_7e01, leaf(0x1_0000, 0x8765_0000, 16, Read), 16..=31);
        check_leaf::<AmdV1<3>>(0x6000_0001_2340_0001, leaf(0x4020_0000, 0x1_2340_0000, 21, ReadWrite), 1..=1);
        check_leaf::<AmdV1<3>>(0x5000_0000_7fdf_fe01, leaf(0x4040_0000, 0x7fc0_0000, 22, Write), 2..=3);
        check_leaf::<Mode4>(
            0x6000_0045_7fff_fe01,
            leaf(0x81_0000_0000, 0x45_0000_0000, 32, ReadWrite),
            4..=7,
        );
        check_leaf::<AmdV1<1>>(0x6000_5000_0000_6e41, leaf(0x2000, 0x5000_0000_6000, 13, ReadWrite), 2..=3);
        check_leaf::<Mode4>(
            0x6000_037f_ffff_fe01,
            leaf(0x200_0000_0000, 0x300_0000_0000, 40, ReadWrite),
            4..=5,
        );
    }

    #[test]
    fn worked_examples_m1_to_m6_of_the_2_kib_granule() {
        type Small = AmdV1Granule2K;
        let leaf = |iova, phys, size_lg2| Leaf {
            iova,
            phys,
            size_lg2,
            permission: Permission::ReadWrite,
            ignored: 1 << 6,
        };
        check_leaf::<Small>(0x6000_0000_2468_b001, leaf(0x100_0800, 0x1234_5800, 11), 1..=1);
        check_leaf::<Small>(0x6000_0000_2468_ce01, leaf(0x100_1000, 0x1234_6000, 12), 2..=3);
        let read_only = Leaf { permission: Permission::Read, ..leaf(0x110_0000, 0x2010_0000, 20) };
        check_leaf::<Small>(0x2000_0000_4020_0001, read_only, 0x11..=0x11);
        check_leaf::<Small>(0x6000_0000_405f_fe01, leaf(0x120_0000, 0x2020_0000, 21), 0x12..=0x13);
        check_leaf::<Small>(0x6000_0000_246a_fe41, leaf(0x101_0000, 0x1235_0000, 16), 32..=63);
        check_leaf::<Small>(0x6000_004f_ffff_fe01, leaf(0x10_0000_0000, 0x20_0000_0000, 36), 128..=255);
        for (level, next, entry) in
            [(2, 0x4_0000_1000, 0x6000_0008_0000_2401), (1, 0x4_0000_2000, 0x6000_0008_0000_4201)]
        {
            let (level, address) = (Level::new(level), TableAddr::new(next));
            assert_eq!(Small::table(address, level), entry);
            assert_eq!(Small::decode(entry, level), Entry::Table { address, rights: Rights::ALL });
        }
    }

    #[test]
    fn a_leaf_may_grant_nothing_and_an_absent_entry_may_hold_anything() {
        assert_eq!(Mode4::decode(0x1000 | PRESENT, Level::LEAF), leaf(0x1000, 12, None));
        assert_eq!(Mode4::decode(!PRESENT, Level::LEAF), Entry::Absent);
    }

    #[test]
    fn what_the_format_forbids_is_malformed() {
        let table = |level| Mode4::table(TableAddr::new(0x2000), Level::new(level));
        let coded = |address: u64| address | CODED_LEAF | READ;
        let cases = [
            ("a table below the leaves", table(1), 0),
            ("a pointer that skips a level", table(1), 2),
            ("a pointer upwards", table(3), 2),
            ("reserved bits of a pointer", table(1) | 1 << 60, 1),
            ("reserved bits of a leaf", Mode4::leaf(PhysAddr::new(0), 12, Permission::Read) | 1 << 52, 0),
            ("a leaf that is not aligned to its size", 0x1000 | READ | PRESENT, 1),
            ("a leaf in the sixth level", READ | PRESENT, 5),
            ("a coded size without an address", coded(ADDRESS_MASK), 4),
            ("a coded size of another level", coded(0x7000), 1),
        ];
        for (name, entry, level) in cases {
            assert_eq!(AmdV1::<6>::decode(entry, Level::new(level)), Entry::Malformed, "{name}");
        }
    }

    #[test]
    fn any_bits_can_be_decoded() {
        let mut entry = 1_u64;
        for round in 0..100_000_u32 {
            entry = entry.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let decoded = Mode6::decode(entry, Level::new(round % 6));
            if let Entry::Leaf { phys, size_lg2, .. } = decoded {
                assert!(size_lg2 < 52 && phys.get() & ((1 << size_lg2) - 1) == 0, "{entry:#x}");
            }
        }
    }

    #[test]
    fn each_mode_translates_its_width() {
        assert_eq!(Geometry::of::<AmdV1<1>>().aperture.last(), Iova::new((1 << 21) - 1));
        assert_eq!(Geometry::of::<Mode4>().aperture.last(), Iova::new((1 << 48) - 1));
        assert_eq!(Geometry::of::<AmdV1<5>>().aperture.last(), Iova::new((1 << 57) - 1));
        assert_eq!(Geometry::of::<Mode4>().granule(), 4096);
    }
}
