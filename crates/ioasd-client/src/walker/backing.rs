//! From a frame to memory: the backing files of a domain, mapped here, as far as they are known.
//!
//! What is known does not change; who learns of another file makes a new [`Backing`] that shares the mappings of the old
//! one. A frame belongs to the same page of the same file under one [`WindowsNumber`]: what was known once stays right until
//! the arena has another one, and then all of it is forgotten.
//!
//! Imports allowed: units, layout, mapping.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::layout::FrameWindow;
use crate::mapping::{Detached, MapAccess, SharedMapping};
use crate::units::{ByteLen, Pfn, PhysAddr};

/// Files kept mapped, at most: those learned of last.
const FILES_MAX: usize = 256;

/// Frames name the same files for as long as the arena has the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WindowsNumber(pub(super) u64);

/// Why a list of windows cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowsError {
    /// Two windows claim a frame.
    #[error("frame {0} belongs to two windows")]
    Overlap(Pfn),
    /// A window of a file that was not passed.
    #[error("the window of frame {first} is in file {file}, but only {files} files were passed")]
    NoSuchFile {
        /// First frame.
        first: Pfn,
        /// The file it names.
        file: u32,
        /// Files there are.
        files: usize,
    },
}

/// Memory for consecutive frames.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// The address of the first frame.
    pub(super) first: u64,
    /// Bytes that are both in the window and mapped.
    pub(super) length: u64,
    /// Where they are mapped.
    pub(super) memory: Detached,
    /// How they are mapped.
    pub(super) access: MapAccess,
    /// The number of the file.
    pub(super) file: u32,
    /// Where they lie in the file.
    pub(super) offset: ByteLen,
}

impl Extent {
    /// No memory.
    pub(super) const NONE: Self = Self {
        first: 0,
        length: 0,
        memory: Detached::NOWHERE,
        access: MapAccess::ReadOnly,
        file: 0,
        offset: ByteLen::new(0),
    };

    /// How far behind the beginning `phys` lies; `None` outside.
    #[inline]
    pub(super) fn distance_to(&self, phys: PhysAddr) -> Option<u64> {
        let into = phys.get().wrapping_sub(self.first);
        (into < self.length).then_some(into)
    }

    /// The part of `window` that lies in `mapping`.
    fn of(window: &FrameWindow, mapping: &SharedMapping) -> Option<Self> {
        let FrameWindow { first, pages, file, file_page } = *window;
        let offset = file_page.byte_offset();
        let mapped = mapping.length().get().checked_sub(offset.get())?;
        let length = mapped.min(pages * crate::units::PAGE_SIZE);
        let slice = mapping.slice(offset, usize::try_from(length).ok()?).ok()?;
        let (memory, access) = (Detached::from(slice), slice.access());
        (length > 0).then_some(Self { first: first.phys().get(), length, memory, access, file, offset })
    }

    const fn last(&self) -> u64 {
        self.first + (self.length - 1)
    }
}

/// The memory of all frames that are known.
#[derive(Debug)]
pub(super) struct Backing {
    /// In the order of their frames. Each lies in a mapping of `files`.
    extents: Vec<Extent>,
    files: BTreeMap<u32, Arc<SharedMapping>>,
    /// Under which all of it is right.
    number: WindowsNumber,
}

impl Backing {
    /// Nothing is known.
    pub(super) const fn nothing(number: WindowsNumber) -> Self {
        Self { extents: Vec::new(), files: BTreeMap::new(), number }
    }

    /// The memory of `windows` into `files`.
    pub(super) fn new(
        windows: &[FrameWindow],
        files: Vec<SharedMapping>,
        number: WindowsNumber,
    ) -> Result<Self, WindowsError> {
        for window in windows {
            let FrameWindow { first, file, .. } = *window;
            if !usize::try_from(file).is_ok_and(|file| file < files.len()) {
                return Err(WindowsError::NoSuchFile { first, file, files: files.len() });
            }
        }
        let files: BTreeMap<_, _> = (0..).zip(files.into_iter().map(Arc::new)).collect();
        let extent = |window: &FrameWindow| Extent::of(window, files.get(&window.file)?);
        let extents = in_order(windows, windows.iter().filter_map(extent).collect())?;
        Ok(Self { extents, files, number })
    }

    /// The number under which it is right.
    pub(super) const fn number(&self) -> WindowsNumber {
        self.number
    }

