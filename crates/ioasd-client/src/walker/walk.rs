//! One walk: from an IOVA through the tables to a place in a backing file.
//!
//! The loop is generic over the format; which one it is was chosen when the domain was opened.
//!
//! Imports allowed: units, formats, the protocol of layout.

use super::fault::{FaultKind, WalkFault};
use super::open::OpenDomain;
use super::stream::{Access, Translation};
use crate::formats::{Entry, Format, FormatId, FormatVisitor, Level, Rights, TableAddr};
use crate::layout::protocol::View;
use crate::units::{ByteLen, Iova, PhysAddr};

/// How the tables of one format are walked.
pub(super) type WalkFn = fn(Walk<'_>) -> Result<Leaf, WalkFault>;

/// The walk of tables in `format`.
pub(super) fn walk_of(format: FormatId) -> WalkFn {
    format.visit(Choose)
}

struct Choose;

impl FormatVisitor for Choose {
    type Output = WalkFn;

    fn visit<F: Format>(self) -> WalkFn {
        |Walk { domain, iova }| descend::<F>(&domain.arena, domain.header.root, iova)
    }
}

/// One walk.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) domain: &'a OpenDomain,
    pub(super) iova: Iova,
}

/// The leaf at the end of a walk.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    level: Level,
    entry: u64,
    phys: PhysAddr,
    left: u64,
    rights: Rights,
}

impl Walk<'_> {
    #[inline]
    pub(super) fn translate(self, length: ByteLen, access: Access) -> Result<Translation, WalkFault> {
        let header = &self.domain.header;
        if !header.geometry.aperture.contains(self.iova) {
            return Err(fault(self.iova, FaultKind::OutsideAperture));
        }
        let leaf = (self.domain.walk)(self)?;
        let fault = |kind| fault_at(self.iova, leaf.level, leaf.entry, kind);
        let permission = leaf.rights.permission().filter(|permission| access.is_allowed(*permission));
        let permission = permission.ok_or_else(|| fault(FaultKind::Permission))?;
        let place = self.domain.frames.locate(leaf.phys).ok_or_else(|| fault(FaultKind::NotExported))?;
        let in_file =
            self.domain.bytes_left(place.file, place.offset).ok_or_else(|| fault(FaultKind::NotExported))?;
        let length = length.min(place.left).min(in_file).min(ByteLen::new(leaf.left));
        Ok(Translation { file: place.file, offset: place.offset, length, permission })
    }
}

impl Leaf {
    /// The address that the IOVA leads to.
    #[must_use]
    pub const fn phys(&self) -> PhysAddr {
        self.phys
    }
}

/// Follows `iova` from the table at `root` to its leaf.
///
/// # Errors
/// If there is none, or an entry on the way is not one of the format.
pub fn descend<F: Format>(arena: &impl View, root: TableAddr, iova: Iova) -> Result<Leaf, WalkFault> {
    let (mut table, mut level, mut rights) = (root, F::ROOT_LEVEL, Rights::ALL);
    loop {
        let offset = table.get().wrapping_add(8 * F::index(iova, level) as u64);
        let Some(entry) = arena.load(offset) else {
            return Err(fault_at(iova, level, 0, FaultKind::Malformed));
        };
        match (F::decode(entry, level), level.below()) {
            (Entry::Table { address, rights: granted }, Some(below)) => {
                (table, level, rights) = (address, below, rights.intersection(granted));
            }
            (Entry::Leaf { phys, size_lg2, rights: granted }, _) => {
                let within = iova.get() & ((1 << size_lg2) - 1);
                let (phys, left) = (PhysAddr::new(phys.get() | within), (1 << size_lg2) - within);
                return Ok(Leaf { level, entry, phys, left, rights: rights.intersection(granted) });
            }
            (Entry::Absent, _) => return Err(fault_at(iova, level, entry, FaultKind::NotPresent)),
            _ => return Err(fault_at(iova, level, entry, FaultKind::Malformed)),
        }
    }
}

#[cold]
const fn fault_at(iova: Iova, level: Level, entry: u64, kind: FaultKind) -> WalkFault {
    WalkFault { iova, level, entry, kind }
}

/// A fault before any entry was read.
#[cold]
pub(super) const fn fault(iova: Iova, kind: FaultKind) -> WalkFault {
    fault_at(iova, Level::LEAF, 0, kind)
}
