//! The wire: one message of an `AF_UNIX` `SOCK_SEQPACKET` socket is one frame.
//!
//! ```text
//!   request   header 24 B │ uAPI struct, as long as its `size` says │ payload
//!   reply     header 32 B │ the struct copied back │ payload │ code │ text
//! ```
//!
//! A frame has 1 byte to 64 KiB. All integers are little-endian. Descriptors travel by `SCM_RIGHTS` in the same message,
//! at most 253; the agent asks for `SCM_CREDENTIALS` with every message and judges each by its own sender. Requests of
//! one channel are answered in order; `tag` comes back unchanged.
//!
//! | module | holds |
//! |---|---|
//! | [`frame`] | headers, requests, replies |
//! | [`field`] | how one field lies in a struct |
//! | [`command`] | the trait of all commands, the macro that declares them, decode and encode of arguments |
//! | [`record`] | the elements of arrays beside a command |
//! | [`uapi`] | the iommufd commands |
//! | [`vfio`] | the VFIO container commands |
//! | [`mock`] | the test command, for mock hardware |
//! | [`events`] | queues of faults and events, 0x3bd8 and 0x3bd9 |
//! | [`own`] | ioasd's own commands, 0x3bc0 to 0x3bcf |
//! | [`channels`] | ioasd's own commands about leases, channels and notices, 0x3bd0 to 0x3bdf |
//! | [`fuzz`] | entry points for fuzzers: whatever the bytes are, nothing may panic |
//!
//! Nothing here does I/O, and nothing trusts a length it was sent.
//!
//! Imports allowed: units, ids, `rustix::io::Errno`.

pub mod channels;
pub mod command;
pub mod events;
pub mod field;
pub mod frame;
pub mod fuzz;
pub mod mock;
pub mod own;
pub mod record;
pub mod uapi;
pub mod vfio;

/// Bytes a frame can have at most.
pub const FRAME_MAX: usize = 64 * 1024;

/// Descriptors a message can carry at most; the kernel's limit.
pub const FDS_MAX: usize = 253;
