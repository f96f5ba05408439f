//! One walk: from an IOVA through the tables to a frame.
//!
//! The loop is generic over the format; which one it is was chosen when the domain was opened. A walk that ends at memory
//! answers in two words, which fit into registers. Only a walk that does not is walked again, to say where it ended.
//!
//! Imports allowed: units, formats, mapping, the protocol of layout.

use std::num::NonZeroU64;

use super::fault::{FaultKind, WalkFault};
use super::open::OpenDomain;
use crate::formats::{Entry, Format, FormatId, FormatVisitor, Level, Rights, TableAddr};
use crate::layout::protocol::View;
use crate::mapping::Tables;
use crate::units::{Iova, PhysAddr};

/// How the tables of one format are walked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walks {
    to_leaf: fn(Tables<'_>, TableAddr, Iova) -> Option<Leaf>,
    to_the_end: fn(Tables<'_>, TableAddr, Iova) -> WalkFault,
}

/// The leaf at the end of a walk.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    phys: PhysAddr,
    /// What all entries on the way grant, and above it the log2 of the leaf's bytes.
    size_and_rights: NonZeroU64,
}

/// Bits of rights.
const RIGHTS_LG2: u32 = 2;

const _: () = assert!(size_of::<Option<Leaf>>() == 16, "a leaf is returned in two registers");

impl Walks {
    /// The walks of tables in `format`.
    pub(super) fn of(format: FormatId) -> Self {
        format.visit(Choose)
    }

    /// The leaf that `iova` leads to.
    #[inline]
    pub(super) fn leaf(&self, domain: &OpenDomain, iova: Iova) -> Result<Leaf, WalkFault> {
        let leaf = domain.arena.tables().and_then(|tables| (self.to_leaf)(tables, domain.header.root, iova));
        leaf.ok_or_else(|| self.fault(domain, iova, None))
    }

    /// What the entry at which a walk ends is reported as: `kind`, or what is wrong with it.
    #[cold]
    pub(super) fn fault(&self, domain: &OpenDomain, iova: Iova, kind: Option<FaultKind>) -> WalkFault {
        let found = domain.arena.tables().map(|tables| (self.to_the_end)(tables, domain.header.root, iova));
        let found = found.unwrap_or_else(|| fault(iova, FaultKind::Malformed));
        WalkFault { kind: kind.unwrap_or(found.kind), ..found }
    }
}

struct Choose;

impl FormatVisitor for Choose {
    type Output = Walks;

    fn visit<F: Format>(self) -> Walks {
        Walks {
            to_leaf: |tables, root, iova| descend::<F>(&tables, root, iova).ok(),
            to_the_end: to_the_end::<F>,
        }
    }
}

impl Leaf {
    #[inline]
    fn new(phys: PhysAddr, size_lg2: u32, rights: Rights) -> Option<Self> {
        let size_and_rights = u64::from(size_lg2) << RIGHTS_LG2 | u64::from(rights.bits());
        NonZeroU64::new(size_and_rights).map(|size_and_rights| Self { phys, size_and_rights })
    }

    /// The address that the IOVA leads to.
    #[inline]
    #[must_use]
    pub const fn phys(&self) -> PhysAddr {
        self.phys
    }

    const fn size_lg2(&self) -> u64 {
        self.size_and_rights.get() >> RIGHTS_LG2
    }

    /// What all entries on the way grant.
    #[inline]
    pub(super) const fn rights(&self) -> Rights {
        Rights::of(self.size_and_rights.get(), 1, 2)
    }

    /// The leaf's bytes from an address in it on.
    #[inline]
    pub(super) const fn left_from(&self, address: u64) -> u64 {
        let size = 1 << self.size_lg2();
        size - (address & (size - 1))
    }

    /// Whether it covers whole pages of 2^`lg2` bytes.
    #[inline]
    pub(super) fn covers_pages_of(&self, lg2: u32) -> bool {
        self.size_lg2() >= u64::from(lg2)
    }
}

/// Follows `iova` from the table at `root` to its leaf.
///
/// # Errors
/// If there is none, or an entry on the way is not one of the format: with the level of that entry.
#[inline]
pub fn descend<F: Format>(arena: &impl View, root: TableAddr, iova: Iova) -> Result<Leaf, Level> {
    let (mut table, mut rights) = (root, Rights::ALL);
    for level in (0..F::LEVELS).rev().map(Level::new) {
        let offset = table.get().wrapping_add(8 * F::index(iova, level) as u64);
        match F::decode(arena.load(offset).ok_or(level)?, level) {
            Entry::Table { address, rights: granted } => {
                (table, rights) = (address, rights.intersection(granted));
            }
            Entry::Leaf { phys, size_lg2, rights: granted } => {
                let phys = PhysAddr::new(phys.get() | iova.get() & ((1 << size_lg2) - 1));
                return Leaf::new(phys, size_lg2, rights.intersection(granted)).ok_or(level);
            }
            Entry::Absent | Entry::Malformed => return Err(level),
        }
    }
    Err(Level::LEAF)
}

/// The last entry on the way. It may have become a leaf since the walk that did not reach one.
fn to_the_end<F: Format>(tables: Tables<'_>, root: TableAddr, iova: Iova) -> WalkFault {
    let (mut table, mut level) = (root, F::ROOT_LEVEL);
    loop {
        let offset = table.get().wrapping_add(8 * F::index(iova, level) as u64);
        let Some(entry) = tables.load(offset) else {
            return WalkFault { iova, level, entry: 0, kind: FaultKind::Malformed };
        };
        let kind = match (F::decode(entry, level), level.below()) {
            (Entry::Table { address, .. }, Some(below)) => {
                (table, level) = (address, below);
                continue;
            }
            (Entry::Absent | Entry::Leaf { .. }, _) => FaultKind::NotPresent,
            (Entry::Table { .. } | Entry::Malformed, _) => FaultKind::Malformed,
        };
        return WalkFault { iova, level, entry, kind };
    }
}

/// A fault before any entry was read.
#[cold]
pub(super) const fn fault(iova: Iova, kind: FaultKind) -> WalkFault {
    WalkFault { iova, level: Level::LEAF, entry: 0, kind }
}
