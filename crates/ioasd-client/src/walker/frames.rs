//! From a frame to a place in a backing file.
//!
//! Imports allowed: units, layout.

use crate::layout::FrameWindow;
use crate::units::{ByteLen, Pfn, PhysAddr};

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

/// The windows of a domain, in the order of their frames.
#[derive(Debug)]
pub(super) struct FrameMap {
    windows: Vec<FrameWindow>,
}

/// A place in a backing file, and how many bytes of its window follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: u32,
    pub(super) offset: ByteLen,
    pub(super) left: ByteLen,
}

impl FrameMap {
    /// A map of `windows` into `files` files.
    pub(super) fn new(mut windows: Vec<FrameWindow>, files: usize) -> Result<Self, WindowsError> {
        windows.sort_unstable_by_key(|window| window.first);
        for window in &windows {
            let FrameWindow { first, file, .. } = *window;
            if !usize::try_from(file).is_ok_and(|file| file < files) {
                return Err(WindowsError::NoSuchFile { first, file, files });
            }
        }
        for (window, next) in windows.iter().zip(windows.iter().skip(1)) {
            if next.first < window.end() {
                return Err(WindowsError::Overlap(next.first));
            }
        }
        Ok(Self { windows })
    }

    /// Where the byte at `phys` lies.
    pub(super) fn locate(&self, phys: PhysAddr) -> Option<Place> {
        let frame = Pfn::containing(phys);
        let behind = self.windows.partition_point(|window| window.first <= frame);
        let window = self.windows.get(behind.checked_sub(1)?)?;
        let (offset, left) = window.locate(phys)?;
        Some(Place { file: window.file, offset, left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::PageIndex;

    fn window(first: u64, pages: u64, file: u32) -> FrameWindow {
        FrameWindow { first: Pfn::new(first), pages, file, file_page: PageIndex::new(0) }
    }

    #[test]
    fn a_frame_is_found_in_its_window_only() {
        let map = FrameMap::new(vec![window(0x200, 2, 1), window(0x100, 0x100, 0)], 2).unwrap();
        let file = |phys| map.locate(PhysAddr::new(phys)).map(|place| (place.file, place.offset.get()));
        assert_eq!(file(0x1f_ffff), Some((0, 0xf_ffff)));
        assert_eq!(file(0x20_0000), Some((1, 0)));
        assert_eq!((file(0x20_2000), file(0xf_ffff), file(0)), (None, None, None));
    }

    #[test]
    fn windows_that_overlap_or_name_no_file_are_refused() {
        let overlap = FrameMap::new(vec![window(0x100, 0x101, 0), window(0x200, 2, 0)], 1);
        assert_eq!(overlap.unwrap_err(), WindowsError::Overlap(Pfn::new(0x200)));
        assert!(matches!(FrameMap::new(vec![window(0, 1, 1)], 1), Err(WindowsError::NoSuchFile { .. })));
    }
}
