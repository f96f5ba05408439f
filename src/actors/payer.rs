//! Payers: who pays for the pins of a pages object, and what binds them.
//!
//! A process that maps is held by handle, so that what is read about its number later is its own. Its limit for locked
//! memory is read whenever pages are charged, and binds pins that lock memory alone. A sender that is not known by handle
//! is bound by what the process of its user that was known last may lock.
//!
//! Imports allowed: storage's ledger and source, sys, rustix's errors.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use ioasd_client::units::PAGE_SIZE;
use rustix::io::Errno;

use crate::storage::counts::Delta;
use crate::storage::ledger::bill::{Bill, ChargeRefused, LockedStanding, ProcessAccount};
use crate::storage::ledger::standing::Standing;
use crate::storage::ledger::{AccountMode, PageLimit};
use crate::storage::source::Strength;
use crate::sys::identity::{MemlockLimit, memlock_limit};
use crate::sys::pidfd::PidFd;

/// A process that maps.
pub struct PayingProcess {
    process: Arc<PidFd>,
    account: Arc<ProcessAccount>,
    /// Pages it may lock, as read last: it counts when the process has ended.
    limit: AtomicU64,
    /// The user as whom it mapped last.
    uid: AtomicU32,
}

impl PayingProcess {
    fn new(process: Arc<PidFd>) -> Self {
        let limit = AtomicU64::new(limit_of(&process).0);
        Self { process, account: ProcessAccount::new(), limit, uid: AtomicU32::new(0) }
    }

    /// Notes as which user it maps.
    pub fn maps_as(&self, uid: u32) {
        self.uid.store(uid, Ordering::Relaxed);
    }

    /// The user as whom it mapped last.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid.load(Ordering::Relaxed)
    }

    /// What it has been billed for.
    #[must_use]
    pub const fn account(&self) -> &Arc<ProcessAccount> {
        &self.account
    }

    /// Its handle.
    #[must_use]
    pub const fn process(&self) -> &Arc<PidFd> {
        &self.process
    }

    /// Its limit for locked memory, now; the last one read if it has ended.
    pub fn limit(&self) -> PageLimit {
        match pages_it_may_lock(&self.process) {
            Ok(PageLimit(pages)) => self.limit.store(pages, Ordering::Relaxed),
            Err(errno) => tracing::debug!(%errno, "a limit cannot be read: the last one read counts"),
        }
        self.last_limit()
    }

    /// Its limit for locked memory, as read last.
    #[must_use]
    pub fn last_limit(&self) -> PageLimit {
        PageLimit(self.limit.load(Ordering::Relaxed))
    }

    /// Whether `process` is this one.
    fn is(&self, process: &Arc<PidFd>) -> bool {
        let alive = |process: &PidFd| process.has_exited() == Ok(false);
        // One number names one process while it lives.
        let same_number = self.process.pid() == process.pid();
        Arc::ptr_eq(&self.process, process) || (same_number && alive(&self.process) && alive(process))
    }
}

impl fmt::Debug for PayingProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PayingProcess").field("pid", &self.process.pid()).finish_non_exhaustive()
    }
}

fn pages_it_may_lock(process: &PidFd) -> Result<PageLimit, Errno> {
    Ok(match memlock_limit(process)? {
        MemlockLimit::Bytes(bytes) => PageLimit(bytes.get() / PAGE_SIZE),
        MemlockLimit::Unlimited => PageLimit(u64::MAX),
    })
}

/// What `process` may lock; nothing if that cannot be read.
#[must_use]
pub fn limit_of(process: &PidFd) -> PageLimit {
    pages_it_may_lock(process).unwrap_or(PageLimit(0))
}

/// The limit that a user's process showed: what binds others of that user whom the kernel does not name by handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surety {
    /// The user.
    pub uid: u32,
    /// What its process may lock.
    pub limit: PageLimit,
}

/// The processes that map, by number. An entry lasts as long as somebody holds it.
#[derive(Debug, Default)]
pub struct PayingProcesses(DashMap<i32, Weak<PayingProcess>>);

impl PayingProcesses {
    /// The process behind a handle: the same for every handle on it.
    pub fn find(&self, process: &Arc<PidFd>) -> Arc<PayingProcess> {
        let number = process.pid().as_raw_pid();
        let known = self.0.get(&number).and_then(|known| known.upgrade());
        if let Some(known) = known.filter(|known| known.is(process)) {
            return known;
        }
        let paying = Arc::new(PayingProcess::new(Arc::clone(process)));
        self.0.retain(|_, known| known.strong_count() > 0);
        self.0.insert(number, Arc::downgrade(&paying));
        paying
    }

