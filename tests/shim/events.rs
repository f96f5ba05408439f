//! Fault queues and vEVENTQs: descriptors that are read, written and polled.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use libc::{EBUSY, EEXIST, EFAULT, EINVAL, EMFILE, ENOENT, EOPNOTSUPP, ESPIPE, POLLIN, POLLOUT};

use crate::device::{
    FAULT_QUEUE_ALLOC, HWPT_ALLOC, Struct, TEST, VEVENTQ_ALLOC, destroy, ioas_alloc, open,
    page_before_nothing,
};
use crate::mock::test;
use crate::nesting::{Bed, NEST_PARENT, PASID, bed, hwpt_struct, made, nested, replace, vdevice, viommu};
use crate::program::{Part, play_with_mock};

pub(crate) const PARTS: &[Part] = &[
    ("fault queues", fault_queues),
    ("faults", faults),
    ("fault routes", routes),
    ("faults of who left", left),
    ("events", events),
    ("lost events", lost),
    ("events outlive", outlive),
    ("no room for a descriptor", no_room),
];

const FAULT_ID_VALID: u32 = 4;

/// An id, and the descriptor.
type Queue = (u32, OwnedFd);

fn opened(device: &File, mut alloc: Struct, command: u32, id: usize) -> Result<Queue, i32> {
    alloc.call(device, command)?;
    let fd = alloc.get_u32(id + 4).cast_signed();
    // SAFETY: the descriptor is new and ours.
    Ok((alloc.get_u32(id), unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn fault_queue(device: &File) -> Queue {
    opened(device, Struct::new(16), FAULT_QUEUE_ALLOC, 8).unwrap()
}

fn veventq_struct(viommu: u32, depth: u32) -> Struct {
    Struct::new(32).u32(8, viommu).u32(12, 0xbeef_beef).u32(16, depth)
}

fn veventq(device: &File, viommu: u32, depth: u32) -> Result<Queue, i32> {
    opened(device, veventq_struct(viommu, depth), VEVENTQ_ALLOC, 20)
}

/// `read` of so many bytes, as words.
fn read(fd: &OwnedFd, room: usize) -> Result<Vec<u32>, i32> {
    let mut bytes = vec![0_u8; room];
    // SAFETY: the buffer is ours.
    let count = unsafe { libc::read(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), room) };
    let count = usize::try_from(count).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap())?;
    Ok(bytes[..count].chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect())
}

/// `write` of words, or of the first bytes of them.
fn write(fd: &OwnedFd, words: &[u32], bytes: usize) -> Result<usize, i32> {
    // SAFETY: the words are ours, and at least so many.
    let count = unsafe { libc::write(fd.as_raw_fd(), words.as_ptr().cast(), bytes) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap())
}

fn polled(fd: &OwnedFd) -> libc::c_short {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: POLLIN | POLLOUT, revents: 0 };
    // SAFETY: one record, which is ours.
    assert!(unsafe { libc::poll(&raw mut poll, 1, 0) } >= 0);
    poll.revents
}

fn fault(device: &File, idev: u32, (pasid, group): (u32, u32)) -> Result<(), i32> {
    test(15, 0)
        .u32(16, idev)
        .u32(20, pasid)
        .u32(24, group)
        .u32(28, 1)
        .u64(32, 0xabc0_0000_1000)
        .call(device, TEST)
}

/// Group and cookie of each fault.
fn groups(words: &[u32]) -> Vec<(u32, u32)> {
    words.chunks_exact(10).map(|record| (record[3], record[9])).collect()
}

fn nested_with_faults(bed: &Bed, queue: u32, flags: u32) -> Result<u32, i32> {
    let mut data = [7_u32];
    let alloc = hwpt_struct(bed.idev, bed.parent, FAULT_ID_VALID | flags).u32(24, 0xdead).u32(28, 4);
    made(&bed.device, alloc.pointer(32, &mut data).u32(40, queue), HWPT_ALLOC, 16)
}

