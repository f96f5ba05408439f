//! A walker cannot write the tables by any road.
#![expect(unsafe_code, reason = "some roads are mappings")]

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::null_mut;

use ioasd_client::calls::ExportChannel;
use ioasd_client::mapping::{MapAccess, SharedMapping};
use ioasd_client::units::ByteLen;
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fstat, ftruncate, memfd_create,
    sendfile,
};
use rustix::io::{Errno, pwrite, write};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect, munmap};
use rustix::pipe::{SpliceFlags, pipe, splice};

use crate::fixture::Agent;
use crate::memory::{Memory, at, client_with_domain, map, read_at};
use crate::walking::open;

#[test]
fn the_arena_of_an_export_can_be_read_and_nothing_else() {
    let agent = Agent::start();
    let ((mut client, ioas, hwpt), memory) = (client_with_domain(&agent), Memory::new(2));
    map(&mut client, ioas, memory.whole(), at(0x1000)).unwrap();
    let mut channel = ExportChannel::from_fd(client.domain_export(hwpt).unwrap());
    let exported = channel.open().unwrap();
    let size = u64::try_from(fstat(&exported.arena).unwrap().st_size).unwrap();
    let before = read_at(&exported.arena, 0, 1 << 20);
    let path = format!("/proc/self/fd/{}", exported.arena.as_raw_fd());
    let reopened = OpenOptions::new().read(true).write(true).open(path);
    let mut doors = vec![exported.arena.as_fd()];
    doors.extend(reopened.iter().map(AsFd::as_fd));
    for door in doors {
        let mapped = SharedMapping::new(door, ByteLen::new(size), MapAccess::ReadWrite);
        assert!(matches!(mapped, Err(Errno::PERM | Errno::ACCESS)), "mmap: {mapped:?}");
        assert_refused("pwrite", &pwrite(door, &[0xff; 64], 0));
        assert_refused("write", &write(door, &[0xff; 64]));
        assert_refused("ftruncate to nothing", &ftruncate(door, 0));
        assert_refused("ftruncate to more", &ftruncate(door, size + 4096));
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        assert_refused("punching a hole", &fallocate(door, punch, 0, 1 << 20));
        assert_refused("allocating behind the end", &fallocate(door, FallocateFlags::empty(), size, 4096));
        assert_refused("one more seal", &fcntl_add_seals(door, SealFlags::WRITE));
        let forged = spoiled_file();
        assert_refused("sendfile", &sendfile(door, &forged, None, 64));
        assert_refused("splice", &splice(spoiled_pipe(), None, door, None, 64, SpliceFlags::empty()));
    }
    mapped_privately_it_is_a_copy(exported.arena.as_fd(), size);
    let mapped = SharedMapping::new(&exported.arena, ByteLen::new(size), MapAccess::ReadOnly).unwrap();
    let memory = OpenOptions::new().read(true).write(true).open("/proc/self/mem").unwrap();
    let forced = pwrite(&memory, &[0xff; 8], start_of(TABLES));
    assert!(
        matches!(forced, Err(Errno::IO | Errno::FAULT | Errno::PERM)),
        "through /proc/self/mem: {forced:?}"
    );
    drop(mapped);
    assert_eq!(read_at(&exported.arena, 0, 1 << 20), before);
    let mut first = [0; 8];
    let mut reader = std::fs::File::from(exported.arena);
    reader.read_exact(&mut first).unwrap();
    assert_eq!(first[..], before[..8]);
}

fn spoiled_file() -> File {
    let file = File::from(memfd_create("spoiled", MemfdFlags::CLOEXEC).unwrap());
    pwrite(&file, &[0xff; 64], 0).unwrap();
    file
}

fn spoiled_pipe() -> OwnedFd {
    let (reader, writer) = pipe().unwrap();
    write(&writer, &[0xff; 64]).unwrap();
    reader
}

/// A part of this process's address space.
struct Mapped {
    at: *mut c_void,
    length: usize,
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: it was mapped by this test, and nobody looks at it any more.
        unsafe { munmap(self.at, self.length) }.unwrap();
    }
}

/// A shared mapping for reading cannot be made writable, and a private one takes what is written to itself.
fn mapped_privately_it_is_a_copy(arena: BorrowedFd<'_>, size: u64) {
    let length = usize::try_from(size).unwrap();
    // SAFETY: the kernel chooses the places.
    let map = |rights, flags| unsafe { mmap(null_mut(), length, rights, flags, arena, 0) };
    let shared = Mapped { at: map(ProtFlags::READ, MapFlags::SHARED).unwrap(), length };
    // SAFETY: nobody looks at it.
    let made = unsafe { mprotect(shared.at, length, MprotectFlags::READ | MprotectFlags::WRITE) };
    assert_refused("mprotect", &made);
    let private = map(ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    if let Ok(at) = private {
        let private = Mapped { at, length };
        // SAFETY: its first word is mapped for reading and writing, and shared with nobody.
        unsafe { private.at.cast::<u64>().write_volatile(u64::MAX) };
        // SAFETY: the first word of the other one is mapped for reading.
        let before = unsafe { shared.at.cast::<u64>().read_volatile() };
        assert_ne!(before, u64::MAX, "what was written to a copy reached the tables");
    }
}

/// The name under which the arena is mapped.
const TABLES: &str = "ioasd-tables";

/// Where this process has mapped a file of this name only for reading.
fn start_of(name: &str) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.contains(name) && line.contains(" r--s ")).unwrap();
    u64::from_str_radix(line.split_once('-').unwrap().0, 16).unwrap()
}

#[test]
fn the_slots_of_a_walker_cannot_be_cut_or_enlarged() {
    let agent = Agent::start();
    let (mut client, _, hwpt) = client_with_domain(&agent);
    let mut channel = ExportChannel::from_fd(client.domain_export(hwpt).unwrap());
    let exported = channel.open().unwrap();
    let size = u64::try_from(fstat(&exported.slots).unwrap().st_size).unwrap();
    assert_refused("ftruncate to nothing", &ftruncate(&exported.slots, 0));
    assert_refused("ftruncate to more", &ftruncate(&exported.slots, size + 1));
}

/// A child that a walker forks has no slots: it cannot hold up an unmap, nor say that its parent has left.
#[test]
fn the_slots_of_a_walker_are_not_inherited() {
    let agent = Agent::start();
    let (mut client, _, hwpt) = client_with_domain(&agent);
    let _walking = open(client.domain_export(hwpt).unwrap());
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mappings = smaps.split("VmFlags:").collect::<Vec<_>>();
    let flags =
        mappings.windows(2).filter(|pair| pair[0].contains(" rw-s ") && pair[0].contains("ioasd-slots"));
    let flags: Vec<&str> = flags.filter_map(|pair| pair[1].lines().next()).collect();
    assert!(!flags.is_empty() && flags.iter().all(|flags| flags.contains(" dc")), "{flags:?}");
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(door: &str, result: &Result<T, Errno>) {
    assert!(
        matches!(result, Err(Errno::PERM | Errno::BADF | Errno::INVAL | Errno::ACCESS)),
        "{door}: {result:?}"
    );
}
