//! Who is walking: the agent's side of epochs, generations and slots.
//!
//! The steps, and why they are in this order, are in the client crate's `layout::protocol`.
//! [`Epochs`] is shared by the writer of the table and by whoever waits. It holds the slots of the registered walkers,
//! mapped read-only, and what they tell of their faults there. What a walker writes there harms only itself, or makes the
//! agent wait for it.
//!
//! Imports allowed: dirty, written, walker_log, walker_faults, sys, the client crate's layouts.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ioasd_client::layout::{
    ALIVE_OFFSET, EPOCH_OFFSET, FIRST_EPOCH, GENERATION_OFFSET, IS_ALIVE, IS_DEAD, IS_LOGGED, LogShape,
    OPENED_OFFSET, SlotIndex, WALKER_BYTES, WINDOWS_OFFSET, protocol,
};
use ioasd_client::units::{ByteLen, IovaRange};
use parking_lot::{Mutex, RwLock};

use super::dirty::{Cleaning, Tracking};
use super::walker_faults::WalkerFaults;
use super::walker_log::WalkerLog;
use super::written::Written;
use crate::sys::failure::SysError;
use crate::sys::mapping::{MapAccess, SharedMapping, map_shared};
use crate::sys::memfd::{self, Seals};
use crate::sys::pidfd::PidFd;

const SLOTS_NAME: &str = "ioasd-slots";

/// A moment in the life of a domain: everything that was unmapped before it is gone for who enters after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

/// A registered walker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WalkerId(u64);

/// A walker, and the process that opened the domain, if that is certain.
#[derive(Clone, Debug)]
pub struct Lagging {
    /// The walker.
    pub walker: WalkerId,
    /// Its process.
    pub process: Option<Arc<PidFd>>,
}

impl WalkerId {
    /// Its number in the domain.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Lagging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.walker.0;
        match &self.process {
            Some(process) => write!(f, "walker {number} of process {}", process.pid().as_raw_pid()),
            None => write!(f, "walker {number} of a process that is not known"),
        }
    }
}

/// Dirty logs of walkers that are gone.
#[derive(Debug)]
pub struct LeftBehind(pub(super) Vec<Arc<WalkerLog>>);

impl LeftBehind {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The walkers of one domain and the live words of its arena.
#[derive(Debug)]
pub struct Epochs {
    arena: Arc<SharedMapping>,
    registered: RwLock<Registered>,
    faults: Arc<WalkerFaults>,
    /// What accesses wrote since tracking was first switched on, and nobody was told.
    by_accesses: Mutex<Option<Written>>,
}

#[derive(Debug, Default)]
struct Registered {
    next: u64,
    walkers: Vec<Walker>,
    /// What walkers that are gone wrote, and nobody has gone through yet.
    left_behind: Vec<Arc<WalkerLog>>,
}

#[derive(Debug)]
struct Walker {
    id: WalkerId,
    slots: Arc<SharedMapping>,
    process: Option<Arc<PidFd>>,
    log: Option<Arc<WalkerLog>>,
}

impl Epochs {
    /// The epochs of a new arena, whose first page is writable. Makes the domain alive.
    pub(super) fn new(arena: Arc<SharedMapping>) -> Self {
        let (registered, faults, by_accesses) = Default::default();
        let epochs = Self { arena, registered, faults, by_accesses };
        epochs.word(EPOCH_OFFSET).store(FIRST_EPOCH, Ordering::SeqCst);
        epochs.word(ALIVE_OFFSET).store(IS_ALIVE, Ordering::SeqCst);
        epochs
    }

    /// Makes the slots of a new walker of a process that is not known.
    ///
    /// # Errors
    /// If the kernel refuses the memory.
    pub fn register_walker(&self) -> Result<(OwnedFd, WalkerId), SysError> {
        self.register_walker_of(None)
    }

