//! Every place that can fail while a table is made or mapped, failing once: the table is as before.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::Ordering;

use ioasd::domains::arena::ArenaSize;
use ioasd::domains::dirty::Cleaning;
use ioasd::domains::map::MapRun;
use ioasd::domains::spec::{Recording, TableSpec};
use ioasd::domains::table::{Budget, DomainTable, Table, create};
use ioasd::domains::written::Written;
use ioasd::fault_points::{Armed, Point};
use ioasd::storage::io_pagetable::LargePages;
use ioasd::storage::ledger::node::Allowance;
use ioasd::storage::ledger::resource::Resource;
use ioasd_client::formats::{AmdV1, FormatId};
use ioasd_client::layout::{BootId, LogShape};
use ioasd_client::mapping::{MapAccess, SharedMapping};
use ioasd_client::units::{ByteLen, Iova, IovaRange, Permission, PhysAddr};
use parking_lot::Mutex;

type Amd = AmdV1<4>;

const PAGE: u64 = 0x1000;
const LENGTH: u64 = 40 * 512 * PAGE;

fn table() -> Result<Table<Amd>, ioasd::domains::error::ArenaError> {
    Table::new(ArenaSize::new(ByteLen::new(1 << 20)), BootId([0; 16]))
}

/// The plan is one per process: while one test has a point armed, no other may pass one.
static ONE_TEST_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A table with a page in the middle of nowhere and one just before the run that will be mapped.
fn populated() -> Table<Amd> {
    let mut table = table().unwrap();
    for iova in [0x7000_0000_0000, 0x3fff_e000] {
        map(&mut table, iova, PAGE).unwrap();
    }
    table
}

fn map(table: &mut Table<Amd>, iova: u64, length: u64) -> Result<ByteLen, ioasd::domains::error::MapError> {
    let (phys, length) = (PhysAddr::new(iova & 0xffff_f000), ByteLen::new(length));
    let (permission, large_pages) = (Permission::ReadWrite, LargePages::Off);
    let run = MapRun { iova: Iova::new(iova), phys, length, permission, large_pages };
    table.map(&run, &mut Budget::unlimited())
}

/// Runs `scenario` with its first, second, ... hit failing until none fails any more; returns the points that failed.
fn sweep(scenario: impl FnMut(u64) -> Option<Point>) -> Vec<Point> {
    (0..1000).map_while(scenario).collect()
}

#[test]
fn a_map_that_fails_anywhere_leaves_the_table_as_before() {
    let _alone = ONE_TEST_AT_A_TIME.lock();
    let points = sweep(|n| {
        let mut table = populated();
        let before = (table.mapped(), table.table_bytes());
        let armed = Armed::nth(n);
        let result = map(&mut table, 0x3fff_f000, LENGTH);
        let failed = armed.disarm();
        table.check();
        assert_eq!(result.is_ok(), failed.is_none());
        if failed.is_some() {
            assert_eq!((table.mapped(), table.table_bytes()), before);
            assert_eq!(table.translate(Iova::new(0x3fff_f000)), None);
            assert_eq!(map(&mut table, 0x3fff_f000, LENGTH), Ok(ByteLen::new(LENGTH)));
        }
        failed
    });
    assert!(points.len() > 40, "{points:?}");
    assert!(points.contains(&Point::TableAlloc) && points.contains(&Point::ArenaGrow), "{points:?}");
}

#[test]
fn an_unmap_reaches_no_point_that_can_fail() {
    let _alone = ONE_TEST_AT_A_TIME.lock();
    let mut table = populated();
    map(&mut table, 0x3fff_f000, LENGTH).unwrap();
    let armed = Armed::nth(0);
    let range = IovaRange::from_length(Iova::new(0x3fff_f000), ByteLen::new(LENGTH)).unwrap();
    let done = table.unmap(range, &mut Budget::unlimited());
    assert_eq!(armed.disarm(), None);
    assert_eq!(done, Ok(ByteLen::new(LENGTH)));
    table.check();
}

#[test]
fn making_a_table_fails_cleanly_at_every_step() {
    let _alone = ONE_TEST_AT_A_TIME.lock();
    let points = sweep(|n| {
        let armed = Armed::nth(n);
        let made = table();
        let failed = armed.disarm();
        assert_eq!(made.is_ok(), failed.is_none());
        failed
    });
    for point in [Point::MemfdCreate, Point::Mmap, Point::Seal, Point::ArenaGrow, Point::TableAlloc] {
        assert!(points.contains(&point), "{point:?} was not reached: {points:?}");
    }
}

#[test]
fn registering_a_walker_that_fails_registers_nobody() {
    let _alone = ONE_TEST_AT_A_TIME.lock();
    let table = table().unwrap();
    let points = sweep(|n| {
        let armed = Armed::nth(n);
        let registered = table.epochs().register_walker();
        let failed = armed.disarm();
        assert_eq!(registered.is_ok(), failed.is_none());
        assert_eq!(table.epochs().has_walkers(), failed.is_none());
        failed
    });
    assert!(points.contains(&Point::MemfdCreate) && points.contains(&Point::Mmap), "{points:?}");
}

#[test]
fn a_log_that_cannot_be_read_loses_nothing() {
    let _alone = ONE_TEST_AT_A_TIME.lock();
    let spec = TableSpec::of(FormatId::AmdV1).with_recording(Recording::Writes);
    let shape = LogShape::of(spec.geometry());
    let points = sweep(|n| {
        let (tables, size) = (Allowance::unlimited(Resource::Tables), ArenaSize::new(ByteLen::new(1 << 20)));
        let mut table = create(spec, tables, size, BootId([0; 16])).unwrap();
        let (iova, phys, length) = (Iova::new(0), PhysAddr::new(0), ByteLen::new(4 * PAGE));
        let (permission, large_pages) = (Permission::ReadWrite, LargePages::Off);
        table.map(&MapRun { iova, phys, length, permission, large_pages }, &mut Budget::unlimited()).unwrap();
        let epochs = table.epochs();
        for page in [0, 3] {
            let (_, walker) = epochs.register_walker().unwrap();
            let log = epochs.add_log(walker, shape).unwrap();
            let log = SharedMapping::new(&log, ByteLen::new(PAGE), MapAccess::ReadWrite).unwrap();
            log.word(0).unwrap().store(1 << page, Ordering::Relaxed);
        }
        let ask = |table: &mut dyn DomainTable, told: &mut Written| {
            let mut report = |pages| told.add_range(pages);
            table.sweep_dirty(IovaRange::ALL, Cleaning::Clean, &mut Budget::unlimited(), &mut report)
        };
        let (mut first, mut second) = (Written::nothing(shape), Written::nothing(shape));
        let armed = Armed::nth(n);
        let asked = ask(&mut *table, &mut first);
        let failed = armed.disarm();
        assert_eq!(asked.is_ok(), failed.is_none());
        table.put_back(&first);
        ask(&mut *table, &mut second).unwrap();
        let told: Vec<u64> = second.ranges().map(|pages| pages.start().get() / PAGE).collect();
        assert_eq!(told, [0, 3], "{failed:?}");
        failed
    });
    assert!(points.contains(&Point::FileIo) && points.contains(&Point::Mmap), "{points:?}");
}