#[test]
fn a_fault_queue_is_busy_while_it_is_open_or_a_hwpt_uses_it() {
    play_with_mock("fault queues");
}

fn fault_queues() {
    let bed = bed();
    let device = &bed.device;
    assert_eq!(Struct::new(16).u32(4, 1).call(device, FAULT_QUEUE_ALLOC), Err(EOPNOTSUPP));
    let (id, fd) = fault_queue(device);
    // SAFETY: the descriptor is open.
    assert_eq!(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) }, libc::FD_CLOEXEC);
    assert_eq!(destroy(device, id), Err(EBUSY));
    let alloc =
        |flags, queue| made(device, hwpt_struct(bed.idev, bed.ioas, flags).u32(40, queue), HWPT_ALLOC, 16);
    assert_eq!(alloc(FAULT_ID_VALID | NEST_PARENT, id), Err(EOPNOTSUPP));
    assert_eq!([alloc(FAULT_ID_VALID, 77), alloc(FAULT_ID_VALID, bed.ioas)], [Err(ENOENT); 2]);
    assert_eq!(nested_with_faults(&bed, 77, 0), Err(ENOENT));
    let (paging, nest) = (alloc(FAULT_ID_VALID, id).unwrap(), nested_with_faults(&bed, id, 0).unwrap());
    drop(fd);
    assert_eq!([destroy(device, id), destroy(device, paging)], [Err(EBUSY), Ok(())]);
    assert_eq!(
        [destroy(device, id), destroy(device, nest), destroy(device, id)],
        [Err(EBUSY), Ok(()), Ok(())]
    );
}

#[test]
fn faults_are_read_in_order_and_answered_once() {
    play_with_mock("faults");
}

fn faults() {
    let bed = bed();
    let device = &bed.device;
    let (id, fd) = fault_queue(device);
    let nest = nested_with_faults(&bed, id, 0).unwrap();
    replace(device, bed.stdev, nest).unwrap();
    assert_eq!((read(&fd, 40), polled(&fd)), (Ok(vec![]), POLLOUT));
    for group in 1..=3 {
        assert_eq!(fault(device, bed.idev, (0, group)), Ok(()));
    }
    assert_eq!(polled(&fd), POLLIN | POLLOUT);
    assert_eq!([read(&fd, 39), read(&fd, 0)], [Err(ESPIPE), Err(EINVAL)]);
    let edge = page_before_nothing().wrapping_add(4096 - 39);
    // SAFETY: the kernel, or the shim, checks the address.
    let read_to = |at: *mut u8, room| unsafe { libc::read(fd.as_raw_fd(), at.cast(), room) };
    for nowhere in [edge, std::ptr::without_provenance_mut(8)] {
        assert_eq!(read_to(nowhere, 80), -1);
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(EFAULT), "it stays in the queue");
    }
    let first = read(&fd, 40).unwrap();
    assert_eq!(first, [2, bed.idev, 0, 1, 1, 0, 0x1000, 0xabc0, 0, 1], "the last page of its group");
    assert_eq!(polled(&fd), POLLIN | POLLOUT, "two are left");
    assert_eq!(read_to(edge.wrapping_sub(1), 4000), 40, "as much as can be written");
    assert_eq!(groups(&read(&fd, 4000).unwrap()), [(3, 3)]);
    assert_eq!((polled(&fd), read(&fd, 40)), (POLLOUT, Ok(vec![])));
    assert_eq!(
        [write(&fd, &[1, 0], 7), write(&fd, &[1, 2], 8), write(&fd, &[9, 0], 8)],
        [Err(ESPIPE), Err(EINVAL), Err(EINVAL)]
    );
    assert_eq!(write(&fd, &[1, 0, 9, 0], 16), Ok(8), "what was good before");
    assert_eq!(write(&fd, &[1, 0], 8), Err(EINVAL), "answered already");
    assert_eq!([write(&fd, &[2, 1, 3, 0], 16), write(&fd, &[], 0)], [Ok(16), Ok(0)]);
    // SAFETY: the kernel, or the shim, checks the address.
    assert_eq!(unsafe { libc::write(fd.as_raw_fd(), std::ptr::without_provenance(8), 8) }, -1);
    assert_eq!(io::Error::last_os_error().raw_os_error(), Some(EFAULT));
    assert_eq!(fault(device, 77, (0, 0)), Err(ENOENT));
    // SAFETY: the child uses what was made for it, and ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let reported =
            fault(&open(), bed.idev, (0, 8)) == Err(ENOENT) && fault(device, bed.idev, (0, 9)).is_ok();
        let seen = reported && read(&fd, 40).map(|words| groups(&words)) == Ok(vec![(9, 1)]);
        // SAFETY: the end of the child.
        unsafe { libc::_exit(i32::from(!seen)) };
    }
    assert_eq!(crate::processes::exit_code(child), 0);
    assert_eq!((write(&fd, &[1, 0], 8), polled(&fd)), (Ok(8), POLLOUT), "the child has read it");
}

