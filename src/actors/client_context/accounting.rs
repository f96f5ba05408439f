//! Who pays for what a context maps: the sender of each message, by the mode of the context.
//!
//! Imports allowed: state, payer, pages, messages, storage's ledger, sys.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::state::ClientState;
use crate::actors::handover::hand_over;
use crate::actors::pages_handle::PagesHandle;
use crate::actors::payer::{Binding, Payer, PayingProcess, Surety};
use crate::error::Errno;
use crate::storage::ledger::bill::{Bill, ProcessAccount};
use crate::storage::ledger::{Account, AccountMode, PageLimit};
use crate::storage::refusal::Refusal;
use crate::sys::identity::{Privilege, holds};
use crate::sys::pidfd::PidFd;
use crate::sys::sender::Sender;

/// The user who pays for a sender that the kernel did not name.
const NOBODY: u32 = 65534;

/// Which limit binds what a context maps from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RlimitMode {
    /// That of the user of the sender.
    #[default]
    User,
    /// That of the sender alone.
    Mm,
}

/// The accounting of one context.
#[derive(Debug, Default)]
pub(super) struct Accounting {
    mode: Cell<RlimitMode>,
    /// The process that mapped last: mostly it maps again.
    last: RefCell<Option<Last>>,
    /// What the process that opened the context may lock, as of then.
    opener: Option<Surety>,
    /// What was mapped by senders that are not known, all together.
    unknown: Arc<ProcessAccount>,
}

#[derive(Debug)]
struct Last {
    uid: u32,
    paying: Arc<PayingProcess>,
}

impl Accounting {
    /// What a sender of user `uid` may lock that is not known: what the process of that user could that mapped last, or that
    /// opened the context.
    fn limit_of_unknown(&self, uid: u32) -> PageLimit {
        let last = self.last.borrow();
        let known = last.as_ref().map(|last| Surety { uid: last.uid, limit: last.paying.last_limit() });
        let mut sureties = known.into_iter().chain(self.opener);
        sureties.find(|surety| surety.uid == uid).map_or(PageLimit(0), |surety| surety.limit)
    }
}

impl ClientState {
    /// The same context, opened by a process of that user, with that limit, in a mode that lasts until another is chosen.
    #[must_use]
    pub fn opened_by(mut self, opener: Option<Surety>, mode: RlimitMode) -> Self {
        self.accounting.opener = opener;
        self.accounting.mode.set(mode);
        self
    }

    /// Who pays for what `who` maps. A limit of the sender binds pins that lock memory. A sender that is not known has no
    /// privilege; it pays as its user, by the word of the kernel, and one that even that does not name pays as nobody.
    #[must_use]
    pub fn payer(&self, who: Option<&Sender>) -> Payer {
        let uid = who.map_or(NOBODY, |who| who.credentials.uid);
        match who.and_then(|who| who.process.as_ref()) {
            Some(process) => self.payer_of_process(self.account_of(uid), self.paying(uid, process)),
            None => {
                let limit = who.map_or(PageLimit(0), |_| self.accounting.limit_of_unknown(uid));
                self.payer_unknown(uid, limit)
            }
        }
    }

    fn payer_of_process(&self, account: Account, paying: Arc<PayingProcess>) -> Payer {
        let mode = self.mode_of(paying.process());
        let binding = if self.agent.mock.is_some() { Binding::Simulated } else { Binding::Process };
        Payer { bill: Bill::new(account, Arc::clone(paying.account()), mode), binding: binding(paying) }
    }

    /// Who would pay for what is mapped next, as far as can be told: the process that mapped last, else the opener.
    #[must_use]
    pub fn likely_payer(&self) -> Payer {
        let last = self.accounting.last.borrow().as_ref().map(|last| (last.uid, Arc::clone(&last.paying)));
        let opener = || {
            let process = PidFd::open(self.stats.pid?).ok()?;
            Some((self.stats.uid.as_raw(), self.agent.paying.find(&Arc::new(process))))
        };
        match last.or_else(opener) {
            Some((uid, paying)) => self.payer_of_process(self.account_of(uid), paying),
            None => {
                let uid = self.stats.uid.as_raw();
                self.payer_unknown(uid, self.accounting.limit_of_unknown(uid))
            }
        }
    }

