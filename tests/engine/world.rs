//! The engine over the tiers in memory: address spaces, the port that connects them to pages objects, and what can be
//! seen of it all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::{Rc, Weak};
use std::task::Poll;

use ioasd::error::{Coded, Errno};
use ioasd::storage::io_pagetable::{
    Area, IoPageTable, LargePages, NewAccesses, Piece, Placement, Transfer, Writable, check_allowed_range,
    check_copy_request, check_file_range, check_map_request, check_range, check_unmap_request,
};
use ioasd::storage::ioas::{AccessKey, AccessNeeds, DomainNeeds, Ioas};
use ioasd::storage::ledger::bill::{Bill, ProcessAccount};
use ioasd::storage::ledger::holder::TenantName;
use ioasd::storage::ledger::{AccountMode, PageLimit};
use ioasd::storage::step::DomainKey;
use ioasd_client::units::{ByteLen, Iova, IovaRange, PAGE_SIZE, PageIndex, Permission};

use crate::driver::Pages;
use crate::link::{Link, Pace};
use crate::memory::{Machine, Memory, Payer, Source};
use crate::model::granules;
use crate::ops::bytes_of;
use crate::ops::{
    Asked, Manners, Observation, Op, Outcome, Range, SeenArea, Spec, System, Translation, Value, Way,
};
use crate::tables::Table;

/// The engine and its surroundings.
pub struct World {
    /// What it is made of.
    pub spec: Spec,
    /// The tiers.
    pub machine: Rc<Machine>,
    memories: Vec<Rc<Memory>>,
    ioases: Vec<Rc<Ioas<Link>>>,
    pages: RefCell<Vec<Weak<Pages>>>,
    link: Link,
}

impl World {
    /// The world of `spec` before the first operation.
    pub fn new(spec: Spec, seed: u64, pace: Pace) -> Self {
        let machine = Machine::new(seed);
        let link = Link::new(Rc::clone(&machine), pace);
        let ioases: Vec<Rc<Ioas<Link>>> =
            (0..spec.ioases.len()).map(|key| Rc::new(Ioas::new(key as u64, link.clone()))).collect();
        *link.reach.ioases.borrow_mut() = ioases.iter().map(Rc::downgrade).collect();
        for (ioas, spec) in ioases.iter().zip(&spec.ioases) {
            reserve_outside(ioas, spec.start, spec.last);
        }
        for (number, domain) in spec.domains.iter().enumerate() {
            let table = Table::new(domain.granule, domain.capacity);
            machine.tables.borrow_mut().insert(domain_key(number), table);
        }
        let memories = spec.memories.iter().map(memory).collect();
        Self { spec, machine, memories, ioases, pages: RefCell::default(), link }
    }

    /// What a memory holds now.
    pub fn bytes(&self, memory: usize) -> Vec<u8> {
        self.memories[memory].bytes.borrow().clone()
    }

    /// The domains attached to an address space, by their numbers.
    pub fn attached(&self, ioas: usize) -> Vec<usize> {
        self.ioases[ioas].domains().iter().map(|domain| domain.id as usize).collect()
    }

