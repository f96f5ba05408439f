//! Processes that are asked to pin their memory and do anything but that. They reach nothing of the agent, cannot block
//! it, and leave nothing behind; a bystander goes on mapping all the while.
#![expect(unsafe_code, reason = "rings are made, and disturbed, by system calls")]

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

use ioasd_client::calls::{AccessKind, Iommu};
use ioasd_client::connection::Connection;
use ioasd_client::ids::{AccessId, IoasId, ObjectId};
use ioasd_client::units::{ByteLen, Iova, PAGE_SIZE, UserAddr};
use ioasd_client::wire::channels::{MemoryServe, PinMemory};
use ioasd_client::wire::command::{Command, encode};
use ioasd_client::wire::frame::{Echo, REQUEST_HEADER, Reply};
use ioasd_client::wire::uapi::IoasMap;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::fixture::{Agent, errno, eventually};
use crate::helper::Helper;
use crate::memory::{Memory, at, client_with_domain, map};
use crate::raw::{refusal, request_of};

/// What the agent's process has in a file, and must never be in a client's memory.
const SECRET: &[u8] = b"what only the agent may know";

/// What a hostile process has mapped.
const BYTES: usize = 16 * 4096;

/// Where they are mapped.
const IOVA: u64 = 0x10_0000;

/// `struct io_uring_params`.
const PARAMETERS: usize = 120;
const R_DISABLED: u32 = 1 << 6;
const SQPOLL: u32 = 1 << 1;

/// What a hostile process makes of the request to pin.
type Answering = fn(&PinMemory) -> Option<RawFd>;

/// How a domain for the memory of a hostile process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Pinned,
    Refused,
    /// The process races with the agent.
    Either,
    /// There is no process any more.
    Gone,
}

/// Each kind, and its end.
const KINDS: &[(&str, Answering, End)] = &[
    ("honest", honest, End::Pinned),
    ("scribbles", scribbles, End::Pinned),
    ("fills it beforehand", fills, End::Pinned),
    ("own files", own_files, End::Refused),
    ("own restrictions", own_restrictions, End::Refused),
    ("enabled", enabled, End::Refused),
    ("a thread submits", thread_submits, End::Refused),
    ("nothing pinned", nothing_pinned, End::Refused),
    ("less pinned", less_pinned, End::Refused),
    ("no ring", no_ring, End::Refused),
    ("no descriptor", no_descriptor, End::Refused),
    ("refuses", refuses, End::Refused),
    ("goes on using it", goes_on, End::Either),
    ("exits when it is asked", exits, End::Gone),
    ("exits when it has pinned", pins_and_exits, End::Gone),
    ("exits while bytes move", honest, End::Gone),
];

#[test]
fn a_hostile_process_reaches_nothing_and_blocks_nobody() {
    let agent = Agent::start();
    let secret = secret();
    let (mut bystander, ioas, _) = client_with_domain(&agent);
    let memory = Memory::new(4);
    for (kind, ..) in KINDS {
        let part = format!("hostile: {kind}");
        thread::scope(|scope| {
            let hostile = scope.spawn(|| Helper::same_user_with(&part, agent.connect().into_fd()));
            while !hostile.is_finished() {
                map(&mut bystander, ioas, memory.whole(), at(0)).unwrap();
                bystander.unmap_all(ioas).unwrap();
            }
        });
    }
    drop(bystander);
    drop(secret);
}

