//! Arm VMSAv8-64 stage 2 tables with a granule of 4 KiB, as an SMMUv3 walks them.
//!
//! Source of the bits: Arm Architecture Reference Manual, DDI 0487, chapter "The AArch64 Virtual Memory System
//! Architecture": translation table descriptor formats, stage 2 attribute fields, Contiguous bit. 48-bit descriptors
//! (no LPA2, no D128).
//!
//! ```text
//!  63  55 54 53 52  51 50  48 47                n      11  10 9 8 7  6 5     2 1 0
//! |  -   | XN |Cont|DBM| 0   | address           | 0   | 0|AF| SH|S2AP|MemAttr|type|
//! ```
//!
//! Type 3 is a page at the lowest level and a table above it, type 1 a block. Arm counts levels from the top: its level 3
//! is level 0 here. Sixteen neighbours with the Contiguous bit are one leaf; each keeps its own address, and all sixteen
//! have the bit.
//!
//! What ioasd writes: normal memory, write-back, inner shareable, access flag set, execution not forbidden (as iommufd
//! maps); where writes are recorded, `DBM` with S2AP[1] clear, which hardware sets at the first write. `AF` is never
//! managed by hardware: an entry without it is malformed.
//! A set bit that is reserved and zero is ignored, as hardware may.
//!
//! Imports allowed: units, formats.

use super::{Copies, Entry, Format, FormatId, INDEX_LG2, Level, PageSizes, Rights, TableAddr};
use crate::units::{Permission, PhysAddr};

const VALID: u64 = 1;
const TYPE: u64 = 3;
const BLOCK: u64 = 1;
const PAGE_OR_TABLE: u64 = 3;
const WRITE_BACK: u64 = 0xf << 2;
const READ: u64 = 1 << 6;
const WRITE: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 3 << 8;
const ACCESS_FLAG: u64 = 1 << 10;
/// Hardware may set `WRITE`: the leaf can be written, and is dirty once it is.
const WRITE_MANAGED: u64 = 1 << 51;
const CONTIGUOUS: u64 = 1 << 52;
const GRANULE_LG2: u32 = 12;
const OUTPUT_LG2: u32 = 48;
const ADDRESS_MASK: u64 = ((1 << OUTPUT_LG2) - 1) & !((1 << GRANULE_LG2) - 1);

/// log2 of the neighbours that are one leaf, at each of the three levels that hold leaves.
const CONTIGUOUS_LG2: u32 = 4;

/// The highest level that may hold leaves: no blocks at Arm's level 0.
const HIGHEST_LEAF_LEVEL: u32 = 2;

/// Stage 2 tables with four levels: 48 address bits, start level 0, nothing concatenated.
#[derive(Clone, Copy, Debug)]
pub struct ArmS2;

impl Format for ArmS2 {
    const ID: FormatId = FormatId::ArmS2;
    const LEVELS: u32 = 4;
    const GRANULE_LG2: u32 = GRANULE_LG2;
    const IOVA_LG2: u32 = GRANULE_LG2 + INDEX_LG2 * Self::LEVELS;
    const OUTPUT_LG2: u32 = OUTPUT_LG2;
    const PAGE_SIZES: PageSizes = PageSizes::new(1 << 12 | 1 << 16 | 1 << 21 | 1 << 25 | 1 << 30 | 1 << 34);
    const COPIES: Copies = Copies::Advancing;
    const DIRTY: u64 = WRITE;

    #[inline]
    fn leaf(phys: PhysAddr, size_lg2: u32, permission: Permission) -> u64 {
        let rights = match permission {
            Permission::Read => READ,
            Permission::Write => WRITE,
            Permission::ReadWrite => READ | WRITE,
            Permission::Neither => 0,
        };
        let level = Self::level_of(size_lg2);
        let kind = if level == Level::LEAF { PAGE_OR_TABLE } else { BLOCK };
        let contiguous = if size_lg2 > Self::item_lg2(level) { CONTIGUOUS } else { 0 };
        phys.get() | contiguous | ACCESS_FLAG | INNER_SHAREABLE | rights | WRITE_BACK | kind
    }

    #[inline]
    fn is_dirty(entry: u64) -> bool {
        entry & (WRITE_MANAGED | WRITE) == WRITE_MANAGED | WRITE
    }

    /// A leaf that can be written is managed by hardware from now on; one that cannot has nothing to record.
    #[inline]
    fn clean(entry: u64) -> u64 {
        if entry & (WRITE_MANAGED | WRITE) == 0 { entry } else { entry & !WRITE | WRITE_MANAGED }
    }

    #[inline]
    fn dirtied(entry: u64) -> u64 {
        if entry & WRITE_MANAGED == 0 { entry } else { entry | WRITE }
    }

    #[inline]
    fn advance(bytes: u64) -> u64 {
        bytes
    }

    #[inline]
    fn table(address: TableAddr, _: Level) -> u64 {
        address.get() | PAGE_OR_TABLE
    }

