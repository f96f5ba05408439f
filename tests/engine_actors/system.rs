//! The real actors as a system under test.
//!
//! Clients live on the arbiter of the test, tables on others as well, so that batches cross threads.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Weak};

use actix::prelude::*;
use ioasd::actors::agent::{Agent, Local, Settings};
use ioasd::actors::client_context::address_spaces::{Mapping, NewPages};
use ioasd::actors::client_context::hwpts::{HwptParent, HwptPlan};
use ioasd::actors::client_context::state::ClientState;
use ioasd::actors::engine::{Engine, EngineSettings};
use ioasd::actors::exported_files::UnsafeFiles;
use ioasd::actors::fan_out::WithTable;
use ioasd::actors::figures::ContextStats;
use ioasd::actors::ioas::{Ioas, IoasCell, Map};
use ioasd::actors::messages::ioas::{ChangeTable, Check, LetGoWithin, LookAtTable, SetLargePages};
use ioasd::actors::mock_hardware::Hardware;
use ioasd::actors::objects::attachment::{AnyHwpt, Pasid};
use ioasd::actors::objects::{HwptObject, Iommu, Objects};
use ioasd::actors::pages::{CacheOf, LookAtPages, Pages};
use ioasd::actors::payer::{Binding, Payer};
use ioasd::actors::pfn_cache::LookAtFrames;
use ioasd::actors::pinner::{PinPool, Pinner};
use ioasd::actors::registry::Registry;
use ioasd::actors::retirement::{HungSettings, Retirement};
use ioasd::error::{Coded, Errno};
use ioasd::storage::Tuning;
use ioasd::storage::counts::ArrayLen;
use ioasd::storage::frame_window::FrameLimit;
use ioasd::storage::io_pagetable::{
    LargePages, NewAccesses, Owner, Placement, Transfer, Writable, check_allowed_range, check_copy_request,
    check_file_range, check_map_request, check_range, check_unmap_request,
};
use ioasd::storage::ioas::{AccessKey, AccessNeeds};
use ioasd::storage::iova_allocator::OriginAddr;
use ioasd::storage::ledger::bill::{Bill, ProcessAccount};
use ioasd::storage::ledger::holder::TenantName;
use ioasd::storage::ledger::limits::{Limit, Limits, TreeLimits};
use ioasd::storage::ledger::resource::Resource;
use ioasd::storage::ledger::{AccountMode, PageLimit};
use ioasd::storage::source::{PageSource, PinSettings};
use ioasd_client::formats::FormatId;
use ioasd_client::ids::ObjectId;
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, PageIndex};
use parking_lot::Mutex;
use rustix::process::Uid;

use crate::model::{granules, outside};
use crate::ops::{
    Asked, Manners, Observation, Op, Outcome, Range, SeenArea, Spec, Translation, Value, Way, bytes_of,
};
use crate::source::{Memory, Source};

/// Starts an engine with two more arbiters for tables, and what the clients of this arbiter need.
pub async fn engine(tuning: Tuning) -> (Arc<Engine>, Local) {
    let settings = Settings {
        credits: 64,
        channels: 16,
        tuning,
        hardware: Hardware::None,
        unsafe_files: UnsafeFiles::Withheld,
    };
    let start = EngineSettings {
        frames: FrameLimit::EVERY_FORMAT,
        arbiters: 2,
        pin_threads: 2,
        pins: PinSettings::default(),
        walkers: HungSettings::default(),
        settings,
        limits: limits(),
        rules: Vec::new(),
        dispatch: Arc::new(ioasd::uapi::Uapi),
    };
    let engine = Engine::start(start, Registry::new()).await.unwrap();
    let pool = PinPool::start("pin", 2, 16).unwrap();
    let local = Local {
        shard: 0,
        pinner: Pinner::new(pool.clone(), pool).start(),
        retirement: Retirement::new(HungSettings::default()).start(),
    };
    (engine, local)
}

/// Where the clients of a world live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// On the arbiter of their first tables, which they reach without messages.
    BesideTables,
    /// On an arbiter without tables.
    Elsewhere,
}