    fn live_pages(&self) -> Vec<Rc<Pages>> {
        self.pages.borrow_mut().retain(|pages| pages.strong_count() > 0);
        self.pages.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    fn make_pages(&self, op: &Op) -> Rc<Pages> {
        let Op::Map { ioas, pages, memory, offset, length, limited, .. } = op else { unreachable!() };
        let first = *offset / PAGE_SIZE;
        let len = (*offset + *length).div_ceil(PAGE_SIZE) - first;
        let uid = self.spec.accounts[self.spec.ioases[*ioas].context];
        let mode = if *limited == Asked::Yes { AccountMode::User } else { AccountMode::None };
        let account = self.machine.ledger.account(&TenantName::Unknown, uid, *ioas as u64);
        let payer = Payer {
            bill: Bill::new(account, ProcessAccount::new(), mode),
            limit: self.spec.limits.get(&uid).copied().map(PageLimit),
        };
        let source = Source::new(*pages, Rc::clone(&self.memories[*memory]), first, len);
        let made = Pages::new(*pages, len, source, payer, Rc::clone(&self.machine));
        self.pages.borrow_mut().push(Rc::downgrade(&made));
        made
    }

    async fn map(&self, op: &Op) -> Result<Value, Errno> {
        let Op::Map { ioas, offset, length, permission, writable, place, .. } = op else { unreachable!() };
        let length = ByteLen::new(*length);
        check_map_request(Iova::new(place.unwrap_or(0)), length, Some(*permission)).map_err(errno)?;
        check_file_range(ByteLen::new(*offset), length).map_err(errno)?;
        let pages_writable = if *writable == Asked::Yes { Writable::Yes } else { Writable::No };
        let pages = self.make_pages(op);
        let piece = Piece { pages, offset: ByteLen::new(*offset % PAGE_SIZE), length, pages_writable };
        let mapped = self.ioases[*ioas].map(&[piece], *permission, placement(*place)).await;
        mapped.map(placed).map_err(errno)
    }

    async fn copy(
        &self,
        from: usize,
        range: Range,
        to: usize,
        permission: Permission,
        place: Option<u64>,
    ) -> Result<Value, Errno> {
        let (length, source) = (ByteLen::new(range.length), Iova::new(range.iova));
        let permission = check_copy_request(length, source, Iova::new(place.unwrap_or(0)), Some(permission));
        let source = check_range(source, length).map_err(errno);
        let permission = permission.map_err(errno)?;
        let pieces = self.ioases[from].copy_pieces(source?).map_err(errno)?;
        self.ioases[to].map(&pieces, permission, placement(place)).await.map(placed).map_err(errno)
    }

    async fn attach(&self, domain: usize) -> Result<Value, Errno> {
        let spec = self.spec.domains[domain];
        let aperture = IovaRange::new(Iova::new(spec.start), Iova::new(spec.last)).unwrap();
        let needs = DomainNeeds { alignment: spec.granule, aperture };
        self.ioases[spec.ioas].attach(domain_key(domain), needs).await.map(nothing).map_err(errno)
    }

    async fn attach_access(
        &self,
        ioas: usize,
        access: usize,
        pins: Asked,
        manners: Manners,
    ) -> Result<Value, Errno> {
        let key = access_key(ioas, access);
        let needs = if pins == Asked::Yes { AccessNeeds::Pins } else { AccessNeeds::Copies };
        self.ioases[ioas].attach_access(key, needs).await.map_err(errno)?;
        self.link.reach.manners.borrow_mut().insert(key, manners);
        Ok(Value::Nothing)
    }

    async fn replace_access(&self, ioas: usize, access: usize, to: usize) -> Result<Value, Errno> {
        let (old, new) = (access_key(ioas, access), access_key(to, access));
        let Some(needs) = self.ioases[ioas].needs_of(old) else { return Err(Errno::NOENT) };
        if ioas == to {
            return Ok(Value::Nothing);
        }
        self.ioases[to].attach_access(new, needs).await.map_err(errno)?;
        let manners = self.link.reach.manners.borrow().get(&old).copied();
        self.link.reach.manners.borrow_mut().insert(new, manners.unwrap_or(Manners::LetsGo));
        if let Err(refusal) = self.ioases[ioas].leave_access(old).await {
            self.ioases[to].detach_access(new).await;
            return Err(refusal.errno());
        }
        Ok(Value::Nothing)
    }

    async fn detach(&self, domain: usize) -> Result<Value, Errno> {
        self.ioases[self.spec.domains[domain].ioas].detach(domain_key(domain)).await;
        Ok(Value::Nothing)
    }

    async fn replace(&self, domain: usize, by: usize) -> Result<Value, Errno> {
        let attached = self.ioases[self.spec.domains[domain].ioas].domains();
        if !attached.contains(&domain_key(domain)) {
            return Err(Errno::INVAL);
        }
        self.attach(by).await?;
        self.detach(domain).await
    }

    /// One UNMAP, in every other address space as a list of one.
    async fn unmap(&self, ioas: usize, range: Range) -> Result<Value, Errno> {
        let request =
            check_unmap_request(Iova::new(range.iova), ByteLen::new(range.length)).map_err(errno)?;
        let unmapped = match ioas % 2 {
            0 => self.ioases[ioas].unmap(request).await,
            _ => self.ioases[ioas].unmap_many(&[request]).await.remove(0),
        };
        unmapped.map(|bytes| Value::Unmapped(bytes.get())).map_err(errno)
    }

    async fn large_pages(&self, ioas: usize, on: Asked) -> Result<Value, Errno> {
        let large_pages = if on == Asked::Yes { LargePages::On } else { LargePages::Off };
        self.ioases[ioas].set_large_pages(large_pages).await.map(nothing).map_err(errno)
    }

    async fn pin(&self, ioas: usize, access: usize, range: Range, way: Way) -> Result<Value, Errno> {
        let way = if way == Way::Write { Transfer::Write } else { Transfer::Read };
        let range = checked(range)?;
        let batches = self.ioases[ioas].pin(access_key(ioas, access), range, way).await.map_err(errno)?;
        let runs = batches.iter().flat_map(|batch| batch.runs());
        let frames = runs.flat_map(|run| (0..u64::from(run.pages)).map(|at| run.pfn.get() + at));
        Ok(Value::Frames(frames.collect()))
    }

    fn allow(&self, ioas: usize, ranges: &[(u64, u64)]) -> Result<Value, Errno> {
        let ranges: Result<Vec<IovaRange>, _> = ranges
            .iter()
            .map(|(start, last)| check_allowed_range(Iova::new(*start), Iova::new(*last)).map_err(errno))
            .collect();
        let ranges = ranges?;
        self.ioases[ioas].with_table_mut(|table| table.set_allowed(ranges)).map(nothing).map_err(errno)
    }

    async fn write(&self, ioas: usize, access: usize, range: Range, seed: u8) -> Result<Value, Errno> {
        checked(range)?;
        let bytes = bytes_of(seed, range.length);
        let written =
            self.ioases[ioas].write(access_key(ioas, access), Iova::new(range.iova), bytes.into()).await;
        written.map(nothing).map_err(errno)
    }

    async fn death(&self, context: usize) -> Result<Value, Errno> {
        for (number, ioas) in self.ioases.iter().enumerate() {
            if self.spec.ioases[number].context == context {
                ioas.clear().await;
                for domain in ioas.domains().iter() {
                    ioas.detach(*domain).await;
                }
            }
        }
        Ok(Value::Nothing)
    }

    fn spoil(&self, memory: usize, page: usize, bad: Asked) -> Result<Value, Errno> {
        self.memories[memory].bad.borrow_mut()[page] = bad == Asked::Yes;
        Ok(Value::Nothing)
    }

    fn translations(&self, domain: usize) -> Vec<Translation> {
        let tables = self.machine.tables.borrow();
        let table = &tables[&domain_key(domain)];
        let translate = |iova: u64| table.translate(Iova::new(iova)).map(|(phys, perm)| (phys.get(), perm));
        granules(&self.spec, domain).into_iter().map(translate).collect()
    }

    fn marks(&self, mark: impl Fn(&Pages) -> Vec<bool>) -> BTreeMap<u64, Vec<bool>> {
        let marks = self.live_pages().into_iter().map(|pages| (pages.serial, mark(&pages)));
        marks.filter(|(_, marks)| marks.contains(&true)).collect()
    }
}

impl System for World {
    async fn apply(&self, op: &Op) -> Outcome {
        match op {
            Op::Map { .. } => self.map(op).await,
            Op::Copy { from, range, to, permission, place } => {
                self.copy(*from, *range, *to, *permission, *place).await
            }
            Op::Unmap { ioas, range } => self.unmap(*ioas, *range).await,
            Op::Cut { ioas, range } => {
                self.ioases[*ioas].cut_out(checked(*range)?).await.map(nothing).map_err(errno)
            }
            Op::Allow { ioas, ranges } => self.allow(*ioas, ranges),
            Op::Attach { domain } => self.attach(*domain).await,
            Op::Detach { domain } => self.detach(*domain).await,
            Op::LargePages { ioas, on } => self.large_pages(*ioas, *on).await,
            Op::ReplaceAccess { ioas, access, to } => self.replace_access(*ioas, *access, *to).await,
            Op::Replace { domain, by } => self.replace(*domain, *by).await,
            Op::AttachAccess { ioas, access, pins, manners } => {
                self.attach_access(*ioas, *access, *pins, *manners).await
            }
            Op::DetachAccess { ioas, access } => {
                self.ioases[*ioas].detach_access(access_key(*ioas, *access)).await;
                Ok(Value::Nothing)
            }
            Op::Pin { ioas, access, range, way } => self.pin(*ioas, *access, *range, *way).await,
            Op::Unpin { ioas, access, range } => {
                let range = checked(*range)?;
                self.ioases[*ioas].unpin(access_key(*ioas, *access), range).await.map(nothing).map_err(errno)
            }
            Op::Read { ioas, access, range } => {
                let range = checked(*range)?;
                self.ioases[*ioas]
                    .read(access_key(*ioas, *access), range)
                    .await
                    .map(Value::Bytes)
                    .map_err(errno)
            }
            Op::Write { ioas, access, range, seed } => self.write(*ioas, *access, *range, *seed).await,
            Op::Death { context } => self.death(*context).await,
            Op::Spoil { memory, page, bad } => self.spoil(*memory, *page, *bad),
        }
    }

