//! AMD v1 host page tables.
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
//! `FC` is set in every leaf: walkers read memory through the caches of the CPU, whatever a request says.
//!
//! Imports allowed: units, formats.

use super::{Entry, Format, FormatId, Level, Rights, TableAddr};
use crate::units::{Permission, PhysAddr};

const PRESENT: u64 = 1;
const NEXT_LEVEL_SHIFT: u32 = 9;
/// The bits that say what an entry is.
const KIND: u64 = 7 << NEXT_LEVEL_SHIFT | PRESENT;
const CODED_LEAF: u64 = KIND;
const ADDRESS_LG2: u32 = 52;
const ADDRESS_MASK: u64 = ((1 << ADDRESS_LG2) - 1) & !(GRANULE - 1);
const LEAF_RESERVED: u64 = 0x1f << 52;
const TABLE_RESERVED: u64 = 0x1ff << 52;
const FORCE_COHERENT: u64 = 1 << 60;
const READ: u64 = 1 << 61;
const WRITE: u64 = 1 << 62;

const GRANULE_LG2: u32 = 12;
const GRANULE: u64 = 1 << GRANULE_LG2;

/// The highest level that may hold leaves: the sixth level of a 6-level table holds none.
const HIGHEST_LEAF_LEVEL: u32 = 4;

/// AMD v1 with `LEVELS` levels, 1 to 6: the mode of the device table entry.
#[derive(Clone, Copy, Debug)]
pub struct AmdV1<const LEVELS: u32>;

impl<const LEVELS: u32> Format for AmdV1<LEVELS> {
    const ID: FormatId = FormatId::AmdV1;
    const LEVELS: u32 = LEVELS;
    const GRANULE_LG2: u32 = GRANULE_LG2;
    const IOVA_LG2: u32 = if LEVELS >= 6 { 64 } else { GRANULE_LG2 + 9 * LEVELS };
    const OUTPUT_LG2: u32 = ADDRESS_LG2;

    #[inline]
    fn leaf(phys: PhysAddr, permission: Permission) -> u64 {
        let rights = match permission {
            Permission::Read => READ,
            Permission::Write => WRITE,
            Permission::ReadWrite => READ | WRITE,
        };
        phys.get() | rights | FORCE_COHERENT | PRESENT
    }

    #[inline]
    fn table(address: TableAddr, level: Level) -> u64 {
        let next_level = u64::from(level.get()) << NEXT_LEVEL_SHIFT;
        address.get() | next_level | READ | WRITE | PRESENT
    }

    #[inline]
    fn decode(entry: u64, level: Level) -> Entry {
        let next_level = u64::from(level.get()) << NEXT_LEVEL_SHIFT;
        if level > Level::LEAF && entry & (TABLE_RESERVED | KIND) == next_level | PRESENT {
            return Entry::Table { address: TableAddr::new(entry & ADDRESS_MASK), rights: rights(entry) };
        }
        match entry & KIND {
            PRESENT => decode_leaf(entry, level),
            CODED_LEAF => decode_coded_leaf(entry, level),
            kind if kind & PRESENT == 0 => Entry::Absent,
            _ => Entry::Malformed,
        }
    }
}

#[inline]
fn decode_leaf(entry: u64, level: Level) -> Entry {
    leaf_of_size(entry, entry & ADDRESS_MASK, GRANULE_LG2 + 9 * level.get(), level)
}

/// The size is one bit above the lowest zero of the address field; the bits up to that zero are not address.
fn decode_coded_leaf(entry: u64, level: Level) -> Entry {
    let size_lg2 = ((entry & ADDRESS_MASK) | (GRANULE - 1)).trailing_ones() + 1;
    let item_lg2 = GRANULE_LG2 + 9 * level.get();
    if size_lg2 >= ADDRESS_LG2 || size_lg2 <= item_lg2 || size_lg2 >= item_lg2 + 9 {
        return Entry::Malformed;
    }
    leaf_of_size(entry, entry & ADDRESS_MASK & !((1 << size_lg2) - 1), size_lg2, level)
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

    const NO_RIGHTS: Rights = Rights::of(0, READ, WRITE);

    fn leaf(phys: u64, size_lg2: u32, permission: Option<Permission>) -> Entry {
        let rights = match permission {
            None => NO_RIGHTS,
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
        let entry = Mode4::leaf(PhysAddr::new(0xab_cdef_0000), Permission::ReadWrite);
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
        let entry = Mode6::leaf(PhysAddr::new(0xf_ffff_ffff_f000), Permission::Read);
        assert_eq!(entry, 0x300f_ffff_ffff_f001);
        assert_eq!(Mode6::decode(entry, Level::LEAF), leaf(0xf_ffff_ffff_f000, 12, Some(Permission::Read)));
        assert_eq!(Geometry::of::<Mode6>().aperture, crate::units::IovaRange::ALL);
    }

    #[test]
    fn worked_examples_a2_to_a7_large_and_coded_leaves_decode() {
        let read_write = Some(Permission::ReadWrite);
        let examples = [
            ("A2", 0x2000_0000_8765_7e01, 0, leaf(0x8765_0000, 16, Some(Permission::Read))),
            ("A3", 0x6000_0001_2340_0001, 1, leaf(0x1_2340_0000, 21, read_write)),
            ("A4", 0x5000_0000_7fdf_fe01, 1, leaf(0x7fc0_0000, 22, Some(Permission::Write))),
            ("A5", 0x6000_0045_7fff_fe01, 2, leaf(0x45_0000_0000, 32, read_write)),
            ("A6", 0x6000_5000_0000_6e41, 0, leaf(0x5000_0000_6000, 13, read_write)),
            ("A7", 0x6000_037f_ffff_fe01, 3, leaf(0x300_0000_0000, 40, read_write)),
        ];
        for (name, entry, level, expected) in examples {
            assert_eq!(Mode4::decode(entry, Level::new(level)), expected, "{name}");
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
            ("reserved bits of a leaf", Mode4::leaf(PhysAddr::new(0), Permission::Read) | 1 << 52, 0),
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
