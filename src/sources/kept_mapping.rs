//! A client's file mapped once and kept, window by window, for the kernel to pin or lock at.
//!
//! Windows are 1 GiB of the file, made when a page of them is first held and kept as long as a source is over the file:
//! mapping anew would cost more than the pin. hugetlbfs files are mapped no further than they reach, because mapping them
//! further would enlarge them. Which slots were brought in once is remembered; if the client takes pages away again, the
//! pin brings them in by itself, only slower.
//!
//! Imports allowed: units, sys, slots.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use ioasd_client::units::{ByteLen, IndexRange, PAGE_SIZE, PageIndex};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::slots::{SLOT_PAGES, cut_at_slots};
use crate::sys::client_mapping::{ClientMapping, Part};
use crate::sys::failure::SysError;
use crate::sys::file_state::{self, FileAccess};

/// Pages of a window: 1 GiB.
const WINDOW_PAGES: u64 = (1 << 30) / PAGE_SIZE;

/// Slots of a window.
const WINDOW_SLOTS: usize = 512;

/// The mapping of one file.
#[derive(Debug)]
pub(super) struct KeptMapping {
    access: FileAccess,
    windows: Mutex<BTreeMap<u64, Arc<Window>>>,
}

/// One window of it.
#[derive(Debug)]
struct Window {
    mapping: ClientMapping,
    /// Pages of the file.
    pages: IndexRange,
    brought_in: Mutex<[bool; WINDOW_SLOTS]>,
}

/// Pages of the file within one window.
#[derive(Clone, Debug)]
pub(super) struct MappedPart {
    window: Arc<Window>,
    pages: IndexRange,
}

impl KeptMapping {
    /// Nothing is mapped yet.
    pub(super) fn new(access: FileAccess) -> Self {
        Self { access, windows: Mutex::default() }
    }

    /// `range`, pages of the file, as mapped parts within one slot each.
    ///
    /// # Errors
    /// If the kernel refuses to map it; EFAULT beyond the end of a hugetlbfs file.
    pub(super) fn slots(&self, file: BorrowedFd<'_>, range: IndexRange) -> Result<Vec<MappedPart>, SysError> {
        let mut windows = self.windows.lock();
        let parts = cut_at_slots(range).map(|pages| {
            let window = match within(&windows, pages) {
                Some(window) => window,
                None => self.add_window(&mut windows, file, pages)?,
            };
            Ok(MappedPart { window, pages })
        });
        parts.collect()
    }

    /// `range` as mapped parts, if all of it is mapped.
    pub(super) fn mapped(&self, range: IndexRange) -> Option<Vec<MappedPart>> {
        let windows = self.windows.lock();
        let parts =
            cut_at_slots(range).map(|pages| Some(MappedPart { window: within(&windows, pages)?, pages }));
        parts.collect()
    }

    /// Writes `from` to the file, from byte `at` on.
    ///
    /// # Errors
    /// EFAULT beyond the end of the file; what the kernel says.
    pub(super) fn write(&self, file: BorrowedFd<'_>, at: ByteLen, from: &[u8]) -> Result<(), SysError> {
        let Some(last) = (from.len() as u64).checked_sub(1) else { return Ok(()) };
        let last = at.checked_add(last).ok_or(BEYOND)?;
        let pages = IndexRange::new(PageIndex::containing(at), PageIndex::containing(last)).ok_or(BEYOND)?;
        let (mut rest, mut skip) = (from, at.get() % PAGE_SIZE);
        for part in self.slots(file, pages)? {
            let (mapping, place) = part.place();
            let room = ByteLen::new(place.length.get().saturating_sub(skip));
            let offset = ByteLen::new(place.offset.get().saturating_add(skip));
            let here = usize::try_from(room.get()).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at_checked(here).ok_or(BEYOND)?;
            mapping.write(Part { offset, length: room }, now)?;
            (rest, skip) = (later, 0);
        }
        Ok(())
    }