    /// What is known here and one more file, whose number the windows need not know. What was known of its frames is
    /// replaced.
    pub(super) fn with(&self, windows: &[FrameWindow], file: SharedMapping) -> Result<Self, WindowsError> {
        let number = self.files.last_key_value().map_or(0, |(last, _)| last + 1);
        let windows: Vec<_> = windows.iter().map(|window| FrameWindow { file: number, ..*window }).collect();
        let learned: Vec<_> = windows.iter().filter_map(|window| Extent::of(window, &file)).collect();
        let replaced = |old: &Extent| {
            windows
                .iter()
                .any(|new| old.first < new.end().phys().get() && new.first.phys().get() <= old.last())
        };
        let kept = self.extents.iter().filter(|old| !replaced(old)).copied();
        let extents = in_order(&windows, kept.chain(learned).collect())?;
        let mut files = self.files.clone();
        files.insert(number, Arc::new(file));
        let oldest = files.keys().rev().nth(FILES_MAX - 1).copied().unwrap_or(0);
        let extents: Vec<_> = extents.into_iter().filter(|extent| extent.file >= oldest).collect();
        files.retain(|number, _| extents.iter().any(|extent| extent.file == *number));
        Ok(Self { extents, files, number: self.number })
    }

    /// All memory, with the mappings in which it lies.
    #[cfg(feature = "vm-memory")]
    pub(super) fn extents(&self) -> impl Iterator<Item = (&Extent, &Arc<SharedMapping>)> {
        self.extents.iter().filter_map(|extent| Some((extent, self.files.get(&extent.file)?)))
    }

    /// The memory of the frames around `phys`.
    pub(super) fn find(&self, phys: PhysAddr) -> Option<Extent> {
        let behind = self.extents.partition_point(|extent| extent.first <= phys.get());
        let extent = self.extents.get(behind.checked_sub(1)?)?;
        extent.distance_to(phys).map(|_| *extent)
    }
}

/// `extents` in the order of their frames, unless `windows` contradict each other.
fn in_order(windows: &[FrameWindow], mut extents: Vec<Extent>) -> Result<Vec<Extent>, WindowsError> {
    let mut windows: Vec<_> = windows.iter().collect();
    windows.sort_unstable_by_key(|window| window.first);
    for (window, next) in windows.iter().zip(windows.iter().skip(1)) {
        if next.first < window.end() {
            return Err(WindowsError::Overlap(next.first));
        }
    }
    extents.sort_unstable_by_key(|extent| extent.first);
    Ok(extents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::tests::two_views;
    use crate::units::PageIndex;

    const NUMBER: WindowsNumber = WindowsNumber(0);

    fn window(first: u64, pages: u64, file: u32) -> FrameWindow {
        FrameWindow { first: Pfn::new(first), pages, file, file_page: PageIndex::new(0) }
    }

    fn file(pages: u64) -> SharedMapping {
        two_views(pages << 12).0
    }

    fn find(backing: &Backing, phys: u64) -> Option<(u32, u64)> {
        backing.find(PhysAddr::new(phys)).map(|extent| (extent.file, phys - extent.first))
    }

    #[test]
    fn a_frame_is_found_in_its_window_only_and_as_far_as_the_file_goes() {
        let windows = [window(0x200, 2, 1), window(0x100, 0x100, 0)];
        let backing = Backing::new(&windows, vec![file(0x80), file(2)], NUMBER).unwrap();
        assert_eq!(find(&backing, 0x17_ffff), Some((0, 0x7_ffff)));
        assert_eq!(find(&backing, 0x20_0000), Some((1, 0)));
        assert_eq!([0x18_0000, 0x20_2000, 0xf_ffff, 0].map(|phys| find(&backing, phys)), [None; 4]);
    }

    #[test]
    fn windows_that_overlap_or_name_no_file_are_refused() {
        let overlap = Backing::new(&[window(0x100, 0x101, 0), window(0x200, 2, 0)], vec![file(1)], NUMBER);
        assert_eq!(overlap.unwrap_err(), WindowsError::Overlap(Pfn::new(0x200)));
        assert!(matches!(
            Backing::new(&[window(0, 1, 1)], vec![file(1)], NUMBER),
            Err(WindowsError::NoSuchFile { .. })
        ));
    }

    #[test]
    fn the_files_learned_of_first_are_let_go_first() {
        let mut backing = Backing::nothing(NUMBER);
        for number in 0..=FILES_MAX as u64 {
            backing = backing.with(&[window(number, 1, 0)], file(1)).unwrap();
        }
        assert_eq!((backing.files.len(), find(&backing, 0)), (FILES_MAX, None));
        assert_eq!(find(&backing, 0x1000), Some((1, 0)));
    }

    #[test]
    fn a_file_that_is_learned_again_replaces_what_was_known_of_it() {
        let windows = [window(0x100, 0x100, 0), window(0x400, 0x100, 1)];
        let backing = Backing::new(&windows, vec![file(1), file(1)], NUMBER).unwrap();
        assert_eq!(find(&backing, 0x10_1000), None);
        let grown = backing.with(&[window(0x100, 0x100, 9), window(0x300, 0x100, 0)], file(3)).unwrap();
        assert_eq!((find(&grown, 0x10_1000), find(&grown, 0x30_0000)), (Some((2, 0x1000)), Some((2, 0))));
        assert_eq!(find(&grown, 0x40_0000), Some((1, 0)));
        assert_eq!(grown.files.keys().copied().collect::<Vec<_>>(), [1, 2], "the old mapping is let go");
    }
}