    fn payer_unknown(&self, uid: u32, limit: PageLimit) -> Payer {
        let unknown = Arc::clone(&self.accounting.unknown);
        let bill = Bill::new(self.account_of(uid), unknown, self.limited_mode());
        Payer { bill, binding: Binding::Unknown(limit) }
    }

    /// The account of user `uid` in this context: mostly that of its opener, which is at hand.
    fn account_of(&self, uid: u32) -> Account {
        if self.account.uid() == uid {
            return self.account.clone();
        }
        self.agent.ledger.account(&self.stats.tenant, uid, self.number().get())
    }

    fn mode_of(&self, process: &PidFd) -> AccountMode {
        match holds(process, Privilege::LockMemory) {
            Ok(true) => AccountMode::None,
            Ok(false) | Err(_) => self.limited_mode(),
        }
    }

    fn limited_mode(&self) -> AccountMode {
        match self.accounting.mode.get() {
            RlimitMode::User => AccountMode::User,
            RlimitMode::Mm => AccountMode::Mm,
        }
    }

    fn paying(&self, uid: u32, process: &Arc<PidFd>) -> Arc<PayingProcess> {
        let mut last = self.accounting.last.borrow_mut();
        let known = last.take().filter(|last| Arc::ptr_eq(last.paying.process(), process));
        let paying = known.map_or_else(|| self.agent.paying.find(process), |last| last.paying);
        paying.maps_as(uid);
        Arc::clone(&last.insert(Last { uid, paying }).paying)
    }

    /// IOAS_CHANGE_PROCESS: `who` pays for all that is mapped now.
    ///
    /// # Errors
    /// EBUSY if an area is on its way out, EINVAL if an area shows something else than a file, ENOMEM if `who` may not pin
    /// so much. Everybody pays as before then.
    pub async fn change_process(&self, who: Option<&Sender>) -> Result<(), Refusal> {
        let pages = self.all_pages().await?;
        hand_over(&pages, &self.payer(who))
    }

    /// Every pages object that an area shows, once.
    async fn all_pages(&self) -> Result<Vec<PagesHandle>, Refusal> {
        let ioases = self.objects.borrow().ioases();
        let mut all = BTreeMap::new();
        for object in ioases {
            let pages = object.cell.all_pages().await?;
            if pages.iter().any(|pages| pages.backing().is_bound_to_its_process()) {
                let text =
                    format!("ioas {} shows memory that is no file: it is bound to its process", object.id);
                return Err(Refusal::new(Errno::INVAL, "pages-not-of-a-file", text));
            }
            all.extend(pages.into_iter().map(|pages| (pages.number().get(), pages)));
        }
        Ok(all.into_values().collect())
    }

    /// OPTION, RLIMIT_MODE, GET.
    #[must_use]
    pub fn rlimit_mode(&self) -> RlimitMode {
        self.accounting.mode.get()
    }

    /// Whether `who` may choose the mode now.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_RESOURCE, EBUSY once the context has an object.
    pub fn may_choose_rlimit_mode(&self, who: Option<&Sender>) -> Result<(), Refusal> {
        let process = who.and_then(|who| who.process.as_ref());
        if !process.is_some_and(|process| holds(process, Privilege::ChooseLimits) == Ok(true)) {
            let text = "RLIMIT_MODE is set by a process with CAP_SYS_RESOURCE in the agent's user namespace";
            return Err(Refusal::new(Errno::PERM, "privilege-missing", text));
        }
        match self.objects.borrow().count() {
            0 => Ok(()),
            count => {
                let text = format!("RLIMIT_MODE is set before there are objects, there are {count}");
                Err(Refusal::new(Errno::BUSY, "context-has-objects", text))
            }
        }
    }

    /// OPTION, RLIMIT_MODE, SET: for everything mapped from now on.
    pub fn set_rlimit_mode(&self, mode: RlimitMode) {
        self.accounting.mode.set(mode);
    }
}
