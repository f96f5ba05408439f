//! What tables map and what is pinned, against the program's memory.
//!
//! Tables are read as a device would read them. A frame names a page of a file, or of memory that a process has mapped; so
//! does each page of the program's memory, by its file if it is shared and by its address if not, and the two are compared.
//!
//! Imports allowed: state, storage, messages, the object actors, domains.

use std::sync::Arc;

use actix::Addr;
use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, PageIndex, Pfn, PhysAddr};
use ioasd_client::wire::mock::Extent;

use crate::actors::client_context::state::ClientState;
use crate::actors::fan_out::WithTable;
use crate::actors::guard::poisoned;
use crate::actors::mock_hardware::MockHardware;
use crate::actors::objects::DeviceKind;
use crate::actors::pages::{LookAtPages, Pages};
use crate::domains::table::DomainTable;
use crate::error::Errno;
use crate::sources::backing::Backing;
use crate::storage::frame_window::FileKey;
use crate::storage::pfn::PfnBatch;
use crate::storage::refusal::Refusal;
use crate::sys::pidfd::PidFd;

/// The program's memory behind an address: which page of which file, or of whose memory, each of its pages is.
#[derive(Clone, Debug)]
pub struct Memory {
    extents: Vec<Extent>,
    /// Whose memory it is, if that is certain.
    process: Option<Arc<PidFd>>,
    /// Its first page in the address space.
    first: u64,
    /// Where in its first page it begins.
    into_page: u64,
}

/// What a page of memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MemoryPage {
    /// A page of a file.
    File(FileKey, PageIndex),
    /// Private memory, at this page of the address space.
    Private(PageIndex),
}

impl Memory {
    /// The memory whose pages are `extents`, from the byte at `address` on.
    #[must_use]
    pub const fn new(extents: Vec<Extent>, address: u64, process: Option<Arc<PidFd>>) -> Self {
        Self { extents, process, first: address / PAGE_SIZE, into_page: address % PAGE_SIZE }
    }

    /// Page `index` by its address alone.
    const fn own(&self, index: u64) -> MemoryPage {
        MemoryPage::Private(PageIndex::new(self.first.saturating_add(index)))
    }

    /// Whether page `index`, which is `wanted`, is `found`: shared memory, too, may be mapped by its address.
    fn is(&self, index: u64, wanted: MemoryPage, found: MemoryPage) -> bool {
        found == wanted || found == self.own(index)
    }

    /// What page `index` is.
    fn page(&self, index: u64) -> Result<MemoryPage, Refusal> {
        let mut left = index;
        for extent in &self.extents {
            if left < extent.pages {
                let key = FileKey { dev: extent.device, inode: extent.inode };
                let page = PageIndex::new(extent.page.saturating_add(left));
                let private = extent.inode == 0;
                return Ok(if private { MemoryPage::Private(page) } else { MemoryPage::File(key, page) });
            }
            left -= extent.pages;
        }
        let text = format!("page {index} of the memory is not there");
        Err(Refusal::new(Errno::FAULT, "memory-absent", text))
    }
}

/// A piece of a table: `length` bytes from `iova` lie from `phys` on.
#[derive(Clone, Copy, Debug)]
struct Piece {
    iova: Iova,
    phys: PhysAddr,
    length: u64,
}