/// A file of the agent's process.
fn secret() -> OwnedFd {
    let file = rustix::fs::memfd_create("agent-secret", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    std::fs::File::from(file.try_clone().unwrap()).write_all(SECRET).unwrap();
    file
}

/// Plays the kind `part`, on a connection of its own; `None` if there is no such part.
pub(crate) fn part(part: &str) -> Option<fn(Connection)> {
    let kind = part.strip_prefix("hostile: ")?;
    KINDS.iter().any(|(name, ..)| *name == kind).then_some(play as fn(Connection))
}

fn play(mut client: Connection) {
    let part = crate::helper::own_part();
    let (_, answering, wanted) =
        KINDS.iter().find(|(name, ..)| part.strip_prefix("hostile: ") == Some(name)).unwrap();
    let memory: &'static mut [u8] = private_memory();
    let ioas = client.ioas_alloc().unwrap();
    let channel = serve(&mut client);
    thread::spawn(move || answer_all(&channel, *answering));
    map_private(&mut client, ioas, memory).unwrap();
    let device = client.device_create(ioasd_client::formats::FormatId::AmdV1, Iommu::Shared).unwrap();
    let attached = client.device_attach(device, ObjectId::new(ioas.get()));
    match (wanted, attached) {
        (End::Pinned | End::Either, Ok(_)) => use_it(&mut client, ioas),
        (End::Refused | End::Either, attached) => assert_eq!(errno(attached), Errno::FAULT),
        (End::Gone, _) => use_it_until_the_end(&mut client, ioas),
        (End::Pinned, attached) => drop(attached.unwrap()),
    }
    assert!(!memory.windows(SECRET.len()).any(|bytes| bytes == SECRET), "the agent's bytes are here");
    client.unmap_all(ioas).unwrap();
}

/// Reads and writes through the agent, whatever comes of it.
fn use_it(client: &mut Connection, ioas: IoasId) {
    let access: AccessId = client.access_create(ioas, AccessKind::Bytes).unwrap();
    for round in 0..50_u64 {
        let iova = Iova::new(IOVA + round * 1000);
        let read = client.access_read(access, iova, &mut [0; 5000]);
        let written = client.access_write(access, iova, &[7; 5000]);
        let honest = crate::helper::own_part().ends_with("honest");
        assert!(!honest || (read.is_ok() && written.is_ok()), "{read:?} {written:?}");
    }
}

/// Ends in the middle of whatever the agent does for it.
fn use_it_until_the_end(client: &mut Connection, ioas: IoasId) {
    let access = client.access_create(ioas, AccessKind::Bytes).unwrap();
    for round in 0..u64::MAX {
        if round == 9 {
            thread::spawn(end);
        }
        drop(client.access_read(access, Iova::new(IOVA), &mut [0; 40_000]));
    }
}

/// Ends this process at once, having played its part.
fn end() {
    println!("{}", crate::helper::READY);
    // SAFETY: nothing is left to be done.
    unsafe { libc::_exit(0) }
}

fn private_memory() -> &'static mut [u8] {
    let rights = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    // SAFETY: a new mapping, which stays.
    unsafe {
        let start =
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), BYTES, rights, rustix::mm::MapFlags::PRIVATE);
        std::slice::from_raw_parts_mut(start.unwrap().cast(), BYTES)
    }
}

fn serve(client: &mut Connection) -> OwnedFd {
    let mut reply = client.call_bytes(&request_of(3, &MemoryServe::default()), &[]).unwrap();
    assert_eq!(Reply::decode(&reply.bytes).unwrap().errno, 0);
    reply.fds.pop().unwrap()
}

fn map_private(client: &mut Connection, ioas: IoasId, memory: &[u8]) -> Result<(), Errno> {
    let map = IoasMap {
        flags: 7,
        ioas_id: ioas,
        user_va: UserAddr::new(memory.as_ptr().expose_provenance() as u64),
        length: ByteLen::new(memory.len() as u64),
        iova: Iova::new(IOVA),
        ..IoasMap::default()
    };
    refusal(client, &map, &[]).map_or(Ok(()), Err)
}

