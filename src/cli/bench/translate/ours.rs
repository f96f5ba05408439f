//! The walker, with and without an IOTLB, over tables as the agent writes them; and a sorted list, the simplest peer.
//!
//! Imports allowed: domains, sys, the client crate's walker.

use ioasd_client::formats::FormatId;
use ioasd_client::layout::{BootId, FrameWindow};
use ioasd_client::mapping::MapAccess;
use ioasd_client::units::{ByteLen, Iova, PAGE_SIZE, PageIndex, Permission, Pfn, PhysAddr};
use ioasd_client::walker::{Access, BackingFile, DomainParts, Stream, Walker};

use super::{ASKED, BenchError, Layout, START, Translator, memory};
use crate::domains::arena::ArenaSize;
use crate::domains::map::MapRun;
use crate::domains::spec::TableSpec;
use crate::domains::table::{self, Budget, DomainTable};
use crate::storage::io_pagetable::LargePages;
use crate::storage::ledger::node::Allowance;
use crate::storage::ledger::resource::Resource;
use crate::storage::refusal::Refusal;
use crate::sys::memfd;

const NAME: &str = "ioasd-bench";

/// The frame of the first page of the memory: a place where a leaf of any size may begin.
const FIRST: Pfn = Pfn::new(1 << 24);

/// A stream of a walker.
pub(in crate::cli::bench) struct Walked {
    name: &'static str,
    stream: Stream,
    /// Where the memory begins.
    base: u64,
    /// Whom the walker believes that its domain is served, unless somebody else has it.
    _table: Option<Box<dyn DomainTable>>,
}

/// A walker without an IOTLB, and one with it.
pub(super) fn translators(layout: Layout) -> Result<Vec<Box<dyn Translator>>, BenchError> {
    let walked = Walked::of(layout, "walker", |stream| stream)?;
    let remembered = Walked::of(layout, "iotlb", Stream::with_iotlb)?;
    Ok(vec![Box::new(walked), Box::new(remembered)])
}

impl Walked {
    /// A walker of a table of its own.
    fn of(
        layout: Layout,
        name: &'static str,
        change: impl FnOnce(Stream) -> Stream,
    ) -> Result<Self, BenchError> {
        let table = table_of(layout)?;
        let walked = Self::new(&*table, layout, name, change)?;
        Ok(Self { _table: Some(table), ..walked })
    }

    /// A walker of `table`, which somebody keeps.
    pub(in crate::cli::bench) fn new(
        table: &dyn DomainTable,
        layout: Layout,
        name: &'static str,
        change: impl FnOnce(Stream) -> Stream,
    ) -> Result<Self, BenchError> {
        let walker = walker_of(table, layout)?;
        let mut stream = change(walker.stream().map_err(|_| BenchError::Lost)?);
        let base = base_of(&mut stream, layout).ok_or(BenchError::Lost)?;
        Ok(Self { name, stream, base, _table: None })
    }
}

/// A table that shows every leaf of the layout.
pub(in crate::cli::bench) fn table_of(layout: Layout) -> Result<Box<dyn DomainTable>, BenchError> {
    let size = ArenaSize::new(ByteLen::new((layout.length / layout.leaf * 8 * 2).max(16 << 20)));
    let spec = TableSpec::of(FormatId::AmdV1);
    let table = table::create(spec, Allowance::unlimited(Resource::Tables), size, BootId([0; 16]));
    let mut table = table.map_err(|error| Refusal::of(&error))?;
    let large_pages = if layout.leaf == PAGE_SIZE { LargePages::Off } else { LargePages::On };
    for start in layout.leaves() {
        let mapped = table.map(&leaf_at(layout, start, large_pages), &mut Budget::unlimited());
        mapped.map_err(|error| Refusal::of(&error))?;
    }
    Ok(table)
}

/// The leaf `start` bytes from the beginning.
pub(in crate::cli::bench) fn leaf_at(layout: Layout, start: u64, large_pages: LargePages) -> MapRun {
    MapRun {
        iova: Iova::new(START + start),
        phys: PhysAddr::new(FIRST.phys().get() + layout.leads_to(start)),
        length: ByteLen::new(layout.leaf),
        permission: Permission::ReadWrite,
        large_pages,
    }
}

/// A walker of `table`, over memory that is never touched.
fn walker_of(table: &dyn DomainTable, layout: Layout) -> Result<Walker, BenchError> {
    let fd = memfd::create(NAME, memory(layout))?;
    let file_page = PageIndex::new(0);
    let window = FrameWindow { first: FIRST, pages: layout.length / PAGE_SIZE, file: 0, file_page };
    let walker = Walker::open(DomainParts {
        arena: table.export()?,
        slots: table.epochs().register_walker()?.0,
        log: None,
        windows: vec![window],
        files: vec![BackingFile { fd, access: MapAccess::ReadWrite }],
    });
    walker.map_err(|_| BenchError::Lost)
}

fn base_of(stream: &mut Stream, layout: Layout) -> Option<u64> {
    let slice = stream.enter().slice(Iova::new(START), ByteLen::new(1), Access::Read).ok()?.memory.as_ptr();
    Some((slice.addr() as u64).wrapping_sub(layout.leads_to(0)))
}

impl Translator for Walked {
    fn name(&self) -> &'static str {
        self.name
    }

    fn sum(&mut self, offsets: &[u64]) -> u64 {
        let (burst, mut sum) = (self.stream.enter(), 0_u64);
        for offset in offsets {
            let slice = burst.slice(Iova::new(START + offset), ByteLen::new(ASKED), Access::Read);
            let place = slice.map_or(0, |slice| slice.memory.as_ptr().addr() as u64);
            sum = sum.wrapping_add(place.wrapping_sub(self.base));
        }
        sum
    }
}

/// Leaves in the order of their IOVAs.
pub(super) struct Sorted {
    leaves: Vec<(u64, u64)>,
}

impl Sorted {
    pub(super) fn new(layout: Layout) -> Self {
        Self { leaves: layout.leaves().map(|start| (START + start, layout.leads_to(start))).collect() }
    }

    fn place(&self, iova: u64) -> Option<u64> {
        let behind = self.leaves.partition_point(|(start, _)| *start <= iova);
        let (start, place) = self.leaves.get(behind.checked_sub(1)?)?;
        Some(place + (iova - start))
    }
}

impl Translator for Sorted {
    fn name(&self) -> &'static str {
        "sorted"
    }

    fn sum(&mut self, offsets: &[u64]) -> u64 {
        let places = offsets.iter().filter_map(|offset| self.place(START + offset));
        places.fold(0, u64::wrapping_add)
    }
}
