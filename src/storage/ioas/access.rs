//! Accesses: software users that pin, read and write through the address space.
//!
//! An access may attach to an address space, pin ranges of it, and is told to let go before an unmap. Every pin counts on
//! each area it touches, in the same step as the lookup that found the area, so that no unmap can slip in between.
//!
//! Imports allowed: units, `bytes`, and the passive types of storage.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ioasd_client::units::{ByteLen, IndexRange, Iova, IovaRange, PAGE_SIZE};

use super::{Ioas, Port, behind};
use crate::error::Errno;
use crate::storage::io_pagetable::{
    AccessKind, AccessPart, AccessWalk, AreaId, Holder, Owner, Transfer as Direction,
};
use crate::storage::order::{Moved, Order};
use crate::storage::pfn::PfnBatch;
use crate::storage::refusal::Refusal;
use crate::storage::step::Transfer;
use crate::storage::transfer::append;

/// Names an access, unique in the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccessKey(pub u64);

impl fmt::Display for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access {}", self.0)
    }
}

/// What an access asks of an address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessNeeds {
    /// It pins pages: areas must be page aligned.
    Pins,
    /// It pins pages, and cannot be asked to let go: what it holds cannot be unmapped.
    Keeps,
    /// It only reads and writes.
    Copies,
}

impl AccessNeeds {
    const fn alignment(self) -> u64 {
        match self {
            Self::Pins | Self::Keeps => PAGE_SIZE,
            Self::Copies => 1,
        }
    }

    const fn holder(self) -> Holder {
        match self {
            Self::Keeps => Holder::Internal,
            Self::Pins | Self::Copies => Holder::External,
        }
    }
}

/// How much an access holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldByAccess {
    /// Pins.
    pub pins: u64,
    /// Bytes under them; what is pinned twice counts twice.
    pub bytes: ByteLen,
}

/// What one access holds.
#[derive(Debug)]
pub(super) struct AccessState<H> {
    needs: AccessNeeds,
    pins: Vec<Held<H>>,
    bytes: u64,
    /// It is being taken away, and may not take hold of more.
    leaving: bool,
}

/// One pin: a range as the user gave it, and what it holds in each area.
#[derive(Debug)]
struct Held<H> {
    range: IovaRange,
    parts: Vec<HeldPart<H>>,
}

/// The part of a pin in one area.
#[derive(Debug)]
pub(super) struct HeldPart<H> {
    pub(super) area: AreaId,
    pages: H,
    indexes: IndexRange,
    holder: Holder,
}

/// What a pin is about to hold, and why it will fail behind that, if it does.
struct Hold<H> {
    parts: Vec<HeldPart<H>>,
    end: Result<(), Refusal>,
}

impl<H> AccessState<H> {
    fn keep(&mut self, held: Held<H>) {
        self.bytes = self.bytes.saturating_add(held.range.length().get());
        self.pins.push(held);
    }

    fn forget(&mut self, range: IovaRange) -> Option<Held<H>> {
        let place = self.pins.iter().rposition(|held| held.range == range)?;
        self.bytes = self.bytes.saturating_sub(range.length().get());
        Some(self.pins.swap_remove(place))
    }

    /// Everything it holds, or is about to hold.
    pub(super) fn parts(&self) -> impl Iterator<Item = &HeldPart<H>> {
        self.pins.iter().flat_map(|held| &held.parts)
    }
}

impl<P: Port> Ioas<P> {
    /// Lets `access` use this address space.
    ///
    /// # Errors
    /// If it is attached already, or an area lacks the alignment it needs.
    pub async fn attach_access(&self, access: AccessKey, needs: AccessNeeds) -> Result<(), Refusal> {
        let _gate = self.gate.write().await;
        let mut core = self.core.borrow_mut();
        if core.accesses.contains_key(&access) {
            return Err(Refusal::new(
                Errno::INVAL,
                "access-attached",
                format!("{access} is attached already"),
            ));
        }
        let added = core.table.add_alignment(Owner::Access(access.0), needs.alignment());
        added.map_err(|error| Refusal::of(&error))?;
        core.accesses.insert(access, AccessState { needs, pins: Vec::new(), bytes: 0, leaving: false });
        Ok(())
    }