/// Answers whatever is asked, until the agent hangs up.
fn answer_all(channel: &OwnedFd, answering: Answering) {
    let mut message = [0; 256];
    while let Ok((length, _)) = recv(channel, &mut message, RecvFlags::empty()) {
        if length == 0 {
            return;
        }
        let wanted = PinMemory::load(&message[REQUEST_HEADER..length]);
        if wanted.length.get() == 0 {
            continue;
        }
        let echo = Echo::of(&message);
        let answer = match answering(&wanted) {
            Some(ring) => {
                let body = encode(&PinMemory { out_ring: ring.cast_unsigned(), ..wanted });
                Reply::done(echo, &body, &[]).encode().unwrap()
            }
            None => Reply::refused(echo, Errno::PERM, "no", "").encode().unwrap(),
        };
        if send(channel, &answer, SendFlags::NOSIGNAL).is_err() {
            return;
        }
    }
}

/// A ring, and where its parts are.
struct Ring {
    fd: RawFd,
    /// Offsets: submitted head, tail; index; completed head, tail; entries.
    submit: [u32; 10],
    done: [u32; 10],
}

fn syscall(number: i64, arguments: [usize; 4]) -> Result<i32, Errno> {
    let [first, second, third, fourth] = arguments;
    // SAFETY: what is passed lives across the call.
    let returned = unsafe { libc::syscall(number, first, second, third, fourth) };
    i32::try_from(returned)
        .ok()
        .filter(|value| *value >= 0)
        .ok_or_else(|| Errno::from_io_error(&std::io::Error::last_os_error()).unwrap())
}

fn ring(flags: u32) -> Ring {
    let mut parameters = [0_u32; PARAMETERS / 4];
    parameters[2] = flags;
    let fd = syscall(libc::SYS_io_uring_setup, [1, parameters.as_mut_ptr().addr(), 0, 0]).unwrap();
    let submit = parameters[10..20].try_into().unwrap();
    Ring { fd, submit, done: parameters[20..30].try_into().unwrap() }
}

fn register<T>(ring: &Ring, operation: usize, argument: &[T], count: usize) {
    let place = argument.as_ptr().expose_provenance();
    syscall(libc::SYS_io_uring_register, [ring.fd.cast_unsigned() as usize, operation, place, count])
        .unwrap();
}

fn pin(ring: &Ring, start: u64, length: u64) {
    register(ring, 0, &[start, length], 1);
}

fn pinned_with(flags: u32, wanted: &PinMemory) -> Ring {
    let ring = ring(flags);
    pin(&ring, wanted.start.get(), wanted.length.get());
    ring
}

fn honest(wanted: &PinMemory) -> Option<RawFd> {
    Some(pinned_with(R_DISABLED, wanted).fd)
}

/// Reading from each number that may be a descriptor of the agent.
fn theft(number: u64, at: u64) -> [u64; 8] {
    [4 | number << 32, 0, at, 16, 7, 0, 0, 0]
}

/// The memory of a ring, as words.
fn shared(ring: &Ring, offset: u64) -> &'static [AtomicU64] {
    let rights = rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE;
    // SAFETY: a new mapping, which stays, of memory that is only reached through atomics.
    unsafe {
        let fd = std::os::fd::BorrowedFd::borrow_raw(ring.fd);
        let flags = rustix::mm::MapFlags::SHARED;
        let start = rustix::mm::mmap(std::ptr::null_mut(), 4096, rights, flags, fd, offset).unwrap();
        std::slice::from_raw_parts(start.cast::<AtomicU64>(), 512)
    }
}

