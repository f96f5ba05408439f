//! Events: what a fault queue or a vEVENTQ is read and written with, numbers 0x3bd8 and 0x3bd9.
//!
//! FAULT_QUEUE_ALLOC and VEVENTQ_ALLOC answer with one descriptor, a socket whose other end the agent has. While there is
//! something to read, one message of one byte waits on it, the *token*: so it can be polled. Whoever reads takes the token,
//! if it is there, sends EVENT_READ with a socket of its own, and says whether it took the token. The agent answers on that
//! socket, and puts the token back if there is more. Two who read at once so never take each other's answers.
//!
//! The queue lives as long as a copy of the descriptor is open, and so does its context.
//!
//! Imports allowed: command, fields, records.

use super::command::commands;
use super::field::Field;
use super::record::Record;

/// What the name of such a descriptor begins with.
pub const EVENT_NAME: &[u8] = b"ioasd/events/";
/// EVENT_READ: the token was there, and was taken.
pub const EVENT_TOKEN: u32 = 1;
/// Bytes that one EVENT_READ gives, or one EVENT_WRITE takes, at most.
pub const EVENT_BYTES_MAX: usize = 48_000;

/// A fault: there is a PASID.
pub const FAULT_PASID_VALID: u32 = 1;
/// A fault: it is the last of its group.
pub const FAULT_LAST_PAGE: u32 = 2;
/// Codes of a response: the fault is mended; it never will be.
pub const RESPONSES: [u32; 2] = [0, 1];
/// An event: others were lost.
pub const VEVENT_LOST: u32 = 1;

commands! {
    /// On the descriptor of a queue, with the one to answer on: gives what is queued, as payload.
    EventRead = 0x3bd8 "EVENT_READ", min 24, size 24 {
        /// [`EVENT_TOKEN`].
        flags: u32 = 4,
        /// In: bytes there is room for; out: bytes given.
        count: u64 = 8,
        /// Of this room, the first bytes that can be written. What does not fit into them stays in the queue.
        writable: u64 = 16,
    }

    /// On the descriptor of a fault queue, with the one to answer on: takes the payload as responses.
    EventWrite = 0x3bd9 "EVENT_WRITE", min 16, size 16 {
        /// Must be 0.
        flags: u32 = 4,
        /// In: bytes to take, of which the payload can be the first; out: bytes taken.
        count: u64 = 8,
    }
}

/// A fault, as it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FaultRecord {
    /// [`FAULT_PASID_VALID`], [`FAULT_LAST_PAGE`].
    pub flags: u32,
    /// The device.
    pub device: u32,
    /// The PASID, if it has one.
    pub pasid: u32,
    /// The group it belongs to, by the device's word.
    pub group: u32,
    /// What the device wanted to do.
    pub access: u32,
    /// Where.
    pub address: u64,
    /// How much more it wants there.
    pub length: u32,
    /// What a response names it by.
    pub cookie: u32,
}

impl Record for FaultRecord {
    const BYTES: usize = 40;

    fn load(bytes: &[u8]) -> Self {
        Self {
            flags: Field::load(bytes, 0),
            device: Field::load(bytes, 4),
            pasid: Field::load(bytes, 8),
            group: Field::load(bytes, 12),
            access: Field::load(bytes, 16),
            address: Field::load(bytes, 24),
            length: Field::load(bytes, 32),
            cookie: Field::load(bytes, 36),
        }
    }

    fn store(self, bytes: &mut [u8]) {
        self.flags.store(bytes, 0);
        self.device.store(bytes, 4);
        self.pasid.store(bytes, 8);
        self.group.store(bytes, 12);
        self.access.store(bytes, 16);
        self.address.store(bytes, 24);
        self.length.store(bytes, 32);
        self.cookie.store(bytes, 36);
    }
}

/// The response to a fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FaultResponse {
    /// The fault.
    pub cookie: u32,
    /// One of [`RESPONSES`].
    pub code: u32,
}

impl Record for FaultResponse {
    const BYTES: usize = 8;

    fn load(bytes: &[u8]) -> Self {
        Self { cookie: Field::load(bytes, 0), code: Field::load(bytes, 4) }
    }

    fn store(self, bytes: &mut [u8]) {
        self.cookie.store(bytes, 0);
        self.code.store(bytes, 4);
    }
}

/// What precedes an event of a vEVENTQ; one without others behind it has no payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VeventHeader {
    /// [`VEVENT_LOST`].
    pub flags: u32,
    /// Its number, those of lost ones counted.
    pub sequence: u32,
}

impl Record for VeventHeader {
    const BYTES: usize = 8;

    fn load(bytes: &[u8]) -> Self {
        Self { flags: Field::load(bytes, 0), sequence: Field::load(bytes, 4) }
    }

    fn store(self, bytes: &mut [u8]) {
        self.flags.store(bytes, 0);
        self.sequence.store(bytes, 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_lies_as_in_the_uapi() {
        let fault = FaultRecord { flags: 3, cookie: 1, address: u64::MAX, ..FaultRecord::default() };
        let mut bytes = [0; FaultRecord::BYTES];
        fault.store(&mut bytes);
        assert_eq!((bytes[0], bytes[36], &bytes[20..24]), (3, 1, &[0; 4][..]));
        assert_eq!(FaultRecord::load(&bytes), fault);
    }

    #[test]
    fn both_limits_are_of_whole_records() {
        assert_eq!((EVENT_BYTES_MAX % FaultRecord::BYTES, EVENT_BYTES_MAX % FaultResponse::BYTES), (0, 0));
    }
}