    /// Those that somebody holds, in the order of their numbers.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<PayingProcess>> {
        let mut list: Vec<_> = self.0.iter().filter_map(|known| known.upgrade()).collect();
        list.sort_unstable_by_key(|paying| paying.process.pid().as_raw_pid());
        list
    }
}

/// What binds a payer in modes user and mm.
#[derive(Clone, Debug)]
pub enum Binding {
    /// Nothing.
    Nothing,
    /// So many pages.
    Fixed(PageLimit),
    /// What a process may lock.
    Process(Arc<PayingProcess>),
    /// The same, and whatever holds the pages counts as locked: as a kernel does, which pins all.
    Simulated(Arc<PayingProcess>),
    /// The process is not known: so many pages, of those that are locked.
    Unknown(PageLimit),
}

/// How a charge would end.
#[derive(Clone, Debug)]
pub struct ChargeOutlook {
    /// Whether it would be refused.
    pub charged: Result<(), ChargeRefused>,
    /// The limit for locked memory, where one binds.
    pub locked: Option<LockedStanding>,
    /// The accounts.
    pub standings: Vec<Standing>,
}

/// Who pays for the pins of a pages object.
#[derive(Clone, Debug)]
pub struct Payer {
    /// Where pages are billed, and by which rule.
    pub bill: Bill,
    /// What binds.
    pub binding: Binding,
}

impl Payer {
    /// Bills `delta` for pins of a strength.
    ///
    /// # Errors
    /// If a limit would be passed; nothing changes then.
    pub fn charge(&self, delta: Delta, strength: Strength) -> Result<(), ChargeRefused> {
        self.billed(strength).charge(delta, strength, self.limit(delta, strength))
    }

    /// How a charge of `pages` for pins of a strength would end now, and how all stands that could bind it. Nothing is
    /// counted.
    #[must_use]
    pub fn outlook(&self, pages: u64, strength: Strength) -> ChargeOutlook {
        let (bill, limit) = (self.billed(strength), self.limit(Delta::more(pages), strength));
        ChargeOutlook {
            charged: bill.would_charge(pages, strength, limit),
            locked: bill.locked_standing(pages, limit),
            standings: bill.standings(pages, strength).collect(),
        }
    }

    /// Takes `pages` pins of a strength off the bill.
    pub fn credit(&self, pages: u64, strength: Strength) {
        self.billed(strength).credit(pages, strength);
    }

    /// Pays for `pages` pins of a strength that `old` pays for, too, until one of the two lets go.
    ///
    /// # Errors
    /// If a limit would be passed; nothing changes then.
    pub fn pay_too(&self, old: &Self, (pages, strength): (u64, Strength)) -> Result<(), ChargeRefused> {
        let limit = self.limit(Delta::more(pages), strength);
        self.billed(strength).pay_too(&old.billed(strength), (pages, strength), limit)
    }

    /// Pays no more for what `other` pays for, too.
    pub fn let_go(&self, other: &Self, (pages, strength): (u64, Strength)) {
        self.billed(strength).let_go(&other.billed(strength), (pages, strength));
    }

    /// What does not lock memory does not count towards a limit for locked memory either, now or later.
    fn billed(&self, strength: Strength) -> Bill {
        let counts = locks(strength) || matches!(self.binding, Binding::Fixed(_) | Binding::Simulated(_));
        if counts { self.bill.clone() } else { self.bill.by(AccountMode::None) }
    }

    /// A limit for locked memory binds what locks memory; what is taken off is not bound.
    fn limit(&self, delta: Delta, strength: Strength) -> Option<PageLimit> {
        let locks = locks(strength);
        match &self.binding {
            Binding::Fixed(limit) => Some(*limit),
            Binding::Simulated(process) if matches!(delta, Delta::More(_)) => Some(process.limit()),
            Binding::Process(process) if locks && matches!(delta, Delta::More(_)) => Some(process.limit()),
            Binding::Unknown(limit) if locks => Some(*limit),
            Binding::Process(_) | Binding::Simulated(_) | Binding::Unknown(_) | Binding::Nothing => None,
        }
    }
}