/// The 4 bytes at an offset of a ring's memory.
fn half(words: &'static [AtomicU64], offset: u32) -> &'static AtomicU32 {
    // SAFETY: the offset is the kernel's, in bounds and aligned; a word may be looked at in halves.
    unsafe { AtomicU32::from_ptr(words.as_ptr().cast::<u32>().add(offset as usize / 4).cast_mut()) }
}

/// Rewrites everything that both sides see, as long as the process lives.
fn scribbles(wanted: &PinMemory) -> Option<RawFd> {
    let ring = pinned_with(R_DISABLED, wanted);
    let (rings, entries) = (shared(&ring, 0), shared(&ring, 0x1000_0000));
    let at = wanted.start.get();
    let fd = ring.fd;
    thread::spawn(move || {
        for (round, number) in (0..64_u64).cycle().zip(0_u32..) {
            for (place, word) in entries.iter().zip(theft(round, at)) {
                place.store(word, Ordering::Relaxed);
            }
            half(rings, ring.submit[usize::from(round % 2 == 0)]).store(number, Ordering::Relaxed);
            half(rings, ring.done[usize::from(round % 3 == 0)]).store(number / 3, Ordering::Relaxed);
            half(rings, ring.submit[6]).store(number / 5, Ordering::Relaxed);
            half(rings, ring.done[5] + 8).store(5000, Ordering::Relaxed);
            half(rings, ring.done[5]).store(number / 7, Ordering::Relaxed);
        }
    });
    Some(fd)
}

/// An entry of its own is there first, and counts as submitted.
fn fills(wanted: &PinMemory) -> Option<RawFd> {
    let ring = pinned_with(R_DISABLED, wanted);
    let (rings, entries) = (shared(&ring, 0), shared(&ring, 0x1000_0000));
    for (place, word) in entries.iter().zip(theft(3, wanted.start.get())) {
        place.store(word, Ordering::Relaxed);
    }
    half(rings, ring.submit[6]).store(0, Ordering::Relaxed);
    half(rings, ring.submit[1]).store(1, Ordering::Release);
    half(rings, ring.done[1]).store(1, Ordering::Release);
    Some(ring.fd)
}

/// Submits entries of its own, and changes what it can, before and after the ring was taken.
fn goes_on(wanted: &PinMemory) -> Option<RawFd> {
    const UNREGISTER: usize = 1;
    let ring = pinned_with(R_DISABLED, wanted);
    let (rings, entries) = (shared(&ring, 0), shared(&ring, 0x1000_0000));
    let (fd, at) = (ring.fd, wanted.start.get());
    thread::spawn(move || {
        let number = fd.cast_unsigned() as usize;
        let mut was_enabled = false;
        for round in (0..64_u64).cycle() {
            for (place, word) in entries.iter().zip(theft(round, at)) {
                place.store(word, Ordering::Relaxed);
            }
            half(rings, ring.submit[1]).fetch_add(1, Ordering::Release);
            was_enabled |= syscall(libc::SYS_io_uring_enter, [number, 1, 0, 0]).is_ok();
            let own = [fd; 4];
            for operation in [UNREGISTER, 2, 11] {
                let place = if operation == UNREGISTER { 0 } else { own.as_ptr().expose_provenance() };
                let count = usize::from(operation != UNREGISTER);
                let changed = syscall(libc::SYS_io_uring_register, [number, operation, place, count]);
                if was_enabled && changed.is_ok() {
                    eprintln!("operation {operation} on a ring that was taken");
                    std::process::abort();
                }
            }
        }
    });
    Some(fd)
}

fn exits(_: &PinMemory) -> Option<RawFd> {
    end();
    None
}

fn pins_and_exits(wanted: &PinMemory) -> Option<RawFd> {
    let ring = pinned_with(R_DISABLED, wanted).fd;
    thread::spawn(end);
    Some(ring)
}

fn own_files(wanted: &PinMemory) -> Option<RawFd> {
    let ring = pinned_with(R_DISABLED, wanted);
    register(&ring, 2, &[ring.fd - 1], 1);
    Some(ring.fd)
}

fn own_restrictions(wanted: &PinMemory) -> Option<RawFd> {
    let ring = pinned_with(R_DISABLED, wanted);
    let mut rule = [0_u8; 16];
    (rule[0], rule[2]) = (1, 4);
    register(&ring, 11, &rule, 1);
    Some(ring.fd)
}

fn enabled(wanted: &PinMemory) -> Option<RawFd> {
    Some(pinned_with(0, wanted).fd)
}

fn thread_submits(wanted: &PinMemory) -> Option<RawFd> {
    Some(pinned_with(R_DISABLED | SQPOLL, wanted).fd)
}

fn nothing_pinned(_: &PinMemory) -> Option<RawFd> {
    Some(ring(R_DISABLED).fd)
}

fn less_pinned(wanted: &PinMemory) -> Option<RawFd> {
    let ring = ring(R_DISABLED);
    pin(&ring, wanted.start.get(), PAGE_SIZE);
    Some(ring.fd)
}

fn no_ring(_: &PinMemory) -> Option<RawFd> {
    Some(std::io::stdin().as_fd().as_raw_fd())
}

fn no_descriptor(_: &PinMemory) -> Option<RawFd> {
    Some(9999)
}

fn refuses(_: &PinMemory) -> Option<RawFd> {
    None
}

/// Asks for an attach that makes a pin due, in a context whose process answers with `answer`.
fn attach_while(agent: &Agent, answer: impl FnOnce(OwnedFd) + Send) -> Errno {
    let mut client = agent.connect();
    let (ioas, memory) = (client.ioas_alloc().unwrap(), private_memory());
    let channel = serve(&mut client);
    map_private(&mut client, ioas, memory).unwrap();
    let device = client.device_create(ioasd_client::formats::FormatId::AmdV1, Iommu::Shared).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| answer(channel));
        errno(client.device_attach(device, ObjectId::new(ioas.get())))
    })
}

