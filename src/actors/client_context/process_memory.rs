//! IOAS_MAP: memory of a process by its address.
//!
//! Memory that is shared, and is one file, is mapped as that file, but pinned only while the process has it. Any other
//! memory is pinned by its process when the agent asks it to, else copied, else absent: mapped, as in the kernel, but never
//! pinned.
//!
//! Imports allowed: state, address_spaces, sources, storage, messages, the object actors.

use std::os::fd::AsFd;
use std::sync::Arc;

use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, Iova, PAGE_SIZE, Permission, UserAddr};

use super::address_spaces::{Mapping, NewPages, pages_of, writable};
use super::rights::MemoryRights;
use super::state::ClientState;
use crate::actors::ioas::Map;
use crate::sources::absent::AbsentMemory;
use crate::sources::backing::Backing;
use crate::sources::owned_file::{MappedBy, OwnedFile};
use crate::sources::process::{Owner, ProcessHold, ProcessPages, ProcessSource};
use crate::storage::counts::ArrayLen;
use crate::storage::io_pagetable::Piece;
use crate::storage::iova_allocator::OriginAddr;
use crate::storage::refusal::Refusal;
use crate::storage::source::{PageSource, ProcessSetting, SourceKind, Strength};
use crate::sys::client_fd::ClientFd;
use crate::sys::file_state::{self, FileAccess, FileKind};
use crate::sys::pidfd::PidFd;
use crate::sys::process_memory::Access;
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
        let start = UserAddr::new(memory.start.get() - offset.get());
        let payer = self.payer(who.as_ref());
        let whole = WholePages { start, permission, owner: self.owner(who.as_ref()) };
        let new = self.pages_of_memory(memory, whole, &self.rights_of(&payer))?;
        let access = new.backing.file().map_or(FileAccess::ReadWrite, |file| file.access());
        let pages_writable = writable(permission, access);
        let pages = self.start_pages(new, payer)?;
        let map =
            Map { pieces: vec![Piece { pages, offset, length, pages_writable }], permission, placement };
        Ok(target.cell.map(map).await?.start())
    }

    fn pages_of_memory(
        &self,
        memory: MemorySlice,
        whole: WholePages,
        rights: &MemoryRights,
    ) -> Result<NewPages, Refusal> {
        let WholePages { start, permission, owner } = whole;
        let origin = OriginAddr::new(start.get());
        let offset = ByteLen::new(memory.start.get() - start.get());
        let (file, file_offset) = match memory.file {
            Some((file, offset)) if file_state::kind(file.as_fd()) != Ok(FileKind::Other) => (file, offset),
            other => {
                rights.may_map(SourceKind::Process)?;
                let of = other.map_or(Content::OfTheProcess, |_| Content::OfAFileSystem);
                let pages = pages_of(offset, memory.length)?.pages();
                let range = ProcessRange { start, pages, permission, of };
                let (source, backing) = self.memory_source(range, owner, rights)?;
                return Ok(NewPages { source, len: ArrayLen::new(pages), origin, backing });
            }
        };
        let pages = pages_of(file_offset, memory.length)?;
        let file = self.file_source((file, pages), rights)?;
        let by = match owner {
            Ok(owner) => MappedBy::Owner(owner),
            Err(NoOwner { process: Some(process), .. }) => MappedBy::Process(process),
            Err(NoOwner { process: None, .. }) => MappedBy::Unknown,
        };
        let source = Arc::new(OwnedFile::new(file, by));
        let backing = Backing::Shared(Arc::clone(&source));
        Ok(NewPages { source, len: ArrayLen::new(pages.pages()), origin, backing })
    }

    /// The source of memory that is no file: pinned, copied or absent.
    fn memory_source(
        &self,
        range: ProcessRange,
        owner: Result<Owner, NoOwner>,
        rights: &MemoryRights,
    ) -> Result<(Arc<dyn PageSource>, Backing), Refusal> {
        let holds = owner.map_err(|no| no.reason).and_then(|owner| {
            let holds = self.holds_of(&owner, range)?;
            Ok((owner, holds))
        });
        let (owner, holds) = match holds {
            Ok(possible) => possible,
            Err(reason) => {
                return Ok((Arc::new(AbsentMemory::new(range.start, reason)), Backing::Nothing));
            }
        };
        let hold = strongest_allowed(holds, rights)?;
        let frames = Arc::clone(self.agent.pins.frames());
        let source = Arc::new(ProcessSource::new(owner, range.wanted(), hold, frames));
        Ok((Arc::clone(&source) as Arc<_>, Backing::Process(source)))
    }

    /// What can hold memory of a process, by the setting and by what the process can. A ring pins for writing alone: what
    /// is only to be read, and may not be written or is shared with a file system, is copied.
    fn holds_of(&self, owner: &Owner, range: ProcessRange) -> Result<ProcessHolds, String> {
        let upcall = || self.memory.upcall(&owner.process).map(ProcessHold::Rings);
        match self.agent.pins.process_memory() {
            ProcessSetting::Refuse => Err("memory of processes is only mapped if it is shared and one file \
                                           (process_memory, or frames, in the agent's configuration)"
                .to_owned()),
            ProcessSetting::Copy => Ok(ProcessHolds { rings: None, copy: Some(ProcessHold::Copy) }),
            ProcessSetting::Pin => {
                let rings = upcall()
                    .ok_or("the process does not pin for the agent: it needs io_uring, and the shim")?;
                Ok(ProcessHolds { rings: Some(rings), copy: None })
            }
            ProcessSetting::Auto => {
                let length = ByteLen::new(range.pages * PAGE_SIZE);
                let constant = || owner.memory.access(range.start, length) == Ok(Access::Read);
                let only_read = match range.of {
                    Content::OfTheProcess => constant(),
                    Content::OfAFileSystem => !range.permission.can_write(),
                };
                let rings = upcall().filter(|_| !only_read);
                Ok(ProcessHolds { rings, copy: Some(ProcessHold::Copy) })
            }
        }
    }

    /// The memory of the process that sent a command.
    fn owner(&self, who: Option<&Sender>) -> Result<Owner, NoOwner> {
        let process = who.and_then(|who| who.process.clone());
        let Some(known) = &process else {
            let reason = "the process that mapped it is not known for certain".to_owned();
            return Err(NoOwner { process, reason });
        };
        self.memory.owner(known).map_err(|error| NoOwner {
            process,
            reason: format!(
                "the agent cannot reach into the process: {error}; run both as the same user, or the agent with \
                 CAP_SYS_PTRACE (see `ioasd check-host`)"
            ),
        })
    }
}

