//! Streams: bursts, and translating in them.
//!
//! Imports allowed: boundary, constants, error, shell, walker; walker and units of the client crate.
#![expect(unsafe_code, reason = "exported names, and pointers to streams")]
#![expect(clippy::missing_safety_doc, reason = "the head of the header says what a stream is")]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;

use ioasd_client::units::{ByteLen, Iova};
use ioasd_client::walker::{Access, Burst, FaultKind, HostSlice, WalkFault};

use crate::boundary::{boundary, contained, wanted};
use crate::constants::{IOASD_STREAM_IOTLB, access, flags, only_flag};
use crate::error::{Failure, Misuse};
use crate::last::failed;
use crate::shell::StreamHandle;
use crate::walker::{self, WalkerHandle};

/// Memory that an IOVA leads to, until ioasd_leave().
#[repr(C)]
pub struct Memory {
    /// Where it is. Others may change it at any time: read what matters once, with ioasd_load_u32() and the like or with
    /// atomics of your own. Write to it only if you asked for IOASD_WRITE.
    pub address: *mut c_void,
    /// How many bytes.
    pub length: usize,
    /// What devices may do: IOASD_READ, IOASD_WRITE or both.
    pub permission: u32,
}

/// What is left of a range, for ioasd_translate_next().
#[repr(C)]
pub struct Rest {
    /// The first address.
    pub iova: u64,
    /// How many bytes.
    pub length: u64,
}

/// Why memory was not reached.
#[repr(C)]
pub enum Kind {
    /// Nothing is mapped.
    NotPresent = 1,
    /// Mapped, but not for this.
    Permission = 2,
    /// The tables hold something that their format does not allow.
    Malformed = 3,
    /// Mapped to a file that is not known here yet, or cannot be used: ioasd_learn() tells.
    NotExported = 4,
    /// The tables do not translate such addresses.
    OutsideAperture = 5,
    /// The agent does not serve the domain any more.
    Dead = 6,
}

/// An access that did not reach memory.
#[repr(C)]
pub struct Fault {
    /// The address.
    pub iova: u64,
    /// The last entry of the tables that was read.
    pub entry: u64,
    /// Its level: 0 is that of pages.
    pub level: u32,
    /// Why.
    pub kind: Kind,
}

/// Whether a stream remembers pages.
#[derive(Clone, Copy)]
enum Iotlb {
    With,
    Without,
}

/// Opens a stream for the calling thread and stores it to `stream`; close it with ioasd_stream_close(), on this thread.
///
/// @param flags 0 or IOASD_STREAM_IOTLB.
/// @return 0; -EMFILE if the walker has as many streams as it can, which are 64: open another walker.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_stream_open(
    walker: *mut WalkerHandle,
    flags: u32,
    stream: Option<&mut MaybeUninit<*mut StreamHandle>>,
) -> c_int {
    boundary(|| {
        let stream = wanted(stream, "stream")?;
        let iotlb = only_flag(flags, IOASD_STREAM_IOTLB, Iotlb::With, Iotlb::Without)?;
        let opened = walker::stream(walker)?;
        let opened = StreamHandle::open(match iotlb {
            Iotlb::With => opened.with_iotlb(),
            Iotlb::Without => opened,
        });
        stream.write(ptr::from_ref(opened).cast_mut());
        Ok(())
    })
}

/// Closes a stream; a burst it is in ends.
///
/// @return 0; -EBADF if it is closed already, -EPERM if it is another thread's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_stream_close(stream: *mut StreamHandle) -> c_int {
    // SAFETY: the caller has it from ioasd_stream_open.
    boundary(|| Ok(unsafe { StreamHandle::at(stream) }?.close()?))
}

/// Begins a burst. Until ioasd_leave() everything that this stream translates stays where it is; whoever unmaps it waits
/// for that. So a burst must be short: no waiting, no call of the agent (they are refused with -EDEADLK).
///
/// @return 0; -EBUSY if the stream is in a burst already, -EBADF if it is closed, -EPERM if it is another thread's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_enter(stream: *mut StreamHandle) -> c_int {
    // SAFETY: the caller has it from ioasd_stream_open.
    boundary(|| Ok(unsafe { StreamHandle::at(stream) }?.enter()?))
}

/// Ends a burst. No address that was translated in it may be used any more.
///
/// @return 0; -EBADFD if the stream is in no burst, -EBADF if it is closed, -EPERM if it is another thread's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_leave(stream: *mut StreamHandle) -> c_int {
    // SAFETY: the caller has it from ioasd_stream_open.
    boundary(|| Ok(unsafe { StreamHandle::at(stream) }?.leave()?))
}

