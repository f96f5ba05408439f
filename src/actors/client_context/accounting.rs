//! Who pays for what a context maps: the sender of each message, by the mode of the context.
//!
//! Imports allowed: state, payer, pages, messages, storage's ledger, sys.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::state::ClientState;
use crate::actors::guard::poisoned;
use crate::actors::pages::ChangePayer;
use crate::actors::pages_handle::PagesHandle;
use crate::actors::payer::{Binding, Payer, PayingProcess};
use crate::error::Errno;
use crate::storage::ledger::bill::{Bill, ProcessAccount};
use crate::storage::ledger::{AccountKey, AccountMode};
use crate::storage::refusal::Refusal;
use crate::storage::step::Enforcement;
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
    last: RefCell<Option<Arc<PayingProcess>>>,
    /// Held while another process comes to pay.
    changing: Mutex<()>,
}

impl ClientState {
    /// Who pays for what `who` maps. A sender that is unknown has no privilege, and pays as nobody's user. A limit of the
    /// sender binds pins that lock memory.
    #[must_use]
    pub fn payer(&self, who: Option<&Sender>) -> Payer {
        let uid = who.map_or(NOBODY, |who| who.credentials.uid);
        let account = self.agent.ledger.account(AccountKey { uid });
        match who.and_then(|who| who.process.as_ref()) {
            Some(process) => {
                let paying = self.paying(process);
                let bill = Bill::new(account, Arc::clone(paying.account()), self.mode_of(process));
                Payer { bill, binding: Binding::Process(paying) }
            }
            None => {
                let bill = Bill::new(account, ProcessAccount::new(), AccountMode::User);
                Payer { bill, binding: Binding::Unknown }
            }
        }
    }

    fn mode_of(&self, process: &PidFd) -> AccountMode {
        match (holds(process, Privilege::LockMemory), self.accounting.mode.get()) {
            (Ok(true), _) => AccountMode::None,
            (Ok(false) | Err(_), RlimitMode::User) => AccountMode::User,
            (Ok(false) | Err(_), RlimitMode::Mm) => AccountMode::Mm,
        }
    }

    fn paying(&self, process: &Arc<PidFd>) -> Arc<PayingProcess> {
        let mut last = self.accounting.last.borrow_mut();
        match &*last {
            Some(known) if Arc::ptr_eq(known.process(), process) => Arc::clone(known),
            _ => Arc::clone(last.insert(self.agent.paying.find(process))),
        }
    }

    /// IOAS_CHANGE_PROCESS: `who` pays for all that is mapped now.
    ///
    /// # Errors
    /// EBUSY if an area is on its way out, EINVAL if an area shows something else than a file, ENOMEM if `who` may not pin
    /// so much. Everybody pays as before then.
    pub async fn change_process(&self, who: Option<&Sender>) -> Result<(), Refusal> {
        let _changing = self.accounting.changing.lock().await;
        let (payer, mut before) = (self.payer(who), Vec::new());
        for pages in self.all_pages().await? {
            match change_payer(&pages, payer.clone(), Enforcement::Limited).await {
                Ok(old) => before.push((pages, old)),
                Err(refusal) => {
                    give_back(before).await;
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }

    /// Every pages object that an area shows, once.
    async fn all_pages(&self) -> Result<Vec<PagesHandle>, Refusal> {
        let ioases = self.objects.borrow().ioases();
        let mut all = BTreeMap::new();
        for object in ioases {
            let pages = object.cell.all_pages().await?;
            if pages.iter().any(|pages| pages.backing().is_none()) {
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

async fn change_payer(pages: &PagesHandle, payer: Payer, enforcement: Enforcement) -> Result<Payer, Refusal> {
    let changed = pages.pages().send(ChangePayer { payer, enforcement }).await;
    changed.unwrap_or_else(|_| Err(poisoned("a pages object")))
}

/// Lets everybody pay who did before, whatever their limits.
async fn give_back(before: Vec<(PagesHandle, Payer)>) {
    for (pages, payer) in before {
        let changed = change_payer(&pages, payer, Enforcement::Forced).await;
        debug_assert!(changed.is_ok(), "an old payer does not pay again: {changed:?}");
    }
}
