//! The dirty log of a walker, as the agent sees it: made here, written by the walker, looked through and cleaned here.
//!
//! The agent keeps the file. It reads a page of it for 32,768 pages of IOVA, only where the table maps something, and maps
//! that page only if there are bits to take. So a log costs no address space here however much its table translates, and
//! what a walker writes beside what is mapped is never found. Nothing here waits for what a walker does to the file, but for
//! one who punches holes into a page that is mapped just then: as long as the kernel takes for that.
//!
//! Imports allowed: dirty, written, sys, the client crate's layouts.

use std::os::fd::{AsFd, OwnedFd};

use ioasd_client::layout::{LogBits, LogShape, LogWord, protocol};
use ioasd_client::units::{ByteLen, IovaRange, PAGE_SIZE};

use super::dirty::Cleaning;
use super::written::Written;
use crate::sys::failure::SysError;
use crate::sys::file_io::read_exact_at;
use crate::sys::file_state;
use crate::sys::mapping::{MapAccess, SharedMapping, map_part};
use crate::sys::memfd::{self, Seals};

const NAME: &str = "ioasd-dirty-log";

const PAGE: usize = 4096;

const _: () = assert!(PAGE as u64 == PAGE_SIZE, "a page of a log is a page");

/// One log.
#[derive(Debug)]
pub(super) struct WalkerLog {
    fd: OwnedFd,
}

/// Goes through a log, in the order of its words. What is set meanwhile may be missed: make another one for another look.
#[derive(Debug)]
pub(super) struct Cursor<'l> {
    log: &'l WalkerLog,
    here: Option<Page>,
}

/// A page of a log.
#[derive(Debug)]
struct Page {
    /// Where it begins in the file.
    start: u64,
    /// What it was read as; nothing if no bit is set.
    read: Vec<u8>,
    /// The page itself.
    mapped: Option<SharedMapping>,
}

impl WalkerLog {
    /// A new log, which nobody can make longer or shorter.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn new(shape: LogShape) -> Result<Self, SysError> {
        let fd = memfd::create(NAME, shape.bytes())?;
        memfd::seal(&fd, NAME, Seals::FixedSize)?;
        Ok(Self { fd })
    }

    /// Another descriptor of it, for the walker.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn export(&self) -> Result<OwnedFd, SysError> {
        memfd::duplicate(&self.fd, NAME)
    }

    /// Whether anything may have been written there.
    pub(super) fn is_used(&self) -> bool {
        file_state::state(self.fd.as_fd()).is_ok_and(|state| state.allocated > ByteLen::new(0))
    }

    /// Reads the page at `start`.
    fn page(&self, start: u64) -> Result<Page, SysError> {
        let mut read = vec![0; PAGE];
        let done = read_exact_at(self.fd.as_fd(), ByteLen::new(start), &mut read);
        done.map_err(|errno| SysError::Refused { call: "pread", object: NAME, errno })?;
        if read.iter().all(|byte| *byte == 0) {
            read.clear();
        }
        Ok(Page { start, read, mapped: None })
    }

    /// Maps the page at `start`.
    fn map(&self, start: u64) -> Result<SharedMapping, SysError> {
        let (from, length) = (ByteLen::new(start), ByteLen::new(PAGE_SIZE));
        map_part(self.fd.as_fd(), NAME, from, length, MapAccess::ReadWrite)
    }
}

impl<'l> Cursor<'l> {
    /// At no place.
    pub(super) const fn new(log: &'l WalkerLog) -> Self {
        Self { log, here: None }
    }

    /// Adds the pages of a range that are in the log to a set; takes them out of it, if asked for.
    pub(super) fn collect(
        &mut self,
        range: IovaRange,
        cleaning: Cleaning,
        into: &mut Written,
    ) -> Result<(), SysError> {
        let shape = into.shape();
        for part in shape.parts(range, PAGE_SIZE / 8) {
            for at in shape.bits(part) {
                let Page { read, .. } = self.page(at.word)?;
                if read.is_empty() {
                    break;
                }
                let bits = match cleaning {
                    Cleaning::Keep => self.look(at)?,
                    Cleaning::Clean => self.take(at)?,
                };
                into.add(LogBits { bits, ..at });
            }
        }
        Ok(())
    }

