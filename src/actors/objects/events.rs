//! Queues that a program reads as a descriptor: faults of devices, and events of a vIOMMU.
//!
//! Both are plain data. Who has the descriptor, and how it is told, is in `client_context`.
//!
//! Imports allowed: objects, error, the client crate's wire.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::rc::Rc;

use ioasd_client::ids::ObjectId;
use ioasd_client::wire::events::{
    EVENT_BYTES_MAX, FAULT_LAST_PAGE, FAULT_PASID_VALID, FaultRecord, FaultResponse, RESPONSES, VEVENT_LOST,
    VeventHeader,
};
use ioasd_client::wire::record::{Record, store_all};

use super::attachment::{AttachmentKey, Pasid};
use super::nesting::ViommuObject;
use crate::error::Errno;

/// Faults that wait, or wait for a response; more are dropped, as if there were no queue.
const FAULTS_MAX: usize = 1 << 16;

/// What a descriptor reads and writes.
pub trait EventSource: Debug {
    /// Its id.
    fn id(&self) -> ObjectId;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool;

    /// Gives what fits into the room, and can be written there.
    ///
    /// # Errors
    /// What `read` says.
    fn read(&self, room: Room) -> Result<Vec<u8>, Errno>;

    /// Takes `bytes`, the first of `count`; tells how many were taken.
    ///
    /// # Errors
    /// What `write` says.
    fn write(&self, count: u64, bytes: &[u8]) -> Result<usize, Errno>;
}

/// Where somebody reads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub count: u64,
    /// Of these, the first that can be written.
    pub writable: u64,
}

impl Room {
    /// As much of it as can be given at once, and what of that can be written.
    fn bounded(self) -> (usize, usize) {
        let bounded = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX).min(EVENT_BYTES_MAX);
        (bounded(self.count), bounded(self.writable.min(self.count)))
    }
}

/// A fault queue.
#[derive(Debug)]
pub struct FaultQueueObject {
    /// Its id.
    pub id: ObjectId,
    queue: RefCell<FaultQueue>,
}

/// A queue of a vIOMMU's events.
#[derive(Debug)]
pub struct VeventqObject {
    /// Its id.
    pub id: ObjectId,
    /// The vIOMMU.
    pub viommu: Rc<ViommuObject>,
    /// The type of its events.
    pub kind: u32,
    queue: RefCell<VeventQueue>,
}

impl FaultQueueObject {
    /// One without faults.
    #[must_use]
    pub fn new(id: ObjectId) -> Self {
        Self { id, queue: RefCell::default() }
    }

    /// Queues a fault.
    pub fn report(&self, fault: Fault) {
        self.queue.borrow_mut().report(fault);
    }

    /// Forgets what came through an attachment that ends: nobody waits for the responses.
    pub fn forget(&self, through: AttachmentKey) {
        self.queue.borrow_mut().forget(through);
    }
}

impl EventSource for FaultQueueObject {
    fn id(&self) -> ObjectId {
        self.id
    }

    fn is_empty(&self) -> bool {
        self.queue.borrow().waiting.is_empty()
    }

    fn read(&self, room: Room) -> Result<Vec<u8>, Errno> {
        self.queue.borrow_mut().read(room)
    }

    fn write(&self, count: u64, bytes: &[u8]) -> Result<usize, Errno> {
        self.queue.borrow_mut().write(count, bytes)
    }
}

impl VeventqObject {
    /// One that keeps so many events.
    #[must_use]
    pub fn new(id: ObjectId, (viommu, kind): (Rc<ViommuObject>, u32), depth: usize) -> Self {
        Self { id, viommu, kind, queue: RefCell::new(VeventQueue::new(depth)) }
    }

    /// Queues an event.
    pub fn report(&self, payload: &[u8]) {
        self.queue.borrow_mut().report(payload);
    }
}

impl EventSource for VeventqObject {
    fn id(&self) -> ObjectId {
        self.id
    }

    fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    fn read(&self, room: Room) -> Result<Vec<u8>, Errno> {
        self.queue.borrow_mut().read(room)
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<usize, Errno> {
        Err(Errno::INVAL)
    }
}

/// A device could not reach an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The attachment it came through.
    pub through: AttachmentKey,
    /// The device's id.
    pub device: ObjectId,
    /// The PASID the device used.
    pub pasid: Pasid,
    /// The group of faults.
    pub group: u32,
    /// What the device wanted to do.
    pub access: u32,
    /// Where.
    pub address: u64,
}

impl Fault {
    fn record(&self, cookie: u32) -> FaultRecord {
        let valid = if self.pasid == Pasid::NONE { 0 } else { FAULT_PASID_VALID };
        FaultRecord {
            flags: FAULT_LAST_PAGE | valid,
            device: self.device.get(),
            pasid: self.pasid.get(),
            group: self.group,
            access: self.access,
            address: self.address,
            length: 0,
            cookie,
        }
    }
}

/// Faults, those that were read by what their response names them by.
#[derive(Debug, Default)]
struct FaultQueue {
    waiting: VecDeque<Fault>,
    answerable: BTreeMap<u32, AttachmentKey>,
}

impl FaultQueue {
    fn report(&mut self, fault: Fault) {
        if self.waiting.len().saturating_add(self.answerable.len()) < FAULTS_MAX {
            self.waiting.push_back(fault);
        }
    }

    fn forget(&mut self, through: AttachmentKey) {
        self.waiting.retain(|fault| fault.through != through);
        self.answerable.retain(|_, answerable| *answerable != through);
    }

    fn read(&mut self, room: Room) -> Result<Vec<u8>, Errno> {
        if !room.count.is_multiple_of(FaultRecord::BYTES as u64) {
            return Err(Errno::SPIPE);
        }
        let (most, written) = room.bounded();
        match (most / FaultRecord::BYTES, written / FaultRecord::BYTES) {
            (0, _) if !self.waiting.is_empty() => Err(Errno::INVAL),
            (_, 0) if !self.waiting.is_empty() => Err(Errno::FAULT),
            (_, fitting) => Ok(self.take(fitting)),
        }
    }

    fn take(&mut self, most: usize) -> Vec<u8> {
        let count = most.min(self.waiting.len());
        let read: Vec<Fault> = self.waiting.drain(..count).collect();
        let records: Vec<FaultRecord> =
            read.iter().map(|fault| fault.record(self.cookie(fault.through))).collect();
        store_all(&records)
    }

    /// The lowest free cookie, from 1 on.
    fn cookie(&mut self, through: AttachmentKey) -> u32 {
        let taken = (1..).zip(self.answerable.keys()).take_while(|(wanted, taken)| wanted == *taken);
        let cookie = u32::try_from(taken.count()).unwrap_or(u32::MAX).saturating_add(1);
        self.answerable.insert(cookie, through);
        cookie
    }

    fn write(&mut self, count: u64, bytes: &[u8]) -> Result<usize, Errno> {
        if !count.is_multiple_of(FaultResponse::BYTES as u64) {
            return Err(Errno::SPIPE);
        }
        if count > 0 && bytes.is_empty() {
            return Err(Errno::FAULT);
        }
        let responses = bytes.chunks_exact(FaultResponse::BYTES).map(FaultResponse::load);
        let mut done = 0;
        for response in responses {
            let known = RESPONSES.contains(&response.code);
            if !known || self.answerable.remove(&response.cookie).is_none() {
                return if done == 0 { Err(Errno::INVAL) } else { Ok(done) };
            }
            done += FaultResponse::BYTES;
        }
        Ok(done)
    }
}

/// Events of a vIOMMU; at the end, when there was no room, one that says that others were lost.
#[derive(Debug)]
struct VeventQueue {
    depth: usize,
    next: u32,
    events: VecDeque<(u32, Vec<u8>)>,
    lost: Option<u32>,
}

