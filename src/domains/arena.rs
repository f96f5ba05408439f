//! The arena: the memfd that holds the tables of one domain.
//!
//! ```text
//! page 0   1 .. colour        tables: in use, waiting, free | not used yet: backed | sparse  ...  end
//! header   never touched      first                          next           backed
//! ```
//!
//! The file has its final size from the start and is sealed before anybody else can see it: nobody can shrink it under
//! the writer, and nobody but the mapping made here can write it. Pages are backed with memory in chunks before they
//! are used, so that exhaustion is an error and never a signal; they are recycled and never given back.
//!
//! A table that walkers may still look at is *retired*: it waits until all of them have left the epoch in which it was
//! unlinked. A table is retired when nothing is left in it, so that every allocated page is empty.
//!
//! Imports allowed: sys, fault_points, storage::ledger, the client crate's formats and layouts.
#![expect(unsafe_code, reason = "plain stores into pages that nobody else can know")]

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ioasd_client::formats::{ABSENT, TABLE_BYTES, TABLE_ENTRIES, TableAddr};
use ioasd_client::layout::{ArenaHeader, HEADER_BYTES};
use ioasd_client::units::ByteLen;

use super::epoch::{Epoch, Epochs};
use super::error::{ArenaError, corrupt};
use crate::fault_points::{self, Point};
use crate::storage::ledger::node::Allowance;
use crate::sys::failure::SysError;
use crate::sys::mapping::{MapAccess, SharedMapping, TableWords, map_shared, populate};
use crate::sys::memfd::{self, Seals};

const NAME: &str = "ioasd-tables";

/// Pages of 4 KiB at the same offset modulo 128 KiB compete for the same few places in a cache.
const COLOURS: u64 = 32;

/// Pages backed with memory at a time.
const CHUNK_PAGES: u64 = 32;

static NEXT_COLOUR: AtomicU64 = AtomicU64::new(0);

/// Bytes that an arena may grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaSize(ByteLen);

impl ArenaSize {
    /// Tables for half a tebibyte in 4 KiB leaves.
    pub const DEFAULT: Self = Self(ByteLen::new(1 << 30));

    /// At least this is granted: the header, every colour, and a few tables.
    const LEAST: u64 = 2 * COLOURS * TABLE_BYTES;

    /// `bytes`, rounded up to whole pages and to the least that makes sense.
    #[must_use]
    pub fn new(bytes: ByteLen) -> Self {
        let bytes = bytes.get().clamp(Self::LEAST, u64::MAX - TABLE_BYTES);
        Self(ByteLen::new(bytes.next_multiple_of(TABLE_BYTES)))
    }

    /// As much as an account may have: [`ArenaSize::DEFAULT`] if that is any amount.
    #[must_use]
    pub fn within(hard: u64) -> Self {
        if hard == u64::MAX { Self::DEFAULT } else { Self::new(ByteLen::new(hard)) }
    }

    /// The size.
    #[must_use]
    pub const fn bytes(self) -> ByteLen {
        self.0
    }
}

/// A page for a table that nobody else can know: it is empty, and no entry points to it.
#[derive(Debug)]
#[must_use = "a page that is not linked is lost"]
pub struct NewTable(TableAddr);

impl NewTable {
    /// Where it lies, for the entry that will point to it.
    pub const fn into_address(self) -> TableAddr {
        self.0
    }
}

/// The pages of one domain's tables.
#[derive(Debug)]
pub struct Arena {
    fd: OwnedFd,
    memory: Arc<SharedMapping>,
    epochs: Arc<Epochs>,
    first: u64,
    next: u64,
    backed: u64,
    end: u64,
    free: Vec<TableAddr>,
    waiting: VecDeque<(Epoch, TableAddr)>,
    /// What the tables of all domains of a context may take together.
    budget: Allowance,
}

impl Arena {
    /// A new arena without tables.
    ///
    /// # Errors
    /// If the kernel refuses the memory.
    pub fn new(size: ArenaSize, budget: Allowance) -> Result<Self, SysError> {
        let fd = memfd::create(NAME, size.bytes())?;
        let memory = Arc::new(map_shared(&fd, NAME, size.bytes(), MapAccess::ReadWrite)?);
        memfd::seal(&fd, NAME, Seals::FixedSizeOneWriter)?;
        back(&fd, &memory, 0, HEADER_BYTES)?;
        let colour = NEXT_COLOUR.fetch_add(1, Ordering::Relaxed) % COLOURS;
        let first = HEADER_BYTES + colour * TABLE_BYTES;
        Ok(Self {
            fd,
            epochs: Arc::new(Epochs::new(Arc::clone(&memory))),
            memory,
            first,
            next: first,
            backed: first,
            end: size.bytes().get(),
            free: Vec::new(),
            waiting: VecDeque::new(),
            budget,
        })
    }

