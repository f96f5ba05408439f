//! One ioctl on a lease: from its argument in the program's memory to its result there.
//!
//! The order is the kernel's: size, unknown tail, struct, then the agent's checks, then the copy back.
//!
//! Imports allowed: channels, lease, memory, message, shape, the client crate's wire.

use ioasd_client::wire::command::Command;
use ioasd_client::wire::field::Field;
use ioasd_client::wire::mock::TestCmd;
use ioasd_client::wire::uapi::{Destroy, HwptGetDirtyBitmap, HwptInvalidate, IoasMap, MAP_WRITEABLE};

use crate::backing::{self, Backing, Use};
use crate::channels;
use crate::lease::Lease;
use crate::memory::{self, Address, Range};
use crate::message::{Inbound, Outbound, Packed, STRUCT_MAX, exchange};
use crate::shape::{self, Array, Beside, Shape};
use crate::sys::Errno;
use crate::{dirty, events, invalidate, mock, pinning, vfio};

/// Commands of the table, known or not: for these a bad argument is noticed before an empty place is.
const TABLE: std::ops::RangeInclusive<u32> = 0x80..=0x95;

/// What the table has besides where there is mock hardware: the test command is its last.
const MOCK_TABLE: std::ops::RangeInclusive<u32> = 0x96..=0xa0;

/// Bytes that are sent of data that a command takes only a few of: it refuses more by their number.
const DATA_MAX: usize = 4096;

/// Bytes of an unknown tail that are looked at at once.
const TAIL_PIECE: usize = 256;

/// Carries out `command` on a lease. Tells what the ioctl returns.
///
/// # Errors
/// The errno of the ioctl.
pub(crate) fn ioctl(lease: Lease, command: u32, argument: Address) -> Result<i32, Errno> {
    let Some(shape) = shape::of(command) else {
        let answered = vfio::ioctl(lease, command, argument.0);
        return answered.unwrap_or_else(|| Err(unknown(lease, command, argument)));
    };
    let given = match Given::read(shape, argument) {
        Err(_) if command == TestCmd::NUMBER && !mock::is_there(lease) => return Err(Errno::NOTTY),
        given => given?,
    };
    match command {
        TestCmd::NUMBER => return mock::test(lease, &given),
        HwptInvalidate::NUMBER => return invalidate::ioctl(lease, &given),
        _ => {}
    }
    if command == HwptGetDirtyBitmap::NUMBER {
        return dirty::get_bitmap(lease, &HwptGetDirtyBitmap::load(given.known()));
    }
    let mut changed = [0; STRUCT_MAX];
    let mut reply = given.carry_out(lease, &mut changed)?;
    if reply.errno != 0 && reply.body().is_empty() {
        return Err(Errno::from_raw_os_error(reply.errno));
    }
    if let Err(errno) = shape.opens.map_or(Ok(()), |place| reply.number_fd(place)) {
        undo(lease, shape, reply);
        return Err(errno);
    }
    let changed = changed.get(..reply.head.payload).unwrap_or_default();
    if let Err(errno) = given.write_changed(changed).and_then(|()| given.write_back(reply.body())) {
        undo(lease, shape, reply);
        return Err(errno);
    }
    reply.outcome()?;
    if shape.opens.is_some() {
        events::keep(reply.fd);
    }
    Ok(0)
}

fn unknown(lease: Lease, command: u32, argument: Address) -> Errno {
    let in_table = |number| TABLE.contains(&number) || MOCK_TABLE.contains(&number) && mock::is_there(lease);
    match memory::read(argument, &mut [0; 4]) {
        Err(errno) if in_table(command & 0xff) => errno,
        _ => Errno::NOTTY,
    }
}

/// The struct of a command as the program has given it.
pub(crate) struct Given {
    shape: &'static Shape,
    argument: Address,
    bytes: [u8; STRUCT_MAX],
    /// Bytes of it that both sides know.
    len: usize,
}

impl Given {
    fn read(shape: &'static Shape, argument: Address) -> Result<Self, Errno> {
        let mut size = [0; 4];
        memory::read(argument, &mut size)?;
        let size = u32::from_ne_bytes(size) as usize;
        if size < shape.min {
            return Err(Errno::INVAL);
        }
        require_zero_tail(argument.behind(shape.size), size.saturating_sub(shape.size))?;
        let mut given = Self { shape, argument, bytes: [0; STRUCT_MAX], len: size.min(shape.size) };
        memory::read(argument, given.bytes.get_mut(..given.len).unwrap_or_default())?;
        Ok(given)
    }