impl ClientState {
    /// Whether the domain of a HWPT maps, from the start of `range` on, the program's memory.
    ///
    /// # Errors
    /// ENOENT without such a HWPT; EINVAL if it is none of a mock device, something is not aligned for it, or it maps
    /// anything else; EFAULT where there is no memory.
    pub async fn mock_check_map(
        &self,
        hwpt: ObjectId,
        (iova, length): (Iova, ByteLen),
        (address, memory): (u64, Memory),
    ) -> Result<(), Refusal> {
        let hwpt = self.look(|objects| objects.hwpt(hwpt))?;
        let mock = ioasd_client::formats::FormatId::AmdV1Granule2K;
        let alignment = hwpt.spec.alignment();
        let aligned = [iova.get(), length.get(), address].iter().all(|number| number % alignment == 0);
        if hwpt.spec.format() != mock || !aligned || address.checked_add(length.get()).is_none() {
            return Err(differs(iova, "the numbers are not those of a mock domain"));
        }
        let Some(range) = IovaRange::from_length(iova, length) else { return Ok(()) };
        let shard = self.agent.shards.get(hwpt.key.fan_out).ok_or_else(|| poisoned("a FanOut"))?;
        let read = shard.fan_out.send(WithTable::new(hwpt.key.id, move |table| pieces(table, range))).await;
        let (pieces, hole) = read.ok().flatten().ok_or_else(|| poisoned("a FanOut"))?;
        self.compare(range, &pieces, &memory)?;
        let Some(hole) = hole else { return Ok(()) };
        let place = hole.offset_from(iova).get().saturating_add(memory.into_page);
        memory.page(place / PAGE_SIZE)?;
        Err(differs(hole, "nothing is mapped"))
    }

    fn compare(&self, range: IovaRange, pieces: &[Piece], memory: &Memory) -> Result<(), Refusal> {
        for piece in pieces {
            let mut done = 0;
            while done < piece.length {
                let iova = piece.iova.get().saturating_add(done);
                let phys = piece.phys.get().saturating_add(done);
                let place = (iova - range.start().get()).saturating_add(memory.into_page);
                self.compare_page(Iova::new(iova), phys, (memory, place))?;
                done += PAGE_SIZE - phys % PAGE_SIZE;
            }
        }
        Ok(())
    }

    fn compare_page(&self, iova: Iova, phys: u64, (memory, place): (&Memory, u64)) -> Result<(), Refusal> {
        let wanted = memory.page(place / PAGE_SIZE)?;
        let found = self.page_of(Pfn::new(phys / PAGE_SIZE), memory);
        if found.is_some_and(|found| memory.is(place / PAGE_SIZE, wanted, found))
            && phys % PAGE_SIZE == place % PAGE_SIZE
        {
            return Ok(());
        }
        Err(differs(
            iova,
            &format!("{found:?} + {:#x} is mapped, the memory is {wanted:?}", phys % PAGE_SIZE),
        ))
    }

    /// What a frame is to the program whose memory is looked at.
    fn page_of(&self, frame: Pfn, memory: &Memory) -> Option<MemoryPage> {
        let (key, page) = self.agent.frames.resolve(frame)?;
        let private = self.agent.mock.iter().flat_map(|mock| mock.pages()).find_map(|(_, backing)| {
            let source = backing.process().filter(|source| source.key() == key)?;
            let process = memory.process.as_ref().filter(|process| source.owner().is(process));
            process.map(|_| PageIndex::new(source.pages().start.get() / PAGE_SIZE + page.get()))
        });
        Some(private.map_or(MemoryPage::File(key, page), MemoryPage::Private))
    }

    /// Whether pinned frames are the program's memory.
    ///
    /// # Errors
    /// EBADE if not, EFAULT where there is no memory.
    pub fn mock_check_pinned(&self, pinned: &[Arc<PfnBatch>], memory: &Memory) -> Result<(), Refusal> {
        let runs = pinned.iter().flat_map(|batch| batch.runs());
        let frames = runs.flat_map(|run| (0..run.pages).map(|page| run.pfn.get() + u64::from(page)));
        for (index, frame) in (0..).zip(frames) {
            let wanted = memory.page(index)?;
            let found = self.page_of(Pfn::new(frame), memory);
            if !found.is_some_and(|found| memory.is(index, wanted, found)) {
                let text = format!("page {index}: {found:?} is pinned, the memory is {wanted:?}");
                return Err(Refusal::new(Errno::BADE, "memory-differs", text));
            }
        }
        Ok(())
    }

