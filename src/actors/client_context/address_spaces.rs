//! Operations of a context on its address spaces.
//!
//! Imports allowed: state, storage, sources, messages, the object actors.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, IndexRange, Iova, IovaRange, PAGE_SIZE, PageIndex, Permission};
use rustix::process::Uid;

use super::rights::MemoryRights;
use super::state::ClientState;
use crate::actors::figures::{IoasStats, PagesIdentity, PagesStats};
use crate::actors::ioas::{Ioas, Map};
use crate::actors::objects::{IoasObject, Object};
use crate::actors::pages::{Pages, PagesParts};
use crate::actors::pages_handle::PagesHandle;
use crate::actors::payer::Payer;
use crate::error::Errno;
use crate::fault_points::{self, Point};
use crate::sources::backing::Backing;
use crate::sources::dma_buf::DmaBufSource;
use crate::sources::file::FileSource;
use crate::storage::counts::ArrayLen;
use crate::storage::io_pagetable::{Piece, Placement, UnmapRequest, Writable};
use crate::storage::iova_allocator::OriginAddr;
use crate::storage::ledger::resource::Resource;
use crate::storage::refusal::Refusal;
use crate::storage::source::PageSource;
use crate::sys::client_fd::ClientFd;
use crate::sys::file_state::FileAccess;
use crate::sys::sender::Sender;

/// A slice of a file to map.
#[derive(Debug)]
pub struct FileSlice {
    /// The file.
    pub file: ClientFd,
    /// Offset of the first byte.
    pub start: ByteLen,
    /// Number of bytes.
    pub length: ByteLen,
}

/// How a piece of memory is to be mapped.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// What devices may do.
    pub permission: Permission,
    /// Where.
    pub placement: Placement,
}

/// Pages that do not exist yet.
pub struct NewPages {
    /// Where they come from.
    pub source: Arc<dyn PageSource>,
    /// How many.
    pub len: ArrayLen,
    /// The address of page 0 in the memory it comes from.
    pub origin: OriginAddr,
    /// What is behind them.
    pub backing: Backing,
}

impl ClientState {
    /// IOAS_ALLOC.
    ///
    /// # Errors
    /// If the context has too many objects.
    pub fn ioas_alloc(&self) -> Result<ObjectId, Refusal> {
        let reserved = self.reserve()?;
        fault_points::hit(Point::ActorStart).map_err(|injected| Refusal::of(&injected))?;
        let stats = self.agent.registry.register_ioas(IoasStats::new(self.stats.number(), reserved.id()));
        let (id, number) = (reserved.id(), stats.number());
        let ioas = Ioas::new(self.allowance(Resource::Areas), self.local.retirement.clone(), stats);
        let (cell, ioas) = (ioas.cell(), ioas.start());
        reserved.publish(Object::Ioas(Rc::new(IoasObject::new(id, (ioas, cell), number))));
        Ok(id)
    }

    /// IOAS_MAP_FILE. `who` pays.
    ///
    /// # Errors
    /// As the spec of MAP_FILE says.
    pub async fn map_file(
        &self,
        ioas: ObjectId,
        slice: FileSlice,
        mapping: Mapping,
        who: Option<Sender>,
    ) -> Result<Iova, Refusal> {
        let target = self.look(|objects| objects.ioas(ioas))?;
        let map = self.file_map(slice, mapping, (self.payer(who.as_ref()), &target))?;
        Ok(target.cell.map(map).await?.start())
    }

    /// The MAP of a slice of a file, whose pages `payer` pays for, or of memory of a mock device.
    pub(super) fn file_map(
        &self,
        slice: FileSlice,
        Mapping { permission, placement }: Mapping,
        (payer, target): (Payer, &IoasObject),
    ) -> Result<Map, Refusal> {
        let FileSlice { file, start, length } = slice;
        let pages = pages_of(start, length)?;
        if let Some(source) = self.mock_source(file.as_fd(), (start, length), target)? {
            self.may_mock()?;
            let piece = self.device_piece(source, (start, length), (pages, payer))?;
            return Ok(Map { pieces: vec![piece], permission, placement });
        }
        let source = self.file_source((file, pages), &self.rights_of(&payer))?;
        let pages_writable = writable(permission, source.access());
        let offset = ByteLen::new(start.get() % PAGE_SIZE);
        let new = NewPages {
            source: Arc::clone(&source) as Arc<dyn PageSource>,
            len: ArrayLen::new(pages.pages()),
            origin: OriginAddr::new(start.get() - offset.get()),
            backing: Backing::File(source),
        };
        let pages = self.start_pages(new, payer)?;
        Ok(Map { pieces: vec![Piece { pages, offset, length, pages_writable }], permission, placement })
    }

    /// The piece of a MAP that shows memory of a mock device.
    fn device_piece(
        &self,
        source: Arc<DmaBufSource>,
        (start, length): (ByteLen, ByteLen),
        (pages, payer): (IndexRange, Payer),
    ) -> Result<Piece<PagesHandle>, Refusal> {
        let offset = ByteLen::new(start.get() % PAGE_SIZE);
        let new = NewPages {
            source: Arc::clone(&source) as Arc<dyn PageSource>,
            len: ArrayLen::new(pages.pages()),
            origin: OriginAddr::new(start.get() - offset.get()),
            backing: Backing::DmaBuf(source),
        };
        let pages = self.start_pages(new, payer)?;
        Ok(Piece { pages, offset, length, pages_writable: Writable::ByDevicesAlone })
    }