    /// The struct, as far as both sides know it.
    pub(crate) fn known(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// What of the struct means something only in this process, by offset and length.
    const fn private(&self) -> (usize, usize) {
        match self.shape.beside {
            Beside::Nothing | Beside::Memory { .. } => (0, 0),
            Beside::Reads(array) | Beside::Fills(array) | Beside::Changes(array) => {
                (array.pointer, size_of::<u64>())
            }
            Beside::File { fd } => (fd, size_of::<i32>()),
        }
    }

    fn range(&self, array: Array) -> Range {
        let start = Address(u64::load(&self.bytes, array.pointer));
        let count = u32::load(&self.bytes, array.count) as usize;
        Range { start, len: count.saturating_mul(array.element) }
    }

    /// What of an array is sent.
    fn sent(&self, array: Array) -> Range {
        let range = self.range(array);
        let most = if array.element == 1 { DATA_MAX } else { usize::MAX };
        Range { len: range.len.min(most), ..range }
    }

    /// The struct as the agent gets it: with its known size, and zero where it names what travels beside it.
    fn for_the_agent(&self) -> [u8; STRUCT_MAX] {
        let mut bytes = self.bytes;
        u32::try_from(self.len).unwrap_or(u32::MAX).store(&mut bytes, 0);
        let (offset, len) = self.private();
        bytes.iter_mut().skip(offset).take(len).for_each(|byte| *byte = 0);
        bytes
    }

    /// Carries the command out; what came back for bytes that are changed is in `changed`.
    fn carry_out(&self, lease: Lease, changed: &mut [u8]) -> Result<Inbound, Errno> {
        if let Beside::Memory { start } = self.shape.beside {
            return self.carry_out_on_memory(lease, start);
        }
        let bytes = self.for_the_agent();
        let argument = bytes.get(..self.len).unwrap_or_default();
        let (payload, into, fd) = match self.shape.beside {
            Beside::Nothing | Beside::Memory { .. } => (None, None, None),
            Beside::Reads(array) => (Some(self.sent(array)), None, None),
            Beside::Fills(array) => (None, Some(self.range(array)), None),
            Beside::Changes(array) => (Some(self.sent(array)), Some(Range::of_mut(changed)), None),
            Beside::File { fd } => (None, None, Some(i32::load(&self.bytes, fd))),
        };
        let outbound = Outbound { command: self.shape.command, argument, payload, fd };
        channels::call(lease, |channel| exchange(channel, outbound, into))
    }

    /// Memory that is one file is sent as that file, with the offset at which it begins.
    fn carry_out_on_memory(&self, lease: Lease, start: usize) -> Result<Inbound, Errno> {
        let len = u64::load(&self.bytes, start.saturating_add(size_of::<u64>()));
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let memory = Range { start: Address(u64::load(&self.bytes, start)), len };
        let writes = IoasMap::load(self.known()).flags & MAP_WRITEABLE != 0;
        let backing = backing::file_of(memory, if writes { Use::Write } else { Use::Read });
        if backing.is_none() {
            pinning::serve(lease);
        }
        let offset = backing.as_ref().map_or(0, |backing| backing.offset).to_le_bytes();
        let bytes = self.for_the_agent();
        let outbound = Outbound {
            command: self.shape.command,
            argument: bytes.get(..self.len).unwrap_or_default(),
            payload: backing.as_ref().map(|_| Range::of(&offset)),
            fd: backing.as_ref().map(Backing::fd),
        };
        channels::call(lease, |channel| exchange(channel, outbound, None))
    }

    /// Copies back what has become of bytes beside the struct.
    fn write_changed(&self, changed: &[u8]) -> Result<(), Errno> {
        match self.shape.beside {
            Beside::Changes(array) if !changed.is_empty() => memory::write(self.range(array).start, changed),
            _ => Ok(()),
        }
    }

    /// Copies the answer back. The size, and what means something only here, stay as they are.
    pub(crate) fn write_back(&self, body: &[u8]) -> Result<(), Errno> {
        let mut bytes = [0; STRUCT_MAX];
        let len = body.len().min(self.len);
        for (to, from) in bytes.iter_mut().zip(body) {
            *to = *from;
        }
        let (offset, private) = self.private();
        for (to, from) in bytes.iter_mut().zip(self.known()).skip(offset).take(private) {
            *to = *from;
        }
        match bytes.get(size_of::<u32>()..len) {
            Some(changed) if !changed.is_empty() => {
                memory::write(self.argument.behind(size_of::<u32>()), changed)
            }
            _ => Ok(()),
        }
    }
}

/// Whatever lies behind the struct we know must be zero.
fn require_zero_tail(start: Address, len: usize) -> Result<(), Errno> {
    let (mut at, mut left) = (start, len);
    while left > 0 {
        let mut piece = [0; TAIL_PIECE];
        let here = left.min(TAIL_PIECE);
        let bytes = piece.get_mut(..here).unwrap_or_default();
        memory::read(at, bytes)?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(Errno::TOOBIG);
        }
        (at, left) = (at.behind(here), left - here);
    }
    Ok(())
}

/// Destroys what a command has made whose answer could not be written; its descriptor is closed before.
fn undo(lease: Lease, shape: &Shape, mut reply: Inbound) {
    let Some(place) = shape.makes else { return };
    drop(reply.fd.take());
    let argument = Packed::of(&Destroy { id: Field::load(reply.body(), place) });
    let undone = channels::call(lease, |channel| exchange(channel, Outbound::plain(&argument), None));
    debug_assert!(undone.is_ok_and(|reply| reply.errno == 0), "a new object could not be destroyed");
}
