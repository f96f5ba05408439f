//! One walk: from an IOVA through the tables to a frame.
//!
//! The loop is generic over the format; which one it is was chosen when the domain was opened. A walk that ends at memory
//! answers in two words, which fit into registers. One that does not is walked again by the same loop, over tables that
//! note what is read, to say where it ended.
//!
//! A walk can begin at a table on the way that was found before, [`Way`]: it is good for as long as its generation.
//!
//! Imports allowed: units, formats, mapping, the protocol of layout.

use std::cell::Cell;
use std::num::NonZeroU64;

use super::fault::{FaultKind, WalkFault};
use super::open::OpenDomain;
use crate::formats::{Entry, Format, FormatId, FormatVisitor, Level, Rights, TABLE_BYTES, TableAddr};
use crate::layout::protocol::View;
use crate::mapping::Tables;
use crate::units::{Iova, PhysAddr};

/// How the tables of one format are walked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walks {
    /// log2 of the bytes that have a table of [`KEPT_LEVEL`] in common.
    region_lg2: u32,
    to_kept: fn(Tables<'_>, TableAddr, Iova) -> Option<Kept>,
    from_kept: fn(Tables<'_>, Kept, Iova) -> Option<Leaf>,
    to_leaf: fn(Tables<'_>, TableAddr, Iova) -> Option<Leaf>,
    explained: fn(Tables<'_>, TableAddr, Iova) -> WalkFault,
}

/// The level of the tables whose places are kept: two steps from the smallest leaf.
const KEPT_LEVEL: Level = Level::LEAF.above();

/// The way to a table of [`KEPT_LEVEL`] in one word: the rights are where an address of a table has no bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kept(pub(super) u64);

/// A table on the way to some addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    table: TableAddr,
    level: Level,
    /// What all entries before it grant.
    rights: Rights,
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

    /// The number of the region of `iova`: all of it goes through one table of [`KEPT_LEVEL`], or through none.
    #[inline]
    pub(super) const fn region(&self, iova: Iova) -> u64 {
        iova.get() >> self.region_lg2
    }

    /// The first and the last address of that region.
    pub(super) const fn region_around(&self, iova: Iova) -> (Iova, Iova) {
        let last = iova.get() | ((1 << self.region_lg2) - 1);
        (Iova::new(last & !((1 << self.region_lg2) - 1)), Iova::new(last))
    }

    /// The leaf that `iova` leads to by way of the table of its region.
    #[inline]
    pub(super) fn leaf_from(&self, domain: &OpenDomain, kept: Kept, iova: Iova) -> Option<Leaf> {
        (self.from_kept)(domain.arena.tables()?, kept, iova)
    }

    /// The leaf that `iova` leads to from the root, and the way to the table of its region if there is one.
    pub(super) fn leaf(&self, domain: &OpenDomain, iova: Iova) -> Option<(Leaf, Option<Kept>)> {
        let (root, tables) = (domain.header.root, domain.arena.tables());
        let kept = tables.and_then(|tables| (self.to_kept)(tables, root, iova));
        let leaf = tables.and_then(|tables| match kept {
            Some(kept) => (self.from_kept)(tables, kept, iova),
            None => (self.to_leaf)(tables, root, iova),
        });
        leaf.map(|leaf| (leaf, kept))
    }

    /// Why none is reached, by the entry at which a walk ends.
    #[cold]
    pub(super) fn explained(&self, domain: &OpenDomain, iova: Iova) -> WalkFault {
        let found = domain.arena.tables().map(|tables| (self.explained)(tables, domain.header.root, iova));
        let nothing = WalkFault { iova, level: Level::LEAF, entry: 0, kind: FaultKind::Malformed };
        found.unwrap_or(nothing)
    }
}

struct Choose;

impl FormatVisitor for Choose {
    type Output = Walks;

    fn visit<F: Format>(self) -> Walks {
        Walks {
            region_lg2: F::item_lg2(KEPT_LEVEL.above()),
            to_kept: |tables, root, iova| {
                Way::at::<F>(root).down_to::<F>(KEPT_LEVEL, &tables, iova).ok().map(Kept::of)
            },
            from_kept: |tables, kept, iova| kept.way().to_leaf::<F>(&tables, iova).ok(),
            to_leaf: |tables, root, iova| descend::<F>(&tables, root, iova).ok(),
            explained: explained::<F>,
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
    Way::at::<F>(root).to_leaf::<F>(arena, iova)
}

impl Way {
    /// The beginning of every way: the root of tables in format `F`.
    #[must_use]
    pub const fn at<F: Format>(root: TableAddr) -> Self {
        Self { table: root, level: F::ROOT_LEVEL, rights: Rights::ALL }
    }

    /// Follows `iova` to the table of `level`, from one that is not below it.
    ///
    /// # Errors
    /// If there is no such table: with the level of the entry at which the way ends.
    #[inline]
    pub fn down_to<F: Format>(self, level: Level, arena: &impl View, iova: Iova) -> Result<Self, Level> {
        let mut way = self;
        while way.level > level {
            way = match way.step::<F>(arena, iova)? {
                Step::Table(next) => next,
                Step::Leaf(_) => return Err(way.level),
            };
        }
        Ok(way)
    }

    /// Follows `iova` to its leaf.
    ///
    /// # Errors
    /// If there is none, or an entry on the way is not one of the format: with the level of that entry.
    #[inline(always)]
    pub fn to_leaf<F: Format>(self, arena: &impl View, iova: Iova) -> Result<Leaf, Level> {
        let mut way = self;
        for level in (0..=way.level.get()).rev().map(Level::new) {
            way = match (Self { level, ..way }).step::<F>(arena, iova)? {
                Step::Table(next) => next,
                Step::Leaf(leaf) => return Ok(leaf),
            };
        }
        Err(Level::LEAF)
    }

    /// The entry for `iova`. Fails with its level if it is neither a table nor a leaf.
    #[inline(always)]
    fn step<F: Format>(self, arena: &impl View, iova: Iova) -> Result<Step, Level> {
        let level = self.level;
        let offset = self.table.get().wrapping_add(8 * F::index(iova, level) as u64);
        match F::decode(arena.load(offset).ok_or(level)?, level) {
            Entry::Table { address, rights } => {
                let below = level.below().ok_or(level)?;
                Ok(Step::Table(Self {
                    table: address,
                    level: below,
                    rights: self.rights.intersection(rights),
                }))
            }
            Entry::Leaf { phys, size_lg2, rights } => {
                let phys = PhysAddr::new(phys.get() | iova.get() & ((1 << size_lg2) - 1));
                let leaf = Leaf::new(phys, size_lg2, self.rights.intersection(rights));
                leaf.map(Step::Leaf).ok_or(level)
            }
            Entry::Absent | Entry::Malformed => Err(level),
        }
    }
}

impl Kept {
    #[inline]
    const fn of(way: Way) -> Self {
        Self(way.table.get() | way.rights.bits() as u64)
    }

    #[inline]
    const fn way(self) -> Way {
        let table = TableAddr::new(self.0 & !(TABLE_BYTES - 1));
        Way { table, level: KEPT_LEVEL, rights: Rights::of(self.0, 1, 2) }
    }
}

/// Where one entry leads.
enum Step {
    Table(Way),
    Leaf(Leaf),
}

/// Tables that note what is read of them.
struct Noting<'a> {
    tables: Tables<'a>,
    reads: Cell<u32>,
    /// `None` if there is no such word.
    last: Cell<Option<u64>>,
}

impl View for Noting<'_> {
    fn load(&self, offset: u64) -> Option<u64> {
        self.reads.set(self.reads.get() + 1);
        self.last.set(self.tables.load(offset));
        self.last.get()
    }
}

/// The last entry on the way. It may have become a leaf since the walk that did not reach one: nothing was there then.
#[cold]
fn explained<F: Format>(tables: Tables<'_>, root: TableAddr, iova: Iova) -> WalkFault {
    let noting = Noting { tables, reads: Cell::new(0), last: Cell::new(None) };
    let reached = descend::<F>(&noting, root, iova).is_ok();
    let level = Level::new(F::LEVELS.saturating_sub(noting.reads.get()));
    let last = noting.last.get();
    let absent = last.is_some_and(|entry| matches!(F::decode(entry, level), Entry::Absent));
    let kind = if reached || absent { FaultKind::NotPresent } else { FaultKind::Malformed };
    WalkFault { iova, level, entry: last.unwrap_or(0), kind }
}