/// Runs `work` with a new engine, where its clients are at home.
pub fn at_home<T: Send + 'static>(
    home: Home,
    tuning: Tuning,
    work: impl AsyncFnOnce(Arc<Agent>, Local) -> T + Send + 'static,
) -> T {
    System::new().block_on(async move {
        let (engine, elsewhere) = engine(tuning).await;
        let agent = Arc::clone(engine.agent());
        let result = match home {
            Home::Elsewhere => work(agent, elsewhere).await,
            Home::BesideTables => {
                let (sender, result) = tokio::sync::oneshot::channel();
                engine.on_arbiter(0, move |agent, local| {
                    actix::spawn(async move { sender.send(work(agent, local).await).ok() });
                });
                result.await.unwrap_or_else(|_| panic!("the work panicked on its arbiter"))
            }
        };
        engine.stop().await;
        result
    })
}

/// Where an access lets go of what it holds.
type User = (Addr<Ioas>, AccessKey);

/// An access of the world that is attached, and where a notice to it goes.
struct Attached {
    id: ObjectId,
    reach: Arc<Mutex<Option<User>>>,
}

/// One client.
struct Client {
    state: Rc<ClientState>,
    ioases: BTreeMap<usize, ObjectId>,
    accesses: BTreeMap<(usize, usize), Attached>,
    /// The device of each attached domain.
    devices: BTreeMap<usize, ObjectId>,
    /// The HWPTs made by hand: those of domains with odd numbers.
    hwpts: BTreeMap<usize, ObjectId>,
}

/// A pages object that was made.
struct Made {
    serial: u64,
    pages: actix::WeakAddr<Pages>,
    source: Weak<Source>,
}

/// The engine and the clients of one world.
pub struct Actors {
    spec: Spec,
    /// What all devices walk: a device may be moved to any domain.
    format: FormatId,
    agent: Arc<Agent>,
    local: Local,
    memories: Vec<Arc<Memory>>,
    clients: RefCell<Vec<Client>>,
    made: RefCell<Vec<Made>>,
    allowed: RefCell<BTreeMap<usize, Vec<IovaRange>>>,
    small_pages: RefCell<BTreeSet<usize>>,
}

impl Actors {
    /// The world of `spec` before the first operation.
    pub async fn new(spec: Spec, format: FormatId, agent: Arc<Agent>, local: Local) -> Self {
        let memories = spec.memories.iter().map(Memory::new).collect();
        let (clients, made, allowed, small_pages) = Default::default();
        let actors = Self { spec, format, agent, local, memories, clients, made, allowed, small_pages };
        for context in 0..actors.spec.accounts.len() {
            let client = actors.new_client(context).await;
            actors.clients.borrow_mut().push(client);
        }
        actors
    }

    /// What a memory holds now.
    pub fn bytes(&self, memory: usize) -> Vec<u8> {
        self.memories[memory].bytes()
    }

    async fn new_client(&self, context: usize) -> Client {
        let uid = Uid::from_raw(self.spec.accounts[context]);
        let stats = self.agent.registry.register_context(ContextStats::new(uid, None));
        let state = Rc::new(ClientState::new(Arc::clone(&self.agent), self.local.clone(), stats));
        let mut ioases = BTreeMap::new();
        for (number, spec) in self.spec.ioases.iter().enumerate().filter(|(_, spec)| spec.context == context)
        {
            let id = state.ioas_alloc().unwrap();
            let (start, last) = (spec.start, spec.last);
            let allowed = self.allowed.borrow().get(&number).cloned().unwrap_or_default();
            let small = self.small_pages.borrow().contains(&number);
            let large_pages = if small { LargePages::Off } else { LargePages::On };
            let change = ChangeTable(Box::new(move |table| {
                for (start, last) in outside(start, last) {
                    let range = IovaRange::new(Iova::new(start), Iova::new(last)).unwrap();
                    table.add_reserved(Owner::Command, range).unwrap();
                }
                table.set_allowed(allowed).unwrap();
                table.set_large_pages(large_pages).unwrap();
            }));
            actor(&state, id).send(change).await.unwrap();
            ioases.insert(number, id);
        }
        let (accesses, devices, hwpts) = Default::default();
        Client { state, ioases, accesses, devices, hwpts }
    }

