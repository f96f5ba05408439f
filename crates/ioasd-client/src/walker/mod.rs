//! The walker: the read side of a software domain, in the process of a device.
//!
//! It translates IOVAs from the tables that the agent writes, without any message and without a system call, and
//! reaches the memory behind them through its own mappings of the backing files.
//!
//! ```text
//! Walker::attach(channel) ── stream() ──▶ Stream (one a thread, has a slot) ── enter() ──▶ Burst ── translate, read, write
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `open`, `channel` | an exported domain, from its parts or from the agent; learning of new files |
//! | `stream`, `burst` | slots, and what is done inside |
//! | `log` | what was written, when the agent wants to know |
//! | `walk`, `walk_cache` | through the tables to a frame, from the root or from a table near it that is remembered |
//! | `report` | what is told of faults, in the walker's own memory |
//! | `vm_memory` | for devices written with that crate; a feature |
//! | `backing`, `reach`, `iotlb` | from a frame, or from what is remembered, to memory |
//! | `era` | for how long what is remembered is good |
//!
//! Inside a burst a translation stays good: the agent does not let go of a page before every burst that might have
//! seen it has ended. So bursts must be short. Nothing read from the arena is trusted: whatever its bytes say, the
//! walker reads neither outside the arena nor outside the backing files.
//!
//! ```no_run
//! use ioasd_client::calls::ExportChannel;
//! use ioasd_client::units::{ByteLen, Iova};
//! use ioasd_client::walker::{Access, Walker};
//!
//! # fn device(channel: std::os::fd::OwnedFd) -> Result<(), Box<dyn std::error::Error>> {
//! let walker = Walker::attach(ExportChannel::from_fd(channel))?;
//! let mut stream = walker.stream()?.with_iotlb();
//! let sum = stream.burst(|burst| {
//!     let mut sum = 0_u64;
//!     for piece in burst.translate(Iova::new(0x1000), ByteLen::new(0x3000), Access::Read) {
//!         sum += piece?.memory.load::<u64>(0).unwrap_or(0);
//!     }
//!     Ok(sum)
//! })?;
//! # let _ = sum; Ok(()) }
//! ```
//!
//! Imports allowed: units, formats, layout, mapping, calls, error, `rustix`. `unsafe` in `reach` and `vm_memory`
//! alone.

mod backing;
mod burst;
mod channel;
mod era;
mod fault;
mod iotlb;
mod log;
mod open;
mod reach;
mod report;
mod stream;
#[cfg(feature = "vm-memory")]
pub mod vm_memory;
mod walk;
mod walk_cache;

pub use backing::WindowsError;
pub use burst::{Burst, Slices, Translation};
pub use channel::{Asked, AttachError};
pub use fault::{FaultKind, WalkFault};
pub use open::{BackingFile, DomainParts, OpenError, Walker};
pub use reach::HostSlice;
pub use stream::{Access, Generation, NoSlot, Stream};
pub use walk::{Leaf, Way, descend};