/// What can hold memory of a process.
struct ProcessHolds {
    rings: Option<ProcessHold>,
    copy: Option<ProcessHold>,
}

/// The strongest that the tenant may have.
fn strongest_allowed(holds: ProcessHolds, rights: &MemoryRights) -> Result<ProcessHold, Refusal> {
    let ProcessHolds { rings, copy } = holds;
    let possible = [(Strength::Longterm, rings), (Strength::Copy, copy)];
    let possible = possible.into_iter().filter_map(|(strength, hold)| Some((strength, hold?)));
    let possible: Vec<(Strength, ProcessHold)> = possible.collect();
    let allowed = rights.may_hold(possible.iter().map(|(strength, _)| *strength).collect())?;
    let first = possible.into_iter().find(|(strength, _)| allowed.has(*strength));
    Ok(first.map_or(ProcessHold::Copy, |(_, hold)| hold))
}

/// What is known of whole pages of memory besides their number.
struct WholePages {
    start: UserAddr,
    permission: Permission,
    owner: Result<Owner, NoOwner>,
}

/// Pages of a process, for devices that may do so much.
#[derive(Clone, Copy)]
struct ProcessRange {
    start: UserAddr,
    pages: u64,
    permission: Permission,
    of: Content,
}

/// Whose bytes are in memory that is no file to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// The process's own, or shared through a file that is not at hand.
    OfTheProcess,
    /// Those of a file that is kept elsewhere, shared with it.
    OfAFileSystem,
}

impl ProcessRange {
    /// A device that writes needs memory that the process may write.
    const fn wanted(self) -> ProcessPages {
        let access = if self.permission.can_write() { Access::Write } else { Access::Read };
        ProcessPages { start: self.start, pages: self.pages, access }
    }
}

/// A process into which the agent cannot reach.
struct NoOwner {
    process: Option<Arc<PidFd>>,
    reason: String,
}