    /// What the tenant may map, for `payer`.
    pub(super) fn rights_of(&self, payer: &Payer) -> MemoryRights {
        self.memory_rights(payer.bill.account().node().holder())
    }

    /// The pages of a file, held as firmly as is possible and allowed.
    pub(super) fn file_source(
        &self,
        (file, pages): (ClientFd, IndexRange),
        rights: &MemoryRights,
    ) -> Result<Arc<FileSource>, Refusal> {
        let allowed = self.may_map_file(file.as_fd(), rights)?;
        let touch = self.first_touch.clone();
        let source = FileSource::held_among(allowed, (file, pages), &self.agent.pins, touch);
        source.map(Arc::new).map_err(|error| Refusal::of(&error))
    }

    /// Starts a pages object that nothing shows yet; it ends with its last handle.
    ///
    /// # Errors
    /// If a test makes it fail.
    pub fn start_pages(&self, new: NewPages, payer: Payer) -> Result<PagesHandle, Refusal> {
        fault_points::hit(Point::ActorStart).map_err(|injected| Refusal::of(&injected))?;
        let NewPages { source, len, origin, backing } = new;
        let account = Uid::from_raw(payer.bill.account().uid());
        // As with ranges, 2^64-1 stands for the 2^64 bytes of the longest array.
        let length = ByteLen::new(len.get().saturating_mul(PAGE_SIZE));
        let (source_name, strength) = (source.name(), source.strength());
        let (context, places) = (self.stats.number(), backing.file().and_then(|file| file.pinned_places()));
        let identity = PagesIdentity { context, source: source_name, length, strength, places };
        let stats = self.agent.registry.register_pages(PagesStats::new(identity, account));
        let number = stats.number();
        let pages = Pages::new(PagesParts {
            len,
            source,
            payer: RefCell::new(payer),
            pinner: self.local.pinner.clone(),
            shards: self.agent.shards.clone(),
            near_tables: self.near_tables.clone(),
            tuning: self.agent.tuning(&backing),
            stats,
        });
        let handle = PagesHandle::start((pages, number), origin, backing);
        if let Some(mock) = &self.agent.mock {
            mock.note(&handle);
        }
        Ok(handle)
    }

    /// Maps a slice, an offset and a length, of a pages object.
    ///
    /// # Errors
    /// As MAP.
    pub async fn map_pages(
        &self,
        ioas: ObjectId,
        pages: PagesHandle,
        ((offset, length), pages_writable): ((ByteLen, ByteLen), Writable),
        Mapping { permission, placement }: Mapping,
    ) -> Result<IovaRange, Refusal> {
        let target = self.look(|objects| objects.ioas(ioas))?;
        let pieces = vec![Piece { pages, offset, length, pages_writable }];
        target.cell.map(Map { pieces, permission, placement }).await
    }

    /// IOAS_COPY.
    ///
    /// # Errors
    /// As the spec of COPY says.
    pub async fn copy(
        &self,
        (source, range): (ObjectId, IovaRange),
        target: ObjectId,
        Mapping { permission, placement }: Mapping,
    ) -> Result<Iova, Refusal> {
        let source = self.look(|objects| objects.ioas(source))?;
        let pieces = source.cell.copy_pieces(range)?;
        let target = self.look(|objects| objects.ioas(target))?;
        for source in pieces.iter().filter_map(|piece| piece.pages.backing().dma_buf()) {
            self.note_buffer_user(source, &target);
        }
        Ok(target.cell.map(Map { pieces, permission, placement }).await?.start())
    }

    /// IOAS_UNMAP; tells the bytes unmapped.
    ///
    /// # Errors
    /// As the spec of UNMAP says.
    pub async fn unmap(&self, ioas: ObjectId, request: UnmapRequest) -> Result<ByteLen, Refusal> {
        let target = self.look(|objects| objects.ioas(ioas))?;
        target.cell.unmap(request).await
    }

    /// Splits the areas that reach over an end of a range, before it is unmapped, if leaves are pages at most.
    ///
    /// # Errors
    /// ENOENT without such an address space; EBUSY or EINVAL if an area cannot be split there.
    pub async fn cut_out(&self, ioas: ObjectId, range: IovaRange) -> Result<(), Refusal> {
        let target = self.look(|objects| objects.ioas(ioas))?;
        target.cell.cut_out(range).await
    }

    /// Empties an address space that is out of the table.
    pub(super) async fn end_ioas(&self, object: Rc<IoasObject>) {
        let cleared = object.cell.clear().await;
        if cleared.is_err() {
            tracing::error!(id = object.id.get(), ?cleared, "an ioas could not be emptied");
        }
    }
}

/// Whether pages may be written: only if that is asked for, and the file's descriptor can do it.
pub(super) fn writable(permission: Permission, access: FileAccess) -> Writable {
    if permission.can_write() && access == FileAccess::ReadWrite { Writable::Yes } else { Writable::No }
}

/// The pages of a file that hold the bytes of a slice.
pub(super) fn pages_of(start: ByteLen, length: ByteLen) -> Result<IndexRange, Refusal> {
    let last = length.get().checked_sub(1).and_then(|rest| start.checked_add(rest));
    let range =
        last.and_then(|last| IndexRange::new(PageIndex::containing(start), PageIndex::containing(last)));
    range.ok_or_else(|| {
        Refusal::new(
            Errno::OVERFLOW,
            "range-past-end",
            format!("{length} bytes from {start} are no part of a file"),
        )
    })
}
