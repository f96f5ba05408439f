//! Frame windows: which frames are which pages of which backing file.
//!
//! An export names its backing files by number, in the order in which their descriptors travel. On the wire a window is
//! 32 bytes: first frame, pages, file and zero (32 bits each), first page in the file; all little-endian.
//!
//! Imports allowed: units.

use crate::units::{ByteLen, PAGE_SHIFT, PageIndex, Pfn, PhysAddr};

/// Bytes of a window on the wire.
pub const WINDOW_BYTES: usize = 32;

/// No frame, and no page of a file, has this number or one beyond: all bytes can then be counted in 64 bits.
const FRAMES: u64 = u64::MAX >> PAGE_SHIFT;

/// Consecutive frames that are consecutive pages of one backing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameWindow {
    /// First frame.
    pub first: Pfn,
    /// Number of frames, at least 1.
    pub pages: u64,
    /// The backing file, by its number in the export.
    pub file: u32,
    /// The page of the file that the first frame is.
    pub file_page: PageIndex,
}

/// Why 32 bytes are not a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The four bytes behind the file number are not zero.
    #[error("the reserved bytes of a frame window hold {0:#x}, not zero")]
    Reserved(u32),
    /// Empty, or beyond the last frame or page there can be.
    #[error("a frame window of {pages:#x} pages from frame {first} and file page {file_page} cannot be")]
    Extent {
        /// First frame.
        first: Pfn,
        /// Number of frames.
        pages: u64,
        /// First page in the file.
        file_page: PageIndex,
    },
}

impl FrameWindow {
    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; WINDOW_BYTES] {
        let mut bytes = [0; WINDOW_BYTES];
        let words = [self.first.get(), self.pages, u64::from(self.file), self.file_page.get()];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads the bytes on the wire.
    ///
    /// # Errors
    /// If they are not a window.
    pub fn decode(bytes: &[u8; WINDOW_BYTES]) -> Result<Self, WindowError> {
        let (words, _) = bytes.as_chunks::<8>();
        let mut words = words.iter().copied().map(u64::from_le_bytes);
        let mut next = || words.next().unwrap_or_default();
        let (first, pages, file_word, file_page) = (Pfn::new(next()), next(), next(), PageIndex::new(next()));
        let [a, b, c, d, reserved @ ..] = file_word.to_le_bytes();
        if reserved != [0; 4] {
            return Err(WindowError::Reserved(u32::from_le_bytes(reserved)));
        }
        let window = Self { first, pages, file: u32::from_le_bytes([a, b, c, d]), file_page };
        if window.is_possible() { Ok(window) } else { Err(WindowError::Extent { first, pages, file_page }) }
    }

    fn is_possible(&self) -> bool {
        let fits = |from: u64| from.checked_add(self.pages).is_some_and(|end| end <= FRAMES);
        self.pages > 0 && fits(self.first.get()) && fits(self.file_page.get())
    }

    /// The frame behind the last one.
    #[must_use]
    pub const fn end(&self) -> Pfn {
        Pfn::new(self.first.get() + self.pages)
    }

    /// Where in the file the byte at `phys` lies and how many bytes of the window follow from there; `None` outside.
    #[must_use]
    pub fn locate(&self, phys: PhysAddr) -> Option<(ByteLen, ByteLen)> {
        let into = phys.get().checked_sub(self.first.phys().get())?;
        let left = (self.pages << PAGE_SHIFT).checked_sub(into).filter(|left| *left > 0)?;
        Some((ByteLen::new(self.file_page.byte_offset().get() + into), ByteLen::new(left)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window() -> FrameWindow {
        FrameWindow { first: Pfn::new(0x100), pages: 4, file: 7, file_page: PageIndex::new(9) }
    }

    #[test]
    fn a_window_survives_the_wire() {
        let bytes = window().encode();
        assert_eq!(FrameWindow::decode(&bytes), Ok(window()));
        assert_eq!((bytes[0], bytes[1], bytes[8], bytes[16], bytes[24]), (0, 1, 4, 7, 9));
    }

    #[test]
    fn an_address_is_located_only_within() {
        let at = |phys| window().locate(PhysAddr::new(phys));
        assert_eq!(at(0x10_0000), Some((ByteLen::new(0x9000), ByteLen::new(0x4000))));
        assert_eq!(at(0x10_3fff), Some((ByteLen::new(0xcfff), ByteLen::new(1))));
        assert_eq!((at(0xf_ffff), at(0x10_4000)), (None, None));
    }

    #[test]
    fn windows_that_cannot_be_are_refused() {
        let refused = |change: fn(&mut FrameWindow)| {
            let mut window = window();
            change(&mut window);
            FrameWindow::decode(&window.encode()).is_err()
        };
        assert!(refused(|window| window.pages = 0));
        assert!(refused(|window| window.pages = u64::MAX));
        assert!(refused(|window| window.first = Pfn::new(FRAMES - 3)));
        assert!(refused(|window| window.file_page = PageIndex::new(u64::MAX)));
        let mut bytes = window().encode();
        bytes[20] = 1;
        assert_eq!(FrameWindow::decode(&bytes), Err(WindowError::Reserved(1)));
    }
}
