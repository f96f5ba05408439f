//! RISC-V Sv39, Sv48 and Sv57 tables, as a RISC-V IOMMU walks them in its first stage.
//!
//! Source of the bits: RISC-V Privileged Architecture, sections on Sv39, Sv48 and Sv57 in the supervisor chapter, chapters
//! "Svnapot" and "Svpbmt"; RISC-V IOMMU Architecture Specification for the translation process.
//!
//! ```text
//!  63 62 61 60   54 53            10 9 8 7 6 5 4 3 2 1 0
//! | N | PBMT| rsvd | PPN            |RSW|D|A|G|U|X|W|R|V|
//! ```
//!
//! A valid entry without R, W and X points to a table. Every level may hold leaves. With `N`, sixteen neighbours at the
//! lowest level are one leaf of 64 KiB, all the same: the low four bits of their PPN are 1000.
//!
//! What ioasd writes: user pages with A set, and D where writes are allowed, so that nothing is left for hardware to set
//! unless writes are to be recorded;
//! execution is allowed, as iommufd maps. The format has no write without read: a mapping for writes can be read too.
//! Only the lower half of the addresses is given out.
//!
//! Imports allowed: units, formats.

use super::{Copies, Entry, Format, FormatId, INDEX_LG2, Level, PageSizes, Rights, TableAddr};
use crate::units::{Permission, PhysAddr};

const VALID: u64 = 1;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
const EXECUTE: u64 = 1 << 3;
const USER: u64 = 1 << 4;
const ACCESSED: u64 = 1 << 6;
const DIRTY: u64 = 1 << 7;
const PPN_SHIFT: u32 = 10;
const PPN_LG2: u32 = 44;
const PPN_MASK: u64 = ((1 << PPN_LG2) - 1) << PPN_SHIFT;
/// Bits 60 to 54.
const RESERVED: u64 = 0x7f << 54;
const MEMORY_TYPE: u64 = 3 << 61;
const NAPOT: u64 = 1 << 63;
const GRANULE_LG2: u32 = 12;

/// The one size that `N` stands for, and what the low bits of its PPN are.
const NAPOT_LG2: u32 = 16;
const NAPOT_PPN_MASK: u64 = 0xf << PPN_SHIFT;
const NAPOT_PPN: u64 = 0x8 << PPN_SHIFT;

/// What a pointer must not have.
const TABLE_RESERVED: u64 = RESERVED | MEMORY_TYPE | NAPOT | ACCESSED | DIRTY | USER;

/// Tables of `LEVELS` levels, 3 to 5: Sv39, Sv48 or Sv57.
#[derive(Clone, Copy, Debug)]
pub struct RiscV<const LEVELS: u32>;

impl<const LEVELS: u32> RiscV<LEVELS> {
    /// One size a level, and 64 KiB.
    const SIZES: u64 = {
        let (mut sizes, mut level) = (1 << NAPOT_LG2, 0);
        while level < LEVELS {
            sizes |= 1 << (GRANULE_LG2 + INDEX_LG2 * level);
            level += 1;
        }
        sizes
    };
}

impl<const LEVELS: u32> Format for RiscV<LEVELS> {
    const ID: FormatId = if LEVELS == 5 { FormatId::RiscVSv57 } else { FormatId::RiscVSv48 };
    const LEVELS: u32 = LEVELS;
    const GRANULE_LG2: u32 = GRANULE_LG2;
    /// Without the sign bit.
    const IOVA_LG2: u32 = GRANULE_LG2 + INDEX_LG2 * LEVELS - 1;
    const OUTPUT_LG2: u32 = PPN_LG2 + GRANULE_LG2;
    const PAGE_SIZES: PageSizes = PageSizes::new(Self::SIZES);
    const COPIES: Copies = Copies::Identical;
    const DIRTY: u64 = DIRTY;