/// Finds the memory behind the `length` bytes at `iova`, or behind the first of them: what does not lie together comes in
/// pieces, see ioasd_translate_next(). No message and no system call. Only in a burst.
///
/// @param access IOASD_READ or IOASD_WRITE: what is to be done with it.
/// @return 0; -EFAULT if the first byte cannot be reached, ioasd_stream_fault() tells why; -EAGAIN if it lies in a file
/// that is not known here: leave the burst, call ioasd_learn(), and enter again; -ENODEV if the agent is gone or has
/// destroyed the domain; -EBADFD if the stream is in no burst, -EBADF if it is closed, -EPERM if it is another thread's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_translate(
    stream: *mut StreamHandle,
    iova: u64,
    length: u64,
    access: u32,
    memory: Option<&mut MaybeUninit<Memory>>,
) -> c_int {
    // SAFETY: the caller has it from ioasd_stream_open.
    let shell = unsafe { stream.as_ref() };
    if let (Some(shell), Ok(access), Some(memory)) = (shell, self::access(access), memory)
        && let Some(burst) = shell.inside()
    {
        let (iova, length) = (Iova::new(iova), ByteLen::new(length));
        let Some(found) = burst.remembered(iova, length, access) else {
            return by_tables((shell, burst), iova, length, access, memory);
        };
        memory.write(Memory::of(found));
        return 0;
    }
    not_translated(shell, access)
}

/// Translates what is not remembered. Apart from the above, which needs no stack.
#[inline(never)]
fn by_tables(
    (shell, burst): (&StreamHandle, &Burst<'_>),
    iova: Iova,
    length: ByteLen,
    access: Access,
    memory: &mut MaybeUninit<Memory>,
) -> c_int {
    contained(|| match burst.by_tables(iova, length, access) {
        Ok(found) => {
            memory.write(Memory::of(found));
            0
        }
        Err(fault) => failed(shell.faulted(fault)),
    })
}

/// Says what is wrong with a call.
#[cold]
fn not_translated(shell: Option<&StreamHandle>, access: u32) -> c_int {
    boundary(|| {
        shell.ok_or(Misuse::Null("stream"))?.burst()?;
        self::access(access)?;
        Err::<(), Failure>(Misuse::Null("memory").into())
    })
}

/// Finds the next piece of memory behind `rest`, and takes it off `rest`:
///
///     struct ioasd_rest rest = { iova, length };
///     while ((found = ioasd_translate_next(stream, &rest, IOASD_READ, &memory)) > 0)
///             use(memory.address, memory.length);
///
/// @return 1 if there is a piece, 0 if nothing is left; else as ioasd_translate(), and `rest` begins with the byte that
/// cannot be reached.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_translate_next(
    stream: *mut StreamHandle,
    rest: Option<&mut Rest>,
    access: u32,
    memory: Option<&mut MaybeUninit<Memory>>,
) -> c_int {
    boundary(|| {
        let (rest, memory) = (wanted(rest, "rest")?, wanted(memory, "memory")?);
        // SAFETY: the caller has it from ioasd_stream_open.
        let shell = unsafe { StreamHandle::at(stream) }?;
        let (burst, access) = (shell.burst()?, self::access(access)?);
        let piece = burst.translate(Iova::new(rest.iova), ByteLen::new(rest.length), access).next();
        let Some(piece) = piece.transpose().map_err(|fault| shell.faulted(fault))? else { return Ok(0) };
        rest.take(piece.memory.len() as u64);
        memory.write(Memory::of(piece));
        Ok(1)
    })
}

/// Learns of the file behind the address at which the last burst met -EAGAIN. Asks the agent, so only outside of a burst:
///
///     do {
///             ioasd_enter(stream);
///             error = ...;
///             ioasd_leave(stream);
///     } while (error == -EAGAIN && !(error = ioasd_learn(stream)));
///
/// @return 0: enter again; -EPERM if the file is not one that walkers are given, -EFAULT if it was learned of before and
/// does not help: treat both as faults.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_learn(stream: *mut StreamHandle) -> c_int {
    boundary(|| {
        // SAFETY: the caller has it from ioasd_stream_open.
        let shell = unsafe { StreamHandle::at(stream) }?;
        crate::shell::this_thread_is_outside()?;
        shell.learn()
    })
}

/// Stores the last fault of the burst that the stream is in, or was in last.
///
/// @return 0; -ENODATA if there was none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioasd_stream_fault(
    stream: *mut StreamHandle,
    fault: Option<&mut MaybeUninit<Fault>>,
) -> c_int {
    boundary(|| {
        let fault = wanted(fault, "fault")?;
        // SAFETY: the caller has it from ioasd_stream_open.
        let last = unsafe { StreamHandle::at(stream) }?.last_fault()?;
        fault.write(Fault::of(last.ok_or(Failure::NoFault)?));
        Ok(())
    })
}

impl Memory {
    #[inline]
    fn of(piece: HostSlice<'_>) -> Self {
        Self {
            address: piece.memory.as_ptr().cast(),
            length: piece.memory.len(),
            permission: flags(piece.rights()),
        }
    }
}

impl Rest {
    /// Behind the last address there is, nothing is translated.
    fn take(&mut self, bytes: u64) {
        self.length -= bytes;
        self.iova = self.iova.saturating_add(bytes);
    }
}

impl Fault {
    fn of(fault: WalkFault) -> Self {
        let WalkFault { iova, level, entry, kind } = fault;
        let kind = match kind {
            FaultKind::NotPresent => Kind::NotPresent,
            FaultKind::Permission => Kind::Permission,
            FaultKind::Malformed => Kind::Malformed,
            FaultKind::NotExported => Kind::NotExported,
            FaultKind::OutsideAperture => Kind::OutsideAperture,
            FaultKind::Dead => Kind::Dead,
        };
        Self { iova: iova.get(), entry, level: level.get(), kind }
    }
}