const fn locks(strength: Strength) -> bool {
    matches!(strength, Strength::Longterm | Strength::Locked)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Child, Command, Stdio};

    use rustix::process::{Pid, getpid};

    use super::*;
    use crate::storage::ledger::holder::TenantName;
    use crate::storage::ledger::{Account, Ledger};

    fn account(ledger: &Ledger) -> Account {
        ledger.account(&TenantName::Unknown, 1, 1)
    }

    /// A process that may lock 40 KiB, until its input is closed.
    fn limited() -> Child {
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -S -l 40 && echo ready && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        child
    }

    fn handle(pid: Pid) -> Arc<PidFd> {
        Arc::new(PidFd::open(pid).unwrap())
    }

    #[test]
    fn a_process_is_the_same_behind_every_handle_and_forgotten_with_the_last_payer() {
        let paying = PayingProcesses::default();
        let (one, other) = (paying.find(&handle(getpid())), paying.find(&handle(getpid())));
        assert!(Arc::ptr_eq(&one, &other));
        assert!(matches!(&paying.list()[..], [listed] if Arc::ptr_eq(listed, &one)));
        let account = Arc::downgrade(one.account());
        drop((one, other));
        assert!(account.upgrade().is_none() && paying.list().is_empty());
        let anew = paying.find(&handle(getpid()));
        assert_eq!(anew.account().pinned().get(), 0);
    }

    #[test]
    fn the_limit_of_the_process_binds_what_locks_memory_also_after_its_end() {
        let mut child = limited();
        let paying = PayingProcesses::default();
        let process = paying.find(&handle(Pid::from_child(&child)));
        let account = account(&Ledger::new());
        let bill = Bill::new(account, Arc::clone(process.account()), AccountMode::Mm);
        let payer = Payer { bill, binding: Binding::Process(process) };
        payer.charge(Delta::more(1000), Strength::Resident).unwrap();
        payer.charge(Delta::more(9), Strength::Locked).unwrap();
        payer.charge(Delta::fewer(1000), Strength::Resident).unwrap();
        assert!(payer.charge(Delta::more(2), Strength::Longterm).is_err());
        drop(child.stdin.take());
        child.wait().unwrap();
        payer.charge(Delta::more(1), Strength::Locked).unwrap();
        assert!(payer.charge(Delta::more(1), Strength::Locked).is_err());
        payer.credit(10, Strength::Locked);
        assert_eq!((payer.bill.account().charged().get(), payer.bill.account().limited().get()), (0, 0));
    }

    #[test]
    fn the_outlook_of_a_charge_is_how_it_ends() {
        let mut child = limited();
        let process = PayingProcesses::default().find(&handle(Pid::from_child(&child)));
        let ledger = Ledger::new();
        for (mode, strength) in [AccountMode::None, AccountMode::User, AccountMode::Mm].into_iter().zip([
            Strength::Locked,
            Strength::Longterm,
            Strength::Locked,
        ]) {
            let bill = Bill::new(account(&ledger), Arc::clone(process.account()), mode);
            let payer = Payer { bill, binding: Binding::Process(Arc::clone(&process)) };
            payer.charge(Delta::more(4), strength).unwrap();
            for pages in [1, 6, 7, 100] {
                let before = ledger.snapshot();
                let outlook = payer.outlook(pages, strength);
                assert_eq!(ledger.snapshot(), before, "a question counts nothing");
                let locked = outlook.locked.map(|locked| (locked.used.get(), locked.limit));
                assert_eq!(locked, (mode != AccountMode::None).then_some((4, PageLimit(10))));
                let binds = outlook.locked.is_some_and(|locked| locked.binds());
                assert_eq!(binds, outlook.charged.is_err());
                assert!(outlook.standings.iter().all(|standing| !standing.binds()));
                let real = payer.charge(Delta::more(pages), strength);
                assert_eq!(real, outlook.charged, "{mode:?} {pages}");
                if real.is_ok() {
                    payer.credit(pages, strength);
                }
            }
            payer.credit(4, strength);
        }
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_limit_for_locked_memory_binds_whoever_is_not_known() {
        let account = account(&Ledger::new());
        let bill = Bill::new(account, ProcessAccount::new(), AccountMode::User);
        let payer = Payer { bill, binding: Binding::Unknown(PageLimit(6)) };
        payer.charge(Delta::more(50), Strength::Resident).unwrap();
        payer.charge(Delta::more(6), Strength::Longterm).unwrap();
        assert!(payer.charge(Delta::more(1), Strength::Locked).is_err());
        payer.credit(6, Strength::Longterm);
        payer.credit(50, Strength::Resident);
        assert_eq!(payer.bill.account().charged().get(), 0);
    }

    #[test]
    fn a_simulated_machine_counts_whatever_holds_the_pages() {
        let mut child = limited();
        let process = PayingProcesses::default().find(&handle(Pid::from_child(&child)));
        let ledger = Ledger::new();
        for (binding, refused) in
            [(Binding::Process(Arc::clone(&process)), false), (Binding::Simulated(process), true)]
        {
            let bill = Bill::new(account(&ledger), ProcessAccount::new(), AccountMode::User);
            let payer = Payer { bill, binding };
            payer.charge(Delta::more(10), Strength::Copy).unwrap();
            assert_eq!(payer.charge(Delta::more(1), Strength::Copy).is_err(), refused);
            payer.credit(if refused { 10 } else { 11 }, Strength::Copy);
            assert_eq!(payer.bill.account().charged().get(), 0);
        }
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