    #[inline]
    fn leaf(phys: PhysAddr, size_lg2: u32, permission: Permission) -> u64 {
        let rights = match permission {
            Permission::Read => READ,
            Permission::Write | Permission::ReadWrite => READ | WRITE | DIRTY,
            Permission::Neither => 0,
        };
        let napot = if size_lg2 == NAPOT_LG2 { NAPOT | NAPOT_PPN } else { 0 };
        Self::advance(phys.get()) | napot | rights | ACCESSED | USER | EXECUTE | VALID
    }

    #[inline]
    fn advance(bytes: u64) -> u64 {
        bytes >> GRANULE_LG2 << PPN_SHIFT
    }

    #[inline]
    fn table(address: TableAddr, _: Level) -> u64 {
        Self::advance(address.get()) | VALID
    }

    #[inline]
    fn decode(entry: u64, level: Level) -> Entry {
        if entry & VALID == 0 {
            return Entry::Absent;
        }
        if entry & (READ | WRITE | EXECUTE) != 0 {
            return decode_leaf(entry, Self::item_lg2(level), level);
        }
        if level == Level::LEAF || entry & TABLE_RESERVED != 0 {
            return Entry::Malformed;
        }
        Entry::Table { address: TableAddr::new(address(entry)), rights: Rights::ALL }
    }
}

#[inline]
const fn address(entry: u64) -> u64 {
    (entry & PPN_MASK) >> PPN_SHIFT << GRANULE_LG2
}

#[inline]
fn decode_leaf(entry: u64, item_lg2: u32, level: Level) -> Entry {
    let writes_alone = entry & (READ | WRITE) == WRITE;
    if writes_alone || entry & RESERVED != 0 || entry & MEMORY_TYPE == MEMORY_TYPE {
        return Entry::Malformed;
    }
    let rights = rights(entry);
    if entry & NAPOT != 0 {
        if level != Level::LEAF || entry & NAPOT_PPN_MASK != NAPOT_PPN {
            return Entry::Malformed;
        }
        let phys = PhysAddr::new(address(entry) & !((1 << NAPOT_LG2) - 1));
        return Entry::Leaf { phys, size_lg2: NAPOT_LG2, rights };
    }
    let phys = address(entry);
    if phys & ((1 << item_lg2) - 1) != 0 {
        return Entry::Malformed;
    }
    Entry::Leaf { phys: PhysAddr::new(phys), size_lg2: item_lg2, rights }
}