#[test]
fn a_fault_goes_where_its_pasid_is_attached() {
    play_with_mock("fault routes");
}

fn routes() {
    let bed = bed();
    let Bed { device, ioas, stdev, idev, .. } = &bed;
    let ((of_device, fd), (of_pasid, pasid_fd)) = (fault_queue(device), fault_queue(device));
    let own = nested_with_faults(&bed, of_device, PASID).unwrap();
    let for_pasid = nested_with_faults(&bed, of_pasid, PASID).unwrap();
    let trigger = |pasid| fault(device, *idev, (pasid, pasid)).unwrap();
    let seen = |fd: &OwnedFd| groups(&read(fd, 400).unwrap());
    trigger(0);
    replace(device, *stdev, own).unwrap();
    let attach = test(18, *stdev).u32(16, 5).u32(20, for_pasid);
    attach.clone().call(device, TEST).unwrap();
    [0, 5, 6].into_iter().for_each(trigger);
    assert_eq!(read(&pasid_fd, 40).unwrap()[..4], [3, *idev, 5, 5], "the PASID is valid");
    assert_eq!(seen(&fd), [(0, 1), (6, 2)], "a PASID that is not attached is the guest's business");
    let paging =
        made(device, hwpt_struct(*idev, *ioas, FAULT_ID_VALID | PASID).u32(40, of_device), HWPT_ALLOC, 16);
    replace(device, *stdev, paging.unwrap()).unwrap();
    [0, 6].into_iter().for_each(trigger);
    assert_eq!(seen(&fd), [(0, 1)], "without a guest it is dropped");
    test(20, *stdev).u32(16, 5).call(device, TEST).unwrap();
    replace(device, *stdev, *ioas).unwrap();
    [0, 5].into_iter().for_each(trigger);
    assert_eq!([seen(&fd), seen(&pasid_fd)], [vec![], vec![]]);
}

#[test]
fn faults_of_who_left_can_neither_be_read_nor_answered() {
    play_with_mock("faults of who left");
}

fn left() {
    let bed = bed();
    let device = &bed.device;
    let (id, fd) = fault_queue(device);
    let (first, second) =
        (nested_with_faults(&bed, id, 0).unwrap(), nested_with_faults(&bed, id, 0).unwrap());
    replace(device, bed.stdev, first).unwrap();
    [1, 2].into_iter().for_each(|group| fault(device, bed.idev, (0, group)).unwrap());
    assert_eq!(groups(&read(&fd, 40).unwrap()), [(1, 1)]);
    replace(device, bed.stdev, second).unwrap();
    assert_eq!([read(&fd, 40), write(&fd, &[1, 0], 8).map(|_| vec![])], [Ok(vec![]), Err(EINVAL)]);
    fault(device, bed.idev, (0, 3)).unwrap();
    assert_eq!(groups(&read(&fd, 40).unwrap()), [(3, 1)]);
    fault(device, bed.idev, (0, 4)).unwrap();
    assert_eq!(destroy(device, bed.stdev), Ok(()));
    assert_eq!(write(&fd, &[1, 0], 8), Err(EINVAL));
    assert_eq!((read(&fd, 40), polled(&fd)), (Ok(vec![]), POLLOUT));
}

