//! What a source of files asks of the agent's frame space.
//!
//! Imports allowed: units, storage::frame_window.

use ioasd_client::units::{PageIndex, Pfn};

use crate::storage::frame_window::{FileKey, FrameError};

/// The frame space, shared by all sources.
pub trait Frames: Send + Sync {
    /// The frame of page `first` of `file`, and how many of `pages` pages from there have consecutive frames: at least
    /// one. The same page has the same frame as long as the file is retained.
    ///
    /// # Errors
    /// If there are no frames left, or the file is not retained.
    fn run(&self, file: FileKey, first: PageIndex, pages: u64) -> Result<(Pfn, u64), FrameError>;

    /// A descriptor of `file` is held from now on.
    fn retain(&self, file: FileKey);

    /// One descriptor of `file` less is held.
    fn release(&self, file: FileKey);
}