    /// Which of these bits are set.
    fn look(&mut self, LogBits { word, bits }: LogBits) -> Result<u64, SysError> {
        let Page { start, read, .. } = self.page(word)?;
        let at = usize::try_from(word.offset() - *start).unwrap_or(PAGE);
        let read = read.get(at..).and_then(|rest| rest.first_chunk());
        Ok(read.map_or(0, |bytes| u64::from_ne_bytes(*bytes)) & bits)
    }

    /// Takes bits out; tells which of them were set.
    fn take(&mut self, at: LogBits) -> Result<u64, SysError> {
        if self.look(at)? == 0 {
            return Ok(0);
        }
        let log = self.log;
        let Page { start, mapped, .. } = self.page(at.word)?;
        let page = match mapped {
            Some(page) => page,
            None => mapped.insert(log.map(*start)?),
        };
        let word = page.word(at.word.offset() - *start);
        Ok(word.map_or(0, |word| protocol::take_written(word, at.bits)))
    }

    /// The page that has a word.
    fn page(&mut self, word: LogWord) -> Result<&mut Page, SysError> {
        let start = word.offset() & !(PAGE_SIZE - 1);
        let page = match self.here.take().filter(|page| page.start == start) {
            Some(page) => page,
            None => self.log.page(start)?,
        };
        Ok(self.here.insert(page))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use ioasd_client::formats::{FormatId, Geometry, RiscV};
    use ioasd_client::units::{Iova, IovaRange};

    use super::*;

    fn bits(shape: LogShape, iova: u64) -> LogBits {
        let page = IovaRange::from_length(Iova::new(iova), ByteLen::new(1)).unwrap();
        shape.bits(page).next().unwrap()
    }

    #[test]
    fn bits_are_found_wherever_they_lie_and_taken_once() {
        let shape = LogShape::of(Geometry::of::<RiscV<5>>());
        let log = WalkerLog::new(shape).unwrap();
        assert!(!log.is_used());
        let last = Geometry::of::<RiscV<5>>().aperture.last().get();
        for iova in [0x5000, 1 << 40, last] {
            let LogBits { word, bits } = bits(shape, iova);
            let page = ByteLen::new(word.offset() & !0xfff);
            let mapped =
                SharedMapping::part(log.export().unwrap(), page, ByteLen::new(4096), MapAccess::ReadWrite);
            mapped.unwrap().word(word.offset() & 0xfff).unwrap().fetch_or(bits, Ordering::Relaxed);
        }
        assert!(log.is_used());
        let mut cursor = Cursor::new(&log);
        for (iova, set) in [(0x4000, false), (0x5000, true), (1 << 39, false), (1 << 40, true), (last, true)]
        {
            let asked = bits(shape, iova);
            let expected = if set { asked.bits } else { 0 };
            let found = [cursor.look(asked), cursor.take(asked), cursor.take(asked)];
            assert_eq!(found, [Ok(expected), Ok(expected), Ok(0)], "{iova:#x}");
        }
    }

    #[test]
    fn what_is_set_after_a_look_is_found_by_the_next() {
        let shape = LogShape::of(FormatId::AmdV1.geometry());
        let log = WalkerLog::new(shape).unwrap();
        let mut early = Cursor::new(&log);
        assert_eq!(early.look(bits(shape, 0)), Ok(0));
        let page = ByteLen::new(4096);
        let mapped = SharedMapping::new(log.export().unwrap(), page, MapAccess::ReadWrite).unwrap();
        mapped.word(0).unwrap().store(1, Ordering::Relaxed);
        assert_eq!(Cursor::new(&log).take(bits(shape, 0)), Ok(1));
    }
}
