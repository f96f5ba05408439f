//! Ioas: one IO address space. A thin face on [`storage::ioas`](crate::storage::ioas), which holds the order of things.
//!
//! What an operation needs lives in a cell that others on the same arbiter reach without a message: MAP, COPY, UNMAP, attach, pin, and what takes down, come
//! that way, everything else through the mailbox. Operations are futures that interleave at their awaits; the gate of the address space keeps apart what must be kept
//! apart. Awaited sends go down only: to Pages, to Retirement, and to an Access for a notice.
//!
//! Imports allowed: storage, messages, pages, access, retirement, operation, late, guard, figures.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use futures_util::future::LocalBoxFuture;
use ioasd_client::units::{ByteLen, IovaRange, Permission};

use super::access::{Access, Answer, Notice};
use super::figures::{AccessStats, IoasStats};
use super::guard::{caught, is_poisoned, poisoned};
use super::inbox::Question;
use super::late::{current, note};
use super::messages::ioas::{
    AllowIovas, AttachAccess, ChangeTable, Check, DetachAccess, LetGoWithin, LookAtTable, ReadBytes,
    SetLargePages, UnpinRange, Withdraw, WriteBytes,
};
use super::messages::questions::{AreaReport, AreasFrom, GapsAt, GapsFrom, OutlookFor, RulesFrom};
use super::operation::{Undoable, Waiting};
use super::pages_handle::PagesHandle;
use super::registry::Registered;
use super::retirement::{Grace, Retirement};
use crate::domains::epoch::Epochs;
use crate::storage::io_pagetable::{AccessWalk, Area, IoPageTable, Piece, Placement, Transfer, UnmapRequest};
use crate::storage::ioas::{AccessKey, DomainNeeds, Ioas as Operations, Notified, Port};
use crate::storage::iova_allocator::OriginAddr;
use crate::storage::ledger::node::Allowance;
use crate::storage::order::{MoveResult, Order};
use crate::storage::pfn::PfnBatch;
use crate::storage::refusal::Refusal;
use crate::storage::step::DomainKey;

const NAME: &str = "an ioas";

/// A software user of the address space.
#[derive(Debug)]
struct User {
    access: Addr<Access>,
    stats: Arc<AccessStats>,
}

/// How the operations of one address space reach the other actors.
#[derive(Debug)]
pub struct ActorPort {
    retirement: Addr<Retirement>,
    walkers: RefCell<HashMap<DomainKey, Arc<Epochs>>>,
    accesses: RefCell<HashMap<AccessKey, User>>,
    /// A pages object behind an area panicked: book and tables may differ, so nothing goes on here.
    poisoned: Cell<bool>,
}

impl ActorPort {
    /// An access has written to a range, or to the beginning of it.
    fn note_written(&self, range: IovaRange) {
        self.walkers.borrow().values().for_each(|epochs| epochs.note_written(range));
    }

    fn access(&self, key: AccessKey) -> Option<Addr<Access>> {
        self.accesses.borrow().get(&key).map(|user| user.access.clone())
    }
}

impl Port for ActorPort {
    type Pages = PagesHandle;

    async fn run(&self, pages: &PagesHandle, order: Order) -> MoveResult {
        let moved = pages.cell().run(order).await;
        if moved.as_ref().is_err_and(|failure| is_poisoned(&failure.refusal)) {
            self.poisoned.set(true);
        }
        moved
    }

    fn is_gone(&self, pages: &PagesHandle) -> bool {
        self.poisoned.get() || !pages.pages().connected()
    }

    fn origin(&self, pages: &PagesHandle) -> OriginAddr {
        pages.origin()
    }

    fn placed(&self, range: IovaRange) {
        note(|operation| operation.note_range(range));
    }

    fn is_withdrawn(&self, pages: &PagesHandle) -> bool {
        pages.backing().is_withdrawn()
    }