    async fn observe(&self) -> Observation {
        let accounts = self.spec.accounts.iter();
        let charged = |uid: &u32| self.machine.ledger.charged_to(*uid).get();
        let seen = |ioas: &Rc<Ioas<Link>>| ioas.with_table(|table| table.areas().map(seen_area).collect());
        Observation {
            areas: self.ioases.iter().map(seen).collect(),
            alignments: self.ioases.iter().map(|ioas| ioas.with_table(IoPageTable::alignment)).collect(),
            pins: self.marks(|pages| pages.source.pins()),
            cached: self.marks(cached),
            translations: (0..self.spec.domains.len()).map(|domain| self.translations(domain)).collect(),
            charges: accounts.map(|uid| (*uid, charged(uid))).collect(),
        }
    }

    fn check(&self) {
        self.ioases.iter().for_each(|ioas| ioas.check());
        for pages in self.live_pages() {
            assert!(pages.is_quiet(), "pages {} are still being moved", pages.serial);
            pages.check();
        }
        self.machine.ledger.check();
        let sum: u64 = self.live_pages().iter().map(|pages| pages.core.borrow().charged().get()).sum();
        assert_eq!(self.machine.ledger.sum_charged().get(), sum, "accounts and pages objects differ");
    }
}

/// Runs a future that nothing but being polled keeps from its end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..100_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("an operation does not come to an end");
}

