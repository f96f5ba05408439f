//! Memory of mock devices, which a program holds as a descriptor: it can be mapped, and taken back.
//!
//! The descriptor is one end of a socket pair. The kernel numbers sockets, and no number comes again: by that a buffer is known
//! whoever passes it on, in whatever context. It lives as long as a copy of the descriptor, or an area over it.
//!
//! Imports allowed: state, storage, sources, the object actors, sys.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ioasd_client::units::{ByteLen, PAGE_SIZE, PageIndex};

use crate::actors::client_context::state::ClientState;
use crate::actors::messages::ioas::Withdraw;
use crate::actors::mock_hardware::MockBuffer;
use crate::actors::objects::IoasObject;
use crate::error::Errno;
use crate::sources::dma_buf::{DmaBuf, DmaBufSource, Given};
use crate::storage::refusal::Refusal;
use crate::storage::source::FrameSetting;
use crate::sys::socket;
use crate::sys::watched::Watched;

use super::accesses::until_closed;

/// Pages that a buffer has at most.
const PAGES_MAX: u64 = 512;

impl ClientState {
    /// Makes a buffer of at least so many bytes; gives its descriptor.
    ///
    /// # Errors
    /// EINVAL if it would have no page, or too many; EOPNOTSUPP if frames are those of the host; EMFILE if there are too many
    /// buffers; what the kernel says about sockets.
    pub fn mock_dma_buf(&self, length: ByteLen) -> Result<OwnedFd, Refusal> {
        let pages = length.get().div_ceil(PAGE_SIZE);
        if !(1..=PAGES_MAX).contains(&pages) {
            let text = format!("a mock buffer has 1 to {PAGES_MAX} pages, not {pages}");
            return Err(Refusal::new(Errno::INVAL, "dma-buf-length", text));
        }
        if self.agent.pins.frame_setting() == FrameSetting::Physical {
            let text = "memory of mock devices has no physical frames: set frames to \"logical\"";
            return Err(Refusal::new(Errno::OPNOTSUPP, "dma-buf-frames", text));
        }
        let buffer = Arc::new(DmaBuf::new(pages, Arc::clone(self.agent.pins.frames())));
        let opened = self.open_dma_buf(&buffer).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Refusal::new(errno, "descriptor-open", format!("cannot open a descriptor: {error}"))
        })?;
        let (own, given) = opened;
        actix_rt::spawn(async move {
            until_closed(&own).await;
            drop(buffer);
        });
        Ok(given)
    }

    fn open_dma_buf(&self, buffer: &Arc<DmaBuf>) -> std::io::Result<(Watched<OwnedFd>, OwnedFd)> {
        let (own, given) = socket::pair()?;
        let own = Watched::new(own)?;
        let number = socket::number(given.as_fd())?;
        if let Some(mock) = self.mock_hardware() {
            mock.note_buffer(number, buffer)?;
        }
        Ok((own, given))
    }

    /// The buffer that a descriptor stands for, if it is one.
    fn buffer_of(&self, fd: BorrowedFd<'_>) -> Option<Arc<MockBuffer>> {
        let mock = self.mock_hardware()?;
        mock.buffer(socket::number(fd).ok()?)
    }

    /// Takes a buffer back, or gives it again. What was mapped of it has left every domain when this returns.
    ///
    /// # Errors
    /// EINVAL if the descriptor is no buffer.
    pub async fn mock_give(&self, fd: BorrowedFd<'_>, given: Given) -> Result<(), Refusal> {
        let buffer = self.buffer_of(fd).ok_or_else(|| {
            let text = "the descriptor is no memory of a mock device: make some with DMABUF_GET";
            Refusal::new(Errno::INVAL, "dma-buf-other", text)
        })?;
        if let Some(memory) = buffer.memory.upgrade() {
            memory.give(given);
        }
        for ioas in buffer.users() {
            let withdrawn = ioas.send(Withdraw).await;
            tracing::trace!(withdrawn = withdrawn.is_ok(), "memory of a device was taken back");
        }
        Ok(())
    }

    /// `length` bytes from `start` on of a buffer, to be mapped to `target`; `None` if the descriptor is no buffer.
    ///
    /// # Errors
    /// EINVAL if it is shorter, ENODEV if it was taken back.
    pub(in crate::actors::client_context) fn mock_source(
        &self,
        fd: BorrowedFd<'_>,
        (start, length): (ByteLen, ByteLen),
        target: &IoasObject,
    ) -> Result<Option<Arc<DmaBufSource>>, Refusal> {
        let Some(buffer) = self.buffer_of(fd) else { return Ok(None) };
        let memory = buffer.memory.upgrade();
        let bytes = memory.as_ref().map_or(0, |memory| memory.pages.saturating_mul(PAGE_SIZE));
        if start.checked_add(length.get()).is_none_or(|end| end.get() > bytes) {
            let text = format!("{length} bytes from {start} are not all in its {bytes} bytes");
            return Err(Refusal::new(Errno::INVAL, "dma-buf-range", text));
        }
        buffer.note_user(target.ioas.downgrade());
        let source = memory.and_then(|memory| memory.source(PageIndex::containing(start)));
        source.map(|source| Some(Arc::new(source))).ok_or_else(|| {
            Refusal::new(Errno::NODEV, "dma-buf-revoked", "it was taken back: wait until it is given again")
        })
    }

    /// Lets a buffer that is behind a pages object know of an address space that will show it, too.
    pub(in crate::actors::client_context) fn note_buffer_user(
        &self,
        source: &DmaBufSource,
        target: &IoasObject,
    ) {
        let mock = self.mock_hardware();
        let buffer = mock.and_then(|mock| mock.buffer_with(source));
        if let Some(buffer) = buffer {
            buffer.note_user(target.ioas.downgrade());
        }
    }
}