    /// Lets go of everything `access` holds here and forgets it.
    pub async fn detach_access(&self, access: AccessKey) {
        let _gate = self.gate.write().await;
        let state = self.core.borrow_mut().accesses.remove(&access);
        for held in state.into_iter().flat_map(|state| state.pins) {
            self.drop_parts(held.parts).await;
        }
        self.core.borrow_mut().table.remove_owner(Owner::Access(access.0));
    }

    /// Pins `range` for `access` and tells the frames, area by area in IOVA order.
    ///
    /// # Errors
    /// If a part is not mapped, may not be used like that, or cannot be pinned. Nothing is pinned then.
    pub async fn pin(
        &self,
        access: AccessKey,
        range: IovaRange,
        direction: Direction,
    ) -> Result<Vec<Arc<PfnBatch>>, Refusal> {
        let Hold { parts, end } = self.hold(access, range, direction)?;
        let (mut pinned, mut frames) = (Vec::new(), Vec::new());
        if let Err(refusal) = self.pin_parts(parts, &mut pinned, &mut frames).await.and(end) {
            self.drop_parts(pinned).await;
            return Err(refusal);
        }
        self.keep_or_drop(access, Held { range, parts: pinned }).await?;
        Ok(frames)
    }

    /// Pins part by part, up to the first that fails.
    async fn pin_parts(
        &self,
        parts: Vec<HeldPart<P::Pages>>,
        pinned: &mut Vec<HeldPart<P::Pages>>,
        frames: &mut Vec<Arc<PfnBatch>>,
    ) -> Result<(), Refusal> {
        let mut waiting = parts.into_iter();
        while let Some(part) = waiting.next() {
            match self.port.run(&part.pages, Order::PinAccess(part.indexes)).await {
                Ok(Moved::Frames(batches)) => frames.extend(batches),
                Ok(_) => {}
                Err(failure) => {
                    self.drop_holds(std::iter::once(part).chain(waiting));
                    return Err(failure.refusal);
                }
            }
            pinned.push(part);
        }
        Ok(())
    }

    /// Looks the range up and counts the access on every area that serves it, in one step.
    fn hold(
        &self,
        access: AccessKey,
        range: IovaRange,
        direction: Direction,
    ) -> Result<Hold<P::Pages>, Refusal> {
        let mut core = self.core.borrow_mut();
        let state = core.accesses.get(&access).filter(|state| !state.leaving);
        let state = state.ok_or_else(|| not_attached(access))?;
        if state.needs == AccessNeeds::Copies {
            let text = format!("{access} was made to read and write only: make one that may pin");
            return Err(Refusal::new(Errno::OPNOTSUPP, "access-cannot-pin", text));
        }
        let holder = state.needs.holder();
        let walk = core.table.access_walk(range, AccessKind::Pin(direction));
        let parts: Vec<_> = walk.parts.into_iter().filter_map(|part| held_part(part, holder)).collect();
        for part in &parts {
            core.table.add_access_to(part.area, holder);
        }
        Ok(Hold { parts, end: walk.end.map_err(|error| Refusal::of(&error)) })
    }

    /// Keeps what was pinned, unless the access was detached, or began to leave, meanwhile.
    async fn keep_or_drop(&self, access: AccessKey, held: Held<P::Pages>) -> Result<(), Refusal> {
        let detached = match self.core.borrow_mut().accesses.get_mut(&access) {
            Some(state) if !state.leaving => {
                state.keep(held);
                self.holds_changed.notify_waiters();
                return Ok(());
            }
            Some(_) | None => held,
        };
        self.drop_parts(detached.parts).await;
        Err(not_attached(access))
    }