fn vevent(device: &File, idev: u32) -> Result<(), i32> {
    test(17, 0).u32(16, idev).call(device, TEST)
}

/// A vIOMMU with a device that is number 0x99 of the guest, attached to a HWPT through it; the vIOMMU and the vDEVICE.
fn guest(bed: &Bed) -> (u32, u32) {
    let viommu = viommu(&bed.device, bed.idev, bed.parent).unwrap();
    let vdevice = vdevice(&bed.device, viommu, bed.idev, 0x99).unwrap();
    let nest = nested(&bed.device, bed.idev, viommu, 0).unwrap();
    replace(&bed.device, bed.stdev, nest).unwrap();
    (viommu, vdevice)
}

#[test]
fn events_name_the_device_as_the_guest_does() {
    play_with_mock("events");
}

fn events() {
    let bed = bed();
    let Bed { device, stdev, idev, parent, .. } = &bed;
    assert_eq!([vevent(device, 77), vevent(device, *idev)], [Err(ENOENT); 2]);
    let (viommu, vdev) = guest(&bed);
    assert_eq!(vevent(device, *idev), Err(EOPNOTSUPP), "there is no queue");
    let good = veventq_struct(viommu, 2);
    for (alloc, errno) in [
        (good.clone().u32(4, 1), EOPNOTSUPP),
        (good.clone().u32(12, 0), EOPNOTSUPP),
        (good.clone().u32(28, 1), EOPNOTSUPP),
        (good.clone().u32(16, 0), EINVAL),
        (good.clone().u32(16, (1 << 19) + 1), EINVAL),
        (good.clone().u32(8, 77), ENOENT),
        (good.clone().u32(8, *parent), ENOENT),
    ] {
        assert_eq!(opened(device, alloc, VEVENTQ_ALLOC, 20).err(), Some(errno));
    }
    let (id, fd) = veventq(device, viommu, 2).unwrap();
    assert_eq!(veventq(device, viommu, 2).err(), Some(EEXIST));
    assert_eq!([destroy(device, id), destroy(device, viommu)], [Err(EBUSY); 2]);
    assert_eq!((read(&fd, 12), polled(&fd) & POLLIN), (Ok(vec![]), 0));
    assert_eq!(vevent(device, *idev), Ok(()));
    assert_eq!(polled(&fd) & POLLIN, POLLIN);
    assert_eq!([read(&fd, 7), read(&fd, 11)], [Err(EINVAL), Err(EINVAL)]);
    assert_eq!((read(&fd, 100), polled(&fd) & POLLIN), (Ok(vec![0, 0, 0x99]), 0));
    assert_eq!(write(&fd, &[0, 0], 8), Err(EINVAL));
    assert_eq!(destroy(device, vdev), Ok(()));
    assert_eq!(vevent(device, *idev), Err(ENOENT), "the guest does not know it");
    let zero = vdevice(device, viommu, *idev, 0).unwrap();
    assert_eq!([vevent(device, *idev), destroy(device, zero)], [Err(ENOENT), Ok(())]);
    vdevice(device, viommu, *idev, 0x88).unwrap();
    assert_eq!((vevent(device, *idev), read(&fd, 12)), (Ok(()), Ok(vec![0, 1, 0x88])));
    replace(device, *stdev, *parent).unwrap();
    assert_eq!(vevent(device, *idev), Err(ENOENT));
    drop(fd);
    assert_eq!(destroy(device, id), Ok(()));
    assert!(veventq(device, viommu, 1).is_ok(), "there is room for another");
}

