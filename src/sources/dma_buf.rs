//! Memory of a device as the source of pages: mock hardware has such memory, and nobody else may look into it.
//!
//! It is a range of frames and nothing more: devices that are mapped to it find its frames in their tables, accesses
//! cannot pin, read or write it. Whoever gave it may take it back. What was mapped before is withdrawn then, for good;
//! once it is given again it can be mapped anew.
//!
//! Imports allowed: units, storage, frames.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use ioasd_client::units::{ByteLen, IndexRange, PageIndex};
use parking_lot::Mutex;
use rustix::io::Errno;

use super::frames::Frames;
use crate::error::Coded;
use crate::storage::frame_window::FileKey;
use crate::storage::pfn::PfnBatch;
use crate::storage::source::{PageSource, SourceError, Strength};

/// The number of the last buffer.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Whether a buffer can be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    /// It can.
    Yes,
    /// It was taken back.
    TakenBack,
}

/// A piece of memory of a device.
pub struct DmaBuf {
    key: FileKey,
    /// How many pages it has.
    pub pages: u64,
    frames: Arc<dyn Frames>,
    state: Mutex<State>,
}

#[derive(Clone, Copy)]
struct State {
    given: Given,
    /// How often what was mapped was withdrawn.
    withdrawals: u64,
}

impl DmaBuf {
    /// So many pages, whose frames lie side by side.
    #[must_use]
    pub fn new(pages: u64, frames: Arc<dyn Frames>) -> Self {
        let key = FileKey::of_device(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        frames.retain(key);
        Self { key, pages, frames, state: Mutex::new(State { given: Given::Yes, withdrawals: 0 }) }
    }

    /// Takes it back, or gives it again. Either way all that is mapped of it is withdrawn.
    pub fn give(&self, given: Given) {
        let mut state = self.state.lock();
        *state = State { given, withdrawals: state.withdrawals.saturating_add(1) };
    }

    /// The pages from `first` on as a source; `None` if it was taken back.
    #[must_use]
    pub fn source(self: &Arc<Self>, first: PageIndex) -> Option<DmaBufSource> {
        let State { given, withdrawals } = *self.state.lock();
        (given == Given::Yes).then(|| DmaBufSource { buffer: Arc::clone(self), first, withdrawals })
    }
}

impl Drop for DmaBuf {
    fn drop(&mut self) {
        self.frames.release(self.key);
    }
}

/// Pages of a buffer.
pub struct DmaBufSource {
    buffer: Arc<DmaBuf>,
    first: PageIndex,
    withdrawals: u64,
}

impl DmaBufSource {
    /// Whether it was withdrawn since it was made.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.buffer.state.lock().withdrawals != self.withdrawals
    }

    /// Whether it is of this memory.
    #[must_use]
    pub fn is_of(&self, memory: &Weak<DmaBuf>) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.buffer), memory.as_ptr())
    }

    fn append(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        let (mut index, mut left) = (range.first(), range.pages());
        while left > 0 {
            let page = PageIndex::new(self.first.get().saturating_add(index.get()));
            let run = self.buffer.frames.run(self.buffer.key, page, left);
            let (frame, pages) =
                run.map_err(|error| self.error(index, (error.errno(), error.code()), error.to_string()))?;
            let added = batch.push(frame, pages);
            left -= added;
            index = PageIndex::new(index.get().saturating_add(added));
            if added < pages {
                return Ok(());
            }
        }
        Ok(())
    }

    fn error(&self, index: PageIndex, (errno, code): (Errno, &'static str), reason: String) -> SourceError {
        SourceError { source_name: self.name(), index, reason, errno, code }
    }

    fn unreachable(&self, offset: ByteLen) -> SourceError {
        let reason = "only devices reach it".to_owned();
        self.error(PageIndex::containing(offset), (Errno::INVAL, "memory-of-a-device"), reason)
    }
}

impl PageSource for DmaBufSource {
    fn name(&self) -> String {
        self.buffer.key.to_string()
    }

    fn strength(&self) -> Strength {
        Strength::Resident
    }

    fn pin(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        self.append(range, batch)
    }

    fn recall(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        self.append(range, batch)
    }

    /// The frames are there as long as the buffer is.
    fn unpin(&self, _: IndexRange) {}

    fn read(&self, offset: ByteLen, _: &mut [u8]) -> Result<(), SourceError> {
        Err(self.unreachable(offset))
    }

    fn write(&self, offset: ByteLen, _: &[u8]) -> Result<(), SourceError> {
        Err(self.unreachable(offset))
    }
}
