//! What a stream can reach: memory behind frames, and what it remembers of IOVAs.
//!
//! Addresses of memory are kept here in two places, the extent used last and the IOTLB. Both are of mappings that the
//! backing holds; a stream that gets another backing forgets both. Beside them lie the places of tables, in the walk cache.
//!
//! Imports allowed: units, formats, mapping, the parts of this folder.
#![expect(unsafe_code, reason = "addresses outlive the borrow under which they were found")]

use std::cell::Cell;
use std::sync::Arc;

use super::backing::{Backing, Extent, WindowsNumber};
use super::era::{Era, Turn};
use super::iotlb::{Iotlb, Remembered};
use super::stream::{Access, Generation};
use super::walk::Kept;
use super::walk_cache::WalkCache;
use crate::formats::Rights;
use crate::mapping::{Detached, MapAccess, SharedSlice};
use crate::units::{Iova, PAGE_SIZE, Permission, PhysAddr};

/// Memory that an IOVA leads to, for as long as the burst in which it was found.
#[derive(Clone, Copy, Debug)]
pub struct HostSlice<'b> {
    /// The bytes. They can be stored to if the slice was asked for to be written.
    pub memory: SharedSlice<'b>,
    rights: Rights,
}

impl<'b> HostSlice<'b> {
    /// The memory, restricted to what it was asked for. `rights` include that.
    #[inline]
    pub(super) const fn new(memory: SharedSlice<'b>, rights: Rights, access: Access) -> Self {
        let memory = match access {
            Access::Read => memory.read_only(),
            Access::Write => memory,
        };
        Self { memory, rights }
    }

    /// The first `length` bytes, or all if there are fewer.
    #[inline]
    #[must_use]
    pub fn first(self, length: usize) -> Self {
        Self { memory: self.memory.first(length), ..self }
    }

    /// What the tables allow, as bits.
    #[inline]
    #[must_use]
    pub const fn rights(&self) -> Rights {
        self.rights
    }

    /// What the tables allow.
    #[must_use]
    pub fn permission(&self) -> Permission {
        self.rights
            .permission()
            .unwrap_or_else(|| unreachable!("a slice is given out only for what is granted"))
    }
}

/// See above.
#[derive(Debug)]
pub(super) struct Reach {
    backing: Arc<Backing>,
    /// That of the backing.
    windows: WindowsNumber,
    recent: Cell<Extent>,
    era: Era,
    walk_cache: WalkCache,
    iotlb: Option<Iotlb>,
}

impl Reach {
    pub(super) fn new(backing: Arc<Backing>) -> Self {
        let (recent, walk_cache) = (Cell::new(Extent::NONE), WalkCache::new());
        let windows = backing.number();
        Self { backing, windows, recent, era: Era::first(), walk_cache, iotlb: None }
    }

    pub(super) const fn backing(&self) -> &Arc<Backing> {
        &self.backing
    }

    /// Uses another backing. Nothing found in the old one is in use any more, because `self` is not borrowed.
    pub(super) fn replace(&mut self, backing: Arc<Backing>) {
        self.recent.set(Extent::NONE);
        let turn = self.era.end();
        self.turn(turn);
        self.windows = backing.number();
        self.backing = backing;
    }

    /// Frames may name other files from here on.
    #[cold]
    fn forget_files(&mut self, windows: WindowsNumber) {
        self.replace(Arc::new(Backing::nothing(windows)));
    }

    pub(super) fn add_iotlb(&mut self) {
        self.iotlb.get_or_insert_with(Iotlb::new);
    }

    /// A burst begins, see [`Era::begin`]; the arena has this number of windows.
    #[inline]
    pub(super) fn begin(&mut self, generation: Option<Generation>, windows: WindowsNumber) {
        let turn = self.era.begin(generation);
        self.turn(turn);
        if windows != self.windows {
            self.forget_files(windows);
        }
    }

    #[inline]
    fn turn(&self, turn: Turn) {
        if turn == Turn::Around {
            self.walk_cache.clear();
            self.iotlb.iter().for_each(Iotlb::clear);
        }
    }

    /// The way to the table of `region` in this generation, if that is remembered.
    #[inline]
    pub(super) fn way(&self, region: u64) -> Option<Kept> {
        self.walk_cache.find(region, self.era.number())
    }

    /// Remembers it.
    #[inline]
    pub(super) fn remember_way(&self, region: u64, way: Kept) {
        self.walk_cache.remember(region, self.era.number(), way);
    }

    /// What `iova` led to in this generation, if that is remembered and allows the access.
    #[inline(always)]
    pub(super) fn recall(&self, iova: Iova, access: Access) -> Option<HostSlice<'_>> {
        let line = self.iotlb.as_ref()?.find(iova, self.era.number())?;
        if !access.is_allowed(line.rights, line.access) {
            return None;
        }
        // SAFETY: a line that is found was made since the backing was last replaced, of a slice with this length and
        // access in a mapping of the backing, which lives as long as `self` is borrowed.
        let page = unsafe { line.memory.attach(line.length as usize, line.access) };
        let memory = page.behind(usize::try_from(iova.get() & (PAGE_SIZE - 1)).ok()?)?;
        if memory.is_empty() {
            return None;
        }
        Some(HostSlice::new(memory, line.rights, access))
    }

    /// The extent around `phys`, and how far into it.
    #[inline]
    pub(super) fn extent(&self, phys: PhysAddr) -> Option<(Extent, u64)> {
        let recent = self.recent.get();
        if let Some(into) = recent.distance_to(phys) {
            return Some((recent, into));
        }
        let extent = self.backing.find(phys)?;
        self.recent.set(extent);
        Some((extent, extent.distance_to(phys)?))
    }

    /// The memory of the frames from `phys` on.
    #[inline]
    pub(super) fn memory(&self, phys: PhysAddr) -> Option<SharedSlice<'_>> {
        let (extent, into) = self.extent(phys)?;
        // SAFETY: the extent is of the backing, whose mappings live as long as `self` is borrowed, and has this length
        // and access.
        let whole = unsafe { extent.memory.attach(usize::try_from(extent.length).ok()?, extent.access) };
        whole.behind(usize::try_from(into).ok()?)
    }

    /// Remembers that the page of `iova` is the beginning of `page`.
    #[inline]
    pub(super) fn remember(&self, iova: Iova, page: SharedSlice<'_>, rights: Rights) {
        if let Some(iotlb) = &self.iotlb {
            let (memory, length, access) = (Detached::from(page), page.len(), page.access());
            iotlb.remember(iova, self.era.number(), Remembered { memory, length, rights, access });
        }
    }

    /// Whether pages are remembered.
    #[inline]
    pub(super) const fn remembers(&self) -> bool {
        self.iotlb.is_some()
    }
}

impl Access {
    /// Whether tables and mapping allow it.
    #[inline]
    pub(super) fn is_allowed(self, rights: Rights, mapped: MapAccess) -> bool {
        match self {
            Self::Read => rights.can_read(),
            Self::Write => rights.can_write() && mapped == MapAccess::ReadWrite,
        }
    }
}