#[test]
fn events_that_were_lost_are_told_once() {
    play_with_mock("lost events");
}

fn lost() {
    let bed = bed();
    let (viommu, _) = guest(&bed);
    let (_, fd) = veventq(&bed.device, viommu, 2).unwrap();
    (0..4).for_each(|_| vevent(&bed.device, bed.idev).unwrap());
    assert_eq!(read(&fd, 24), Ok(vec![0, 0, 0x99, 0, 1, 0x99]));
    assert_eq!((polled(&fd) & POLLIN, read(&fd, 24)), (POLLIN, Ok(vec![1, 3])));
    assert_eq!((polled(&fd) & POLLIN, read(&fd, 24)), (0, Ok(vec![])));
    (0..3).for_each(|_| vevent(&bed.device, bed.idev).unwrap());
    assert_eq!(read(&fd, 12), Ok(vec![0, 4, 0x99]));
    vevent(&bed.device, bed.idev).unwrap();
    assert_eq!(read(&fd, 100), Ok(vec![0, 5, 0x99, 0, 7, 0x99]), "the gap tells of the lost one");
}

#[test]
fn a_queue_lives_until_its_last_copy_is_closed_and_keeps_its_context() {
    play_with_mock("events outlive");
}

fn outlive() {
    let Bed { device, idev, .. } = bed();
    let (id, fd) = fault_queue(&device);
    let copy = fd.try_clone().unwrap();
    drop(fd);
    assert_eq!(destroy(&device, id), Err(EBUSY), "a copy is open");
    // SAFETY: the child ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: the end of the child.
        unsafe { libc::_exit(0) };
    }
    assert_eq!(crate::processes::exit_code(child), 0);
    assert_eq!((read(&copy, 40), destroy(&device, id)), (Ok(vec![]), Err(EBUSY)));
    drop(copy);
    assert_eq!((destroy(&device, id), destroy(&device, id)), (Ok(()), Err(ENOENT)), "the close is over");
    let (_, last) = fault_queue(&device);
    drop(device);
    assert_eq!(read(&last, 40), Ok(vec![]), "it keeps its context");
    assert!(idev > 0);
}

#[test]
fn an_answer_that_cannot_be_written_leaves_no_queue() {
    play_with_mock("no room for a descriptor");
}

fn no_room() {
    let device = open();
    let next = ioas_alloc(&device).unwrap() + 1;
    let struct_at = page_before_nothing().wrapping_add(4096 - 16);
    // SAFETY: the page is ours and readable; only its last bytes are written.
    unsafe { struct_at.cast::<u32>().write(16) };
    // SAFETY: the page is ours.
    let protected = unsafe { libc::mprotect(struct_at.wrapping_sub(4080).cast(), 4096, libc::PROT_READ) };
    assert_eq!(protected, 0);
    let call = crate::device::raw(device.as_raw_fd(), FAULT_QUEUE_ALLOC, struct_at.cast());
    assert_eq!(call, Err(EFAULT));
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the record is ours.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    // SAFETY: the call only asks whether a descriptor is open.
    let open = |fd: &i32| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0;
    let highest = (3..200).rev().find(open).unwrap_or(3);
    let mut filled = Vec::new();
    let few = libc::rlimit { rlim_cur: u64::try_from(highest).unwrap() + 1, ..limit };
    // SAFETY: the record is ours.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const few) };
    while let Ok(copy) = device.try_clone() {
        filled.push(copy);
    }
    assert_eq!(Struct::new(16).call(&device, FAULT_QUEUE_ALLOC), Err(EMFILE));
    // SAFETY: the record is ours.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    drop(filled);
    assert_eq!(fault_queue(&device).0, next, "its id is free");
}