    async fn grace(&self, domains: &[DomainKey]) {
        let walked: Vec<Arc<Epochs>> = {
            let walkers = self.walkers.borrow();
            let all = domains.iter().filter_map(|domain| walkers.get(domain));
            all.filter(|epochs| epochs.has_walkers()).map(Arc::clone).collect()
        };
        if walked.is_empty() {
            return;
        }
        note(|operation| operation.wait_for(Waiting::Walkers));
        let grace = Grace { domains: walked, operation: current() };
        if self.retirement.send(grace).await.is_err() {
            std::panic::panic_any("nobody waits for walkers: what was unmapped cannot be let go of");
        }
    }

    async fn notify(&self, access: AccessKey, range: IovaRange) -> Notified {
        let Some(user) = self.access(access) else { return Notified::Acknowledged };
        note(|operation| operation.wait_for(Waiting::Accesses));
        match user.send(Notice(range)).await {
            Ok(Answer::Given) => Notified::Acknowledged,
            Ok(Answer::Missing) | Err(_) => Notified::Missed,
        }
    }
}

/// One MAP: what to map, one behind the other, what devices may do, and where.
#[derive(Debug)]
pub struct Map {
    /// What.
    pub pieces: Vec<Piece<PagesHandle>>,
    /// What devices may do.
    pub permission: Permission,
    /// Where.
    pub placement: Placement,
}

impl Map {
    fn length(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.length.get()).sum()
    }
}

/// One IO address space.
pub struct Ioas {
    cell: Rc<IoasCell>,
}

/// What an address space is, as those reach it who live on its arbiter.
pub struct IoasCell {
    operations: Rc<Operations<ActorPort>>,
    stats: Registered<IoasStats>,
}

impl Ioas {
    /// An empty address space whose areas count towards `areas`.
    #[must_use]
    pub fn new(areas: Allowance, retirement: Addr<Retirement>, stats: Registered<IoasStats>) -> Self {
        let (walkers, accesses, poisoned) = Default::default();
        let port = ActorPort { retirement, walkers, accesses, poisoned };
        let operations = Rc::new(Operations::within(areas, stats.number().get(), port));
        Self { cell: Rc::new(IoasCell { operations, stats }) }
    }

    /// What others on its arbiter reach it by.
    #[must_use]
    pub fn cell(&self) -> Rc<IoasCell> {
        Rc::clone(&self.cell)
    }

    fn run<T, F>(&self, operation: impl FnOnce(Rc<Operations<ActorPort>>) -> F) -> Pending<T>
    where
        T: 'static,
        F: Future<Output = Result<T, Refusal>> + 'static,
    {
        let cell = Rc::clone(&self.cell);
        let work = operation(Rc::clone(&cell.operations));
        Box::pin(async move { cell.run(work).await })
    }
}

impl IoasCell {
    /// Work on so many bytes begins.
    fn begin(&self, undoable: Undoable, bytes: u64) {
        note(|operation| operation.begin(self.stats.number(), undoable, ByteLen::new(bytes)));
    }

    /// The bytes of IOVA in all areas.
    fn mapped(&self) -> u64 {
        self.operations.with_table(IoPageTable::mapped).get()
    }

    /// Runs an operation to its end, then shows the figures. Refused once something here panicked.
    async fn run<T>(&self, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
        let poison = &self.operations.port().poisoned;
        if poison.get() {
            return Err(poisoned(NAME));
        }
        let result = caught(NAME, work).await;
        show_figures(&self.operations, &self.stats);
        if result.is_err() {
            poison.set(true);
        }
        if poison.get() { Err(poisoned(NAME)) } else { result? }
    }

    /// MAP, and the second half of COPY.
    ///
    /// # Errors
    /// As MAP.
    pub async fn map(&self, map: Map) -> Result<IovaRange, Refusal> {
        self.begin(Undoable::Yes, map.length());
        let Map { pieces, permission, placement } = map;
        self.run(self.operations.map(&pieces, permission, placement)).await
    }

    /// Several MAPs, one after the other, each with its own outcome.
    ///
    /// # Errors
    /// If something here panicked.
    pub async fn map_many(&self, maps: Vec<Map>) -> Result<Vec<Result<IovaRange, Refusal>>, Refusal> {
        self.begin(Undoable::Yes, maps.iter().map(Map::length).sum());
        self.run(async {
            let mut outcomes = Vec::with_capacity(maps.len());
            for Map { pieces, permission, placement } in maps {
                outcomes.push(self.operations.map(&pieces, permission, placement).await);
            }
            Ok(outcomes)
        })
        .await
    }

