//! Opening an exported domain: everything that is believed later is checked here.
//!
//! Imports allowed: units, formats, layout, mapping, `rustix`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rustix::fs::{OFlags, SealFlags, fcntl_get_seals, fcntl_getfl, fstat};
use rustix::io::Errno;

use super::backing::{Backing, WindowsError, WindowsNumber};
use super::channel::Learning;
use super::log::{DirtyLog, Writes};
use super::stream::{NoSlot, Stream};
use super::walk::Walks;
use crate::formats::Geometry;
use crate::layout::{
    ArenaHeader, FrameWindow, HEADER_BYTES, HEADER_WORDS, HeaderError, IS_ALIVE, IS_LOGGED, OPENED_OFFSET,
    WALKER_BYTES, WINDOWS_OFFSET,
};
use crate::mapping::{MapAccess, SharedMapping};
use crate::units::ByteLen;

/// A file behind the frames of a domain.
#[derive(Debug)]
pub struct BackingFile {
    /// The file.
    pub fd: OwnedFd,
    /// How to map it.
    pub access: MapAccess,
}

/// What an export of a domain consists of.
#[derive(Debug)]
pub struct DomainParts {
    /// The memfd of the tables.
    pub arena: OwnedFd,
    /// The memfd of this walker's slots.
    pub slots: OwnedFd,
    /// The memfd of this walker's dirty log, if writes to the domain can be tracked.
    pub log: Option<OwnedFd>,
    /// Which frames are which pages of which file.
    pub windows: Vec<FrameWindow>,
    /// The files, in the order of their numbers.
    pub files: Vec<BackingFile>,
}