    fn state(&self, ioas: usize) -> Rc<ClientState> {
        Rc::clone(&self.clients.borrow()[self.spec.ioases[ioas].context].state)
    }

    fn ioas_id(&self, ioas: usize) -> ObjectId {
        self.clients.borrow()[self.spec.ioases[ioas].context].ioases[&ioas]
    }

    fn ioas_actor(&self, ioas: usize) -> Addr<Ioas> {
        actor(&self.state(ioas), self.ioas_id(ioas))
    }

    fn ioas_cell(&self, ioas: usize) -> Rc<IoasCell> {
        let object = self.state(ioas).with_objects(|objects| objects.ioas(self.ioas_id(ioas)));
        Rc::clone(&object.unwrap().cell)
    }

    fn access_id(&self, ioas: usize, access: usize) -> Result<ObjectId, Errno> {
        let clients = self.clients.borrow();
        let client = &clients[self.spec.ioases[ioas].context];
        client.accesses.get(&(ioas, access)).map(|attached| attached.id).ok_or(Errno::NOENT)
    }

    async fn map(&self, op: &Op) -> Outcome {
        let Op::Map { ioas, pages, memory, offset, length, permission, limited, place, writable } = op else {
            unreachable!()
        };
        let (start, bytes) = (ByteLen::new(*offset), ByteLen::new(*length));
        check_map_request(Iova::new(place.unwrap_or(0)), bytes, Some(*permission)).map_err(errno)?;
        check_file_range(start, bytes).map_err(errno)?;
        let first = *offset / PAGE_SIZE;
        let len = (*offset + *length).div_ceil(PAGE_SIZE) - first;
        let source = Source::new(Arc::clone(&self.memories[*memory]), first, len);
        let weak = Arc::downgrade(&source);
        let new = NewPages {
            origin: OriginAddr::new(source.origin()),
            source: source as Arc<dyn PageSource>,
            len: ArrayLen::new(len),
            backing: ioasd::sources::backing::Backing::Nothing,
        };
        let uid = self.spec.accounts[self.spec.ioases[*ioas].context];
        let mode = if *limited == Asked::Yes { AccountMode::User } else { AccountMode::None };
        let account = self.agent.ledger.account(&TenantName::Unknown, uid, 0);
        let limit = self.spec.limits.get(&uid).copied().map(PageLimit);
        let payer = Payer {
            bill: Bill::new(account, ProcessAccount::new(), mode),
            binding: limit.map_or(Binding::Nothing, Binding::Fixed),
        };
        let writable = if *writable == Asked::Yes { Writable::Yes } else { Writable::No };
        let mapping = Mapping { permission: *permission, placement: placement(*place) };
        let slice = (ByteLen::new(*offset % PAGE_SIZE), bytes);
        let state = self.state(*ioas);
        let handle = state.start_pages(new, payer).map_err(errno)?;
        self.made.borrow_mut().push(Made { serial: *pages, pages: handle.pages().downgrade(), source: weak });
        let mapped = state.map_pages(self.ioas_id(*ioas), handle, (slice, writable), mapping).await;
        mapped.map(placed).map_err(errno)
    }

    async fn copy(&self, from: usize, range: Range, to: usize, op: &Op) -> Outcome {
        let Op::Copy { permission, place, .. } = op else { unreachable!() };
        let (length, source) = (ByteLen::new(range.length), Iova::new(range.iova));
        check_copy_request(length, source, Iova::new(place.unwrap_or(0)), Some(*permission))
            .map_err(errno)?;
        let range = check_range(source, length).map_err(errno)?;
        let pieces = self.ioas_cell(from).copy_pieces(range).map_err(errno)?;
        let map = Map { pieces, permission: *permission, placement: placement(*place) };
        self.ioas_cell(to).map(map).await.map(placed).map_err(errno)
    }

