//! A table, and the second walker on a mapping of its arena.

use ioasd::domains::arena::ArenaSize;
use ioasd::domains::error::MapError;
use ioasd::domains::map::MapRun;
use ioasd::domains::spec::TableSpec;
use ioasd::domains::table::{Budget, DomainTable, create};
use ioasd::storage::io_pagetable::LargePages;
use ioasd::storage::ledger::node::Allowance;
use ioasd::storage::ledger::resource::Resource;
use ioasd_client::formats::FormatId;
use ioasd_client::layout::{ArenaHeader, BootId, HEADER_WORDS};
use ioasd_client::mapping::{MapAccess, SharedMapping};
use ioasd_client::units::{ByteLen, Iova, IovaRange, Permission, PhysAddr};

use crate::second_walker::{End, walk};

/// Bytes that a table may take.
const ARENA: u64 = 1 << 24;

/// A table and who reads it.
pub struct Setup {
    /// The table.
    pub table: Box<dyn DomainTable>,
    arena: SharedMapping,
    root: u64,
}

/// One mapping, in plain numbers.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// First address.
    pub iova: u64,
    /// First output address.
    pub phys: u64,
    /// Bytes.
    pub length: u64,
    /// What is allowed.
    pub permission: Permission,
    /// Whether leaves may be larger than a page.
    pub large_pages: LargePages,
}

impl Setup {
    /// An empty table.
    pub fn new(spec: TableSpec) -> Self {
        let table = create(
            spec,
            Allowance::unlimited(Resource::Tables),
            ArenaSize::new(ByteLen::new(ARENA)),
            BootId([7; 16]),
        )
        .unwrap();
        let arena =
            SharedMapping::new(table.export().unwrap(), ByteLen::new(ARENA), MapAccess::ReadOnly).unwrap();
        let words: [u64; HEADER_WORDS] = std::array::from_fn(|word| arena.load(8 * word as u64).unwrap());
        let header = ArenaHeader::decode(&words).unwrap();
        assert_eq!(header.geometry, spec.geometry());
        Self { table, arena, root: header.root.get() }
    }

    /// Maps and checks the table.
    pub fn map(&mut self, run: Run, budget: &mut Budget) -> Result<u64, MapError> {
        let Run { iova, phys, length, permission, large_pages } = run;
        let (iova, phys, length) = (Iova::new(iova), PhysAddr::new(phys), ByteLen::new(length));
        let mapped = self.table.map(&MapRun { iova, phys, length, permission, large_pages }, budget);
        self.table.check();
        mapped.map(ByteLen::get)
    }

    /// What both walkers find, which must be the same: first the address, then the size of the leaf.
    pub fn translate(&self, iova: u64) -> Option<(u64, u64, Permission)> {
        let first = self.table.translate(Iova::new(iova));
        let second = walk(self.format(), &|address| self.arena.load(address).unwrap(), self.root, iova);
        match (first, second) {
            (None, End::NotPresent) => None,
            (Some((phys, left, permission)), End::Memory { phys: other, size, read, write }) => {
                assert_eq!((phys.get(), left.get()), (other, size - iova % size), "{iova:#x}");
                assert_eq!((permission.can_read(), permission.can_write()), (read, write), "{iova:#x}");
                Some((other, size, permission))
            }
            (first, second) => panic!("{iova:#x}: the table says {first:?}, the second walker {second:?}"),
        }
    }

    /// The format.
    pub fn format(&self) -> FormatId {
        self.table.spec().format()
    }
}

/// The permission that a mapping has once it is written: RISC-V knows no writing without reading.
pub const fn granted(format: FormatId, permission: Permission) -> Permission {
    match (format, permission) {
        (FormatId::RiscVSv48 | FormatId::RiscVSv57, Permission::Write) => Permission::ReadWrite,
        _ => permission,
    }
}

/// `length` bytes from `iova` on.
pub fn range(iova: u64, length: u64) -> IovaRange {
    IovaRange::from_length(Iova::new(iova), ByteLen::new(length)).unwrap()
}
