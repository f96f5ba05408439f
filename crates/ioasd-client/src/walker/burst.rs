//! Bursts: short times in which translations stay good, and everything that can be done in them.
//!
//! Imports allowed: units, the parts of this folder.

use std::iter::FusedIterator;

use super::fault::{FaultKind, WalkFault};
use super::log::{DirtyLog, Writes};
use super::reach::HostSlice;
use super::stream::{Access, Generation, Stream};
use super::walk::Leaf;
use crate::formats::{Level, Rights};
use crate::layout::protocol;
use crate::mapping::{MapAccess, SharedSlice};
use crate::units::{ByteLen, Iova, IovaRange, PAGE_SHIFT, PAGE_SIZE, Permission, PhysAddr};

/// A short time in which translations stay good. Ends when dropped.
#[derive(Debug)]
pub struct Burst<'a> {
    pub(super) stream: &'a Stream,
    /// The generation of the tables; `None` if nobody serves them any more.
    pub(super) generation: Option<Generation>,
    /// The addresses that may be walked.
    pub(super) translated: Translated,
    /// Whether what is written is logged.
    pub(super) writes: Writes,
}

/// The aperture of a domain that is served: none of one that is not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Translated {
    start: u64,
    length: u64,
}

impl Translated {
    /// No aperture reaches to the end of 64 bits, so that its length is a number.
    #[inline]
    pub(super) const fn new(aperture: IovaRange, generation: Option<Generation>) -> Self {
        let length = if generation.is_some() { aperture.length().get() } else { 0 };
        Self { start: aperture.start().get(), length }
    }

    const fn has(self, iova: Iova) -> bool {
        iova.get().wrapping_sub(self.start) < self.length
    }
}

/// Where an IOVA leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The address in the space of frames.
    pub phys: PhysAddr,
    /// The backing file, by its number in the export; files learned of later have higher numbers.
    pub file: u32,
    /// The offset in the file.
    pub offset: ByteLen,
    /// How many bytes follow there, at most as many as asked for.
    pub length: ByteLen,
    /// What is allowed.
    pub permission: Permission,
}