    /// What a device is attached to for a domain: the address space, or for an odd number a HWPT made by hand.
    async fn target(&self, device: ObjectId, domain: usize) -> Result<ObjectId, Errno> {
        let ioas = self.spec.domains[domain].ioas;
        if domain.is_multiple_of(2) {
            return Ok(self.ioas_id(ioas));
        }
        let state = self.state(ioas);
        let (device, parent) = state.hwpt_parent(device, self.ioas_id(ioas)).map_err(errno)?;
        let HwptParent::Ioas(shown) = parent else { panic!("not an address space") };
        let plan = HwptPlan::by_hand(device.spec, 0, None);
        let hwpt = state.hwpt_alloc(&device, shown, plan).await.map_err(errno)?;
        self.clients.borrow_mut()[self.spec.ioases[ioas].context].hwpts.insert(domain, hwpt);
        Ok(hwpt)
    }

    async fn attach(&self, domain: usize) -> Outcome {
        let ioas = self.spec.domains[domain].ioas;
        if self.hwpt(domain).is_some() {
            return Err(Errno::EXIST);
        }
        let state = self.state(ioas);
        let device = state.device_create(Iommu::Own, self.format).map_err(errno)?;
        let attached = match self.target(device, domain).await {
            Ok(target) => state.device_attach(device, target).await.map_err(errno),
            Err(errno) => Err(errno),
        };
        if let Err(errno) = attached {
            state.destroy(device).await.unwrap();
            return Err(errno);
        }
        self.clients.borrow_mut()[self.spec.ioases[ioas].context].devices.insert(domain, device);
        Ok(Value::Nothing)
    }

    /// The device of one domain is attached to another instead.
    async fn replace(&self, domain: usize, by: usize) -> Outcome {
        let ioas = self.spec.domains[by].ioas;
        let context = self.spec.ioases[ioas].context;
        let device = self.clients.borrow()[context].devices.get(&domain).copied().ok_or(Errno::INVAL)?;
        if self.hwpt(by).is_some() {
            return Err(Errno::EXIST);
        }
        let target = self.target(device, by).await?;
        self.state(ioas).device_replace(device, target).await.map_err(errno)?;
        let old = {
            let client = &mut self.clients.borrow_mut()[context];
            client.devices.remove(&domain);
            client.devices.insert(by, device);
            client.hwpts.remove(&domain).map(|hwpt| (Rc::clone(&client.state), hwpt))
        };
        self.end_hwpt(old).await
    }

    async fn end_hwpt(&self, hwpt: Option<(Rc<ClientState>, ObjectId)>) -> Outcome {
        if let Some((state, hwpt)) = hwpt {
            state.destroy(hwpt).await.map_err(errno)?;
        }
        Ok(Value::Nothing)
    }

    async fn detach(&self, domain: usize) -> Outcome {
        let context = self.spec.ioases[self.spec.domains[domain].ioas].context;
        let device = self.clients.borrow_mut()[context].devices.remove(&domain);
        let Some(device) = device else { return Ok(Value::Nothing) };
        let state = Rc::clone(&self.clients.borrow()[context].state);
        state.device_detach(device).await.map_err(errno)?;
        state.destroy(device).await.map_err(errno)?;
        let hwpt = self.clients.borrow_mut()[context].hwpts.remove(&domain);
        self.end_hwpt(hwpt.map(|hwpt| (state, hwpt))).await
    }

    async fn large_pages(&self, ioas: usize, on: Asked) -> Outcome {
        let large_pages = if on == Asked::Yes { LargePages::On } else { LargePages::Off };
        self.ioas_actor(ioas).send(SetLargePages(large_pages)).await.unwrap().map_err(errno)?;
        match on {
            Asked::Yes => self.small_pages.borrow_mut().remove(&ioas),
            Asked::No => self.small_pages.borrow_mut().insert(ioas),
        };
        Ok(Value::Nothing)
    }

