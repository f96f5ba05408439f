//! Typed calls: one method of [`Connection`](crate::connection::Connection) for each command.
//!
//! | file | calls |
//! |---|---|
//! | [`ioas`] | `ioas_alloc`, `map_file`, `unmap`, `unmap_all`, `copy`, `destroy` |
//! | [`rules`] | `allow_iovas`, `iova_ranges`, `large_pages`, `set_large_pages`, `rlimit_mode`, `set_rlimit_mode`, `change_process` |
//! | [`lists`] | `map_files`, `unmap_ranges` |
//! | [`devices`] | `device_create`, `device_attach`, `device_replace`, `device_detach`, `hwpt_alloc`, `hwpt_alloc_tracked`, `domain_export` |
//! | [`dirty`] | `set_dirty_tracking`, `dirty_bitmap` |
//! | [`accesses`] | `access_create`, `access_create_with_notices`, `access_attach`, `access_replace`, `access_detach`, `access_pin`, `access_unpin`, `access_read`, `access_write` |
//! | [`channels`] | `open_channel`, `into_lease` |
//! | [`walkers`] | [`ExportChannel::open`](walkers::ExportChannel::open) |
//!
//! Imports allowed: connection, error, ids, units, wire.

pub mod accesses;
mod array;
pub mod channels;
pub mod devices;
pub mod dirty;
pub mod ioas;
pub mod lists;
pub mod rules;
pub mod walkers;

pub use accesses::{AccessKind, PinIntent};
pub use channels::OpenedChannel;
pub use devices::Iommu;
pub use dirty::{Told, Tracking};
pub use ioas::{FileSlice, Placement};
pub use rules::{LargePages, RlimitMode};
pub use walkers::{DomainParts, ExportChannel, FileParts};

use std::os::fd::OwnedFd;

use crate::error::ProtocolError;

/// The one descriptor of an answer.
pub(crate) fn only_descriptor(command: &'static str, fds: Vec<OwnedFd>) -> Result<OwnedFd, ProtocolError> {
    let found = fds.len();
    let [fd] = <[OwnedFd; 1]>::try_from(fds).map_err(|_| ProtocolError::Descriptors {
        command,
        wanted: 1,
        found,
    })?;
    Ok(fd)
}

/// No descriptors are expected with an answer.
fn no_descriptors<C>(_: &C) -> u64 {
    0
}

fn require_payload(command: &'static str, wanted: u64, payload: &[u8]) -> Result<(), ProtocolError> {
    if payload.len() as u64 == wanted {
        return Ok(());
    }
    Err(ProtocolError::Payload { command, wanted, found: payload.len() })
}