    /// Undoes one pin of exactly `range`.
    ///
    /// # Errors
    /// If `access` holds no pin of exactly this range.
    pub async fn unpin(&self, access: AccessKey, range: IovaRange) -> Result<(), Refusal> {
        let held = self.forget_pin(access, range).ok_or_else(|| {
            Refusal::new(
                Errno::NOENT,
                "not-pinned",
                format!("{access} has not pinned exactly {range}: repeat a pin"),
            )
        })?;
        self.drop_parts(held.parts).await;
        Ok(())
    }

    fn forget_pin(&self, access: AccessKey, range: IovaRange) -> Option<Held<P::Pages>> {
        self.core.borrow_mut().accesses.get_mut(&access)?.forget(range)
    }

    /// Stops counting parts that were never pinned.
    fn drop_holds(&self, parts: impl Iterator<Item = HeldPart<P::Pages>>) {
        let mut core = self.core.borrow_mut();
        parts.for_each(|part| core.table.drop_access_from(part.area, part.holder));
        self.holds_changed.notify_waiters();
    }

    async fn drop_parts(&self, parts: Vec<HeldPart<P::Pages>>) {
        for part in parts {
            let unpinned = self.port.run(&part.pages, Order::UnpinAccess(part.indexes)).await;
            debug_assert!(
                unpinned.is_ok() || self.port.is_gone(&part.pages),
                "unpinning failed: {unpinned:?}"
            );
            self.core.borrow_mut().table.drop_access_from(part.area, part.holder);
            self.holds_changed.notify_waiters();
        }
    }

    /// How much `access` holds; `None` if it is not attached.
    pub fn held_by(&self, access: AccessKey) -> Option<HeldByAccess> {
        let core = self.core.borrow();
        let state = core.accesses.get(&access)?;
        Some(HeldByAccess { pins: state.pins.len() as u64, bytes: ByteLen::new(state.bytes) })
    }

    /// Lets go of everything `access` holds within `range`: its answer to a notice.
    pub async fn let_go_within(&self, access: AccessKey, range: IovaRange) {
        let ranges: Vec<IovaRange> = match self.core.borrow().accesses.get(&access) {
            Some(state) => {
                state.pins.iter().map(|held| held.range).filter(|held| held.intersects(range)).collect()
            }
            None => Vec::new(),
        };
        for range in ranges {
            if let Some(held) = self.forget_pin(access, range) {
                self.drop_parts(held.parts).await;
            }
        }
    }

    /// The accesses that hold pins in `area`.
    pub(super) fn holders(&self, area: AreaId) -> Vec<AccessKey> {
        let core = self.core.borrow();
        let holding = core.accesses.iter().filter(|(_, state)| state.parts().any(|part| part.area == area));
        holding.map(|(access, _)| *access).collect()
    }

    /// Keeps `access` from pinning, reading and writing.
    pub(super) fn begin_leaving(&self, access: AccessKey) -> Result<(), Refusal> {
        let mut core = self.core.borrow_mut();
        let state = core.accesses.get_mut(&access).ok_or_else(|| not_attached(access))?;
        if std::mem::replace(&mut state.leaving, true) {
            let text = format!("{access} is being taken away already: wait for that");
            return Err(Refusal::new(Errno::BUSY, "access-leaving", text));
        }
        Ok(())
    }

    /// Takes [`Ioas::begin_leaving`] back.
    pub(super) fn stay(&self, access: AccessKey) {
        if let Some(state) = self.core.borrow_mut().accesses.get_mut(&access) {
            state.leaving = false;
        }
    }

    /// What an access asked for when it was attached; `None` if it is not.
    pub fn needs_of(&self, access: AccessKey) -> Option<AccessNeeds> {
        self.core.borrow().accesses.get(&access).map(|state| state.needs)
    }

    /// How many pins an access holds.
    pub(super) fn pins_of(&self, access: AccessKey) -> usize {
        self.core.borrow().accesses.get(&access).map_or(0, |state| state.pins.len())
    }