    /// One UNMAP, in every other address space as a list of one.
    async fn unmap(&self, ioas: usize, range: Range) -> Outcome {
        let request =
            check_unmap_request(Iova::new(range.iova), ByteLen::new(range.length)).map_err(errno)?;
        let unmapped = match ioas % 2 {
            0 => self.state(ioas).unmap(self.ioas_id(ioas), request).await,
            _ => self.ioas_cell(ioas).unmap_many(&[request]).await.unwrap().remove(0),
        };
        unmapped.map(|bytes| Value::Unmapped(bytes.get())).map_err(errno)
    }

    async fn replace_access(&self, ioas: usize, access: usize, to: usize) -> Outcome {
        let id = self.access_id(ioas, access)?;
        if ioas != to && self.access_id(to, access).is_ok() {
            return Err(Errno::INVAL);
        }
        let state = self.state(ioas);
        state.access_replace(id, self.ioas_id(to)).await.map_err(errno)?;
        let accesses = &mut self.clients.borrow_mut()[self.spec.ioases[ioas].context].accesses;
        let attached = accesses.remove(&(ioas, access)).unwrap();
        *attached.reach.lock() = Some(user(&state, id));
        accesses.insert((to, access), attached);
        Ok(Value::Nothing)
    }

    async fn attach_access(&self, ioas: usize, access: usize, pins: Asked, manners: Manners) -> Outcome {
        if self.access_id(ioas, access).is_ok() {
            return Err(Errno::INVAL);
        }
        let needs = if pins == Asked::Yes { AccessNeeds::Pins } else { AccessNeeds::Copies };
        let reach: Arc<Mutex<Option<User>>> = Arc::default();
        let to_user = Arc::clone(&reach);
        let sink = Box::new(move |range| {
            let user = to_user.lock().clone().filter(|_| manners == Manners::LetsGo);
            Box::pin(async move {
                if let Some((ioas, access)) = user {
                    ioas.send(LetGoWithin { access, range }).await.unwrap().unwrap();
                }
            }) as _
        });
        let state = self.state(ioas);
        let id = state.access_create(self.ioas_id(ioas), needs, sink).await.map_err(errno)?;
        *reach.lock() = Some(user(&state, id));
        let context = self.spec.ioases[ioas].context;
        self.clients.borrow_mut()[context].accesses.insert((ioas, access), Attached { id, reach });
        Ok(Value::Nothing)
    }

    async fn detach_access(&self, ioas: usize, access: usize) -> Outcome {
        let context = self.spec.ioases[ioas].context;
        let attached = self.clients.borrow_mut()[context].accesses.remove(&(ioas, access));
        if let Some(Attached { id, .. }) = attached {
            self.state(ioas).destroy(id).await.map_err(errno)?;
        }
        Ok(Value::Nothing)
    }

    async fn pin(&self, ioas: usize, access: usize, range: Range, way: Way) -> Outcome {
        let range = checked(range)?;
        let way = if way == Way::Write { Transfer::Write } else { Transfer::Read };
        let batches =
            self.state(ioas).access_pin(self.access_id(ioas, access)?, range, way).await.map_err(errno)?;
        let runs = batches.iter().flat_map(|batch| batch.runs());
        Ok(Value::Frames(
            runs.flat_map(|run| (0..u64::from(run.pages)).map(|at| run.pfn.get() + at)).collect(),
        ))
    }

    async fn allow(&self, ioas: usize, ranges: &[(u64, u64)]) -> Outcome {
        let check = |(start, last): &(u64, u64)| {
            check_allowed_range(Iova::new(*start), Iova::new(*last)).map_err(errno)
        };
        let ranges: Vec<IovaRange> = ranges.iter().map(check).collect::<Result<_, _>>()?;
        let wanted = ranges.clone();
        let change = ChangeTable(Box::new(move |table| table.set_allowed(wanted)));
        self.ioas_actor(ioas).send(change).await.unwrap().map_err(errno)?;
        self.allowed.borrow_mut().insert(ioas, ranges);
        Ok(Value::Nothing)
    }

    async fn death(&self, context: usize) -> Outcome {
        let state = Rc::clone(&self.clients.borrow()[context].state);
        state.close().await;
        assert_eq!(state.with_objects(Objects::count), 0, "objects are left of a dead client");
        let client = self.new_client(context).await;
        self.clients.borrow_mut()[context] = client;
        Ok(Value::Nothing)
    }