fn wait_for_the_request(channel: &OwnedFd) -> [u8; 256] {
    let mut message = [0; 256];
    let (length, _) = recv(channel, &mut message, RecvFlags::empty()).unwrap();
    assert_eq!(length, REQUEST_HEADER + PinMemory::SIZE);
    message
}

#[test]
fn a_process_that_hangs_up_or_answers_nonsense_is_not_asked_again() {
    let agent = Agent::start();
    let hangs_up = |channel: OwnedFd| {
        wait_for_the_request(&channel);
    };
    assert_eq!(attach_while(&agent, hangs_up), Errno::FAULT);
    let babbles = |channel: OwnedFd| {
        wait_for_the_request(&channel);
        send(&channel, b"what do you want", SendFlags::NOSIGNAL).unwrap();
        assert_eq!(recv(&channel, &mut [0; 9], RecvFlags::empty()).map(|(length, _)| length), Ok(0));
    };
    assert_eq!(attach_while(&agent, babbles), Errno::FAULT);
    let another = |channel: OwnedFd| {
        let echo =
            Echo { tag: ioasd_client::wire::frame::Tag(77), ..Echo::of(&wait_for_the_request(&channel)) };
        let answer = Reply::done(echo, &encode(&PinMemory::default()), &[]).encode().unwrap();
        send(&channel, &answer, SendFlags::NOSIGNAL).unwrap();
        assert_eq!(recv(&channel, &mut [0; 9], RecvFlags::empty()).map(|(length, _)| length), Ok(0));
    };
    assert_eq!(attach_while(&agent, another), Errno::FAULT);
}

#[test]
fn a_process_that_does_not_answer_keeps_only_itself_waiting_and_only_once() {
    let agent = Agent::start();
    let (mut bystander, ioas, _) = client_with_domain(&agent);
    let memory = Memory::new(4);
    let silent = |channel: OwnedFd| {
        wait_for_the_request(&channel);
        for _ in 0..100 {
            map(&mut bystander, ioas, memory.whole(), at(0)).unwrap();
            bystander.unmap_all(ioas).unwrap();
        }
        assert_eq!(recv(&channel, &mut [0; 9], RecvFlags::empty()).map(|(length, _)| length), Ok(0));
    };
    assert_eq!(attach_while(&agent, silent), Errno::FAULT);
    drop(bystander);
    assert!(eventually(|| agent.pinned_and_charged() == (0, 0)));
}
