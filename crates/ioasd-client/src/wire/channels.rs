//! Leases, channels, notices, upcalls, and what a lease is mapped as: numbers 0x3bd0 to 0x3bd6.
//!
//! The socket that a client has connected is the *lease* of its context and a channel as well. CHANNEL_OPEN, on any
//! channel, answers with one descriptor: a further channel of the same context.
//!
//! ACCESS_CREATE with [`ACCESS_NOTICES`](super::own::ACCESS_NOTICES) answers with one descriptor: the access's *notice
//! channel*, on which the roles are turned round. The agent sends NOTICE as a request; the client answers with a reply
//! that has no struct, once it has let go of what it could.
//!
//! MEMORY_SERVE answers with one descriptor, too: a *memory channel*, on which the agent asks the process that sent the
//! command to pin its memory. Each PIN_MEMORY is answered with the descriptor, by its number in that process, of a ring
//! (`io_uring_setup` with one entry and `IORING_SETUP_R_DISABLED`, nothing else) with which the memory is registered as
//! buffer 0. The process closes the ring when it gets the next PIN_MEMORY, which may be one of length 0: that asks for
//! nothing and is not answered.
//!
//! A program maps pages of a vIOMMU through its lease; a front end asks REGION_OPEN for a descriptor to map in place of it.
//! The vIOMMU is in use as long as there is a copy of that descriptor, or a mapping of it.
//!
//! DOMAIN_FAULTS answers with one descriptor, a *fault channel*, on which the agent sends FAULTS and wants no answer. Whoever holds
//! it learns of the faults that the walkers of a domain meet from then on, a moment later. Nothing is kept for a reader that does
//! not read but the last faults of the domain; it is told how many it missed.
//!
//! Imports allowed: units, ids, command.

use super::command::commands;
use crate::ids::{AccessId, HwptId};
use crate::units::{ByteLen, Iova, UserAddr};

/// What the abstract name of a lease begins with, if a front end opened it as `/dev/iommu`; [`LEASE_KEY_BYTES`] follow.
pub const LEASE_NAME: &[u8] = b"ioasd/lease/";
/// The same, if it was opened as `/dev/vfio/vfio`: then RLIMIT_MODE is 1 from the beginning.
pub const CONTAINER_NAME: &[u8] = b"ioasd/container/";
/// Random bytes that tell one lease from another, behind the beginning of its name.
pub const LEASE_KEY_BYTES: usize = 8;

commands! {
    /// Opens a further channel of the same context; it is the one descriptor of the reply.
    ChannelOpen = 0x3bd0 "CHANNEL_OPEN", min 16, size 16 {
        /// Must be 0.
        flags: u32 = 4,
        /// Out: requests that may wait on a channel.
        out_credits: u32 = 8,
        /// Must be 0.
        reserved: u32 = 12,
    }

    /// From the agent, on a notice channel: let go of everything that is pinned in a range.
    Notice = 0x3bd1 "NOTICE", min 32, size 32 {
        /// 0.
        flags: u32 = 4,
        /// The access.
        access_id: AccessId = 8,
        /// 0.
        reserved: u32 = 12,
        /// First address of the range.
        iova: Iova = 16,
        /// Its last address.
        last: Iova = 24,
    }

    /// The sender pins its memory when it is asked to; the memory channel is the one descriptor of the reply.
    MemoryServe = 0x3bd2 "MEMORY_SERVE", min 8, size 8 {
        /// Must be 0.
        flags: u32 = 4,
    }

    /// From the agent, on a memory channel: pin whole pages, and say with which ring.
    PinMemory = 0x3bd3 "PIN_MEMORY", min 32, size 32 {
        /// 0.
        flags: u32 = 4,
        /// Out: the ring's descriptor in the process.
        out_ring: u32 = 8,
        /// 0.
        reserved: u32 = 12,
        /// Where the pages begin.
        start: UserAddr = 16,
        /// How many bytes; 0: the ring that was told last has been taken, or is not wanted.
        length: ByteLen = 24,
    }

    /// Memory that can be mapped; it is the one descriptor of the reply, of which everything is to be mapped.
    RegionOpen = 0x3bd4 "REGION_OPEN", min 24, size 24 {
        /// Must be 0.
        flags: u32 = 4,
        /// Where it is in the device, as VIOMMU_ALLOC has told.
        offset: ByteLen = 8,
        /// Its bytes.
        length: ByteLen = 16,
    }

    /// Makes a fault channel of a domain; it is the one descriptor of the reply.
    DomainFaults = 0x3bd5 "DOMAIN_FAULTS", min 16, size 16 {
        /// Must be 0.
        flags: u32 = 4,
        /// The HWPT that wraps the domain.
        hwpt_id: HwptId = 8,
        /// Must be 0.
        reserved: u32 = 12,
    }

    /// From the agent, on a fault channel: faults, as payload an array of [`ToldFault`](super::record::ToldFault).
    Faults = 0x3bd6 "FAULTS", min 16, size 16 {
        /// Faults in the array.
        count: u32 = 4,
        /// Faults before the first of them that were not told.
        missed: u64 = 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::command::{Command, encode};

    #[test]
    fn a_notice_names_the_last_address_because_a_range_may_end_at_the_end_of_all() {
        let notice = Notice {
            access_id: AccessId::new(4),
            iova: Iova::new(0x1000),
            last: Iova::new(u64::MAX),
            ..Notice::default()
        };
        let bytes = encode(&notice);
        assert_eq!((bytes.len(), Notice::NUMBER), (32, 0x3bd1));
        assert_eq!(bytes[..16], [32, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..24], [0, 0x10, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[24..], [0xff; 8]);
    }
}