    /// Writes the constant part of the header, once, before the arena is exported.
    pub fn write_header(&self, header: &ArenaHeader) {
        for (word, offset) in header.encode().into_iter().zip((0..).step_by(8)) {
            if let Some(place) = self.memory.word(offset) {
                place.store(word, Ordering::Release);
            }
        }
    }

    /// A page for a table, empty.
    ///
    /// # Errors
    /// If the arena is full or the kernel refuses the memory.
    pub fn allocate(&mut self) -> Result<NewTable, ArenaError> {
        fault_points::hit(Point::TableAlloc)?;
        if self.free.is_empty() {
            self.reclaim();
        }
        match self.free.pop() {
            Some(table) => Ok(NewTable(table)),
            None => self.take_next(),
        }
    }

    fn take_next(&mut self) -> Result<NewTable, ArenaError> {
        if self.next == self.backed {
            self.grow()?;
        }
        let table = TableAddr::new(self.next);
        self.next += TABLE_BYTES;
        Ok(NewTable(table))
    }

    fn grow(&mut self) -> Result<(), ArenaError> {
        let length = (CHUNK_PAGES * TABLE_BYTES).min(self.end - self.backed);
        if length == 0 {
            return Err(ArenaError::Full { size: self.size() });
        }
        self.budget.take(length)?;
        let backed = back(&self.fd, &self.memory, self.backed, length);
        backed.inspect_err(|_| self.budget.give_back(length))?;
        self.backed += length;
        Ok(())
    }

    /// Gives back a table that is empty and has just been unlinked; it is reused when no walker can look at it any more.
    pub fn retire(&mut self, table: TableAddr) {
        let epoch = self.epochs.after_unlinking();
        if self.epochs.has_walkers() {
            self.waiting.push_back((epoch, table));
        } else {
            self.free.push(table);
        }
    }

    /// Makes the tables reusable that every walker has left behind.
    fn reclaim(&mut self) {
        let current = self.epochs.current();
        while let Some(&(epoch, _)) = self.waiting.front() {
            if epoch > current || !self.epochs.all_left(epoch) {
                return;
            }
            let left_behind = self.waiting.partition_point(|(of, _)| *of <= epoch);
            self.free.extend(self.waiting.drain(..left_behind).map(|(_, table)| table));
        }
    }

    /// The entries of `table`.
    ///
    /// # Panics
    /// If `table` does not lie in the arena: its bytes were overwritten.
    #[inline]
    #[must_use]
    pub fn words(&self, table: TableAddr) -> &TableWords {
        self.memory.table(table).unwrap_or_else(|| corrupt(table))
    }

    /// The entries of a table that nobody else can know, to be written with plain stores, which are faster than atomic ones.
    #[inline]
    pub fn private_words(&mut self, table: &mut NewTable) -> &mut [u64; TABLE_ENTRIES] {
        let mut words = self.memory.table_pointer(table.0).unwrap_or_else(|| corrupt(table.0));
        // SAFETY: the page is mapped writable as long as `self` lives. No other reference to it exists: those that `words`
        // gives borrow `self`, which is borrowed mutably here, and the epochs, who share the mapping, use its first page
        // alone. Nobody else accesses it meanwhile: a NewTable is the only one of its page and no entry points there;
        // walkers come along entries only, and those that came along an earlier one had left before the page was free.
        unsafe { words.as_mut() }
    }

    /// The entry at `index` of `table`.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    #[must_use]
    pub fn entry(&self, table: TableAddr, index: usize) -> &AtomicU64 {
        self.words(table).get(index).unwrap_or_else(|| corrupt(table))
    }

    /// Who is walking.
    #[must_use]
    pub fn epochs(&self) -> &Arc<Epochs> {
        &self.epochs
    }

    /// Another descriptor of the memfd, for a walker.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn export(&self) -> Result<OwnedFd, SysError> {
        memfd::duplicate(&self.fd, NAME)
    }

    /// The size it may grow to.
    #[must_use]
    pub const fn size(&self) -> ByteLen {
        ByteLen::new(self.end)
    }

    /// Bytes of tables that are linked, or that a walker may still look at.
    #[must_use]
    pub fn in_use(&self) -> ByteLen {
        ByteLen::new(self.next - self.first - self.free.len() as u64 * TABLE_BYTES)
    }

    /// Bytes of memory that the arena holds, used or not.
    #[must_use]
    pub const fn held(&self) -> ByteLen {
        ByteLen::new(HEADER_BYTES + self.backed - self.first)
    }

    /// Panics unless every page is either one of `linked`, waiting, free or not used yet. For tests.
    pub fn check(&self, linked: &BTreeSet<TableAddr>) {
        let waiting = self.waiting.iter().map(|(_, table)| table);
        let mut all = linked.clone();
        for table in waiting.chain(&self.free) {
            assert!(all.insert(*table), "table {table} is in two places");
            let is_empty = |word: &AtomicU64| word.load(Ordering::Relaxed) == ABSENT;
            assert!(self.words(*table).iter().all(is_empty), "table {table} is retired, but not empty");
        }
        let pages = self.first / TABLE_BYTES..self.next / TABLE_BYTES;
        let allocated = pages.map(|page| TableAddr::new(page * TABLE_BYTES));
        assert!(all.into_iter().eq(allocated), "a table is linked that was not allocated, or lost");
        assert!(self.next <= self.backed && self.backed <= self.end, "tables lie beyond the backed part");
        assert!(self.waiting.iter().is_sorted_by_key(|(epoch, _)| epoch), "tables wait out of order");
    }
}

