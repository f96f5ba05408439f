//! What the admin server may look at: the lists of objects, the accounts, the processes that pay, and which file a frame
//! belongs to, how busy the agent is.
//!
//! Imports allowed: registry, frame_service, load, payer, storage::ledger.

use std::fmt;
use std::sync::Arc;

use super::frame_service::FrameService;
use super::load::Load;
use super::payer::PayingProcesses;
use super::registry::Registry;
use crate::storage::ledger::Ledger;

/// A view of an agent. Looking takes no lock of the data side but one shard of a table for a moment.
#[derive(Clone)]
pub struct View {
    /// Every live object.
    pub registry: Arc<Registry>,
    /// Who pays.
    pub ledger: Arc<Ledger>,
    /// The processes that map.
    pub paying: Arc<PayingProcesses>,
    /// Which file a frame belongs to.
    pub frames: Arc<FrameService>,
    /// How busy the tiers are.
    pub load: Load,
}

impl View {
    /// A view of `registry` alone: nobody pays, and no frame is known.
    #[must_use]
    pub fn of(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            ledger: Arc::default(),
            paying: Arc::default(),
            frames: Arc::default(),
            load: Load::default(),
        }
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("View").field(&self.registry).finish()
    }
}
