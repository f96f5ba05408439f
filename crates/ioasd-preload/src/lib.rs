//! The shim: loaded before a program (`LD_PRELOAD`), it leads the program's use of `/dev/iommu` and `/dev/vfio/vfio` to
//! the agent. Everything else goes where it always went.
//!
//! ```text
//!   open("/dev/iommu") ──▶ lease: a named socket, connected to the agent; this is the program's descriptor
//!   ioctl(fd, 0x3b..)  ──▶ is fd a lease? ──no──▶ the kernel
//!                             └─yes──▶ this thread's channel ──▶ request, reply ──▶ the program's memory
//! ```
//!
//! There is no table of descriptors: what a lease is, the kernel says (its socket has a name that only leases have). So
//! `dup`, `fork`, `exec`, `close` and passing to other processes work without our help.
//!
//! **Nothing here allocates, locks or panics**, because a program may call from a signal handler, between `fork` and
//! `exec`, or before `main`. Memory of the program is touched only through the kernel, so that a bad pointer is EFAULT.
//!
//! | module | what it is |
//! |---|---|
//! | [`interpose`] | the C functions that stand before those of the C library |
//! | `next` | the functions that would have been called |
//! | `place` | where the agent's socket is |
//! | `lease` | connecting, and telling a lease from other descriptors |
//! | `channels` | the channels of the calling thread |
//! | `message` | one request and its reply over a socket |
//! | `memory` | the program's memory, through the kernel |
//! | `shape` | what each command's struct is like |
//! | `call` | one ioctl, from its argument to its result |
//! | `vmas`, `backing` | what the program's memory is, and the file behind it |
//! | `pinning`, `thread` | pinning the program's memory when the agent asks for it, in a thread of its own |
//! | `dirty` | bitmaps of what devices have written |
//! | `invalidate` | HWPT_INVALIDATE |
//! | `events` | reading and writing queues of faults and events |
//! | `vfio` | the calls of a VFIO container |
//! | `mock` | the test command |
//! | `region` | what is mapped through the device |
//! | `sys` | system calls |
//! | `report` | what is said on standard error |

pub mod interpose;

mod backing;
mod call;
mod channels;
mod dirty;
mod events;
mod invalidate;
mod lease;
mod memory;
mod message;
mod mock;
mod next;
mod pinning;
mod place;
mod region;
mod report;
mod shape;
mod sys;
mod thread;
mod vfio;
mod vmas;
