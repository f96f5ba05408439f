//! What is behind a pages object, for those who need more than pins of it: walkers, mock checks, a change of process.
//!
//! Imports allowed: units, storage, sys, dma_buf, file, owned_file, process.

use std::sync::{Arc, Weak};

use ioasd_client::units::{ByteLen, IndexRange, PageIndex};

use super::dma_buf::DmaBufSource;
use super::file::FileSource;
use super::owned_file::OwnedFile;
use super::process::ProcessSource;
use crate::storage::frame_window::FileKey;
use crate::sys::pidfd::PidFd;

/// What is behind a pages object.
#[derive(Clone)]
pub enum Backing {
    /// A file, passed by its descriptor.
    File(Arc<FileSource>),
    /// Shared memory of a process, which is a file.
    Shared(Arc<OwnedFile>),
    /// Any other memory of a process.
    Process(Arc<ProcessSource>),
    /// Memory of a device.
    DmaBuf(Arc<DmaBufSource>),
    /// Nothing that can be reached.
    Nothing,
}

impl Backing {
    /// The file that walkers can map.
    #[must_use]
    pub fn file(&self) -> Option<&Arc<FileSource>> {
        match self {
            Self::File(file) => Some(file),
            Self::Shared(owned) => Some(owned.file()),
            Self::Process(_) | Self::DmaBuf(_) | Self::Nothing => None,
        }
    }

    /// The memory of a process that is no file.
    #[must_use]
    pub const fn process(&self) -> Option<&Arc<ProcessSource>> {
        match self {
            Self::Process(source) => Some(source),
            Self::File(_) | Self::Shared(_) | Self::DmaBuf(_) | Self::Nothing => None,
        }
    }

    /// The size of its pages, if they are huge.
    #[must_use]
    pub fn huge_page(&self) -> Option<ByteLen> {
        match self {
            Self::Process(source) => source.huge_page(),
            _ => self.file().and_then(|file| file.huge_page()),
        }
    }

    /// The memory of a device.
    #[must_use]
    pub const fn dma_buf(&self) -> Option<&Arc<DmaBufSource>> {
        match self {
            Self::DmaBuf(source) => Some(source),
            Self::File(_) | Self::Shared(_) | Self::Process(_) | Self::Nothing => None,
        }
    }

    /// Whether whoever has given it has taken it back.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.dma_buf().is_some_and(|source| source.is_withdrawn())
    }

    /// Whether it stays with the process that mapped it.
    #[must_use]
    pub const fn is_bound_to_its_process(&self) -> bool {
        !matches!(self, Self::File(_))
    }

    /// What it is in the frame space, and which pages of that it has.
    #[must_use]
    pub fn place(&self) -> Option<(FileKey, IndexRange)> {
        if let Some(file) = self.file() {
            return file.key().map(|key| (key, file.pages()));
        }
        let source = self.process()?;
        let pages = IndexRange::from_length(PageIndex::new(0), source.pages().pages);
        pages.map(|pages| (source.key(), pages))
    }

    /// Whether it is memory of `process` as that has it now, by its address.
    #[must_use]
    pub fn is_memory_of(&self, process: &PidFd) -> bool {
        match self {
            Self::Shared(owned) => owned.is_memory_of(process),
            Self::Process(source) => source.owner().is(process),
            Self::File(_) | Self::DmaBuf(_) | Self::Nothing => false,
        }
    }

    /// The same, without keeping it.
    #[must_use]
    pub fn downgrade(&self) -> WeakBacking {
        match self {
            Self::File(file) => WeakBacking::File(Arc::downgrade(file)),
            Self::Shared(file) => WeakBacking::Shared(Arc::downgrade(file)),
            Self::Process(source) => WeakBacking::Process(Arc::downgrade(source)),
            Self::DmaBuf(source) => WeakBacking::DmaBuf(Arc::downgrade(source)),
            Self::Nothing => WeakBacking::Nothing,
        }
    }
}

/// What may still be behind a pages object.
pub enum WeakBacking {
    /// As [`Backing::File`].
    File(Weak<FileSource>),
    /// As [`Backing::Shared`].
    Shared(Weak<OwnedFile>),
    /// As [`Backing::Process`].
    Process(Weak<ProcessSource>),
    /// As [`Backing::DmaBuf`].
    DmaBuf(Weak<DmaBufSource>),
    /// As [`Backing::Nothing`].
    Nothing,
}

impl WeakBacking {
    /// What is behind it, unless that has gone.
    #[must_use]
    pub fn upgrade(&self) -> Option<Backing> {
        match self {
            Self::File(file) => file.upgrade().map(Backing::File),
            Self::Shared(file) => file.upgrade().map(Backing::Shared),
            Self::Process(source) => source.upgrade().map(Backing::Process),
            Self::DmaBuf(source) => source.upgrade().map(Backing::DmaBuf),
            Self::Nothing => None,
        }
    }
}
