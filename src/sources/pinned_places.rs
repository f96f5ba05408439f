//! Which pages of a file one source has pinned, for reports that count each page of a file once.
//!
//! The source writes it where it pins and unpins, a lock and a step in a map for each range and nothing for each page; a
//! report reads it under the same lock.
//!
//! Imports allowed: units, storage's extents and frame_window's key.

use std::sync::Arc;

use ioasd_client::units::IndexRange;
use parking_lot::Mutex;

use crate::storage::extents::Extents;
use crate::storage::frame_window::FileKey;

/// The pages of one file that one source has pinned.
#[derive(Debug)]
pub struct PinnedPlaces {
    file: FileKey,
    pages: Mutex<Extents>,
}

impl PinnedPlaces {
    /// No page of `file`.
    #[must_use]
    pub fn of(file: FileKey) -> Arc<Self> {
        Arc::new(Self { file, pages: Mutex::default() })
    }

    /// Which file.
    #[must_use]
    pub const fn file(&self) -> FileKey {
        self.file
    }

    /// Pages pinned now.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.pages.lock().pages()
    }

    /// Looks at the pages, which cannot change meanwhile: be quick.
    pub fn look<R>(&self, look: impl FnOnce(&Extents) -> R) -> R {
        look(&self.pages.lock())
    }

    /// These pages of the file are pinned.
    pub(crate) fn pinned(&self, range: IndexRange) {
        self.pages.lock().add(range);
    }

    /// These are not any more.
    pub(super) fn unpinned(&self, range: IndexRange) {
        self.pages.lock().remove(range);
    }
}
