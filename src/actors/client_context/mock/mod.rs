//! Operations of a context on mock hardware.
//!
//! | file | what it is |
//! |---|---|
//! | [`devices`] | mock devices |
//! | [`pasids`] | PASIDs of mock devices |
//! | [`addresses`] | addresses told by the number of an area |
//! | [`accesses`] | accesses that a program holds as a descriptor |
//! | [`dma_bufs`] | memory of mock devices |
//! | [`checks`] | what tables and pins say, against the program's memory |
//! | [`triggers`] | faults and events |
//! | [`caches`] | what caches of devices and nested domains hold |
//!
//! Imports allowed: state and what it may import.

pub mod accesses;
pub mod addresses;
pub mod caches;
pub mod checks;
pub mod devices;
pub mod dma_bufs;
pub mod pasids;
pub mod triggers;

use std::sync::Arc;

use super::state::ClientState;
use crate::actors::mock_hardware::MockHardware;

impl ClientState {
    /// The mock hardware of the agent, if it has any.
    #[must_use]
    pub fn mock_hardware(&self) -> Option<&Arc<MockHardware>> {
        self.agent.mock.as_ref()
    }
}
