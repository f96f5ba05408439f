//! A page source of the tests: frames as the world says, bytes in memory, pins counted page by page.
//!
//! It panics when a page is pinned twice or let go of without a pin, which poisons the pages object and fails the test.

use std::sync::Arc;

use ioasd::error::Errno;
use ioasd::storage::pfn::PfnBatch;
use ioasd::storage::source::{PageSource, SourceError, Strength};
use ioasd_client::units::{ByteLen, IndexRange, PAGE_SIZE, PageIndex, Pfn};
use parking_lot::Mutex;

use crate::ops::MemorySpec;

/// The memory of a client.
pub struct Memory {
    frames: Vec<u64>,
    origin: u64,
    bytes: Mutex<Vec<u8>>,
    bad: Mutex<Vec<bool>>,
}

impl Memory {
    /// As the world says, all zero.
    pub fn new(spec: &MemorySpec) -> Arc<Self> {
        let pages = spec.frames.len();
        Arc::new(Self {
            frames: spec.frames.clone(),
            origin: spec.origin,
            bytes: Mutex::new(vec![0; pages * PAGE_SIZE as usize]),
            bad: Mutex::new(vec![false; pages]),
        })
    }

    /// Where it begins.
    pub fn origin(&self) -> u64 {
        self.origin
    }

    /// Lets a page refuse pins, or not.
    pub fn spoil(&self, page: usize, bad: bool) {
        self.bad.lock()[page] = bad;
    }

    /// What it holds.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().clone()
    }
}

/// A slice of a memory as the source of a pages object.
pub struct Source {
    memory: Arc<Memory>,
    first: u64,
    pins: Mutex<Vec<bool>>,
}

impl Source {
    /// `len` pages from page `first`.
    pub fn new(memory: Arc<Memory>, first: u64, len: u64) -> Arc<Self> {
        Arc::new(Self { memory, first, pins: Mutex::new(vec![false; len as usize]) })
    }

    /// Which pages hold a pin.
    pub fn pins(&self) -> Vec<bool> {
        self.pins.lock().clone()
    }

    /// The address of its page 0.
    pub fn origin(&self) -> u64 {
        self.memory.origin.wrapping_add(self.first * PAGE_SIZE)
    }

    fn page(&self, index: u64) -> usize {
        (self.first + index) as usize
    }

    fn error(&self, index: u64, errno: Errno) -> SourceError {
        let reason = "the test says so".to_owned();
        SourceError {
            source_name: self.name(),
            index: PageIndex::new(index),
            reason,
            errno,
            code: "test-source",
        }
    }
}

fn pages(range: IndexRange) -> impl Iterator<Item = u64> {
    range.first().get()..=range.last().get()
}

impl PageSource for Source {
    fn name(&self) -> String {
        "test memory".to_owned()
    }

    fn strength(&self) -> Strength {
        Strength::Resident
    }

    fn pin(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        let mut pins = self.pins.lock();
        for (done, index) in pages(range).enumerate() {
            let page = self.page(index);
            let missing = page >= self.memory.frames.len() || self.memory.bad.lock()[page];
            if missing && done == 0 {
                return Err(self.error(index, Errno::FAULT));
            }
            if missing || batch.push(Pfn::new(self.memory.frames[page]), 1) == 0 {
                return Ok(());
            }
            assert!(!std::mem::replace(&mut pins[index as usize], true), "page {index} is pinned twice");
        }
        Ok(())
    }

    /// From an even page on at once, from an odd one on another thread, so that both ways are tested.
    fn pin_now(&self, range: IndexRange, batch: &mut PfnBatch) -> Option<Result<(), SourceError>> {
        range.first().get().is_multiple_of(2).then(|| self.pin(range, batch))
    }

    fn unpin_now(&self, range: IndexRange) -> Option<()> {
        range.first().get().is_multiple_of(2).then(|| self.unpin(range))
    }

    fn recall(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        for index in pages(range) {
            assert!(self.pins.lock()[index as usize], "page {index} is recalled without a pin");
            if batch.push(Pfn::new(self.memory.frames[self.page(index)]), 1) == 0 {
                break;
            }
        }
        Ok(())
    }

    fn unpin(&self, range: IndexRange) {
        for index in pages(range) {
            let held = std::mem::replace(&mut self.pins.lock()[index as usize], false);
            assert!(held, "page {index} is let go of without a pin");
        }
    }

    fn read(&self, offset: ByteLen, into: &mut [u8]) -> Result<(), SourceError> {
        let from = (self.first * PAGE_SIZE + offset.get()) as usize;
        into.copy_from_slice(&self.memory.bytes.lock()[from..from + into.len()]);
        Ok(())
    }

    fn write(&self, offset: ByteLen, from: &[u8]) -> Result<(), SourceError> {
        let to = (self.first * PAGE_SIZE + offset.get()) as usize;
        self.memory.bytes.lock()[to..to + from.len()].copy_from_slice(from);
        Ok(())
    }
}
