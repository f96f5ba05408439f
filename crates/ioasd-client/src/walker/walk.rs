//! One walk: from an IOVA through the tables to a place in a backing file.
//!
//! The loop is generic over the format; which one it is was chosen when the domain was opened.
//!
//! Imports allowed: units, formats.

use super::fault::{FaultKind, WalkFault};
use super::open::OpenDomain;
use super::stream::{Access, Translation};
use crate::formats::{Entry, Format, FormatId, FormatVisitor, Level, Rights};
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
        |walk| walk.descend::<F>()
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
pub(super) struct Leaf {
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
        let fault = |kind| self.fault(leaf.level, leaf.entry, kind);
        let permission = leaf.rights.permission().filter(|permission| access.is_allowed(*permission));
        let permission = permission.ok_or_else(|| fault(FaultKind::Permission))?;
        let place = self.domain.frames.locate(leaf.phys).ok_or_else(|| fault(FaultKind::NotExported))?;
        let in_file =
            self.domain.bytes_left(place.file, place.offset).ok_or_else(|| fault(FaultKind::NotExported))?;
        let length = length.min(place.left).min(in_file).min(ByteLen::new(leaf.left));
        Ok(Translation { file: place.file, offset: place.offset, length, permission })
    }

    fn descend<F: Format>(self) -> Result<Leaf, WalkFault> {
        let (mut table, mut level, mut rights) = (self.domain.header.root, F::ROOT_LEVEL, Rights::ALL);
        loop {
            let offset = table.get().wrapping_add(8 * F::index(self.iova, level) as u64);
            let Some(entry) = self.domain.arena.load(offset) else {
                return Err(self.fault(level, 0, FaultKind::Malformed));
            };
            match (F::decode(entry, level), level.below()) {
                (Entry::Table { address, rights: granted }, Some(below)) => {
                    (table, level, rights) = (address, below, rights.intersection(granted));
                }
                (Entry::Leaf { phys, size_lg2, rights: granted }, _) => {
                    let within = self.iova.get() & ((1 << size_lg2) - 1);
                    let (phys, left) = (PhysAddr::new(phys.get() | within), (1 << size_lg2) - within);
                    return Ok(Leaf { level, entry, phys, left, rights: rights.intersection(granted) });
                }
                (Entry::Absent, _) => return Err(self.fault(level, entry, FaultKind::NotPresent)),
                _ => return Err(self.fault(level, entry, FaultKind::Malformed)),
            }
        }
    }

    #[cold]
    fn fault(self, level: Level, entry: u64, kind: FaultKind) -> WalkFault {
        WalkFault { iova: self.iova, level, entry, kind }
    }
}

/// A fault before any entry was read.
#[cold]
pub(super) const fn fault(iova: Iova, kind: FaultKind) -> WalkFault {
    WalkFault { iova, level: Level::LEAF, entry: 0, kind }
}
