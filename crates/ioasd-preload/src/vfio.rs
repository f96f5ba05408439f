//! The VFIO container calls: numbers and `argsz` structs of the program as commands of the agent.
//!
//! Imports allowed: backing, channels, lease, memory, message, sys, the client crate's wire.

use std::ffi::c_int;

use ioasd_client::wire::command::Command;
use ioasd_client::wire::field::Field;
use ioasd_client::wire::record::{IovaBounds, Record};
use ioasd_client::wire::vfio::{
    VFIO_MAP_WRITE, VfioCheckExtension, VfioGetInfo, VfioMapDma, VfioSetIommu, VfioUnmapDma,
};

use crate::backing::{self, Backing, Use};
use crate::channels;
use crate::lease::Lease;
use crate::memory::{self, Address, Range};
use crate::message::{Inbound, Outbound, Packed, exchange};
use crate::pinning;
use crate::sys::Errno;

/// GET_API_VERSION, and the version.
const GET_API_VERSION: u32 = 0x3b64;
const API_VERSION: c_int = 0;

/// Bytes of the head of GET_INFO, and of it what a program must have at least.
const INFO: usize = 24;
const INFO_MIN: usize = 16;
/// GET_INFO: page sizes and capabilities are told.
const INFO_FLAGS: u32 = 1 | 2;
/// Capabilities, in the order of the chain: how much may be mapped, and where.
const DMA_AVAIL: (u16, usize) = (3, 16);
const IOVA_RANGES: (u16, usize) = (1, 16);
/// Where each is, if it fits; behind the second the ranges themselves.
const PLACES: [usize; 2] = [INFO, INFO + DMA_AVAIL.1];
const RANGES: usize = PLACES[1] + IOVA_RANGES.1;

/// Carries out a VFIO call; `None` if the number is none of them.
pub(crate) fn ioctl(lease: Lease, command: u32, argument: u64) -> Option<Result<c_int, Errno>> {
    let at = Address(argument);
    // The kernel, too, looks at 32 bits of a number only.
    #[expect(clippy::cast_possible_truncation, reason = "what the kernel does")]
    let number = argument as u32;
    Some(match command {
        GET_API_VERSION => Ok(API_VERSION),
        VfioCheckExtension::NUMBER => check_extension(lease, number),
        VfioSetIommu::NUMBER => {
            plain(lease, &VfioSetIommu { kind: number }).and_then(|reply| reply.outcome()).map(|()| 0)
        }
        VfioGetInfo::NUMBER => get_info(lease, at),
        VfioMapDma::NUMBER => map_dma(lease, at),
        VfioUnmapDma::NUMBER => unmap_dma(lease, at),
        _ => return None,
    })
}

fn check_extension(lease: Lease, extension: u32) -> Result<c_int, Errno> {
    let reply = plain(lease, &VfioCheckExtension { extension, ..VfioCheckExtension::default() })?;
    reply.outcome()?;
    Ok(VfioCheckExtension::load(reply.body()).out_value.cast_signed())
}

/// Reads a struct whose `argsz` must cover it.
fn read<C: Command>(at: Address) -> Result<C, Errno> {
    let mut bytes = [0; 32];
    let bytes = bytes.get_mut(..C::SIZE).ok_or(Errno::INVAL)?;
    memory::read(at, bytes)?;
    if (u32::load(bytes, 0) as usize) < C::SIZE { Err(Errno::INVAL) } else { Ok(C::load(bytes)) }
}

fn map_dma(lease: Lease, at: Address) -> Result<c_int, Errno> {
    let map: VfioMapDma = read(at)?;
    let len = usize::try_from(map.length.get()).unwrap_or(usize::MAX);
    let purpose = if map.flags & VFIO_MAP_WRITE == 0 { Use::Read } else { Use::Write };
    let backing = backing::file_of(Range { start: Address(map.vaddr.get()), len }, purpose);
    let offset = backing.as_ref().map_or(0, |backing| backing.offset).to_le_bytes();
    if backing.is_none() {
        pinning::serve(lease);
    }
    let packed = Packed::of(&map);
    let outbound = Outbound {
        payload: backing.as_ref().map(|_| Range::of(&offset)),
        fd: backing.as_ref().map(Backing::fd),
        ..Outbound::plain(&packed)
    };
    let reply = channels::call(lease, |channel| exchange(channel, outbound, None))?;
    reply.outcome().map(|()| 0)
}

/// The bytes that were unmapped are written although it failed, if it was tried.
fn unmap_dma(lease: Lease, at: Address) -> Result<c_int, Errno> {
    let reply = plain(lease, &read::<VfioUnmapDma>(at)?)?;
    if let Some(answer) = reply.body().get(size_of::<u32>()..) {
        memory::write(at.behind(size_of::<u32>()), answer)?;
    }
    reply.outcome().map(|()| 0)
}

fn get_info(lease: Lease, at: Address) -> Result<c_int, Errno> {
    let mut head = [0; INFO_MIN];
    memory::read(at, &mut head)?;
    let room = u32::load(&head, 0) as usize;
    if room < INFO_MIN {
        return Err(Errno::INVAL);
    }
    let told = ask(lease, None)?;
    let ranges = Range { start: at.behind(RANGES), len: told.head.payload };
    if RANGES + ranges.len > room {
        return write_info(at, room, &told, ranges.len);
    }
    let filled = ask(lease, Some(ranges))?;
    write_info(at, room, &filled, filled.head.payload.min(ranges.len))
}

/// Asks for page sizes and, if there is room, ranges.
fn ask(lease: Lease, ranges: Option<Range>) -> Result<Inbound, Errno> {
    let packed = Packed::of(&VfioGetInfo::default());
    let reply = channels::call(lease, |channel| exchange(channel, Outbound::plain(&packed), ranges))?;
    reply.outcome().map(|()| reply)
}

/// The head, and behind it each capability that fits. The ranges, so many bytes, are there already if they fit.
fn write_info(at: Address, room: usize, reply: &Inbound, ranges: usize) -> Result<c_int, Errno> {
    let [first, second] = PLACES;
    let total = RANGES + ranges;
    let as_u32 = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    if room >= second {
        let mut capability = header(DMA_AVAIL, as_u32(second));
        u32::MAX.store(&mut capability, 8);
        memory::write(at.behind(first), &capability)?;
    }
    if room >= total {
        let mut capability = header(IOVA_RANGES, 0);
        as_u32(ranges / IovaBounds::BYTES).store(&mut capability, 8);
        memory::write(at.behind(second), &capability)?;
    }
    let mut head = [0; INFO];
    as_u32(total).store(&mut head, 0);
    INFO_FLAGS.store(&mut head, 4);
    VfioGetInfo::load(reply.body()).out_page_sizes.store(&mut head, 8);
    as_u32(if room >= total { first } else { 0 }).store(&mut head, 16);
    memory::write(at, head.get(..room.min(INFO)).unwrap_or_default())?;
    Ok(0)
}

/// Id, version 1, and where the next capability is.
fn header((id, _): (u16, usize), next: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    id.store(&mut bytes, 0);
    1_u16.store(&mut bytes, 2);
    next.store(&mut bytes, 4);
    bytes
}

fn plain<C: Command>(lease: Lease, value: &C) -> Result<Inbound, Errno> {
    let packed = Packed::of(value);
    channels::call(lease, |channel| exchange(channel, Outbound::plain(&packed), None))
}