    /// Carries an operation out.
    pub async fn apply(&self, op: &Op) -> Outcome {
        match op {
            Op::Map { .. } => self.map(op).await,
            Op::Copy { from, range, to, .. } => self.copy(*from, *range, *to, op).await,
            Op::Unmap { ioas, range } => self.unmap(*ioas, *range).await,
            Op::Cut { ioas, range } => {
                let cut = self.ioas_cell(*ioas).cut_out(checked(*range)?).await;
                cut.map(|()| Value::Nothing).map_err(errno)
            }
            Op::Allow { ioas, ranges } => self.allow(*ioas, ranges).await,
            Op::Attach { domain } => self.attach(*domain).await,
            Op::Detach { domain } => self.detach(*domain).await,
            Op::LargePages { ioas, on } => self.large_pages(*ioas, *on).await,
            Op::ReplaceAccess { ioas, access, to } => self.replace_access(*ioas, *access, *to).await,
            Op::Replace { domain, by } => self.replace(*domain, *by).await,
            Op::AttachAccess { ioas, access, pins, manners } => {
                self.attach_access(*ioas, *access, *pins, *manners).await
            }
            Op::DetachAccess { ioas, access } => self.detach_access(*ioas, *access).await,
            Op::Pin { ioas, access, range, way } => self.pin(*ioas, *access, *range, *way).await,
            Op::Unpin { ioas, access, range } => {
                let range = checked(*range)?;
                let unpinned = self.state(*ioas).access_unpin(self.access_id(*ioas, *access)?, range).await;
                unpinned.map(|()| Value::Nothing).map_err(errno)
            }
            Op::Read { ioas, access, range } => {
                let range = checked(*range)?;
                let read = self.state(*ioas).access_read(self.access_id(*ioas, *access)?, range).await;
                read.map(Value::Bytes).map_err(errno)
            }
            Op::Write { ioas, access, range, seed } => {
                checked(*range)?;
                let (id, bytes) = (self.access_id(*ioas, *access)?, bytes_of(*seed, range.length));
                let written = self.state(*ioas).access_write(id, Iova::new(range.iova), bytes).await;
                written.map(|()| Value::Nothing).map_err(errno)
            }
            Op::Death { context } => self.death(*context).await,
            Op::Spoil { memory, page, bad } => {
                self.memories[*memory].spoil(*page, *bad == Asked::Yes);
                Ok(Value::Nothing)
            }
        }
    }

    /// Looks at everything.
    pub async fn observe(&self) -> Observation {
        let mut seen = Observation::default();
        let (live, serials) = self.live_pages();
        for ioas in 0..self.spec.ioases.len() {
            let actor = self.ioas_actor(ioas);
            actor.send(Check).await.unwrap();
            let serials = serials.clone();
            let look = LookAtTable(Box::new(move |table| {
                let areas = table.areas().map(|area| SeenArea {
                    iova: (area.iova().start().get(), area.iova().last().get()),
                    pages: serials.iter().find(|(_, pages)| pages == area.pages().pages()).unwrap().0,
                    offset: area.shape().byte_offset().get(),
                    permission: area.permission(),
                    accesses: area.accesses(),
                    prevented: area.new_accesses() == NewAccesses::Prevented,
                });
                (areas.collect::<Vec<_>>(), table.alignment())
            }));
            let (areas, alignment) = actor.send(look).await.unwrap();
            seen.areas.push(areas);
            seen.alignments.push(alignment);
        }
        let mut charged = 0;
        for (serial, pages, source) in live {
            let look = LookAtPages::new(|pages| {
                pages.check();
                (pages.array_len().get(), pages.charged().get())
            });
            let (len, bill) = pages.send(look).await.unwrap();
            charged += bill;
            note(&mut seen.pins, serial, source.pins());
            note(&mut seen.cached, serial, cached(&pages, len).await);
        }
        for domain in 0..self.spec.domains.len() {
            seen.translations.push(self.translations(domain).await);
        }
        let accounts = self.spec.accounts.iter();
        seen.charges = accounts.map(|uid| (*uid, self.agent.ledger.charged_to(*uid).get())).collect();
        self.agent.ledger.check();
        assert_eq!(self.agent.ledger.sum_charged().get(), charged, "accounts and pages objects differ");
        seen
    }