    /// Makes the slots of a new walker. The descriptor is for the walker; it can be sent to nobody else. When its process
    /// has ended, nobody waits for it. Windows of frames that it is told of from here on are right until they are renewed.
    ///
    /// # Errors
    /// If the kernel refuses the memory.
    pub fn register_walker_of(&self, process: Option<Arc<PidFd>>) -> Result<(OwnedFd, WalkerId), SysError> {
        let length = ByteLen::new(WALKER_BYTES);
        let fd = memfd::create(SLOTS_NAME, length)?;
        memfd::allocate(&fd, SLOTS_NAME, ByteLen::new(0), length)?;
        let windows = protocol::look(self.word(WINDOWS_OFFSET));
        memfd::write_word(&fd, SLOTS_NAME, ByteLen::new(OPENED_OFFSET), windows)?;
        let slots = map_shared(&fd, SLOTS_NAME, length, MapAccess::ReadOnly)?;
        memfd::seal(&fd, SLOTS_NAME, Seals::FixedSize)?;
        let (slots, pid) = (Arc::new(slots), process.as_ref().map(|process| process.pid()));
        let walker = self.registered.write().add(Arc::clone(&slots), process);
        self.faults.watch(walker, pid, slots);
        Ok((fd, walker))
    }

    /// Makes the dirty log of a walker. The descriptor is for the walker.
    ///
    /// # Errors
    /// If the kernel refuses the memory.
    pub fn add_log(&self, walker: WalkerId, shape: LogShape) -> Result<OwnedFd, SysError> {
        let log = WalkerLog::new(shape)?;
        let fd = log.export()?;
        let mut registered = self.registered.write();
        let walker = registered.walkers.iter_mut().find(|registered| registered.id == walker);
        if let Some(walker) = walker {
            walker.log = Some(Arc::new(log));
        }
        Ok(fd)
    }

    /// Forgets a walker, whatever its slots say: it has closed the domain, or is dead. What it has written is not forgotten.
    pub fn unregister(&self, walker: WalkerId) {
        {
            let registered = &mut *self.registered.write();
            let gone = registered.walkers.extract_if(.., |registered| registered.id == walker);
            let logs = gone.filter_map(|walker| walker.log).filter(|log| log.is_used());
            registered.left_behind.extend(logs);
        }
        self.faults.forget(walker);
    }

    /// What walkers tell of their faults.
    #[must_use]
    pub const fn faults(&self) -> &Arc<WalkerFaults> {
        &self.faults
    }

    /// The dirty logs of all walkers, also of those that are gone.
    pub(super) fn logs(&self) -> Vec<Arc<WalkerLog>> {
        let registered = self.registered.read();
        let walkers = registered.walkers.iter().filter_map(|walker| walker.log.clone());
        walkers.chain(registered.left_behind.iter().cloned()).collect()
    }

    /// Notes what an access wrote, if walkers would log it.
    pub fn note_written(&self, range: IovaRange) {
        if protocol::look(self.word(ALIVE_OFFSET)) == IS_LOGGED
            && let Some(written) = &mut *self.by_accesses.lock()
        {
            written.add_range(range);
        }
    }

    /// Adds what accesses wrote in a range to a set; forgets it, if asked for.
    pub(super) fn collect_by_accesses(&self, range: IovaRange, cleaning: Cleaning, into: &mut Written) {
        if let Some(written) = &mut *self.by_accesses.lock() {
            into.add_all(&match cleaning {
                Cleaning::Keep => written.copy_of(range),
                Cleaning::Clean => written.take(range),
            });
        }
    }

    /// The logs that walkers left behind which are gone.
    #[must_use]
    pub fn left_behind(&self) -> LeftBehind {
        LeftBehind(self.registered.read().left_behind.clone())
    }

    /// Forgets logs whose bits have all been taken.
    pub fn forget(&self, LeftBehind(logs): &LeftBehind) {
        let is_done = |log: &Arc<WalkerLog>| logs.iter().any(|done| Arc::ptr_eq(done, log));
        self.registered.write().left_behind.retain(|log| !is_done(log));
    }

