//! IOAS_MAP: memory of a process by its address.
//!
//! Memory that is shared, and is one file, is mapped as that file. Any other memory is mapped, too, but cannot be pinned.
//!
//! Imports allowed: state, address_spaces, sources, storage, messages, the object actors.

use std::sync::Arc;

use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, Iova, PAGE_SIZE, UserAddr};

use super::address_spaces::{Mapping, NewPages, pages_of, writable};
use super::state::ClientState;
use crate::actors::ioas::Map;
use crate::sources::absent::AbsentMemory;
use crate::sources::file::FileSource;
use crate::storage::counts::ArrayLen;
use crate::storage::io_pagetable::Piece;
use crate::storage::iova_allocator::OriginAddr;
use crate::storage::refusal::Refusal;
use crate::sys::client_fd::ClientFd;
use crate::sys::file_state::FileAccess;
use crate::sys::sender::Sender;

/// Memory of a process.
#[derive(Debug)]
pub struct MemorySlice {
    /// Where it begins.
    pub start: UserAddr,
    /// Its bytes.
    pub length: ByteLen,
    /// The file that it is, and the offset of its first byte, if it is shared.
    pub file: Option<(ClientFd, ByteLen)>,
}

impl ClientState {
    /// IOAS_MAP. `who` pays.
    ///
    /// # Errors
    /// As the spec of MAP says.
    pub async fn map_memory(
        &self,
        ioas: ObjectId,
        memory: MemorySlice,
        Mapping { permission, placement }: Mapping,
        who: Option<Sender>,
    ) -> Result<Iova, Refusal> {
        let target = self.look(|objects| objects.ioas(ioas))?;
        let offset = ByteLen::new(memory.start.get() % PAGE_SIZE);
        let length = memory.length;
        let new = self.pages_of_memory(memory, offset)?;
        let access = new.backing.as_ref().map_or(FileAccess::ReadWrite, |file| file.access());
        let pages_writable = writable(permission, access);
        let pages = self.start_pages(new, self.payer(who.as_ref()))?;
        let map =
            Map { pieces: vec![Piece { pages, offset, length, pages_writable }], permission, placement };
        Ok(target.cell.map(map).await?.start())
    }

    fn pages_of_memory(&self, memory: MemorySlice, offset: ByteLen) -> Result<NewPages, Refusal> {
        let MemorySlice { start, length, file } = memory;
        let origin = OriginAddr::new(start.get() - offset.get());
        let Some((file, file_offset)) = file else {
            let len = pages_of(offset, length)?.pages();
            let source = Arc::new(AbsentMemory::new(start));
            return Ok(NewPages { source, len: ArrayLen::new(len), origin, backing: None });
        };
        let pages = pages_of(file_offset, length)?;
        let source = FileSource::new(file, pages, &self.agent.pins, self.first_touch.clone());
        let source = Arc::new(source.map_err(|error| Refusal::of(&error))?);
        let len = ArrayLen::new(pages.pages());
        Ok(NewPages { source: Arc::clone(&source) as Arc<_>, len, origin, backing: Some(source) })
    }
}
