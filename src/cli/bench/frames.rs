//! Sources without memory: their frames follow from the page, pinning them costs nothing. With them a map takes the time
//! that the engine takes.
//!
//! Imports allowed: units, storage.

use std::fmt;
use std::sync::Arc;

use ioasd_client::units::{ByteLen, IndexRange, PageIndex, Pfn};

use crate::storage::pfn::PfnBatch;
use crate::storage::source::{PageSource, SourceError, Strength};

/// The first frame of any source.
const FIRST: u64 = 1 << 20;

/// How the frames of a source lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Behind one another.
    Contiguous,
    /// In runs of two and of one, in turn, none of them two pages that one leaf could map: as memory of small pages does that has been in use for a while.
    Scattered,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Contiguous => "contiguous",
            Self::Scattered => "scattered",
        })
    }
}

impl Order {
    /// The frame of page `index`, and how many pages from there have consecutive frames, `most` at most.
    fn run(self, index: u64, most: u64) -> (Pfn, u64) {
        match (self, index % 3) {
            (Self::Contiguous, _) => (Pfn::new(FIRST + index), most),
            (Self::Scattered, 2) => (Pfn::new(FIRST + index / 3 * 8 + 6), 1),
            (Self::Scattered, into) => (Pfn::new(FIRST + index / 3 * 8 + 1 + into), most.min(2 - into)),
        }
    }
}

/// Pages whose frames lie in an order.
#[derive(Clone, Copy, Debug)]
pub(super) struct LogicalFrames(Order);

impl LogicalFrames {
    /// A source of any length.
    pub(super) fn source(order: Order) -> Arc<dyn PageSource> {
        Arc::new(Self(order))
    }
}

impl PageSource for LogicalFrames {
    fn name(&self) -> String {
        format!("{} frames", self.0)
    }

    fn strength(&self) -> Strength {
        Strength::Resident
    }

    fn pin(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        let mut next = range.first().get();
        while next <= range.last().get() {
            let (pfn, pages) = self.0.run(next, range.last().get() - next + 1);
            let taken = batch.push(pfn, pages);
            next += taken;
            if taken < pages {
                break;
            }
        }
        Ok(())
    }

    fn pin_now(&self, range: IndexRange, batch: &mut PfnBatch) -> Option<Result<(), SourceError>> {
        Some(self.pin(range, batch))
    }

    fn unpin_now(&self, _: IndexRange) -> Option<()> {
        Some(())
    }

    fn recall(&self, range: IndexRange, batch: &mut PfnBatch) -> Result<(), SourceError> {
        self.pin(range, batch)
    }

    fn unpin(&self, _: IndexRange) {}

    fn read(&self, offset: ByteLen, _: &mut [u8]) -> Result<(), SourceError> {
        Err(self.has_no_bytes(offset))
    }

    fn write(&self, offset: ByteLen, _: &[u8]) -> Result<(), SourceError> {
        Err(self.has_no_bytes(offset))
    }
}

impl LogicalFrames {
    fn has_no_bytes(self, offset: ByteLen) -> SourceError {
        SourceError {
            source_name: self.name(),
            index: PageIndex::containing(offset),
            reason: "there is no memory behind these frames".to_owned(),
            errno: crate::error::Errno::OPNOTSUPP,
            code: "source-without-bytes",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::pfn::RunLimit;

    fn runs(order: Order, first: u64, pages: u64) -> Vec<(u64, u32)> {
        let mut batch = PfnBatch::new(PageIndex::new(first), RunLimit::DEFAULT).unwrap();
        let range = IndexRange::from_length(PageIndex::new(first), pages).unwrap();
        LogicalFrames(order).pin(range, &mut batch).unwrap();
        batch.runs().iter().map(|run| (run.pfn.get() - FIRST, run.pages)).collect()
    }

    #[test]
    fn frames_lie_as_their_order_says() {
        assert_eq!(runs(Order::Contiguous, 5, 100), [(5, 100)]);
        assert_eq!(runs(Order::Scattered, 0, 7), [(1, 2), (6, 1), (9, 2), (14, 1), (17, 1)]);
        assert_eq!(runs(Order::Scattered, 1, 3), [(2, 1), (6, 1), (9, 1)]);
    }
}