    /// Whether every page of the program's memory is pinned by so many pages objects; those of huge pages are not looked at, as in
    /// the kernel. Contexts that have hung up are taken down before.
    ///
    /// # Errors
    /// EIO if not, EFAULT where there is no memory.
    pub async fn mock_check_refs(
        &self,
        hardware: &MockHardware,
        (pages, wanted): (u64, u32),
        memory: &Memory,
    ) -> Result<(), Refusal> {
        self.agent.leases.reap().await;
        for index in 0..pages {
            let page = memory.page(index)?;
            let (mut found, mut huge) = (0_u32, false);
            for (pages, backing) in hardware.pages() {
                let here = index_in(&backing, page, memory);
                let here = here.or_else(|| index_in(&backing, memory.own(index), memory));
                huge |= here.is_some() && backing.huge_page().is_some();
                found += u32::from(pins(&pages, here).await);
            }
            if found != wanted && !huge {
                let text = format!("page {index} is pinned {found} times, not {wanted}");
                return Err(Refusal::new(Errno::IO, "pins-differ", text));
            }
        }
        Ok(())
    }

    /// Whether `device` is a mock device.
    #[must_use]
    pub fn is_mock_device(&self, device: ObjectId) -> bool {
        self.look(|objects| objects.device(device)).is_ok_and(|device| device.stats.kind == DeviceKind::Mock)
    }
}

/// What a table maps of a range, leaf by leaf, up to the first address that it does not map, if there is one.
fn pieces(table: &dyn DomainTable, range: IovaRange) -> (Vec<Piece>, Option<Iova>) {
    let (mut pieces, mut done, length) = (Vec::new(), 0, range.length().get());
    while done < length {
        let iova = Iova::new(range.start().get() + done);
        let Some((phys, rest, _)) = table.translate(iova) else {
            return (pieces, Some(iova));
        };
        let here = rest.get().clamp(1, length - done);
        pieces.push(Piece { iova, phys, length: here });
        done += here;
    }
    (pieces, None)
}

/// Which page of a pages object a page of the program's memory is, if it is one.
fn index_in(backing: &Backing, page: MemoryPage, memory: &Memory) -> Option<PageIndex> {
    let (first, pages, page) = match page {
        MemoryPage::File(file, page) => {
            let (_, pages) = backing.place().filter(|(key, _)| *key == file)?;
            (pages.first().get(), pages.pages(), page)
        }
        MemoryPage::Private(page) => {
            let process = memory.process.as_ref()?;
            let source = backing.process().filter(|source| source.owner().is(process))?;
            (source.pages().start.get() / PAGE_SIZE, source.pages().pages, page)
        }
    };
    page.get().checked_sub(first).filter(|index| *index < pages).map(PageIndex::new)
}

/// Whether a pages object holds a pin of one of its pages.
async fn pins(object: &Addr<Pages>, index: Option<PageIndex>) -> bool {
    let Some(index) = index else { return false };
    let look = LookAtPages::new(move |book| book.next_unheld(index, index).is_none());
    object.send(look).await.unwrap_or(false)
}

fn differs(iova: Iova, text: &str) -> Refusal {
    Refusal::new(Errno::INVAL, "mapping-differs", format!("at {iova}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_across_extents() {
        let extent = |inode, page, pages| Extent { device: 1, inode, page, pages };
        let memory = Memory::new(vec![extent(7, 10, 2), extent(0, 9, 1), extent(8, 0, 1)], 0x1800, None);
        let file = |inode, page| MemoryPage::File(FileKey { dev: 1, inode }, PageIndex::new(page));
        assert_eq!(memory.into_page, 0x800);
        let found: Vec<_> = (0..4).map(|index| memory.page(index).unwrap()).collect();
        assert_eq!(found, [file(7, 10), file(7, 11), MemoryPage::Private(PageIndex::new(9)), file(8, 0)]);
        assert_eq!(crate::error::Coded::errno(&memory.page(4).unwrap_err()), Errno::FAULT);
    }
}