    /// Tells walkers whether to log what they write, in logs of this shape. Begin a new epoch and wait: then all of them do.
    pub fn track(&self, tracking: Tracking, shape: LogShape) {
        let state = match tracking {
            Tracking::On => IS_LOGGED,
            Tracking::Off => IS_ALIVE,
        };
        self.by_accesses.lock().get_or_insert_with(|| Written::nothing(shape));
        protocol::set_alive(self.word(ALIVE_OFFSET), state);
    }

    /// Whether anybody may be walking.
    #[must_use]
    pub fn has_walkers(&self) -> bool {
        !self.registered.read().walkers.is_empty()
    }

    /// The current epoch.
    #[must_use]
    pub fn current(&self) -> Epoch {
        Epoch(protocol::look(self.word(EPOCH_OFFSET)))
    }

    /// Begins a new epoch and generation. Call it after entries were cleared, then wait for [`Self::all_left`].
    pub fn advance(&self) -> Epoch {
        Epoch(protocol::begin_epoch(self.word(GENERATION_OFFSET), self.word(EPOCH_OFFSET)))
    }

    /// Makes walkers that enter later forget which files frames name, and begins an epoch: once every walker has left what was
    /// before it, frames that name nothing now may be given to other files.
    pub fn renew_windows(&self) -> Epoch {
        protocol::renew_windows(self.word(WINDOWS_OFFSET));
        self.advance()
    }

    /// The epoch that the next [`Self::advance`] will begin: when every walker has left what was before it, none sees
    /// what has just been unlinked.
    pub(super) fn after_unlinking(&self) -> Epoch {
        Epoch(protocol::epoch_after_unlinking(self.word(EPOCH_OFFSET)))
    }

    /// Whether no walker still is where it was before `epoch` began.
    #[must_use]
    pub fn all_left(&self, epoch: Epoch) -> bool {
        self.registered.read().walkers.iter().all(|walker| has_left(&walker.slots, epoch))
    }

    /// The walkers that have not left what was before `epoch`, for people and policies.
    #[must_use]
    pub fn lagging(&self, epoch: Epoch) -> Vec<Lagging> {
        let registered = self.registered.read();
        let lagging = registered.walkers.iter().filter(|walker| !has_left(&walker.slots, epoch));
        lagging.map(|walker| Lagging { walker: walker.id, process: walker.process.clone() }).collect()
    }

    /// Forgets the walkers that have not left what was before `epoch`, and never will: their process has ended.
    pub fn forget_dead(&self, epoch: Epoch) {
        let ended = |process: Arc<PidFd>| process.has_exited() == Ok(true);
        for Lagging { walker, process } in self.lagging(epoch) {
            if process.is_some_and(ended) {
                self.unregister(walker);
            }
        }
    }

    /// Tells walkers that nobody serves this domain any more.
    pub fn mark_dead(&self) {
        self.word(ALIVE_OFFSET).store(IS_DEAD, Ordering::SeqCst);
    }

    fn word(&self, offset: u64) -> &AtomicU64 {
        self.arena.word(offset).unwrap_or_else(|| unreachable!("an arena was mapped whole and writable"))
    }
}

impl Registered {
    fn add(&mut self, slots: Arc<SharedMapping>, process: Option<Arc<PidFd>>) -> WalkerId {
        let id = WalkerId(self.next);
        self.next += 1;
        self.walkers.push(Walker { id, slots, process, log: None });
        id
    }
}

/// Whether all threads of a walker have left what was before `epoch`.
fn has_left(slots: &SharedMapping, epoch: Epoch) -> bool {
    SlotIndex::all().all(|slot| protocol::has_left(slots, slot, epoch.0))
}

/// Epochs and walkers without a table, for tests.
#[cfg(test)]
pub(crate) mod examples {
    use super::*;

    pub(crate) fn epochs() -> Arc<Epochs> {
        epochs_and_arena().0
    }

    /// Epochs, and the arena whose words they are.
    pub(crate) fn epochs_and_arena() -> (Arc<Epochs>, Arc<SharedMapping>) {
        let fd = memfd::create("epoch-test", ByteLen::new(4096)).unwrap();
        let arena = map_shared(&fd, "epoch-test", ByteLen::new(4096), MapAccess::ReadWrite).unwrap();
        let arena = Arc::new(arena);
        (Arc::new(Epochs::new(Arc::clone(&arena))), arena)
    }

