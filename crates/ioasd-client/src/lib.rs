//! What ioasd and its clients must agree on, and the client itself.
//!
//! | module | what it is |
//! |---|---|
//! | [`units`] | one type a quantity |
//! | [`ids`] | object ids |
//! | [`wire`] | frames and commands on the socket |
//! | [`connection`], [`calls`], [`error`] | the blocking client |
//! | [`pipeline`] | the client that does not wait: many requests under way |
//! | [`notices`] | what accesses are asked to let go of |
//! | [`lease`] | what keeps a context alive and opens channels |
//! | [`formats`] | page-table formats, bit by bit |
//! | [`layout`] | what agent and walkers share in memory: arena header, slots, frame windows |
//! | [`mapping`] | shared memory as atomics |
//! | [`walker`] | the read side of a software domain: translates IOVAs without any message |
//!
//! A VMM owns memory, which is a file, and shows it to devices at addresses of its choice:
//!
//! ```no_run
//! use std::os::fd::{AsFd, OwnedFd};
//! use ioasd_client::calls::{FileSlice, Iommu, Placement};
//! use ioasd_client::connection::Connection;
//! use ioasd_client::formats::FormatId;
//! use ioasd_client::units::{ByteLen, Iova, IovaRange, Permission};
//!
//! fn vmm(memory: &OwnedFd, length: ByteLen) -> Result<OwnedFd, Box<dyn std::error::Error>> {
//!     let mut agent = Connection::connect("/run/ioasd/ioasd.sock".as_ref())?;
//!     let ioas = agent.ioas_alloc()?;
//!     let device = agent.device_create(FormatId::AmdV1, Iommu::Shared)?;
//!     let hwpt = agent.device_attach(device, ioas)?;
//!     let slice = FileSlice { file: memory.as_fd(), offset: ByteLen::new(0), length };
//!     let guest = Iova::new(0x1_0000_0000);
//!     agent.map_file(ioas, slice, Permission::ReadWrite, Placement::Fixed(guest))?;
//!     let channel = agent.domain_export(hwpt)?;
//!     // Whoever holds `channel` may walk; send it to the device's process. Later, when the guest takes memory back:
//!     agent.unmap(ioas, IovaRange::from_length(guest, length).ok_or("an empty range")?)?;
//!     // From here on no device looks at it.
//!     Ok(channel)
//! }
//! ```
//!
//! A device is another process. It asks nobody where an address leads, and cannot see memory after its unmap was answered:
//!
//! ```no_run
//! use std::os::fd::OwnedFd;
//! use ioasd_client::calls::ExportChannel;
//! use ioasd_client::units::{ByteLen, Iova};
//! use ioasd_client::walker::{Access, Stream, WalkFault, Walker};
//!
//! /// A word of a ring, and the bytes it points to, in a burst of their own.
//! fn descriptor(stream: &mut Stream, ring: Iova) -> Result<Vec<u8>, WalkFault> {
//!     stream.burst(|burst| {
//!         let word = burst.slice(ring, ByteLen::new(8), Access::Read)?.memory;
//!         let buffer = Iova::new(word.load::<u64>(0).unwrap_or(0));
//!         let mut bytes = vec![0; 1500];
//!         burst.read(buffer, &mut bytes)?;
//!         Ok(bytes)
//!     })
//! }
//!
//! fn device(channel: OwnedFd) -> Result<(), Box<dyn std::error::Error>> {
//!     let walker = Walker::attach(ExportChannel::from_fd(channel))?;
//!     let mut stream = walker.stream()?.with_iotlb();
//!     match descriptor(&mut stream, Iova::new(0x1_0000_0000)) {
//!         Ok(packet) => println!("{} bytes", packet.len()),
//!         Err(fault) => println!("the guest gets an error: {fault}"),
//!     }
//!     Ok(())
//! }
//! ```
//!
//! A device that is written with `vm-memory` needs no change: the feature of that name makes a walker its IOMMU. For C there
//! is `libioasd`, over this crate.
//!
//! The agent depends on this crate, never the reverse. No actix, no tokio.

pub mod calls;
pub mod connection;
pub mod error;
pub mod faults;
pub mod formats;
pub mod ids;
pub mod layout;
pub mod lease;
pub mod mapping;
pub mod notices;
pub mod pipeline;
mod transport;
pub mod units;
pub mod walker;
pub mod wire;