fn back(fd: &OwnedFd, memory: &SharedMapping, offset: u64, length: u64) -> Result<(), SysError> {
    let (offset, length) = (ByteLen::new(offset), ByteLen::new(length));
    memfd::allocate(fd, NAME, offset, length)?;
    populate(memory, NAME, offset, length)
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.budget.give_back(self.backed - self.first);
    }
}

#[cfg(test)]
mod tests {
    use ioasd_client::layout::SlotIndex;

    use super::*;
    use crate::storage::ledger::resource::Resource;

    fn arena(bytes: u64) -> Arena {
        Arena::new(ArenaSize::new(ByteLen::new(bytes)), Allowance::unlimited(Resource::Tables)).unwrap()
    }

    fn allocate(arena: &mut Arena) -> TableAddr {
        arena.allocate().unwrap().into_address()
    }

    #[test]
    fn what_is_written_privately_is_what_everybody_reads() {
        let mut arena = arena(0);
        let mut table = arena.allocate().unwrap();
        arena
            .private_words(&mut table)
            .copy_from_slice(&std::array::from_fn::<u64, TABLE_ENTRIES, _>(|k| k as u64));
        let table = table.into_address();
        assert!(arena.words(table).iter().map(|word| word.load(Ordering::Relaxed)).eq(0..512));
    }

    #[test]
    fn a_full_arena_refuses_and_serves_again_after_a_table_came_back() {
        let mut arena = arena(0);
        let mut tables = BTreeSet::new();
        let error = loop {
            match arena.allocate() {
                Ok(table) => assert!(tables.insert(table.into_address())),
                Err(error) => break error,
            }
        };
        assert_eq!(error, ArenaError::Full { size: ArenaSize::new(ByteLen::new(0)).bytes() });
        arena.check(&tables);
        assert!(tables.len() as u64 > COLOURS && arena.in_use().get() == tables.len() as u64 * TABLE_BYTES);
        let back = tables.pop_first().unwrap();
        arena.retire(back);
        arena.check(&tables);
        assert_eq!(allocate(&mut arena), back);
    }

    #[test]
    fn a_retired_table_is_not_reused_while_a_walker_is_inside() {
        let mut arena = arena(1 << 20);
        let (fd, walker) = arena.epochs().register_walker().unwrap();
        let slots = map_shared(&fd, NAME, ByteLen::new(8192), MapAccess::ReadWrite).unwrap();
        let slot = slots.word(SlotIndex::new(3).unwrap().offset()).unwrap();
        let table = allocate(&mut arena);
        slot.store(1, Ordering::SeqCst);
        arena.retire(table);
        assert_ne!(allocate(&mut arena), table, "the epoch has not ended");
        arena.epochs().advance();
        assert_ne!(allocate(&mut arena), table, "a walker is inside");
        slot.store(0, Ordering::SeqCst);
        assert_eq!(allocate(&mut arena), table);
        arena.epochs().unregister(walker);
        arena.retire(table);
        assert_eq!(allocate(&mut arena), table, "nobody walks");
    }

    #[test]
    fn neighbouring_domains_have_different_colours() {
        let mut first_tables = BTreeSet::new();
        for _ in 0..8 {
            first_tables.insert(allocate(&mut arena(0)).get() % (COLOURS * TABLE_BYTES));
        }
        assert!(first_tables.len() > 4, "eight arenas share {} colours", first_tables.len());
    }

    #[test]
    fn memory_is_held_in_chunks_and_only_when_needed() {
        let mut arena = arena(1 << 30);
        assert_eq!(arena.held(), ByteLen::new(HEADER_BYTES));
        allocate(&mut arena);
        assert_eq!(arena.held(), ByteLen::new(HEADER_BYTES + CHUNK_PAGES * TABLE_BYTES));
        assert_eq!(arena.in_use(), ByteLen::new(TABLE_BYTES));
    }
}
