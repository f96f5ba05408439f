//! Programs written for `/dev/iommu`, unmodified, over the shim: each is a process of its own (this test binary once more,
//! or a program of this machine), and no test may leave anything behind in its agent.
#![expect(unsafe_code, reason = "the programs use the C library, as programs do")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed test helper is a failed test")]
#![expect(clippy::indexing_slicing, reason = "a failed test helper is a failed test")]

#[path = "../socket/fixture.rs"]
#[expect(dead_code, reason = "shared with tests/socket")]
mod fixture;
#[path = "../socket/noise.rs"]
mod noise;

mod accesses;
mod addresses;
mod bystanders;
mod cuts;
mod descriptors;
mod device;
mod dirty;
mod dma_bufs;
mod events;
mod kinds;
mod limits;
mod mapping;
mod mock;
mod nesting;
mod options;
mod private;
mod processes;
mod program;
mod regions;
mod run;
mod sizes;
mod tables;
mod traps;
mod vfio;