    /// The first half of COPY: what covers a range.
    ///
    /// # Errors
    /// As COPY.
    pub fn copy_pieces(&self, range: IovaRange) -> Result<Vec<Piece<PagesHandle>>, Refusal> {
        self.operations.copy_pieces(range)
    }

    /// What bytes of a range would move through.
    ///
    /// # Errors
    /// ENOENT if `access` is not attached.
    pub fn walk_of_transfer(
        &self,
        access: AccessKey,
        range: IovaRange,
        direction: Transfer,
    ) -> Result<AccessWalk<PagesHandle>, Refusal> {
        self.operations.walk_of_transfer(access, range, direction)
    }

    /// The pages objects of all areas, none of which may be on its way in or out.
    ///
    /// # Errors
    /// If one is.
    pub async fn all_pages(&self) -> Result<Vec<PagesHandle>, Refusal> {
        self.run(self.operations.all_pages()).await
    }

    /// UNMAP; tells how many bytes were unmapped.
    ///
    /// # Errors
    /// As UNMAP.
    pub async fn unmap(&self, request: UnmapRequest) -> Result<ByteLen, Refusal> {
        self.begin_unmap(&[request]);
        self.run(self.operations.unmap(request)).await
    }

    /// Splits the areas that reach over an end of a range, so that it can be unmapped, if leaves are pages at most.
    ///
    /// # Errors
    /// If an area cannot be split there.
    pub async fn cut_out(&self, range: IovaRange) -> Result<(), Refusal> {
        self.run(self.operations.cut_out(range)).await
    }

    /// Several UNMAPs, one after the other, each with its own outcome, and one grace period for all.
    ///
    /// # Errors
    /// If something here panicked.
    pub async fn unmap_many(
        &self,
        requests: &[UnmapRequest],
    ) -> Result<Vec<Result<ByteLen, Refusal>>, Refusal> {
        self.begin_unmap(requests);
        self.run(async { Ok(self.operations.unmap_many(requests).await) }).await
    }

    fn begin_unmap(&self, requests: &[UnmapRequest]) {
        let mapped_in = |range| self.operations.with_table(|table| table.mapped_in(range)).get();
        self.begin(Undoable::No, requests.iter().map(|request| mapped_in(request.range())).sum());
        if let [request] = requests {
            note(|operation| operation.note_range(request.range()));
        }
    }

    /// Adds a domain and fills it.
    ///
    /// # Errors
    /// If the areas do not suit the domain, or one cannot be filled.
    pub async fn attach(
        &self,
        domain: DomainKey,
        needs: DomainNeeds,
        epochs: Arc<Epochs>,
    ) -> Result<(), Refusal> {
        self.begin(Undoable::Yes, self.mapped());
        self.run(async {
            let port = self.operations.port();
            port.walkers.borrow_mut().insert(domain, epochs);
            let attached = self.operations.attach(domain, needs).await;
            if attached.is_err() {
                port.walkers.borrow_mut().remove(&domain);
            }
            attached
        })
        .await
    }

    /// Pins a range for an access.
    ///
    /// # Errors
    /// As the spec of pin says.
    pub async fn pin(
        &self,
        access: AccessKey,
        range: IovaRange,
        direction: Transfer,
    ) -> Result<Vec<Arc<PfnBatch>>, Refusal> {
        self.begin(Undoable::Yes, range.length().get());
        note(|operation| operation.note_range(range));
        self.run(async {
            let pinned = self.operations.pin(access, range, direction).await;
            show_access(&self.operations, access);
            pinned
        })
        .await
    }

    /// Asks an access to let go of everything, and forgets it once it has.
    ///
    /// # Errors
    /// EDEADLK if it does not let go.
    pub async fn leave(&self, access: AccessKey) -> Result<(), Refusal> {
        self.begin(Undoable::No, 0);
        self.run(async {
            self.operations.leave_access(access).await?;
            self.operations.port().accesses.borrow_mut().remove(&access);
            Ok(())
        })
        .await
    }