    /// Reads bytes through the address space.
    ///
    /// # Errors
    /// If a part is not mapped, not readable, or its bytes cannot be reached.
    pub async fn read(&self, access: AccessKey, range: IovaRange) -> Result<Vec<u8>, Refusal> {
        let mut bytes = Vec::new();
        self.transfer(
            access,
            range,
            Direction::Read,
            |offset, length| Transfer::Read { offset, length },
            |read| append(&mut bytes, read),
        )
        .await?;
        Ok(bytes)
    }

    /// Writes bytes through the address space, up to the first that is not mapped.
    ///
    /// # Errors
    /// If a part is not mapped, not writable, or its bytes cannot be reached.
    pub async fn write(&self, access: AccessKey, iova: Iova, bytes: Bytes) -> Result<(), Refusal> {
        let range = IovaRange::from_length(iova, ByteLen::new(bytes.len() as u64)).ok_or_else(|| {
            Refusal::new(
                Errno::OVERFLOW,
                "range-past-end",
                format!("{} bytes at {iova} pass 2^64", bytes.len()),
            )
        })?;
        let mut rest = bytes;
        let next = |offset, length: ByteLen| {
            let count = usize::try_from(length.get()).unwrap_or(usize::MAX).min(rest.len());
            Transfer::Write { offset, bytes: rest.split_to(count) }
        };
        self.transfer(access, range, Direction::Write, next, |_| {}).await
    }

    /// Moves bytes area by area. Each area is looked up when its turn comes.
    async fn transfer(
        &self,
        access: AccessKey,
        range: IovaRange,
        direction: Direction,
        mut order: impl FnMut(ByteLen, ByteLen) -> Transfer,
        mut done: impl FnMut(Vec<u8>),
    ) -> Result<(), Refusal> {
        let mut rest = Some(range);
        while let Some(range) = rest {
            let part = self.transfer_part(access, range, direction)?;
            rest = behind(part.iova).and_then(|next| IovaRange::new(next, range.last()));
            let transfer = order(part.shape.offset_of(part.iova.start()), part.iova.length());
            if let Moved::Bytes(bytes) = self.port.run(&part.pages, Order::Transfer(transfer)).await? {
                done(bytes);
            }
        }
        Ok(())
    }

    /// What bytes of a range would move through: the areas from its start, and why they end where they do.
    ///
    /// # Errors
    /// ENOENT if `access` is not attached.
    pub fn walk_of_transfer(
        &self,
        access: AccessKey,
        range: IovaRange,
        direction: Direction,
    ) -> Result<AccessWalk<P::Pages>, Refusal> {
        let core = self.core.borrow();
        if core.accesses.get(&access).is_none_or(|state| state.leaving) {
            return Err(not_attached(access));
        }
        Ok(core.table.access_walk(range, AccessKind::Copy(direction)))
    }

    fn transfer_part(
        &self,
        access: AccessKey,
        range: IovaRange,
        direction: Direction,
    ) -> Result<AccessPart<P::Pages>, Refusal> {
        let walk = self.walk_of_transfer(access, range, direction)?;
        match (walk.parts.into_iter().next(), walk.end) {
            (Some(part), _) => Ok(part),
            (None, Err(error)) => Err(Refusal::of(&error)),
            (None, Ok(())) => {
                Err(Refusal::new(Errno::NOENT, "not-mapped", format!("nothing is mapped in {range}")))
            }
        }
    }
}

fn held_part<H>(part: AccessPart<H>, holder: Holder) -> Option<HeldPart<H>> {
    let indexes = part.shape.indexes_of(part.iova)?;
    Some(HeldPart { area: part.area, pages: part.pages, indexes, holder })
}

fn not_attached(access: AccessKey) -> Refusal {
    Refusal::new(
        Errno::NOENT,
        "access-not-attached",
        format!("{access} is not attached to this address space"),
    )
}
