//! Intel VT-d second-stage tables.
//!
//! Source of the bits: Intel Virtualization Technology for Directed I/O Architecture Specification, section 3.7
//! "Second-Stage Translation" and section 9.8 "Second-Stage Paging Entries".
//!
//! ```text
//!  63 62 61   52 51                     12  11 10 9 8  7 6  2 1 0
//! | -|rs|   -   | address                 |SNP| -|D|A|PS|  - |W|R|
//! ```
//!
//! There is no present bit: an entry is present if it grants reads or writes. `PS` makes an entry of the second or third
//! level a leaf of 2 MiB or 1 GiB; entries of the first level are leaves, entries of the upper levels never.
//!
//! `SNP` is set in every leaf: walkers read memory through the caches of the CPU, whatever a request says.
//!
//! Imports allowed: units, formats.

use super::{Copies, Entry, Format, FormatId, INDEX_LG2, Level, PageSizes, Rights, TableAddr};
use crate::units::{Permission, PhysAddr};

const READ: u64 = 1;
const WRITE: u64 = 1 << 1;
const PAGE_SIZE: u64 = 1 << 7;
const DIRTY: u64 = 1 << 9;
const SNOOP: u64 = 1 << 11;
const GRANULE_LG2: u32 = 12;
const ADDRESS_LG2: u32 = 52;
const ADDRESS_MASK: u64 = ((1 << ADDRESS_LG2) - 1) & !((1 << GRANULE_LG2) - 1);
const RESERVED: u64 = 1 << 62;

/// The highest level that may hold leaves.
const HIGHEST_LEAF_LEVEL: u32 = 2;

/// Second-stage tables of `LEVELS` levels, 3 to 5: 39, 48 or 57 address bits.
#[derive(Clone, Copy, Debug)]
pub struct VtdSs<const LEVELS: u32>;

impl<const LEVELS: u32> Format for VtdSs<LEVELS> {
    const ID: FormatId = FormatId::VtdSs;
    const LEVELS: u32 = LEVELS;
    const GRANULE_LG2: u32 = GRANULE_LG2;
    const IOVA_LG2: u32 = GRANULE_LG2 + INDEX_LG2 * LEVELS;
    const OUTPUT_LG2: u32 = ADDRESS_LG2;
    const PAGE_SIZES: PageSizes = PageSizes::new(1 << 12 | 1 << 21 | 1 << 30);
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
        let large = if size_lg2 > GRANULE_LG2 { PAGE_SIZE } else { 0 };
        phys.get() | large | SNOOP | rights
    }

    #[inline]
    fn advance(bytes: u64) -> u64 {
        bytes
    }

    #[inline]
    fn table(address: TableAddr, _: Level) -> u64 {
        address.get() | READ | WRITE
    }

    #[inline]
    fn decode(entry: u64, level: Level) -> Entry {
        if entry & (READ | WRITE) == 0 {
            return Entry::Absent;
        }
        let rights = Rights::of(entry, READ, WRITE);
        let is_leaf = level == Level::LEAF || entry & PAGE_SIZE != 0;
        let (address, size_lg2) = (entry & ADDRESS_MASK, Self::item_lg2(level));
        match is_leaf {
            false if entry & (RESERVED | SNOOP) == 0 => {
                Entry::Table { address: TableAddr::new(address), rights }
            }
            true if entry & RESERVED == 0
                && level.get() <= HIGHEST_LEAF_LEVEL
                && address & ((1 << size_lg2) - 1) == 0 =>
            {
                Entry::Leaf { phys: PhysAddr::new(address), size_lg2, rights }
            }
            _ => Entry::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::Geometry;
    use crate::units::Iova;

    /// Pointers of a worked example from the top down, then its leaf without `SNP`, `A` and `D`.
    #[track_caller]
    fn check<F: Format>(iova: u64, tables: &[(u32, usize)], leaf: (u64, usize), phys: u64, size_lg2: u32) {
        const NOT_OURS: u64 = SNOOP | 1 << 8 | 1 << 9;
        for (depth, (level, index)) in (1..).zip(tables) {
            let (level, address) = (Level::new(*level), TableAddr::new(0x2_0000_0000 + 0x1000 * depth));
            assert_eq!(F::index(Iova::new(iova), level), *index);
            assert_eq!(F::table(address, level), address.get() | 3);
            assert_eq!(F::decode(address.get() | 3, level), Entry::Table { address, rights: Rights::ALL });
        }
        let ((entry, index), level, phys) = (leaf, F::level_of(size_lg2), PhysAddr::new(phys));
        let rights = Rights::of(entry, READ, WRITE);
        assert_eq!(F::index(Iova::new(iova), level), index);
        assert_eq!(F::decode(entry, level), Entry::Leaf { phys, size_lg2, rights });
        let written = F::leaf(phys, size_lg2, rights.permission().unwrap());
        assert_eq!(written & !NOT_OURS, entry & !NOT_OURS);
    }

    #[test]
    fn worked_examples_v1_to_v5() {
        type Four = VtdSs<4>;
        let tables = [(3, 0x24), (2, 0xd1), (1, 0xb3)];
        check::<Four>(0x1234_5678_9000, &tables, (0x0000_00ab_cdef_0803, 0x189), 0xab_cdef_0000, 12);
        let tables = [(3, 0xff), (2, 0x1ff)];
        check::<Four>(0x7fff_ffe0_0000, &tables, (0x8020_0081, 0x1ff), 0x8020_0000, 21);
        check::<VtdSs<3>>(0x4000_0000, &[], (0x10_8000_0882, 1), 0x10_8000_0000, 30);
        let tables = [(4, 0x1ff), (3, 0), (2, 0), (1, 0)];
        check::<VtdSs<5>>(0x1ff_0000_0000_1000, &tables, (0x0345_6003, 1), 0x345_6000, 12);
        check::<VtdSs<3>>(0x20_1000, &[(2, 0), (1, 1)], (0x0777_7b03, 1), 0x777_7000, 12);
        let whole = Four::leaf(PhysAddr::new(0xab_cdef_0000), 12, Permission::ReadWrite);
        assert_eq!(whole, 0x0000_00ab_cdef_0803, "V1, every bit of it");
        assert_eq!(VtdSs::<3>::leaf(PhysAddr::new(0x10_8000_0000), 30, Permission::Write), 0x10_8000_0882);
    }

    #[test]
    fn entries_that_grant_nothing_are_absent_and_may_hold_anything() {
        assert_eq!(VtdSs::<4>::decode(!3, Level::LEAF), Entry::Absent);
        assert_eq!(VtdSs::<4>::decode(0, Level::new(3)), Entry::Absent);
    }

    #[test]
    fn what_the_format_forbids_is_malformed() {
        let cases = [
            ("a leaf of the fourth level", PAGE_SIZE | READ, 3),
            ("a leaf of the fifth level", PAGE_SIZE | READ, 4),
            ("a 2 MiB leaf that is not aligned", 0x1000 | PAGE_SIZE | READ, 1),
            ("a 1 GiB leaf that is not aligned", 0x20_0000 | PAGE_SIZE | READ, 2),
            ("a reserved bit of a leaf", RESERVED | READ, 0),
            ("a reserved bit of a pointer", RESERVED | READ, 1),
            ("snoop in a pointer", SNOOP | READ, 2),
        ];
        for (name, entry, level) in cases {
            assert_eq!(VtdSs::<5>::decode(entry, Level::new(level)), Entry::Malformed, "{name}");
        }
        assert_eq!(Geometry::of::<VtdSs<5>>().aperture.last(), Iova::new((1 << 57) - 1));
    }
}
