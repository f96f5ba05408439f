//! The writer's tables, read by the client library's walker through mappings of its own.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ioasd::domains::arena::ArenaSize;
use ioasd::domains::map::MapRun;
use ioasd::domains::table::{Budget, DomainTable, Table};
use ioasd::storage::io_pagetable::LargePages;
use ioasd_client::formats::AmdV1;
use ioasd_client::layout::{BootId, FrameWindow};
use ioasd_client::mapping::MapAccess;
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, PageIndex, Permission, Pfn};
use ioasd_client::walker::{Access, BackingFile, DomainParts, FaultKind, Walker};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{dup, pread, pwrite};

const FILE_PAGES: u64 = 64;

type Amd = Table<AmdV1<4>>;

/// A table and two files, whose frames begin at 0x1000 and 0x2000.
struct Setup {
    table: Amd,
    files: Vec<OwnedFd>,
}

impl Setup {
    fn new() -> Self {
        let table = Table::new(ArenaSize::new(ByteLen::new(1 << 22)), BootId([0; 16])).unwrap();
        Self { table, files: vec![file(), file()] }
    }

    fn walker(&self) -> Walker {
        let backing = |fd: &OwnedFd| BackingFile { fd: dup(fd).unwrap(), access: MapAccess::ReadWrite };
        let window = |file: u32| FrameWindow {
            first: Pfn::new(0x1000 + 0x1000 * u64::from(file)),
            pages: FILE_PAGES,
            file,
            file_page: PageIndex::new(0),
        };
        let parts = DomainParts {
            arena: self.table.export().unwrap(),
            slots: self.table.epochs().register_walker().unwrap().0,
            log: None,
            windows: vec![window(1), window(0)],
            files: self.files.iter().map(backing).collect(),
        };
        Walker::open(parts).unwrap()
    }

    fn map(&mut self, page: u64, pfn: u64, pages: u64, permission: Permission) {
        let length = ByteLen::new(pages * PAGE_SIZE);
        let (iova, phys) = (at(page), Pfn::new(pfn).phys());
        let run = MapRun { iova, phys, length, permission, large_pages: LargePages::On };
        let mapped = self.table.map(&run, &mut Budget::unlimited());
        assert_eq!(mapped, Ok(length));
    }

    fn unmap(&mut self, page: u64, pages: u64) {
        let range = IovaRange::from_length(at(page), ByteLen::new(pages * PAGE_SIZE)).unwrap();
        self.table.unmap(range, &mut Budget::unlimited()).unwrap();
    }

    /// Waits until no walker is where it was.
    fn grace(&self) {
        let epochs = self.table.epochs();
        let epoch = epochs.advance();
        while !epochs.all_left(epoch) {
            thread::yield_now();
        }
    }
}

fn file() -> OwnedFd {
    let fd = memfd_create("backing", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, FILE_PAGES * PAGE_SIZE).unwrap();
    fd
}

fn at(page: u64) -> Iova {
    Iova::new(page * PAGE_SIZE)
}

#[test]
fn a_walker_reads_and_writes_the_memory_behind_scattered_frames() {
    let mut setup = Setup::new();
    let walker = setup.walker();
    let mut stream = walker.stream().unwrap();
    setup.map(511, 0x1003, 1, Permission::ReadWrite);
    setup.map(512, 0x2007, 2, Permission::Read);
    setup.table.check();
    pwrite(&setup.files[0], b"one", 4 * PAGE_SIZE - 3).unwrap();
    pwrite(&setup.files[1], b"two", 7 * PAGE_SIZE).unwrap();
    let mut bytes = [0; 6];
    stream.enter().read(Iova::new(512 * PAGE_SIZE - 3), &mut bytes).unwrap();
    assert_eq!(&bytes, b"onetwo");

    stream.enter().write(at(511), b"back").unwrap();
    let mut written = [0; 4];
    pread(&setup.files[0], &mut written, 3 * PAGE_SIZE).unwrap();
    assert_eq!(&written, b"back");

    let burst = stream.enter();
    let found = burst.locate(Iova::new(512 * PAGE_SIZE + 5), ByteLen::new(1 << 20), Access::Read).unwrap();
    assert_eq!((found.file, found.offset.get(), found.length.get()), (1, 7 * PAGE_SIZE + 5, PAGE_SIZE - 5));
    assert_eq!(burst.write(at(512), b"x").unwrap_err().kind, FaultKind::Permission);
}