/// Why a domain could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A system call failed.
    #[error("{call} of the {part} failed: {errno}")]
    Sys {
        /// The system call.
        call: &'static str,
        /// Which part.
        part: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// A file that could be cut short under its mapping.
    #[error("the {0} is not sealed against shrinking; take the descriptors from the agent only")]
    NotSealed(&'static str),
    /// The size is not what the layout says.
    #[error("the {part} has {found} bytes, but should have {expected}")]
    Size {
        /// Which part.
        part: &'static str,
        /// Bytes it has.
        found: ByteLen,
        /// Bytes it should have.
        expected: ByteLen,
    },
    /// The first page is not the header of an arena that this library knows.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The format is known, but not in this shape.
    #[error("tables of {0:?} cannot be walked by this library; use one as new as the agent")]
    Geometry(Geometry),
    /// The windows contradict each other.
    #[error(transparent)]
    Windows(#[from] WindowsError),
}

/// An opened domain. Cheap to clone; its mappings live as long as any clone or stream.
#[derive(Clone, Debug)]
pub struct Walker {
    pub(super) domain: Arc<OpenDomain>,
}

/// What all streams of a walker share.
#[derive(Debug)]
pub(super) struct OpenDomain {
    pub(super) arena: SharedMapping,
    pub(super) header: ArenaHeader,
    /// How tables of its format are walked.
    pub(super) walks: Walks,
    pub(super) slots: SharedMapping,
    pub(super) slots_taken: AtomicU64,
    pub(super) log: Option<DirtyLog>,
    pub(super) learning: Learning,
}

impl Walker {
    /// Opens an exported domain.
    ///
    /// # Errors
    /// If a part is not what it should be, or cannot be mapped.
    pub fn open(parts: DomainParts) -> Result<Self, OpenError> {
        Self::open_with(parts, Learning::nothing_more)
    }

    /// Opens an exported domain of which more can be learned.
    pub(super) fn open_with(
        parts: DomainParts,
        learning: impl FnOnce(Arc<Backing>) -> Learning,
    ) -> Result<Self, OpenError> {
        let DomainParts { arena, slots, log, windows, files } = parts;
        let (arena, header) = open_arena(&arena)?;
        let files = files.iter().map(open_file).collect::<Result<_, _>>()?;
        let (slots, slots_taken) = (open_slots(&slots)?, AtomicU64::new(0));
        let number = WindowsNumber(slots.load(OPENED_OFFSET).unwrap_or(0));
        let learning = learning(Arc::new(Backing::new(&windows, files, number)?));
        let log = log.map(|log| DirtyLog::open(&log, header.geometry)).transpose()?;
        let walks = Walks::of(header.geometry.format);
        Ok(Self { domain: Arc::new(OpenDomain { arena, header, walks, slots, slots_taken, log, learning }) })
    }

    /// Takes a slot for this thread.
    ///
    /// # Errors
    /// If all slots are taken.
    pub fn stream(&self) -> Result<Stream, NoSlot> {
        Stream::new(&self.domain)
    }

    /// Format, levels, widths and aperture of the tables.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.domain.header.geometry
    }
}

impl OpenDomain {
    /// Under which number what is learned from here on is right.
    pub(super) fn windows(&self) -> WindowsNumber {
        WindowsNumber(self.arena.load(WINDOWS_OFFSET).unwrap_or(0))
    }

    /// What the alive word says of writes; `None` if the domain is not served, or wants logged what cannot be logged here.
    #[inline]
    pub(super) const fn writes(&self, alive: u64) -> Option<Writes> {
        match alive {
            IS_ALIVE => Some(Writes::Unlogged),
            IS_LOGGED if self.log.is_some() => Some(Writes::Logged),
            _ => None,
        }
    }
}

impl BackingFile {
    /// A file, to be mapped as it was opened.
    ///
    /// # Errors
    /// If the kernel does not tell how it was opened.
    pub fn of(fd: OwnedFd) -> Result<Self, OpenError> {
        let flags = fcntl_getfl(&fd).map_err(failed("fcntl(F_GETFL)", "backing file"))?;
        let writable = flags.contains(OFlags::RDWR);
        Ok(Self { fd, access: if writable { MapAccess::ReadWrite } else { MapAccess::ReadOnly } })
    }
}

fn open_arena(fd: &OwnedFd) -> Result<(SharedMapping, ArenaHeader), OpenError> {
    const PART: &str = "table arena";
    let found = sealed_size(fd, PART)?;
    if found.get() < HEADER_BYTES {
        return Err(OpenError::Size { part: PART, found, expected: ByteLen::new(HEADER_BYTES) });
    }
    let arena = map(fd, PART, found, MapAccess::ReadOnly)?;
    let header = ArenaHeader::decode(&header_words(&arena))?;
    if header.length != found {
        return Err(OpenError::Size { part: PART, found, expected: header.length });
    }
    check_geometry(header.geometry)?;
    Ok((arena, header))
}

fn header_words(arena: &SharedMapping) -> [u64; HEADER_WORDS] {
    let mut words = [0; HEADER_WORDS];
    for (word, offset) in words.iter_mut().zip((0..).step_by(8)) {
        *word = arena.load(offset).unwrap_or(0);
    }
    words
}

/// The one shape of each format, with any aperture within it.
fn check_geometry(geometry: Geometry) -> Result<(), OpenError> {
    let known = geometry.format.geometry();
    let same_shape = Geometry { aperture: known.aperture, ..geometry } == known;
    if same_shape && known.aperture.covers(geometry.aperture) {
        Ok(())
    } else {
        Err(OpenError::Geometry(geometry))
    }
}

fn open_slots(fd: &OwnedFd) -> Result<SharedMapping, OpenError> {
    open_own(fd, "slots memfd", ByteLen::new(WALKER_BYTES))
}

/// Maps what only this walker writes.
pub(super) fn open_own(
    fd: &OwnedFd,
    part: &'static str,
    expected: ByteLen,
) -> Result<SharedMapping, OpenError> {
    let found = sealed_size(fd, part)?;
    if found != expected {
        return Err(OpenError::Size { part, found, expected });
    }
    let own = map(fd, part, found, MapAccess::ReadWrite)?;
    own.keep_from_children().map_err(failed("madvise(MADV_DONTFORK)", part))?;
    Ok(own)
}

pub(super) fn open_file(file: &BackingFile) -> Result<SharedMapping, OpenError> {
    const PART: &str = "backing file";
    map(&file.fd, PART, size(&file.fd, PART)?, file.access)
}

fn sealed_size(fd: &OwnedFd, part: &'static str) -> Result<ByteLen, OpenError> {
    let seals = fcntl_get_seals(fd).map_err(failed("fcntl(F_GET_SEALS)", part))?;
    if seals.contains(SealFlags::SHRINK) { size(fd, part) } else { Err(OpenError::NotSealed(part)) }
}

fn size(fd: &OwnedFd, part: &'static str) -> Result<ByteLen, OpenError> {
    let stat = fstat(fd).map_err(failed("fstat", part))?;
    Ok(ByteLen::new(u64::try_from(stat.st_size).unwrap_or(0)))
}

fn map(
    fd: impl AsFd,
    part: &'static str,
    length: ByteLen,
    access: MapAccess,
) -> Result<SharedMapping, OpenError> {
    SharedMapping::new(fd, length, access).map_err(failed("mmap", part))
}

fn failed(call: &'static str, part: &'static str) -> impl Fn(Errno) -> OpenError {
    move |errno| OpenError::Sys { call, part, errno }
}

#[cfg(test)]
pub(super) mod tests {
    use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

    use super::*;
    use crate::formats::{AmdV1, TABLE_BYTES, TableAddr};
    use crate::layout::BootId;
    use crate::units::{PageIndex, Pfn};

    pub(in crate::walker) const TABLES: u64 = 6;
    const ARENA_BYTES: u64 = HEADER_BYTES + TABLES * TABLE_BYTES;

    pub(in crate::walker) fn header() -> ArenaHeader {
        ArenaHeader {
            geometry: Geometry::of::<AmdV1<4>>(),
            root: TableAddr::new(HEADER_BYTES),
            length: ByteLen::new(ARENA_BYTES),
            boot: BootId([0; 16]),
        }
    }

    pub(in crate::walker) fn memfd(length: u64, seals: SealFlags) -> OwnedFd {
        let fd = memfd_create("walker-test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&fd, length).unwrap();
        fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    /// An export with empty tables and one file of four pages, frames 0x100 to 0x103; and the writer's view of the arena.
    pub(in crate::walker) fn parts(header: ArenaHeader) -> (DomainParts, SharedMapping) {
        let arena = memfd(ARENA_BYTES, SealFlags::SHRINK);
        let writer = SharedMapping::new(&arena, ByteLen::new(ARENA_BYTES), MapAccess::ReadWrite).unwrap();
        for (word, offset) in header.encode().into_iter().zip((0..).step_by(8)) {
            writer.word(offset).unwrap().store(word, std::sync::atomic::Ordering::Relaxed);
        }
        let file = BackingFile { fd: memfd(0x4000, SealFlags::SHRINK), access: MapAccess::ReadWrite };
        let window = FrameWindow { first: Pfn::new(0x100), pages: 4, file: 0, file_page: PageIndex::new(0) };
        let slots = memfd(WALKER_BYTES, SealFlags::SHRINK);
        (DomainParts { arena, slots, log: None, windows: vec![window], files: vec![file] }, writer)
    }

    fn refusal(change: impl FnOnce(&mut DomainParts), header: ArenaHeader) -> OpenError {
        let (mut parts, _writer) = parts(header);
        change(&mut parts);
        Walker::open(parts).unwrap_err()
    }

    #[test]
    fn parts_that_are_not_what_they_should_be_are_refused() {
        let unsealed = refusal(|parts| parts.arena = memfd(ARENA_BYTES, SealFlags::empty()), header());
        assert_eq!(unsealed, OpenError::NotSealed("table arena"));
        let empty = refusal(|parts| parts.arena = memfd(0, SealFlags::SHRINK), header());
        assert!(matches!(empty, OpenError::Size { part: "table arena", .. }));
        let blank = refusal(|parts| parts.arena = memfd(ARENA_BYTES, SealFlags::SHRINK), header());
        assert_eq!(blank, OpenError::Header(HeaderError::Magic(0)));
        let slots = refusal(|parts| parts.slots = memfd(WALKER_BYTES + 4096, SealFlags::SHRINK), header());
        assert!(matches!(slots, OpenError::Size { part: "slots memfd", .. }));
        let no_file = refusal(|parts| parts.files.clear(), header());
        assert!(matches!(no_file, OpenError::Windows(WindowsError::NoSuchFile { .. })));
        let pipe = refusal(|parts| parts.slots = rustix::pipe::pipe().unwrap().0, header());
        assert!(matches!(pipe, OpenError::Sys { part: "slots memfd", .. }));
    }

    #[test]
    fn a_header_that_promises_more_than_there_is_is_refused() {
        let long = ArenaHeader { length: ByteLen::new(ARENA_BYTES + 4096), ..header() };
        assert!(matches!(refusal(|_| (), long), OpenError::Size { .. }));
        let deep = ArenaHeader { geometry: Geometry { levels: 5, ..header().geometry }, ..header() };
        assert_eq!(refusal(|_| (), deep), OpenError::Geometry(deep.geometry));
    }

    #[test]
    fn a_walker_has_as_many_streams_as_slots() {
        let walker = Walker::open(parts(header()).0).unwrap();
        let mut streams: Vec<_> = (0..64).map(|_| walker.stream().unwrap()).collect();
        assert_eq!(walker.stream().unwrap_err(), NoSlot);
        streams.remove(17);
        assert!(walker.stream().is_ok());
    }
}
