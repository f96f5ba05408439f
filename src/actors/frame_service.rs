//! The frame space of the agent, shared by all file sources.
//!
//! A file that nobody holds any more leaves windows behind that must rest: a walker may still know which file they were.
//! They are given to another file only while no walker is registered anywhere.
//!
//! Imports allowed: storage::frame_window, sources::frames.

use std::sync::atomic::{AtomicUsize, Ordering};

use ioasd_client::units::{PageIndex, Pfn};
use parking_lot::Mutex;

use crate::sources::frames::Frames;
use crate::storage::frame_window::{FileKey, FrameError, FrameLimit, FrameSpace, RestToken, Window};

/// Address bits of a frame: what every software format can hold.
const OUTPUT_LG2: u8 = 48;

/// The one frame space.
#[derive(Debug)]
pub struct FrameService {
    space: Mutex<Space>,
    walkers: AtomicUsize,
}

#[derive(Debug)]
struct Space {
    frames: FrameSpace,
    resting: Vec<RestToken>,
}

impl Default for FrameService {
    fn default() -> Self {
        let frames = FrameSpace::new(FrameLimit { output_lg2: OUTPUT_LG2 });
        Self { space: Mutex::new(Space { frames, resting: Vec::new() }), walkers: AtomicUsize::new(0) }
    }
}

impl FrameService {
    /// The windows of these files.
    #[must_use]
    pub fn windows_of(&self, files: &[FileKey]) -> Vec<Window> {
        self.space.lock().frames.windows_of(files)
    }

    /// The file and its page that `frame` names.
    #[must_use]
    pub fn resolve(&self, frame: Pfn) -> Option<(FileKey, PageIndex)> {
        self.space.lock().frames.resolve(frame)
    }

    /// A walker is about to learn windows.
    pub fn add_walker(&self) {
        self.walkers.fetch_add(1, Ordering::SeqCst);
    }

    /// A walker is gone; with the last one, resting windows may be used again.
    pub fn remove_walker(&self) {
        if self.walkers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.space.lock().wake();
        }
    }
}

impl Space {
    fn wake(&mut self) {
        for token in self.resting.drain(..) {
            self.frames.grace_over(token);
        }
    }
}

impl Frames for FrameService {
    fn run(&self, file: FileKey, first: PageIndex, pages: u64) -> Result<(Pfn, u64), FrameError> {
        self.space.lock().frames.run(file, first, pages)
    }

    fn retain(&self, file: FileKey) {
        self.space.lock().frames.retain(file);
    }

    fn release(&self, file: FileKey) {
        let mut space = self.space.lock();
        let resting = space.frames.release(file);
        space.resting.extend(resting);
        if self.walkers.load(Ordering::SeqCst) == 0 {
            space.wake();
        }
    }
}