/// Hardware sets D (`GADE`, `SADE`), never A: what lacks A faults. So do pages that are not the user's.
#[inline]
const fn rights(entry: u64) -> Rights {
    if entry & (ACCESSED | USER) != ACCESSED | USER {
        return Rights::NONE;
    }
    Rights::of(entry, READ, WRITE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Geometry;
    use crate::units::Iova;

    type Sv39 = RiscV<3>;
    type Sv48 = RiscV<4>;
    type Sv57 = RiscV<5>;

    /// A worked example: pointers from the top down, then the leaf, compared but for `X` and the memory type.
    #[track_caller]
    fn check<F: Format>(iova: u64, tables: &[(u32, usize)], leaf: (u64, usize), phys: u64, size_lg2: u32) {
        const NOT_OURS: u64 = EXECUTE | MEMORY_TYPE;
        for (depth, (level, index)) in (0..).zip(tables) {
            let (level, address) = (Level::new(*level), TableAddr::new(0x8_0001_0000 + 0x1000 * depth));
            let entry = 0x0000_0002_0000_4001 + 0x400 * depth;
            assert_eq!(F::index(Iova::new(iova), level), *index);
            assert_eq!(F::table(address, level), entry);
            assert_eq!(F::decode(entry, level), Entry::Table { address, rights: Rights::ALL });
        }
        let ((entry, index), level, phys) = (leaf, F::level_of(size_lg2), PhysAddr::new(phys));
        let rights = Rights::of(entry, READ, WRITE);
        assert_eq!(F::index(Iova::new(iova), level), index);
        assert_eq!(F::decode(entry, level), Entry::Leaf { phys, size_lg2, rights });
        let written = F::leaf(phys, size_lg2, rights.permission().unwrap());
        assert_eq!(written & !NOT_OURS, entry & !NOT_OURS, "{written:#x}");
    }

    #[test]
    fn worked_examples_r1_to_r4() {
        let tables = [(2, 0xd1), (1, 0xb3)];
        check::<Sv39>(0x34_5678_9000, &tables, (0x0000_002a_f37b_c0df, 0x189), 0xab_cdef_0000, 12);
        check::<Sv39>(0x1_0000, &[(2, 0), (1, 0)], (0x8000_0000_21d9_60d7, 16), 0x8765_0000, 16);
        let tables = [(3, 0xff), (2, 0x1ff)];
        check::<Sv48>(0x7fff_ffe0_0000, &tables, (0x2008_0053, 0x1ff), 0x8020_0000, 21);
        check::<Sv57>(0x4000_0000, &[(4, 0), (3, 0)], (0x4000_0004_2000_00d7, 1), 0x10_8000_0000, 30);
        let whole = Sv39::leaf(PhysAddr::new(0xab_cdef_0000), 12, Permission::ReadWrite);
        assert_eq!(whole, 0x0000_002a_f37b_c0df, "R1, every bit of it");
    }

    #[test]
    fn worked_examples_r5_to_r7() {
        let wide_root = Sv39::decode(0x0000_0000_01dd_dcd7, Level::LEAF);
        let phys = PhysAddr::new(0x777_7000);
        assert_eq!(
            wide_root,
            Entry::Leaf { phys, size_lg2: 12, rights: Rights::ALL },
            "R5, but for its root"
        );
        let tables = [(2, 0x100), (1, 0)];
        check::<Sv39>(0xffff_ffc0_0000_1000, &tables, (0x0000_0000_048d_145b, 1), 0x1234_5000, 12);
        check::<Sv48>(0x80_0000_0000, &[], (0x0000_0040_0000_00d7, 1), 0x100_0000_0000, 39);
    }

    #[test]
    fn a_mapping_for_writes_can_be_read_too() {
        let entry = Sv48::leaf(PhysAddr::new(0x1000), 12, Permission::Write);
        assert_eq!(entry, Sv48::leaf(PhysAddr::new(0x1000), 12, Permission::ReadWrite));
    }

    #[test]
    fn what_lacks_accessed_or_user_grants_nothing_and_what_lacks_dirty_can_be_written() {
        let full = Sv48::leaf(PhysAddr::new(0x1000), 12, Permission::ReadWrite);
        let granted = |entry| match Sv48::decode(entry, Level::LEAF) {
            Entry::Leaf { rights, .. } => rights.permission(),
            other => panic!("{other:?}"),
        };
        assert_eq!(granted(full & !DIRTY), Some(Permission::ReadWrite));
        assert_eq!((granted(full & !ACCESSED), granted(full & !USER)), (None, None));
        assert_eq!(granted(VALID | EXECUTE | ACCESSED | USER), None);
    }

    #[test]
    fn what_the_format_forbids_is_malformed() {
        let leaf = VALID | READ | USER | ACCESSED;
        let cases = [
            ("a table below the leaves", VALID, 0),
            ("a pointer that was accessed", VALID | ACCESSED, 1),
            ("a pointer with a reserved bit", VALID | 1 << 54, 2),
            ("write without read", VALID | WRITE | USER | ACCESSED, 0),
            ("a memory type that is reserved", leaf | MEMORY_TYPE, 0),
            ("a reserved bit", leaf | 1 << 60, 0),
            ("a superpage that is not aligned", leaf | 1 << PPN_SHIFT, 1),
            ("contiguous above the lowest level", leaf | NAPOT | NAPOT_PPN, 1),
            ("a contiguous size that is reserved", leaf | NAPOT | 4 << PPN_SHIFT, 0),
        ];
        for (name, entry, level) in cases {
            assert_eq!(Sv48::decode(entry, Level::new(level)), Entry::Malformed, "{name}");
        }
        assert_eq!(Sv48::decode(!VALID, Level::LEAF), Entry::Absent);
        assert_eq!(Geometry::of::<Sv48>().aperture.last(), Iova::new((1 << 47) - 1));
    }
}
