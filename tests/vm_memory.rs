//! A device written with vm-memory, over the agent's tables: `ioasd_client`'s feature `vm-memory`.
#![expect(clippy::unwrap_used, reason = "tests")]

use ioasd::domains::arena::ArenaSize;
use ioasd::domains::map::MapRun;
use ioasd::domains::table::{Budget, DomainTable, Table};
use ioasd::storage::io_pagetable::LargePages;
use ioasd_client::formats::{ArmS2, Format};
use ioasd_client::layout::{BootId, FrameWindow};
use ioasd_client::mapping::MapAccess;
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, PageIndex, Permission, Pfn};
use ioasd_client::walker::vm_memory::{FrameRegion, WalkerIommu};
use ioasd_client::walker::{BackingFile, DomainParts, Walker};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestRegionCollection, IommuMemory, Permissions};

type Memory = IommuMemory<GuestRegionCollection<FrameRegion>, WalkerIommu>;

/// Pages 0 and 1 of the address space show pages 5 and 2 of a file; the second may only be read.
fn device() -> (Memory, Table<ArmS2>) {
    let mut table = Table::<ArmS2>::new(ArenaSize::new(ByteLen::new(1 << 22)), BootId([0; 16])).unwrap();
    for (page, frame, permission) in [(0, 0x105, Permission::ReadWrite), (1, 0x102, Permission::Read)] {
        let (iova, phys) = (Iova::new(page * PAGE_SIZE), Pfn::new(frame).phys());
        let length = ByteLen::new(PAGE_SIZE);
        let run = MapRun { iova, phys, length, permission, large_pages: LargePages::On };
        table.map(&run, &mut Budget::unlimited()).unwrap();
    }
    let fd = memfd_create("backing", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, 8 * PAGE_SIZE).unwrap();
    let window = FrameWindow { first: Pfn::new(0x100), pages: 8, file: 0, file_page: PageIndex::new(0) };
    let walker = Walker::open(DomainParts {
        arena: table.export().unwrap(),
        slots: table.epochs().register_walker().unwrap().0,
        log: None,
        windows: vec![window],
        files: vec![BackingFile { fd, access: MapAccess::ReadWrite }],
    });
    let iommu = WalkerIommu::new(walker.unwrap());
    (IommuMemory::new(iommu.memory().unwrap(), iommu, true, ()), table)
}

#[test]
fn a_device_reads_and_writes_through_the_tables_within_a_burst() {
    let (memory, _table) = device();
    let burst = memory.iommu().enter().unwrap();
    memory.write_slice(b"of a device", GuestAddress(0xff0)).unwrap();
    let mut back = [0; 11];
    memory.read_slice(&mut back, GuestAddress(0xff0)).unwrap();
    assert_eq!(&back, b"of a device");
    let frames = memory.get_backend();
    assert_eq!(
        frames.read_obj::<u8>(GuestAddress(0x10_5ff0)).unwrap(),
        b'o',
        "in the sixth page of the file"
    );
    assert!(memory.check_range(GuestAddress(0x800), 0x1000, Permissions::Read));
    assert!(!memory.check_range(GuestAddress(0x800), 0x1000, Permissions::Write));
    assert!(memory.write_slice(b"x", GuestAddress(0x1000)).is_err(), "the second page may only be read");
    assert!(memory.read_slice(&mut [0; 2], GuestAddress(0x1fff)).is_err(), "the third is not there");
    drop(burst);
    let outside = memory.read_slice(&mut back, GuestAddress(0)).unwrap_err();
    assert!(outside.to_string().contains("no burst"), "{outside}");
}

#[test]
fn an_unmap_waits_for_the_burst_of_a_device() {
    let (memory, mut table) = device();
    let epochs = table.epochs();
    let burst = memory.iommu().enter().unwrap();
    assert!(memory.read_obj::<u64>(GuestAddress(0)).is_ok());
    let range = IovaRange::from_length(Iova::new(0), ByteLen::new(PAGE_SIZE)).unwrap();
    table.unmap(range, &mut Budget::unlimited()).unwrap();
    let epoch = epochs.advance();
    assert!(!epochs.all_left(epoch));
    drop(burst);
    assert!(epochs.all_left(epoch));
    let _burst = memory.iommu().enter().unwrap();
    assert!(memory.read_obj::<u64>(GuestAddress(0)).is_err(), "{} has let go of it", ArmS2::ID.name());
}