    #[expect(clippy::type_complexity, reason = "two lists of the same few things")]
    fn live_pages(&self) -> (Vec<(u64, Addr<Pages>, Arc<Source>)>, Vec<(u64, Addr<Pages>)>) {
        self.made
            .borrow_mut()
            .retain(|made| made.source.strong_count() > 0 && made.pages.upgrade().is_some());
        let made = self.made.borrow();
        let live: Vec<_> = made
            .iter()
            .filter_map(|made| Some((made.serial, made.pages.upgrade()?, made.source.upgrade()?)))
            .collect();
        let serials = live.iter().map(|(serial, pages, _)| (*serial, pages.clone())).collect();
        (live, serials)
    }

    async fn translations(&self, domain: usize) -> Vec<Translation> {
        let granules = granules(&self.spec, domain);
        let Some(hwpt) = self.hwpt(domain) else { return vec![None; granules.len()] };
        let shard = self.agent.shards.get(hwpt.key.fan_out).unwrap();
        let look = WithTable::new(hwpt.key.id, move |table| {
            table.check();
            let translate = |iova: u64| {
                table.translate(Iova::new(iova)).map(|(phys, _, permission)| (phys.get(), permission))
            };
            granules.into_iter().map(translate).collect()
        });
        shard.fan_out.send(look).await.unwrap().unwrap()
    }

    fn hwpt(&self, domain: usize) -> Option<Rc<HwptObject>> {
        let clients = self.clients.borrow();
        let client = &clients[self.spec.ioases[self.spec.domains[domain].ioas].context];
        let device =
            client.state.with_objects(|objects| objects.device(*client.devices.get(&domain)?).ok())?;
        match device.hwpt(Pasid::NONE)? {
            AnyHwpt::Paging(hwpt) => Some(hwpt),
            AnyHwpt::Nested(_) => None,
        }
    }
}

async fn cached(pages: &Addr<Pages>, len: u64) -> Vec<bool> {
    let Some(cache) = pages.send(CacheOf).await.unwrap() else { return vec![false; len as usize] };
    let look = LookAtFrames(Box::new(move |frames| {
        frames.check();
        (0..len).map(|at| frames.get(PageIndex::new(at)).is_some()).collect()
    }));
    cache.send(look).await.unwrap()
}

fn note(marks: &mut BTreeMap<u64, Vec<bool>>, serial: u64, of_one: Vec<bool>) {
    if of_one.contains(&true) {
        marks.insert(serial, of_one);
    }
}

/// Where the access is attached.
fn user(state: &ClientState, id: ObjectId) -> User {
    let object = state.with_objects(|objects| objects.access(id)).unwrap();
    let ioas = object.attached.borrow().as_ref().unwrap().ioas.ioas.clone();
    (ioas, object.key)
}

fn actor(state: &ClientState, id: ObjectId) -> Addr<Ioas> {
    state.with_objects(|objects| objects.ioas(id)).unwrap().ioas.clone()
}

fn placement(place: Option<u64>) -> Placement {
    place.map_or(Placement::Any, |iova| Placement::Fixed(Iova::new(iova)))
}

fn checked(range: Range) -> Result<IovaRange, Errno> {
    check_range(Iova::new(range.iova), ByteLen::new(range.length)).map_err(errno)
}

fn placed(range: IovaRange) -> Value {
    Value::Placed(range.start().get(), range.last().get())
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn errno(error: impl Coded) -> Errno {
    error.errno()
}

/// What each context may use.
fn limits() -> TreeLimits {
    let hard = Limits::NONE
        .with(Resource::Objects, Limit::hard(1000))
        .with(Resource::Areas, Limit::hard(1000))
        .with(Resource::Tables, Limit::hard(1 << 20))
        .with(Resource::FirstTouch, Limit::hard(0));
    TreeLimits::of_contexts(hard)
}