#[test]
fn what_is_unmapped_faults_and_what_is_outside_the_files_is_not_exported() {
    let mut setup = Setup::new();
    let walker = setup.walker();
    let mut stream = walker.stream().unwrap();
    setup.map(0, 0x1000, FILE_PAGES + 1, Permission::ReadWrite);
    let kind = |stream: &mut ioasd_client::walker::Stream, page| {
        stream.enter().read(at(page), &mut [0]).map_err(|fault| fault.kind)
    };
    assert_eq!(kind(&mut stream, FILE_PAGES - 1), Ok(()));
    assert_eq!(kind(&mut stream, FILE_PAGES), Err(FaultKind::NotExported));
    setup.unmap(0, FILE_PAGES + 1);
    assert_eq!(kind(&mut stream, 0), Err(FaultKind::NotPresent));
    setup.table.epochs().mark_dead();
    assert_eq!(kind(&mut stream, 0), Err(FaultKind::Dead));
}

#[test]
fn an_unmap_waits_for_a_burst_and_not_for_one_that_began_later() {
    let setup = Setup::new();
    let (walker, epochs) = (setup.walker(), setup.table.epochs());
    let (mut early, mut late) = (walker.stream().unwrap(), walker.stream().unwrap());
    let burst = early.enter();
    let epoch = epochs.advance();
    let _later = late.enter();
    assert!(!epochs.all_left(epoch));
    drop(burst);
    assert!(epochs.all_left(epoch));
}

/// One thread maps and unmaps a page at changing places, so that tables come and go, and spoils its bytes whenever it
/// is mapped nowhere. Two walkers must only ever see good bytes or a fault.
#[test]
fn no_walker_sees_a_page_after_its_unmap_ended() {
    const GOOD: u64 = 0x600d_600d_600d_600d;
    const ROUNDS: u64 = 1500;
    /// On a busy machine the walkers may not run for a while.
    const ROUNDS_MAX: u64 = 1_000_000;
    let mut setup = Setup::new();
    let (done, spoiled, seen) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
    let place = |round: u64| (round % 3) * 512 * 512 + (round % 5) * 512;
    let write = |setup: &Setup, value: u64| pwrite(&setup.files[0], &value.to_ne_bytes(), 0).unwrap();
    write(&setup, GOOD);
    let walkers = [setup.walker(), setup.walker()];
    thread::scope(|scope| {
        for walker in walkers {
            let (done, spoiled, seen) = (&done, &spoiled, &seen);
            scope.spawn(move || {
                let mut stream = walker.stream().unwrap();
                for round in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let mut bytes = [0; 8];
                    match stream.enter().read(at(place(round)), &mut bytes) {
                        Ok(()) if u64::from_ne_bytes(bytes) == GOOD => seen.store(true, Ordering::Relaxed),

                        Err(fault) if fault.kind == FaultKind::NotPresent => (),
                        other => {
                            println!("{other:?} {bytes:x?}");
                            spoiled.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
        let enough = |round| round >= ROUNDS && seen.load(Ordering::Relaxed);
        for round in (0..ROUNDS_MAX).take_while(|round| !enough(*round)) {
            setup.map(place(round), 0x1000, 1, Permission::Read);
            thread::yield_now();
            setup.unmap(place(round), 1);
            setup.grace();
            write(&setup, !GOOD);
            write(&setup, GOOD);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(!spoiled.load(Ordering::Relaxed), "a walker saw bytes it must not see");
    assert!(seen.load(Ordering::Relaxed), "no walker ever read the page");
    setup.table.check();
}