fn reserve_outside(ioas: &Ioas<Link>, start: u64, last: u64) {
    for (start, last) in crate::model::outside(start, last) {
        let range = IovaRange::new(Iova::new(start), Iova::new(last)).unwrap();
        let owner = ioasd::storage::io_pagetable::Owner::Command;
        ioas.with_table_mut(|table| table.add_reserved(owner, range)).unwrap();
    }
}

fn memory(spec: &crate::ops::MemorySpec) -> Rc<Memory> {
    let pages = spec.frames.len();
    Rc::new(Memory {
        frames: spec.frames.clone(),
        origin: spec.origin,
        bytes: RefCell::new(vec![0; pages * PAGE_SIZE as usize]),
        bad: RefCell::new(vec![false; pages]),
    })
}

fn seen_area(area: &Area<Rc<Pages>>) -> SeenArea {
    assert!(area.is_ready(), "{} is {:?} between two operations", area.id(), area.state());
    SeenArea {
        iova: (area.iova().start().get(), area.iova().last().get()),
        pages: area.pages().serial,
        offset: area.shape().byte_offset().get(),
        permission: area.permission(),
        accesses: area.accesses(),
        prevented: area.new_accesses() == NewAccesses::Prevented,
    }
}

fn cached(pages: &Pages) -> Vec<bool> {
    let cache = pages.cache.borrow();
    (0..pages.core.borrow().array_len().get()).map(|at| cache.get(PageIndex::new(at)).is_some()).collect()
}

fn domain_key(number: usize) -> DomainKey {
    DomainKey { fan_out: (number % 2) as u16, id: number as u64 }
}

fn access_key(ioas: usize, access: usize) -> AccessKey {
    AccessKey((ioas * 16 + access) as u64)
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

fn nothing((): ()) -> Value {
    Value::Nothing
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn errno(error: impl Coded) -> Errno {
    error.errno()
}
