//! What all contexts of one agent share, and what each arbiter has of its own.
//!
//! Imports allowed: storage, sources, domains, the actors below ClientContext.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actix::{Addr, ArbiterHandle};
use ioasd_client::layout::BootId;

use super::exported_files::UnsafeFiles;
use super::frame_service::FrameService;
use super::leases::Leases;
use super::load::Load;
use super::messages::dispatch::Dispatch;
use super::mock_hardware::{Hardware, MockHardware};
use super::payer::PayingProcesses;
use super::pinner::Pinner;
use super::policy::Policy;
use super::registry::Registry;
use super::retirement::Retirement;
use super::shards::Shards;
use crate::sources::backing::Backing;
use crate::sources::pin_host::PinHost;
use crate::storage::Tuning;
use crate::storage::ledger::Ledger;

/// Limits and settings of an agent, as actors need them.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Requests of one channel that may wait.
    pub credits: usize,
    /// Sockets a context may have besides its lease.
    pub channels: usize,
    /// Limits of movements.
    pub tuning: Tuning,
    /// What there is besides software devices.
    pub hardware: Hardware,
    /// What becomes of files that walkers cannot map safely.
    pub unsafe_files: UnsafeFiles,
}

/// Shared by all contexts.
pub struct Agent {
    /// Every live object, for reports.
    pub registry: Arc<Registry>,
    /// Who has pinned what.
    pub ledger: Arc<Ledger>,
    /// Which tenant a process belongs to, and what that may do.
    pub policy: Arc<Policy>,
    /// The processes that map.
    pub paying: Arc<PayingProcesses>,
    /// All frames.
    pub frames: Arc<FrameService>,
    /// How memory is held.
    pub pins: PinHost,
    /// All FanOuts.
    pub shards: Shards,
    /// How busy the tiers are.
    pub load: Load,
    /// The arbiter of each FanOut, in the same order.
    pub arbiters: Vec<ArbiterHandle>,
    /// Mock hardware, if this agent has it.
    pub mock: Option<Arc<MockHardware>>,
    /// All leases.
    pub leases: Arc<Leases>,
    /// Limits.
    pub settings: Settings,
    /// Understands messages.
    pub dispatch: Arc<dyn Dispatch>,
    /// Tells this start of the agent from others.
    pub boot: BootId,
    /// The last number given to a domain or an access.
    pub last_number: AtomicU64,
}

impl Agent {
    /// Limits of the movements of a new pages object, of this file if it is of one.
    #[must_use]
    pub fn tuning(&self, backing: &Backing) -> Tuning {
        let tuning = self.settings.tuning;
        self.mock.as_ref().map_or(tuning, |mock| mock.tuned(tuning, backing))
    }

    /// A number that no domain or access of this agent had before.
    pub fn next_number(&self) -> u64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The actors of one arbiter that serve the contexts living there.
#[derive(Clone, Debug)]
pub struct Local {
    /// The arbiter's number, which is that of its FanOut.
    pub shard: u16,
    /// Reaches the pin threads.
    pub pinner: Addr<Pinner>,
    /// Waits for walkers.
    pub retirement: Addr<Retirement>,
}