impl VeventQueue {
    const fn new(depth: usize) -> Self {
        Self { depth, next: 0, events: VecDeque::new(), lost: None }
    }

    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.lost.is_none()
    }

    fn report(&mut self, payload: &[u8]) {
        let sequence = self.next;
        self.next = sequence.wrapping_add(1) & (u32::MAX >> 1);
        if self.events.len() >= self.depth {
            self.lost = Some(sequence);
        } else {
            self.lost = None;
            self.events.push_back((sequence, payload.to_vec()));
        }
    }

    fn read(&mut self, room: Room) -> Result<Vec<u8>, Errno> {
        let (most, written) = room.bounded();
        if most < VeventHeader::BYTES {
            return Err(Errno::INVAL);
        }
        let mut read = Vec::new();
        while let Some((sequence, payload)) = self.first_within(written - read.len()) {
            read.extend(store_all(&[VeventHeader { flags: 0, sequence }]));
            read.extend(payload);
        }
        let room_left = written - read.len() >= VeventHeader::BYTES;
        if let Some(sequence) = self.lost.take_if(|_| self.events.is_empty() && room_left) {
            read.extend(store_all(&[VeventHeader { flags: VEVENT_LOST, sequence }]));
        }
        match self.first_length() {
            Some(first) if read.is_empty() => Err(if first > most { Errno::INVAL } else { Errno::FAULT }),
            _ => Ok(read),
        }
    }

    /// Bytes of what is to be read next.
    fn first_length(&self) -> Option<usize> {
        let of_event = |payload: &[u8]| VeventHeader::BYTES.saturating_add(payload.len());
        let first = self.events.front().map(|(_, payload)| of_event(payload));
        first.or_else(|| self.lost.map(|_| VeventHeader::BYTES))
    }

    fn first_within(&mut self, room: usize) -> Option<(u32, Vec<u8>)> {
        let (_, payload) = self.events.front()?;
        if VeventHeader::BYTES.saturating_add(payload.len()) > room { None } else { self.events.pop_front() }
    }
}

#[cfg(test)]
mod tests {
    use ioasd_client::wire::record::load_all;

    use super::*;
    use crate::actors::number::Number;

    fn fault(group: u32, device: u64) -> Fault {
        let through = AttachmentKey { device: Number::new(device), pasid: Pasid::NONE };
        let (device, pasid) = (ObjectId::new(9), Pasid::NONE);
        Fault { through, device, pasid, group, access: 1, address: 0x1000 }
    }

    fn read(queue: &mut FaultQueue, room: u64) -> Result<Vec<(u32, u32)>, Errno> {
        read_into(queue, Room { count: room, writable: room })
    }

    fn read_into(queue: &mut FaultQueue, room: Room) -> Result<Vec<(u32, u32)>, Errno> {
        let records: Vec<FaultRecord> = load_all(&queue.read(room)?);
        Ok(records.iter().map(|record| (record.group, record.cookie)).collect())
    }

    fn respond(queue: &mut FaultQueue, responses: &[(u32, u32)]) -> Result<usize, Errno> {
        let responses: Vec<_> =
            responses.iter().map(|(cookie, code)| FaultResponse { cookie: *cookie, code: *code }).collect();
        let bytes = store_all(&responses);
        queue.write(bytes.len() as u64, &bytes)
    }

    #[test]
    fn faults_are_read_whole_and_answered_by_the_lowest_free_cookie() {
        let mut queue = FaultQueue::default();
        assert_eq!(read(&mut queue, 40), Ok(vec![]));
        (1..=3).for_each(|group| queue.report(fault(group, 1)));
        assert_eq!([read(&mut queue, 41), read(&mut queue, 0)], [Err(Errno::SPIPE), Err(Errno::INVAL)]);
        assert_eq!(read(&mut queue, 80), Ok(vec![(1, 1), (2, 2)]));
        assert_eq!(respond(&mut queue, &[(1, 0), (3, 0)]), Ok(8), "the first was taken");
        assert_eq!(read(&mut queue, u64::MAX / 40 * 40), Ok(vec![(3, 1)]));
        assert_eq!([respond(&mut queue, &[(2, 2)]), respond(&mut queue, &[(9, 0)])], [Err(Errno::INVAL); 2]);
        assert_eq!(respond(&mut queue, &[(2, 1), (1, 0)]), Ok(16));
        assert_eq!([queue.write(7, &[0; 7]), queue.write(0, &[])], [Err(Errno::SPIPE), Ok(0)]);
        assert_eq!(queue.write(8, &[]), Err(Errno::FAULT), "what could not be read");
    }

