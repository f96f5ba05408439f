//! The open device as a descriptor: dup, close, fcntl, exec, passing, and programs that close what they do not know.

use std::env;
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;

use libc::{EBADF, ENOENT};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::device::{DEVICE, destroy, ioas_alloc, open};
use crate::program::{Part, play, playing};

pub(crate) const PARTS: &[Part] = &[
    ("copies of a descriptor", duplicated),
    ("closed around", closed_around),
    ("before exec", before_exec),
    ("after exec", after_exec),
    ("passed", passed),
    ("every way to open", every_way_to_open),
];

const LEASE: &str = "IOASD_TEST_LEASE";

#[test]
fn a_copy_is_the_same_open_and_the_last_close_ends_it() {
    play("copies of a descriptor");
}

fn duplicated() {
    let device = open();
    assert_eq!(ioas_alloc(&device), Ok(1));
    let copy = device.try_clone().unwrap();
    let number = device.as_raw_fd();
    drop(device);
    assert_eq!(crate::device::raw(number, crate::device::DESTROY, std::ptr::null_mut()), Err(EBADF));
    assert_eq!(destroy(&copy, 1), Ok(()));
    drop(copy);
    assert_eq!(destroy(&open(), 1), Err(ENOENT));
}

#[test]
fn a_program_may_close_what_it_does_not_know() {
    play("closed around");
}

fn closed_around() {
    let device = open();
    assert_eq!(ioas_alloc(&device), Ok(1));
    let kept = device.as_raw_fd().cast_unsigned();
    for round in 2..5 {
        // SAFETY: nothing that this part goes on to use lies behind.
        assert_eq!(unsafe { libc::close_range(kept + 1, u32::MAX, 0) }, 0);
        assert_eq!(ioas_alloc(&device), Ok(round), "the channel is gone");
    }
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    rustix::io::ioctl_fionbio(&reader, true).unwrap();
    let limit =
        i32::try_from(rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(4096));
    let others: Vec<OwnedFd> = every_socket_but(device.as_raw_fd(), limit.unwrap().min(8192))
        .map(|number| {
            // SAFETY: another file takes the place of a channel, as a program might do by accident.
            assert_eq!(unsafe { libc::dup2(writer.as_raw_fd(), number) }, number);
            // SAFETY: the descriptor is ours now.
            unsafe { OwnedFd::from_raw_fd(number) }
        })
        .collect();
    assert!(!others.is_empty(), "there is no channel");
    assert_eq!(ioas_alloc(&device), Ok(5), "something else is in the channel's place");
    assert_eq!(
        rustix::io::read(&reader, &mut [0; 8]),
        Err(rustix::io::Errno::AGAIN),
        "nothing is sent to it"
    );
}

fn every_socket_but(device: RawFd, limit: RawFd) -> impl Iterator<Item = RawFd> {
    (0..limit).filter(move |number| *number != device && is_socket(*number))
}

fn is_socket(number: RawFd) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{number}"))
        .is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
}

#[test]
fn an_open_device_survives_exec_unless_it_is_closed_on_exec() {
    play("before exec");
}

fn before_exec() {
    let closed = open();
    // SAFETY: the path is a C string.
    let kept = unsafe { libc::open(c"/dev/iommu".as_ptr(), libc::O_RDWR) };
    assert!(kept >= 0, "{DEVICE}");
    // SAFETY: the descriptor is new and ours.
    let kept = unsafe { File::from_raw_fd(kept) };
    assert_eq!((ioas_alloc(&closed), ioas_alloc(&kept)), (Ok(1), Ok(1)));
    let numbers = format!("{} {}", closed.as_raw_fd(), kept.as_raw_fd());
    panic!("exec: {}", playing("after exec").env(LEASE, numbers).exec());
}

fn after_exec() {
    let numbers = env::var(LEASE).unwrap();
    let (closed, kept) = numbers.split_once(' ').unwrap();
    let closed = crate::device::raw(closed.parse().unwrap(), crate::device::DESTROY, std::ptr::null_mut());
    assert!(matches!(closed, Err(EBADF | libc::ENOTTY)), "{closed:?}");
    // SAFETY: it was left open for us.
    let kept = unsafe { File::from_raw_fd(kept.parse().unwrap()) };
    assert_eq!(ioas_alloc(&kept), Ok(2));
    assert_eq!(destroy(&kept, 1), Ok(()));
}

#[test]
fn an_open_device_can_be_passed_on() {
    play("passed");
}

fn passed() {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    // SAFETY: the child only uses what this part uses, and ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let device = receive(&theirs);
        let worked = ioas_alloc(&device) == Ok(2) && destroy(&device, 1) == Ok(());
        // SAFETY: the end of the child.
        unsafe { libc::_exit(i32::from(!worked)) };
    }
    let device = open();
    assert_eq!(ioas_alloc(&device), Ok(1));
    send(&ours, &device);
    assert_eq!(crate::processes::exit_code(child), 0);
    assert_eq!(destroy(&device, 2), Ok(()));
}

fn send(socket: &OwnedFd, device: &File) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [device.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    sendmsg(socket, &[IoSlice::new(b"x")], &mut control, SendFlags::NOSIGNAL).unwrap();
}

fn receive(socket: &OwnedFd) -> OwnedFd {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut [0])], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let fds = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fds.unwrap()
}

#[test]
fn every_way_to_open_leads_to_the_agent() {
    play("every way to open");
}

unsafe extern "C" {
    fn __open_2(path: *const libc::c_char, flags: libc::c_int) -> libc::c_int;
    fn __openat64_2(at: libc::c_int, path: *const libc::c_char, flags: libc::c_int) -> libc::c_int;
}

fn every_way_to_open() {
    let (path, other, flags) =
        (c"/dev/iommu".as_ptr(), c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
    for (path, works) in [(path, true), (c"/dev/vfio/vfio".as_ptr(), true), (other, false)] {
        // SAFETY: the paths are C strings.
        let opened = unsafe {
            [
                libc::open(path, flags),
                libc::open64(path, flags),
                libc::openat(libc::AT_FDCWD, path, flags),
                libc::openat64(-1, path, flags),
                __open_2(path, flags),
                __openat64_2(libc::AT_FDCWD, path, flags),
            ]
        };
        for (way, fd) in opened.into_iter().enumerate() {
            assert!(fd >= 0, "way {way}");
            // SAFETY: the descriptor is new and ours.
            let opened = unsafe { File::from_raw_fd(fd) };
            assert_eq!(ioas_alloc(&opened).is_ok(), works, "way {way}");
        }
    }
    // SAFETY: the paths are C strings, or addresses where nothing is.
    let refused = unsafe {
        [
            libc::open(std::ptr::null(), flags),
            libc::open(c"/dev/iommu".as_ptr(), libc::O_DIRECTORY),
            libc::open(c"/dev/iommu2".as_ptr(), flags),
        ]
    };
    assert_eq!(refused, [-1; 3]);
}