    fn add_window(
        &self,
        windows: &mut BTreeMap<u64, Arc<Window>>,
        file: BorrowedFd<'_>,
        pages: IndexRange,
    ) -> Result<Arc<Window>, SysError> {
        let page = pages.first().get();
        let number = page / WINDOW_PAGES;
        let before =
            windows.range(..=page).next_back().and_then(|(_, window)| window.pages.last().checked_add(1));
        let first = before.map_or(0, PageIndex::get).max(number.saturating_mul(WINDOW_PAGES));
        let behind = number.saturating_add(1).saturating_mul(WINDOW_PAGES).min(mappable_pages(file)?);
        let extent = behind
            .checked_sub(1)
            .and_then(|last| IndexRange::new(PageIndex::new(first), PageIndex::new(last)));
        let extent = extent.filter(|extent| extent.last() >= pages.last()).ok_or(BEYOND)?;
        let mapping = ClientMapping::new(file, bytes(extent, PageIndex::new(0)), self.access)?;
        let window =
            Arc::new(Window { mapping, pages: extent, brought_in: Mutex::new([false; WINDOW_SLOTS]) });
        windows.insert(first, Arc::clone(&window));
        Ok(window)
    }
}

const BEYOND: SysError = SysError::Refused {
    call: "mmap",
    object: "a part of a client's file beyond its end",
    errno: Errno::FAULT,
};

/// How far a file may be mapped: hugetlbfs grows with its mappings, other memory does not.
fn mappable_pages(file: BorrowedFd<'_>) -> Result<u64, SysError> {
    let asked = file_state::huge_page(file).and_then(|huge| match huge {
        Some(_) => file_state::state(file).map(|state| state.size.get() / PAGE_SIZE),
        None => Ok(u64::MAX / PAGE_SIZE),
    });
    asked.map_err(|errno| SysError::Refused { call: "fstat", object: "a client's file", errno })
}

fn within(windows: &BTreeMap<u64, Arc<Window>>, pages: IndexRange) -> Option<Arc<Window>> {
    let (_, window) = windows.range(..=pages.first().get()).next_back()?;
    (window.pages.last() >= pages.last()).then(|| Arc::clone(window))
}

/// `pages` in bytes, counted from page `origin`.
fn bytes(pages: IndexRange, origin: PageIndex) -> Part {
    let offset = pages.first().get().saturating_sub(origin.get());
    let in_bytes = |pages: u64| ByteLen::new(pages.saturating_mul(PAGE_SIZE));
    Part { offset: in_bytes(offset), length: in_bytes(pages.pages()) }
}

impl MappedPart {
    /// Pages of the file.
    pub(super) const fn pages(&self) -> IndexRange {
        self.pages
    }

    /// For the kernel.
    pub(super) fn place(&self) -> (&ClientMapping, Part) {
        (&self.window.mapping, bytes(self.pages, self.window.pages.first()))
    }

    /// Makes `self` longer by `next`, if that follows in the same window.
    fn joined(&self, next: &Self) -> Option<Self> {
        let follows = self.pages.last().checked_add(1) == Some(next.pages.first());
        let joined = IndexRange::new(self.pages.first(), next.pages.last())?;
        (follows && Arc::ptr_eq(&self.window, &next.window))
            .then(|| Self { window: Arc::clone(&self.window), pages: joined })
    }

    fn slot(&self) -> usize {
        usize::try_from(self.pages.first().get() / SLOT_PAGES).unwrap_or(0) % WINDOW_SLOTS
    }

    fn is_in(&self) -> bool {
        self.window.brought_in.lock().get(self.slot()).copied().unwrap_or(false)
    }

    fn note_in(&self) {
        if self.pages.pages() == SLOT_PAGES
            && let Some(noted) = self.window.brought_in.lock().get_mut(self.slot())
        {
            *noted = true;
        }
    }
}

/// Neighbouring parts of a window as one part each.
pub(super) fn joined<'a>(parts: impl Iterator<Item = &'a MappedPart>) -> Vec<MappedPart> {
    let mut list: Vec<MappedPart> = Vec::new();
    for part in parts {
        match list.last_mut().and_then(|last| Some((last.joined(part)?, last))) {
            Some((longer, last)) => *last = longer,
            None => list.push(part.clone()),
        }
    }
    list
}

/// Brings the pages of these slots in, whatever was done before.
///
/// # Errors
/// As [`bring_in`].
pub(super) fn bring_in_anew(parts: &[MappedPart]) -> Result<(), SysError> {
    for run in joined(parts.iter()) {
        let (mapping, part) = run.place();
        mapping.populate(part)?;
    }
    Ok(())
}

/// Brings the pages of these slots in, unless that was done before.
///
/// # Errors
/// EFAULT if the file has been shortened; what else the kernel says.
pub(super) fn bring_in(parts: &[MappedPart]) -> Result<(), SysError> {
    for run in joined(parts.iter().filter(|part| !part.is_in())) {
        let (mapping, part) = run.place();
        mapping.populate(part)?;
    }
    parts.iter().for_each(MappedPart::note_in);
    Ok(())
}