    /// Empties a domain and forgets it.
    ///
    /// # Errors
    /// If something here panicked.
    pub async fn detach(&self, domain: DomainKey) -> Result<(), Refusal> {
        self.begin(Undoable::No, self.mapped());
        self.run(async {
            self.operations.detach(domain).await;
            self.operations.port().walkers.borrow_mut().remove(&domain);
            Ok(())
        })
        .await
    }

    /// Drops every access and unmaps everything.
    ///
    /// # Errors
    /// If something here panicked.
    pub async fn clear(&self) -> Result<(), Refusal> {
        self.begin(Undoable::No, self.mapped());
        self.run(async {
            self.operations.clear().await;
            Ok(())
        })
        .await
    }
}

impl fmt::Debug for IoasCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IoasCell").field("stats", &self.stats).finish_non_exhaustive()
    }
}

type Pending<T> = LocalBoxFuture<'static, Result<T, Refusal>>;

fn show_figures(operations: &Operations<ActorPort>, stats: &IoasStats) {
    let (areas, bytes) = operations.with_table(|table| (table.area_count(), table.mapped()));
    stats.areas.set(areas);
    stats.mapped.set(bytes);
}

/// Shows what an access holds.
fn show_access(operations: &Operations<ActorPort>, key: AccessKey) {
    let users = operations.port().accesses.borrow();
    if let (Some(user), Some(held)) = (users.get(&key), operations.held_by(key)) {
        user.stats.pins.set(held.pins);
        user.stats.pinned.set(held.bytes);
    }
}

fn report(area: &Area<PagesHandle>) -> AreaReport {
    AreaReport {
        shape: area.shape(),
        permission: area.permission(),
        state: area.state(),
        pages: area.pages().number(),
        accesses: area.accesses(),
    }
}

impl Actor for Ioas {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(super::MAILBOX);
        let own = context.address().downgrade();
        self.cell.stats.inbox.open(own.clone().recipient());
        self.cell.stats.gaps.open(own.clone().recipient());
        self.cell.stats.gaps_at.open(own.clone().recipient());
        self.cell.stats.rules.open(own.clone().recipient());
        self.cell.stats.outlook.open(own.recipient());
    }
}

impl Handler<AllowIovas> for Ioas {
    type Result = Pending<()>;

    fn handle(&mut self, AllowIovas(ranges): AllowIovas, _: &mut Self::Context) -> Self::Result {
        self.run(move |ioas| async move {
            ioas.with_table_mut(|table| table.set_allowed(ranges)).map_err(|error| Refusal::of(&error))
        })
    }
}

impl Handler<SetLargePages> for Ioas {
    type Result = Pending<()>;

    fn handle(&mut self, SetLargePages(large_pages): SetLargePages, _: &mut Self::Context) -> Self::Result {
        self.run(move |ioas| async move { ioas.set_large_pages(large_pages).await })
    }
}

impl Handler<Withdraw> for Ioas {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, Withdraw: Withdraw, _: &mut Self::Context) -> Self::Result {
        let operations = Rc::clone(&self.cell.operations);
        Box::pin(async move { operations.withdraw().await })
    }
}

impl Handler<AttachAccess> for Ioas {
    type Result = Pending<()>;

    fn handle(&mut self, request: AttachAccess, _: &mut Self::Context) -> Self::Result {
        let AttachAccess { key, needs, access, stats } = request;
        self.run(move |ioas| async move {
            ioas.attach_access(key, needs).await?;
            ioas.port().accesses.borrow_mut().insert(key, User { access, stats });
            Ok(())
        })
    }
}

impl Handler<DetachAccess> for Ioas {
    type Result = Pending<()>;

    fn handle(&mut self, DetachAccess(key): DetachAccess, _: &mut Self::Context) -> Self::Result {
        self.run(move |ioas| async move {
            ioas.port().accesses.borrow_mut().remove(&key);
            ioas.detach_access(key).await;
            Ok(())
        })
    }
}

impl Handler<UnpinRange> for Ioas {
    type Result = Pending<()>;