impl Burst<'_> {
    /// The generation of this burst: translations kept from an earlier one are good if theirs is the same. `None` if nobody
    /// serves the domain any more.
    #[must_use]
    pub const fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// The memory behind the `length` bytes at `iova`, piece by piece: what does not lie together comes apart. Ends with
    /// the first fault.
    #[inline]
    #[must_use]
    pub const fn translate(&self, iova: Iova, length: ByteLen, access: Access) -> Slices<'_> {
        Slices { burst: self, at: Some(iova), left: length.get(), access }
    }

    /// The first piece of the memory behind the `length` bytes at `iova`: at most so many, at least one unless `length`
    /// is 0.
    ///
    /// # Errors
    /// If the first byte cannot be reached by this access.
    #[inline(always)]
    pub fn slice(&self, iova: Iova, length: ByteLen, access: Access) -> Result<HostSlice<'_>, WalkFault> {
        match self.remembered(iova, length, access) {
            Some(found) => Ok(found),
            None => self.by_tables(iova, length, access),
        }
    }

    /// The same, whatever is remembered. Inlined, so that its answer need not go through memory.
    ///
    /// # Errors
    /// If the first byte cannot be reached by this access.
    #[inline(always)]
    pub fn by_tables(&self, iova: Iova, length: ByteLen, access: Access) -> Result<HostSlice<'_>, WalkFault> {
        let leaf = self.leaf(iova, access)?;
        if self.stream.reach.remembers() && length.get() > 0 && leaf.covers_pages_of(PAGE_SHIFT) {
            self.remember(iova, leaf, access);
        }
        let memory = self.stream.reach.memory(leaf.phys());
        let memory = memory.ok_or_else(|| self.fault(iova, access, FaultKind::NotExported))?;
        self.check(iova, access, leaf.rights(), memory.access())?;
        let left = leaf.left_from(iova.get()).min(length.get());
        let memory = memory.first(at_most(ByteLen::new(left)));
        self.note(iova, memory.len() as u64, access);
        Ok(HostSlice::new(memory, leaf.rights(), access))
    }

    /// The same, if it is remembered; without an IOTLB nothing is. Needs neither the tables nor a stack.
    #[inline(always)]
    #[must_use]
    pub fn remembered(&self, iova: Iova, length: ByteLen, access: Access) -> Option<HostSlice<'_>> {
        Some(self.stream.reach.recall(iova, access)?.first(at_most(length)))
    }

    /// Where the `length` bytes at `iova`, or the first of them, lie in the backing files.
    ///
    /// # Errors
    /// If the first byte cannot be reached by this access.
    pub fn locate(&self, iova: Iova, length: ByteLen, access: Access) -> Result<Translation, WalkFault> {
        let leaf = self.leaf(iova, access)?;
        let extent = self.stream.reach.extent(leaf.phys());
        let (extent, into) = extent.ok_or_else(|| self.fault(iova, access, FaultKind::NotExported))?;
        self.check(iova, access, leaf.rights(), extent.access)?;
        let left = leaf.left_from(iova.get()).min(extent.length - into).min(length.get());
        let permission = leaf.rights().permission();
        let permission = permission.ok_or_else(|| self.fault(iova, access, FaultKind::Permission))?;
        self.note(iova, left, access);
        Ok(Translation {
            phys: leaf.phys(),
            file: extent.file,
            offset: ByteLen::new(extent.offset.get() + into),
            length: ByteLen::new(left),
            permission,
        })
    }

    /// Copies the bytes at `iova` into `into`. Bytes that others change meanwhile may arrive old or new.
    ///
    /// # Errors
    /// At the first byte that cannot be read; those before it are copied.
    pub fn read(&self, iova: Iova, into: &mut [u8]) -> Result<(), WalkFault> {
        let mut rest = into;
        for piece in self.translate(iova, ByteLen::new(rest.len() as u64), Access::Read) {
            let copied = piece?.memory.copy_out(rest);
            rest = rest.split_at_mut(copied).1;
        }
        Ok(())
    }

    /// Copies `from` to the bytes at `iova`.
    ///
    /// # Errors
    /// At the first byte that cannot be written; those before it are copied.
    pub fn write(&self, iova: Iova, from: &[u8]) -> Result<(), WalkFault> {
        let mut rest = from;
        for piece in self.translate(iova, ByteLen::new(rest.len() as u64), Access::Write) {
            let piece = piece?.memory;
            let copied =
                piece.copy_in(rest).unwrap_or_else(|_| unreachable!("it was asked for to be written"));
            rest = rest.split_at(copied).1;
        }
        Ok(())
    }

    /// Remembers the whole page of `iova`, which lies in one leaf.
    fn remember(&self, iova: Iova, leaf: Leaf, access: Access) {
        let skipped = iova.get() & (PAGE_SIZE - 1);
        if let Some(memory) = self.stream.reach.memory(PhysAddr::new(leaf.phys().get() - skipped)) {
            let memory = memory.first(at_most(ByteLen::new(leaf.left_from(iova.get() - skipped))));
            self.stream.reach.remember(iova, self.logged_part(memory, access), leaf.rights());
        }
    }

    /// What may be remembered of memory that is accessed at its first page: to be written only what is in the log by then.
    fn logged_part<'m>(&self, memory: SharedSlice<'m>, access: Access) -> SharedSlice<'m> {
        match (self.log(), access) {
            (None, _) => memory,
            (Some(log), Access::Write) if log.is_of_pages() => memory.first(at_most(ByteLen::new(PAGE_SIZE))),
            (Some(_), _) => memory.read_only(),
        }
    }

    /// The log, if what is written is to be found there.
    #[inline]
    fn log(&self) -> Option<&DirtyLog> {
        match self.writes {
            Writes::Unlogged => None,
            Writes::Logged => self.stream.domain().log.as_ref(),
        }
    }

    /// Memory is about to be given out: the one place where what is written is logged.
    #[inline]
    fn note(&self, iova: Iova, length: u64, access: Access) {
        if let (Access::Write, Some(log)) = (access, self.log()) {
            log.note(iova, length);
        }
    }

    /// The leaf of `iova`. A way that is remembered is one within the aperture of a domain that is served.
    #[inline(always)]
    fn leaf(&self, iova: Iova, access: Access) -> Result<Leaf, WalkFault> {
        let domain = self.stream.domain();
        let way = self.stream.reach.way(domain.walks.region(iova));
        match way.and_then(|way| domain.walks.leaf_from(domain, way, iova)) {
            Some(leaf) => Ok(leaf),
            None => self.leaf_from_the_root(iova, access),
        }
    }

    #[inline(never)]
    fn leaf_from_the_root(&self, iova: Iova, access: Access) -> Result<Leaf, WalkFault> {
        if !self.translated.has(iova) {
            return Err(self.untranslated(iova, access));
        }
        let domain = self.stream.domain();
        let found = domain.walks.leaf(domain, iova);
        let (leaf, way) = found.ok_or_else(|| self.missed(iova, access))?;
        let (first, last) = domain.walks.region_around(iova);
        if let Some(way) = way
            && self.translated.has(first)
            && self.translated.has(last)
        {
            self.stream.reach.remember_way(domain.walks.region(iova), way);
        }
        Ok(leaf)
    }

    /// `iova` is not walked at all.
    #[cold]
    fn untranslated(&self, iova: Iova, access: Access) -> WalkFault {
        let dead = self.generation.is_none();
        let kind = if dead { FaultKind::Dead } else { FaultKind::OutsideAperture };
        self.stream.told(access, WalkFault { iova, level: Level::LEAF, entry: 0, kind })
    }

    /// The walk did not reach a leaf.
    #[cold]
    fn missed(&self, iova: Iova, access: Access) -> WalkFault {
        let domain = self.stream.domain();
        self.stream.told(access, domain.walks.explained(domain, iova))
    }

    /// What the tables do not allow is a fault of permission; what only the file does not, one of the export.
    #[inline]
    fn check(&self, iova: Iova, access: Access, rights: Rights, mapped: MapAccess) -> Result<(), WalkFault> {
        if access.is_allowed(rights, mapped) {
            return Ok(());
        }
        let writable = access == Access::Write && rights.can_write();
        Err(self.fault(iova, access, if writable { FaultKind::NotExported } else { FaultKind::Permission }))
    }

    /// The leaf of `iova` does not lead to memory.
    #[cold]
    fn fault(&self, iova: Iova, access: Access, kind: FaultKind) -> WalkFault {
        let domain = self.stream.domain();
        self.stream.told(access, WalkFault { kind, ..domain.walks.explained(domain, iova) })
    }
}

/// `length`, or as much as there can be.
#[inline]
fn at_most(length: ByteLen) -> usize {
    usize::try_from(length.get()).unwrap_or(usize::MAX)
}

impl Drop for Burst<'_> {
    #[inline]
    fn drop(&mut self) {
        protocol::leave(self.stream.slot_word());
    }
}

/// The pieces of a range; see [`Burst::translate`].
#[derive(Clone, Debug)]
pub struct Slices<'b> {
    burst: &'b Burst<'b>,
    /// `None` behind the last address there is.
    at: Option<Iova>,
    left: u64,
    access: Access,
}

impl<'b> Iterator for Slices<'b> {
    type Item = Result<HostSlice<'b>, WalkFault>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let piece = match self.at {
            Some(at) => self.burst.slice(at, ByteLen::new(self.left), self.access),
            None => Err(self.burst.untranslated(Iova::new(u64::MAX), self.access)),
        };
        let length = piece.as_ref().map_or(self.left, |piece| piece.memory.len() as u64);
        self.left -= length;
        self.at = self.at.and_then(|at| at.checked_add(length));
        Some(piece)
    }
}

impl FusedIterator for Slices<'_> {}