    /// A walker, and its memory as it has it.
    pub(crate) fn walker(epochs: &Epochs) -> (SharedMapping, WalkerId) {
        let (fd, id) = epochs.register_walker().unwrap();
        (map_shared(&fd, SLOTS_NAME, ByteLen::new(WALKER_BYTES), MapAccess::ReadWrite).unwrap(), id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use ioasd_client::layout::OUTSIDE;

    use super::examples::{epochs, walker as slots_of};
    use super::*;

    fn set(slots: &SharedMapping, slot: u32, value: u64) {
        slots.word(SlotIndex::new(slot).unwrap().offset()).unwrap().store(value, Ordering::SeqCst);
    }

    #[test]
    fn a_thread_that_entered_before_the_epoch_holds_it_until_it_leaves() {
        let epochs = epochs();
        let (slots, id) = slots_of(&epochs);
        set(&slots, 63, epochs.current().0);
        let epoch = epochs.advance();
        assert!(!epochs.all_left(epoch));
        let lagging: Vec<WalkerId> = epochs.lagging(epoch).iter().map(|lagging| lagging.walker).collect();
        assert_eq!(lagging, [id]);
        set(&slots, 63, epoch.0);
        assert!(epochs.all_left(epoch), "entering again under the new epoch is leaving the old one");
        assert!(!epochs.all_left(epochs.advance()));
        set(&slots, 63, OUTSIDE);
        assert!(epochs.all_left(epochs.current()));
    }

    #[test]
    fn garbage_in_the_slots_of_one_walker_does_not_hide_another() {
        let epochs = epochs();
        let (hostile, hostile_id) = slots_of(&epochs);
        let (honest, _) = slots_of(&epochs);
        set(&hostile, 0, u64::MAX);
        set(&honest, 5, epochs.current().0);
        let epoch = epochs.advance();
        assert!(!epochs.all_left(epoch));
        set(&honest, 5, OUTSIDE);
        assert!(epochs.all_left(epoch));
        set(&hostile, 1, 1);
        assert!(!epochs.all_left(epoch));
        epochs.unregister(hostile_id);
        assert!(epochs.all_left(epoch) && epochs.has_walkers());
    }

    /// The writer takes a value away, waits, and then reuses it; threads that are inside must never see the reuse.
    #[test]
    fn nothing_is_reused_while_a_thread_that_could_see_it_is_inside() {
        const PRESENT: u64 = 1;
        const REUSED: u64 = 2;
        let epochs = epochs();
        let (slots, _) = slots_of(&epochs);
        let (entry, target) = (AtomicU64::new(PRESENT), AtomicU64::new(PRESENT));
        let (done, seen_reused) = (AtomicBool::new(false), AtomicBool::new(false));
        let visit = |slot: u32| {
            let word = slots.word(SlotIndex::new(slot).unwrap().offset()).unwrap();
            word.swap(epochs.current().0, Ordering::SeqCst);
            if entry.load(Ordering::Acquire) == PRESENT && target.load(Ordering::Relaxed) != PRESENT {
                seen_reused.store(true, Ordering::Relaxed);
            }
            word.store(OUTSIDE, Ordering::Release);
        };
        thread::scope(|scope| {
            for slot in 0..2 {
                let (visit, done) = (&visit, &done);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        visit(slot);
                    }
                });
            }
            for _ in 0..1000 {
                entry.store(0, Ordering::Release);
                let epoch = epochs.advance();
                while !epochs.all_left(epoch) {
                    thread::yield_now();
                }
                target.store(REUSED, Ordering::Relaxed);
                std::hint::spin_loop();
                target.store(PRESENT, Ordering::Relaxed);
                entry.store(PRESENT, Ordering::Release);
            }
            done.store(true, Ordering::Relaxed);
        });
        assert!(!seen_reused.load(Ordering::Relaxed), "a page was touched after it was reused");
    }
}