    #[inline]
    fn decode(entry: u64, level: Level) -> Entry {
        let is_lowest = level == Level::LEAF;
        match entry & TYPE {
            kind if kind & VALID == 0 => Entry::Absent,
            PAGE_OR_TABLE if !is_lowest => {
                Entry::Table { address: TableAddr::new(entry & ADDRESS_MASK), rights: Rights::ALL }
            }
            BLOCK if is_lowest => Entry::Malformed,
            _ if level.get() > HIGHEST_LEAF_LEVEL || entry & ACCESS_FLAG == 0 => Entry::Malformed,
            _ => {
                let more = if entry & CONTIGUOUS == 0 { 0 } else { CONTIGUOUS_LG2 };
                let size_lg2 = Self::item_lg2(level) + more;
                let phys = PhysAddr::new(entry & ADDRESS_MASK & !((1 << size_lg2) - 1));
                Entry::Leaf { phys, size_lg2, rights: Rights::of(entry, READ, WRITE | WRITE_MANAGED) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Iova;

    const EXECUTE_NEVER: u64 = 3 << 53;

    fn leaf(phys: u64, size_lg2: u32, permission: Permission) -> Entry {
        let rights = match permission {
            Permission::Read => Rights::of(READ, READ, WRITE),
            Permission::Write => Rights::of(WRITE, READ, WRITE),
            Permission::ReadWrite => Rights::ALL,
            Permission::Neither => Rights::NONE,
        };
        Entry::Leaf { phys: PhysAddr::new(phys), size_lg2, rights }
    }

    #[test]
    fn worked_example_s1_a_page() {
        let indexes = [(3, 0x24), (2, 0xd1), (1, 0xb3), (0, 0x189)];
        for (level, index) in indexes {
            assert_eq!(ArmS2::index(Iova::new(0x1234_5678_9000), Level::new(level)), index);
        }
        for (level, next) in [(3, 0x3_0020_0000), (2, 0x3_0021_0000), (1, 0x3_0022_0000)] {
            let (level, address) = (Level::new(level), TableAddr::new(next));
            assert_eq!(ArmS2::table(address, level), next | 3);
            assert_eq!(ArmS2::decode(next | 3, level), Entry::Table { address, rights: Rights::ALL });
        }
        let entry = ArmS2::leaf(PhysAddr::new(0xab_cdef_0000), 12, Permission::ReadWrite);
        assert_eq!(entry, 0x0000_00ab_cdef_07ff);
        assert_eq!(ArmS2::decode(entry, Level::LEAF), leaf(0xab_cdef_0000, 12, Permission::ReadWrite));
    }

    #[test]
    fn worked_examples_s2_and_s3_blocks() {
        let block = ArmS2::leaf(PhysAddr::new(0x8040_0000), 21, Permission::Read);
        assert_eq!(block | EXECUTE_NEVER, 0x0060_0000_8040_077d, "S2 forbids execution besides");
        assert_eq!(
            ArmS2::decode(0x0060_0000_8040_077d, Level::new(1)),
            leaf(0x8040_0000, 21, Permission::Read)
        );
        let device = ArmS2::decode(0x0060_0010_0000_06c5, Level::new(2));
        assert_eq!(device, leaf(0x10_0000_0000, 30, Permission::ReadWrite), "S3 is device memory");
    }

    #[test]
    fn worked_example_s4_sixteen_contiguous_pages() {
        let first = ArmS2::leaf(PhysAddr::new(0x8765_0000), 16, Permission::ReadWrite);
        let step = ArmS2::copy_step(Level::LEAF);
        assert_eq!(first, 0x0010_0000_8765_07ff);
        assert_eq!((first + step, first + 15 * step), (0x0010_0000_8765_17ff, 0x0010_0000_8765_f7ff));
        for copy in 0..16 {
            let decoded = ArmS2::decode(first + copy * step, Level::LEAF);
            assert_eq!(decoded, leaf(0x8765_0000, 16, Permission::ReadWrite));
        }
        assert_eq!(ArmS2::index(Iova::new(0x1_0000), Level::LEAF), 16);
    }

    #[test]
    fn worked_example_s7_a_leaf_whose_dirty_state_hardware_manages_can_be_written_dirty_or_clean() {
        let (dirty, clean) = (0x0008_0000_0777_77db, 0x0008_0000_0777_775b);
        for entry in [dirty, clean] {
            assert_eq!(ArmS2::decode(entry, Level::LEAF), leaf(0x777_7000, 12, Permission::ReadWrite));
            assert_eq!((ArmS2::clean(entry), ArmS2::dirtied(entry)), (clean, dirty));
        }
        assert_eq!([dirty, clean].map(ArmS2::is_dirty), [true, false]);
    }

    #[test]
    fn a_leaf_that_cannot_be_written_does_not_become_writable_by_being_cleaned_or_dirtied() {
        let read_only = ArmS2::leaf(PhysAddr::new(0x777_7000), 12, Permission::Read);
        let written = ArmS2::leaf(PhysAddr::new(0x777_7000), 12, Permission::ReadWrite);
        assert_eq!([ArmS2::clean(read_only), ArmS2::dirtied(read_only)], [read_only; 2]);
        assert!(!ArmS2::is_dirty(written), "what is not managed records nothing");
        assert_eq!(ArmS2::clean(written), written & !WRITE | WRITE_MANAGED);
    }

    #[test]
    fn contiguous_blocks_are_larger_leaves_of_their_level() {
        for (size_lg2, level) in [(25, 1), (34, 2)] {
            let entry = ArmS2::leaf(PhysAddr::new(1 << 40), size_lg2, Permission::Write);
            assert_eq!(ArmS2::level_of(size_lg2), Level::new(level));
            assert_eq!(ArmS2::decode(entry, Level::new(level)), leaf(1 << 40, size_lg2, Permission::Write));
        }
    }

    #[test]
    fn what_the_format_forbids_is_malformed_and_what_is_invalid_is_absent() {
        let block = BLOCK | ACCESS_FLAG | READ;
        assert_eq!(ArmS2::decode(block, Level::LEAF), Entry::Malformed, "a block where pages are");
        assert_eq!(ArmS2::decode(block, Level::new(3)), Entry::Malformed, "a block at the top");
        assert_eq!(ArmS2::decode(block & !ACCESS_FLAG, Level::new(1)), Entry::Malformed, "no access flag");
        assert_eq!(ArmS2::decode(!VALID, Level::new(1)), Entry::Absent);
    }
}