    fn handle(&mut self, UnpinRange { access, range }: UnpinRange, _: &mut Self::Context) -> Self::Result {
        self.run(move |ioas| async move {
            let unpinned = ioas.unpin(access, range).await;
            show_access(&ioas, access);
            unpinned
        })
    }
}

impl Handler<LetGoWithin> for Ioas {
    type Result = Pending<()>;

    fn handle(&mut self, LetGoWithin { access, range }: LetGoWithin, _: &mut Self::Context) -> Self::Result {
        self.run(move |ioas| async move {
            ioas.let_go_within(access, range).await;
            show_access(&ioas, access);
            Ok(())
        })
    }
}

impl Handler<ReadBytes> for Ioas {
    type Result = Pending<Vec<u8>>;

    fn handle(&mut self, ReadBytes { access, range }: ReadBytes, _: &mut Self::Context) -> Self::Result {
        self.run(move |ioas| async move { ioas.read(access, range).await })
    }
}

impl Handler<WriteBytes> for Ioas {
    type Result = Pending<()>;

    fn handle(
        &mut self,
        WriteBytes { access, iova, bytes }: WriteBytes,
        _: &mut Self::Context,
    ) -> Self::Result {
        self.run(move |ioas| async move {
            let range = IovaRange::from_length(iova, ByteLen::new(bytes.len() as u64));
            let written = ioas.write(access, iova, bytes).await;
            range.into_iter().for_each(|range| ioas.port().note_written(range));
            written
        })
    }
}

impl<R: Send + 'static> Handler<LookAtTable<R>> for Ioas {
    type Result = MessageResult<LookAtTable<R>>;

    fn handle(&mut self, LookAtTable(look): LookAtTable<R>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.cell.operations.with_table(look))
    }
}

impl<R: Send + 'static> Handler<ChangeTable<R>> for Ioas {
    type Result = MessageResult<ChangeTable<R>>;

    fn handle(&mut self, ChangeTable(change): ChangeTable<R>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.cell.operations.with_table_mut(change))
    }
}

impl Handler<Question<AreasFrom>> for Ioas {
    type Result = MessageResult<Question<AreasFrom>>;

    fn handle(&mut self, question: Question<AreasFrom>, _: &mut Self::Context) -> Self::Result {
        let AreasFrom { from, limit } = question.asked;
        MessageResult(
            self.cell.operations.with_table(|table| table.areas_from(from).take(limit).map(report).collect()),
        )
    }
}

impl Handler<Question<GapsFrom>> for Ioas {
    type Result = MessageResult<Question<GapsFrom>>;

    fn handle(&mut self, question: Question<GapsFrom>, _: &mut Self::Context) -> Self::Result {
        let GapsFrom { from, limits } = question.asked;
        MessageResult(self.cell.operations.with_table(|table| table.gaps_from(from, limits)))
    }
}

impl Handler<Question<GapsAt>> for Ioas {
    type Result = MessageResult<Question<GapsAt>>;

    fn handle(&mut self, question: Question<GapsAt>, _: &mut Self::Context) -> Self::Result {
        let GapsAt(addresses) = question.asked;
        MessageResult(
            self.cell
                .operations
                .with_table(|table| addresses.into_iter().map(|address| table.gap_at(address)).collect()),
        )
    }
}

impl Handler<Question<RulesFrom>> for Ioas {
    type Result = MessageResult<Question<RulesFrom>>;

    fn handle(&mut self, question: Question<RulesFrom>, _: &mut Self::Context) -> Self::Result {
        let RulesFrom { from, limit } = question.asked;
        MessageResult(self.cell.operations.with_table(|table| table.ruled_from(from, limit)))
    }
}

impl Handler<Question<OutlookFor>> for Ioas {
    type Result = MessageResult<Question<OutlookFor>>;

    fn handle(&mut self, question: Question<OutlookFor>, _: &mut Self::Context) -> Self::Result {
        let OutlookFor(prospect) = question.asked;
        MessageResult(self.cell.operations.with_table(|table| table.outlook(&prospect)))
    }
}

impl Handler<Check> for Ioas {
    type Result = ();

    fn handle(&mut self, Check: Check, _: &mut Self::Context) {
        self.cell.operations.check();
    }
}
