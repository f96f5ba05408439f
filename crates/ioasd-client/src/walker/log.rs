//! What a walker has written, or may have: its dirty log, as the walker sees it.
//!
//! Imports allowed: units, formats, layout, mapping, open.

use std::os::fd::OwnedFd;

use super::open::{OpenError, open_own};
use crate::formats::Geometry;
use crate::layout::{LogBits, LogShape, protocol};
use crate::mapping::SharedMapping;
use crate::units::{ByteLen, Iova, IovaRange, PAGE_SIZE};

/// Whether writes are to be logged in this burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    /// Nobody wants to know.
    Unlogged,
    /// Before memory to be written is given out.
    Logged,
}

/// A dirty log, mapped.
#[derive(Debug)]
pub(super) struct DirtyLog {
    shape: LogShape,
    bits: SharedMapping,
}

impl DirtyLog {
    pub(super) fn open(fd: &OwnedFd, geometry: Geometry) -> Result<Self, OpenError> {
        let shape = LogShape::of(geometry);
        Ok(Self { shape, bits: open_own(fd, "dirty log", shape.bytes())? })
    }

    /// Notes that the `length` bytes at `iova` are written to in this burst.
    #[inline]
    pub(super) fn note(&self, iova: Iova, length: u64) {
        let Some(range) = IovaRange::from_length(iova, ByteLen::new(length)) else { return };
        for LogBits { word, bits } in self.shape.bits(range) {
            if let Some(word) = self.bits.word(word.offset()) {
                protocol::note_written(word, bits);
            }
        }
    }

    /// Whether a bit stands for whole pages.
    #[inline]
    pub(super) const fn is_of_pages(&self) -> bool {
        self.shape.unit() >= PAGE_SIZE
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use rustix::fs::SealFlags;

    use super::super::fault::FaultKind;
    use super::super::open::tests::memfd;
    use super::super::stream::tests::{domain_with, link_to_zero, page, set, table};
    use super::super::{Access, Stream, Walker};
    use super::*;
    use crate::formats::AmdV1;
    use crate::layout::{ALIVE_OFFSET, GENERATION_OFFSET, IS_ALIVE, IS_LOGGED};
    use crate::mapping::MapAccess;
    use crate::units::Permission;

    /// A walker whose pages 0 and 1 can be written, the view through which its arena is written, and its log.
    fn logged() -> (Walker, SharedMapping, SharedMapping) {
        let bytes = LogShape::of(Geometry::of::<AmdV1<4>>()).bytes();
        let log = memfd(bytes.get(), SealFlags::SHRINK);
        let bits = SharedMapping::new(&log, ByteLen::new(4096), MapAccess::ReadWrite).unwrap();
        let (walker, writer) = domain_with(Some(log));
        link_to_zero(&writer, page(0x10_0000, Permission::ReadWrite));
        set(&writer, table(3).get() + 8, page(0x10_2000, Permission::ReadWrite));
        set(&writer, ALIVE_OFFSET, IS_LOGGED);
        (walker, writer, bits)
    }

    /// What is in the log, and is not after this.
    fn taken(log: &SharedMapping) -> u64 {
        log.word(0).unwrap().swap(0, Ordering::Relaxed)
    }

    fn streams(walker: &Walker) -> [Stream; 2] {
        [walker.stream().unwrap(), walker.stream().unwrap().with_iotlb()]
    }

    #[test]
    fn what_is_asked_for_to_be_written_is_in_the_log_and_nothing_else() {
        let (walker, _writer, log) = logged();
        for mut stream in streams(&walker) {
            let burst = stream.enter();
            let slice = |iova, length, access| burst.slice(Iova::new(iova), ByteLen::new(length), access);
            slice(0xfff, 2, Access::Read).unwrap();
            burst.read(Iova::new(0xff0), &mut [0; 32]).unwrap();
            burst.locate(Iova::new(0), ByteLen::new(1), Access::Read).unwrap();
            slice(0x800, 0, Access::Write).unwrap();
            slice(0x2000, 1, Access::Write).unwrap_err();
            assert_eq!(taken(&log), 0);
            slice(0xfff, 2, Access::Write).unwrap();
            assert_eq!(taken(&log), 1, "a slice is of the first page alone");
            burst.write(Iova::new(0x1000), &[1]).unwrap();
            burst.locate(Iova::new(0), ByteLen::new(0x2000), Access::Write).unwrap();
            assert_eq!(taken(&log), 0b11);
        }
    }

    #[test]
    fn a_page_that_is_remembered_is_logged_once_in_a_generation() {
        let (walker, writer, log) = logged();
        let mut stream = walker.stream().unwrap().with_iotlb();
        let write = |stream: &mut Stream| stream.enter().write(Iova::new(0xff0), &[7; 32]).unwrap();
        for generation in 0..3 {
            set(&writer, GENERATION_OFFSET, generation);
            stream.enter().read(Iova::new(0), &mut [0]).unwrap();
            write(&mut stream);
            assert_eq!(taken(&log), 0b11, "remembering what was read is no right to write");
            write(&mut stream);
            assert_eq!(taken(&log), 0, "whoever takes a bit begins a generation");
        }
    }

    #[test]
    fn what_is_remembered_without_a_log_is_logged_when_there_is_one() {
        let (walker, writer, log) = logged();
        set(&writer, ALIVE_OFFSET, IS_ALIVE);
        let mut stream = walker.stream().unwrap().with_iotlb();
        stream.enter().write(Iova::new(0), &[1]).unwrap();
        assert_eq!(taken(&log), 0);
        set(&writer, ALIVE_OFFSET, IS_LOGGED);
        set(&writer, GENERATION_OFFSET, 1);
        stream.enter().write(Iova::new(0), &[1]).unwrap();
        assert_eq!(taken(&log), 1);
    }

    #[test]
    fn who_cannot_log_does_not_walk_where_writes_are_logged() {
        let (walker, writer) = domain_with(None);
        link_to_zero(&writer, page(0x10_0000, Permission::ReadWrite));
        set(&writer, ALIVE_OFFSET, IS_LOGGED);
        let mut stream = walker.stream().unwrap();
        assert_eq!(stream.enter().write(Iova::new(0), &[1]).unwrap_err().kind, FaultKind::Dead);
    }
}
