//! The walker: the read side of a software domain, in the process of a device.
//!
//! It translates IOVAs from the tables that the agent writes, without any message and without a system call, and
//! reaches the memory behind them through its own mappings of the backing files.
//!
//! ```text
//! Walker::open(parts) ── stream() ──▶ Stream (one a thread, has a slot) ── enter() ──▶ Burst ── translate, read, write
//! ```
//!
//! Inside a burst a translation stays good: the agent does not let go of a page before every burst that might have
//! seen it has ended. So bursts must be short. Nothing read from the arena is trusted: whatever its bytes say, the
//! walker reads neither outside the arena nor outside the backing files.
//!
//! Imports allowed: units, formats, layout, mapping, `rustix`.

mod fault;
mod frames;
mod open;
mod stream;
mod walk;

pub use fault::{FaultKind, WalkFault};
pub use frames::WindowsError;
pub use open::{BackingFile, DomainParts, OpenError, Walker};
pub use stream::{Access, Burst, Generation, NoSlot, Stream, Translation};
pub use walk::{Leaf, descend};
