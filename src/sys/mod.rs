//! Every syscall of the agent, one room each.
//!
//! | file | what it is |
//! |---|---|
//! | [`memfd`], [`mapping`] | memory files, sealed; shared mappings of them |
//! | [`shared_pages`] | memory that others map, and whether they do |
//! | [`socket`], [`listener`] | SEQPACKET sockets with descriptors and credentials |
//! | [`activation`] | sockets that a service manager bound for the agent |
//! | [`identity`], [`peer`], [`pidfd`] | who connected, whether a process lives, what it may lock |
//! | [`sender`] | which process sent each message of a socket |
//! | [`opener`] | its program, for people |
//! | [`client_fd`] | a client's descriptor, closed where nobody waits |
//! | [`file_state`], [`page_cache`], [`file_io`] | a client's file: what it is, what is there, reading and writing it without mapping it |
//! | [`client_mapping`], [`pin_ring`] | a client's file mapped but never touched; pins that the kernel holds over it |
//! | [`pagemap`], [`faults`] | physical frames of pinned pages; whether pages were brought in meanwhile |
//! | [`process_memory`], [`mapping_list`] | the memory of another process by its addresses; what is mapped there |
//! | [`handed_ring`], [`ring_channel`] | a ring that another process made; moving bytes through it |
//! | [`iommu_program`] | `/dev/iommu` as programs use it, for figures |
//! | [`offers`] | what the host offers, found by using it |
//! | [`own_memory`] | what this process may lock, what it holds, whether the host swaps |
//! | [`own_process`] | what this process takes of the host |
//! | [`terminal`] | keys and size of the terminal, for `ioasd ctl top` |
//! | [`watched`] | a descriptor that the async runtime watches |
//! | [`host`] | memory of the host that anybody holds in place |
//! | [`clock`] | the clocks of the host |
//! | [`limits`] | limits of the agent itself |
//! | [`failure`] | how a failed syscall is told |
//!
//! Imports allowed: units, error, fault_points; nothing else of ours.

pub mod activation;
pub mod client_fd;
pub mod client_mapping;
pub mod clock;
pub mod failure;
pub mod faults;
pub mod file_io;
pub mod file_state;
pub mod handed_ring;
pub mod hang_ups;
pub mod host;
pub mod identity;
pub mod iommu_program;
pub mod limits;
pub mod listener;
pub mod mapping;
pub mod mapping_list;
pub mod memfd;
pub mod offers;
pub mod opener;
pub mod own_memory;
pub mod own_process;
pub mod page_cache;
pub mod pagemap;
pub mod peer;
pub mod pidfd;
pub mod pin_ring;
pub mod process_memory;
pub mod ring_channel;
pub mod sender;
pub mod shared_pages;
pub mod socket;
pub mod terminal;
pub mod watched;
