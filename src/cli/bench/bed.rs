//! The test bed: an engine in this process, and one context on its arbiter, used as the uAPI uses it.
//!
//! The engine has one arbiter, so that what is measured is the work and not how many processors share it.
//!
//! Imports allowed: actors, domains, storage, config, units.

use std::rc::Rc;
use std::sync::Arc;

use actix::Addr;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, IndexRange, Iova, IovaRange, PAGE_SIZE, PageIndex, Permission};
use rustix::process::getuid;
use tokio::sync::oneshot;

use super::report::Row;
use super::{BenchError, Plan};
use crate::actors::agent::Agent;
use crate::actors::client_context::address_spaces::{Mapping, NewPages};
use crate::actors::client_context::state::ClientState;
use crate::actors::engine::{Engine, EngineSettings};
use crate::actors::figures::ContextStats;
use crate::actors::objects::{HwptObject, Iommu};
use crate::actors::pages::Pages;
use crate::actors::payer::{Binding, Payer};
use crate::actors::registry::Registry;
use crate::cli::agent::settings;
use crate::config::Config;
use crate::sources::backing::Backing;
use crate::sources::file::FileSource;
use crate::sources::presence::FirstTouch;
use crate::storage::counts::ArrayLen;
use crate::storage::io_pagetable::{Placement, UnmapRequest, Writable};
use crate::storage::iova_allocator::OriginAddr;
use crate::storage::ledger::AccountMode;
use crate::storage::ledger::bill::{Bill, ProcessAccount};
use crate::storage::ledger::holder::TenantName;
use crate::storage::refusal::Refusal;
use crate::storage::source::{PageSource, PinSettings, Strength, StrengthSetting};

use super::memory::Memory;

/// Where a leaf of any size may begin.
pub(super) const ALIGNED: Iova = Iova::new(1 << 32);

/// Where ranges are mapped: one page aside of where a leaf larger than a page could begin, so that each page has one.
pub(super) const IOVA: Iova = Iova::new(ALIGNED.get() + PAGE_SIZE);

/// An engine and a context in it. Lives on the arbiter.
pub(super) struct Bed {
    /// What all contexts share.
    pub(super) agent: Arc<Agent>,
    /// The context.
    pub(super) state: Rc<ClientState>,
    /// How much, and how often.
    pub(super) plan: Plan,
}

/// Settings of an engine with one arbiter.
pub(super) fn engine_settings(strength: Strength) -> EngineSettings {
    let strength = StrengthSetting::Exactly(strength);
    let pins = PinSettings { strength, ..PinSettings::default() };
    EngineSettings { arbiters: 1, pins, ..settings(&Config::default()) }
}

/// Runs `scenario` on the arbiter of a new engine.
pub(super) fn run(
    plan: Plan,
    scenario: impl AsyncFnOnce(&Bed) -> Result<Vec<Row>, BenchError> + Send + 'static,
) -> Result<Vec<Row>, BenchError> {
    actix_rt::System::new().block_on(async move {
        let engine = Engine::start(engine_settings(plan.strength), Registry::new()).await?;
        let (sender, rows) = oneshot::channel();
        engine.on_arbiter(0, move |agent, local| {
            let stats = agent.registry.register_context(ContextStats::new(getuid(), None));
            let state = Rc::new(ClientState::new(Arc::clone(&agent), local, stats));
            actix_rt::spawn(async move {
                let bed = Bed { agent, state, plan };
                let rows = scenario(&bed).await;
                bed.state.close().await;
                let unheard = sender.send(rows).is_err();
                debug_assert!(!unheard, "the bench stopped waiting for its scenario");
            });
        });
        let rows = rows.await.unwrap_or(Err(BenchError::Lost));
        engine.stop().await;
        rows
    })
}

impl Bed {
    /// What one mapping covers.
    pub(super) fn range(&self) -> IovaRange {
        IovaRange::from_length(self.plan.iova, self.plan.size).unwrap_or(IovaRange::ALL)
    }

    /// Attaches `count` domains to an address space, of `formats` in turn.
    pub(super) async fn attach(
        &self,
        ioas: ObjectId,
        count: usize,
        formats: &[FormatId],
    ) -> Result<Vec<Rc<HwptObject>>, Refusal> {
        let mut domains = Vec::new();
        for format in formats.iter().cycle().take(count) {
            let device = self.state.device_create(Iommu::Own, *format)?;
            let hwpt = self.state.device_attach(device, ioas).await?;
            let hwpt = self.state.with_objects(|objects| objects.hwpt(hwpt));
            domains.push(hwpt.map_err(|error| Refusal::of(&error))?);
        }
        Ok(domains)
    }

    /// Maps pages of a source, as many as the plan says, where it says.
    pub(super) async fn map(&self, ioas: ObjectId, source: Arc<dyn PageSource>) -> Result<(), Refusal> {
        self.map_at(ioas, source, self.range()).await.map(drop)
    }

    /// Maps the first pages of a source; tells the pages object.
    pub(super) async fn map_at(
        &self,
        ioas: ObjectId,
        source: Arc<dyn PageSource>,
        range: IovaRange,
    ) -> Result<Addr<Pages>, Refusal> {
        let len = ArrayLen::new(range.length().get() / PAGE_SIZE);
        let new = NewPages { source, len, origin: OriginAddr::new(0), backing: Backing::Nothing };
        let account = self.agent.ledger.account(&TenantName::Unknown, getuid().as_raw(), 0);
        let bill = Bill::new(account, ProcessAccount::new(), AccountMode::None);
        let payer = Payer { bill, binding: Binding::Nothing };
        let pages = self.state.start_pages(new, payer)?;
        let actor = pages.pages().clone();
        let slice = ((ByteLen::new(0), range.length()), Writable::Yes);
        self.state.map_pages(ioas, pages, slice, mapping(range.start())).await?;
        Ok(actor)
    }

    /// Maps a file where the plan says, as MAP_FILE does.
    pub(super) async fn map_file(&self, ioas: ObjectId, memory: &Memory) -> Result<(), BenchError> {
        self.map_slice(ioas, memory, self.plan.iova, self.plan.size).await
    }

    /// Maps the beginning of a file.
    pub(super) async fn map_slice(
        &self,
        ioas: ObjectId,
        memory: &Memory,
        iova: Iova,
        length: ByteLen,
    ) -> Result<(), BenchError> {
        let pages = IndexRange::from_length(PageIndex::new(0), length.get() / PAGE_SIZE);
        let pages = pages.ok_or(BenchError::Lost)?;
        let source = FileSource::new(memory.descriptor()?, pages, &self.agent.pins, FirstTouch::none());
        let source = source.map_err(|error| Refusal::of(&error))?;
        let range = IovaRange::from_length(iova, length).ok_or(BenchError::Lost)?;
        self.map_at(ioas, Arc::new(source), range).await?;
        Ok(())
    }

    /// Shows what one address space maps in another one as well.
    pub(super) async fn copy(&self, from: ObjectId, to: ObjectId) -> Result<(), Refusal> {
        self.state.copy((from, self.range()), to, mapping(self.plan.iova)).await.map(drop)
    }

    /// Unmaps everything.
    pub(super) async fn unmap(&self, ioas: ObjectId) -> Result<(), Refusal> {
        self.state.unmap(ioas, UnmapRequest::Everything).await.map(drop)
    }
}

const fn mapping(iova: Iova) -> Mapping {
    Mapping { permission: Permission::ReadWrite, placement: Placement::Fixed(iova) }
}