    #[test]
    fn the_end_of_an_attachment_takes_its_faults_away() {
        let mut queue = FaultQueue::default();
        [(1, 1), (2, 2), (3, 1)].iter().for_each(|(group, device)| queue.report(fault(*group, *device)));
        assert_eq!(read(&mut queue, 40), Ok(vec![(1, 1)]));
        queue.forget(fault(0, 1).through);
        assert_eq!(respond(&mut queue, &[(1, 0)]), Err(Errno::INVAL));
        assert_eq!(read(&mut queue, 400), Ok(vec![(2, 1)]));
    }

    fn events(queue: &mut VeventQueue, room: u64) -> Result<Vec<u32>, Errno> {
        events_into(queue, Room { count: room, writable: room })
    }

    fn events_into(queue: &mut VeventQueue, room: Room) -> Result<Vec<u32>, Errno> {
        Ok(queue.read(room)?.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect())
    }

    #[test]
    fn one_header_stands_for_all_events_that_were_lost() {
        let mut queue = VeventQueue::new(2);
        assert_eq!([events(&mut queue, 12), events(&mut queue, 7)], [Ok(vec![]), Err(Errno::INVAL)]);
        (0..4_u32).for_each(|event| queue.report(&event.to_le_bytes()));
        assert_eq!(events(&mut queue, 11), Err(Errno::INVAL));
        assert_eq!(events(&mut queue, 23), Ok(vec![0, 0, 0]));
        assert_eq!(queue.lost, Some(3), "the latest of those that were lost");
        queue.report(&[7, 0, 0, 0]);
        assert_eq!(events(&mut queue, 100), Ok(vec![0, 1, 1, 0, 4, 7]), "there was room again");
        (0..3).for_each(|_| queue.report(&[0; 4]));
        assert_eq!(events(&mut queue, 100), Ok(vec![0, 5, 0, 0, 6, 0, 1, 7]));
        assert!(queue.is_empty());
    }

    #[test]
    fn what_cannot_be_written_stays_in_the_queue() {
        let mut faults = FaultQueue::default();
        assert_eq!(read_into(&mut faults, Room { count: 80, writable: 0 }), Ok(vec![]));
        [1, 2].into_iter().for_each(|group| faults.report(fault(group, 1)));
        assert_eq!(read_into(&mut faults, Room { count: 80, writable: 39 }), Err(Errno::FAULT));
        assert_eq!(read_into(&mut faults, Room { count: 80, writable: 79 }), Ok(vec![(1, 1)]));
        assert_eq!(read(&mut faults, 80), Ok(vec![(2, 2)]));
        let mut vevents = VeventQueue::new(1);
        assert_eq!(events_into(&mut vevents, Room { count: 12, writable: 0 }), Ok(vec![]));
        (0..2).for_each(|_| vevents.report(&[7, 0, 0, 0]));
        assert_eq!(events_into(&mut vevents, Room { count: 100, writable: 11 }), Err(Errno::FAULT));
        assert_eq!(events_into(&mut vevents, Room { count: 100, writable: 19 }), Ok(vec![0, 0, 7]));
        assert_eq!(events_into(&mut vevents, Room { count: 100, writable: 7 }), Err(Errno::FAULT));
        assert_eq!(events(&mut vevents, 100), Ok(vec![1, 1]));
    }

    #[test]
    fn numbers_of_events_never_have_their_highest_bit() {
        let mut queue = VeventQueue { next: u32::MAX >> 1, ..VeventQueue::new(2) };
        (0..2).for_each(|_| queue.report(&[]));
        assert_eq!(events(&mut queue, 100), Ok(vec![0, u32::MAX >> 1, 0, 0]));
    }
}
