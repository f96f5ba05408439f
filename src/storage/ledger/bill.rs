//! Bills: who pays for the pins of one pages object, and by which rule.
//!
//! Two counters may be concerned: the account of the user, and in mode mm that of the process. All pins count with the
//! user; which of the two a limit binds is the mode's. What a process has pinned is shown whatever the mode.
//!
//! Imports allowed: units, error, counts, the ledger.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Account, AccountKey, AccountMode, ChargeRefused, PageLimit, add_within, apply};
use crate::storage::counts::{Charged, Delta};

/// What one process has been billed for: the agent's own `VmPin` and `VmLck` of it.
///
/// It ends with the last bill that names it. A process that has ended leaves its pins here, and a later one of the same
/// number begins anew.
#[derive(Debug, Default)]
pub struct ProcessAccount {
    pinned: AtomicU64,
    locked: AtomicU64,
}

impl ProcessAccount {
    /// Nothing is pinned.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Pages pinned for the process, in any mode.
    #[must_use]
    pub fn pinned(&self) -> Charged {
        Charged::new(self.pinned.load(Ordering::Relaxed))
    }

    /// The part of them in mode mm.
    #[must_use]
    pub fn locked(&self) -> Charged {
        Charged::new(self.locked.load(Ordering::Relaxed))
    }
}

/// Who is named when a limit is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedBy {
    /// The limit of the user.
    User(AccountKey),
    /// The limit of one process of the user.
    Process(AccountKey),
}

impl fmt::Display for LimitedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(account) => account.fmt(f),
            Self::Process(account) => write!(f, "a process of {account}"),
        }
    }
}

/// Who pays for one pages object.
#[derive(Clone, Debug)]
pub struct Bill {
    account: Arc<Account>,
    process: Arc<ProcessAccount>,
    mode: AccountMode,
}

impl Bill {
    /// `account` pays by the rule `mode` for what `process` pins.
    #[must_use]
    pub const fn new(account: Arc<Account>, process: Arc<ProcessAccount>, mode: AccountMode) -> Self {
        Self { account, process, mode }
    }

    /// The account of the user.
    #[must_use]
    pub const fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The rule.
    #[must_use]
    pub const fn mode(&self) -> AccountMode {
        self.mode
    }

    /// The same payers by another rule.
    #[must_use]
    pub fn by(&self, mode: AccountMode) -> Self {
        Self { mode, ..self.clone() }
    }

    /// Whether both are paid by the same, so that nothing moves from one to the other.
    #[must_use]
    pub fn is_paid_as(&self, other: &Self) -> bool {
        let same_process = Arc::ptr_eq(&self.process, &other.process);
        match self.mode {
            AccountMode::None => true,
            AccountMode::User => Arc::ptr_eq(&self.account, &other.account) && same_process,
            AccountMode::Mm => same_process,
        }
    }

    /// Changes the bill by `delta`; `limit` binds what is added in modes user and mm. Taking off is never refused.
    ///
    /// # Errors
    /// If the limit would be passed; nothing changes then.
    pub fn charge(&self, delta: Delta, limit: Option<PageLimit>) -> Result<(), ChargeRefused> {
        let Delta::More(pages) = delta else {
            self.force(delta);
            return Ok(());
        };
        let by_process = self.mode == AccountMode::Mm;
        if by_process {
            let by = LimitedBy::Process(self.account.key());
            add_within(&self.process.locked, pages.get(), limit, by)?;
        }
        let charged = self.account.charge(self.mode, delta, limit);
        match charged {
            Ok(()) => apply(&self.process.pinned, delta),
            Err(_) if by_process => apply(&self.process.locked, Delta::fewer(pages.get())),
            Err(_) => {}
        }
        charged
    }

    /// Changes the bill by `delta` whatever the limit: for pages that are held already, and for taking off.
    pub fn force(&self, delta: Delta) {
        self.account.force(self.mode, delta);
        if self.mode == AccountMode::Mm {
            apply(&self.process.locked, delta);
        }
        apply(&self.process.pinned, delta);
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ledger;
    use super::*;
    use crate::error::{Coded, Errno};

    const KEY: AccountKey = AccountKey { uid: 1000 };
    const LIMIT: Option<PageLimit> = Some(PageLimit(100));

    fn bill(ledger: &Ledger, process: &Arc<ProcessAccount>, mode: AccountMode) -> Bill {
        Bill::new(ledger.account(KEY), Arc::clone(process), mode)
    }

    fn figures(bill: &Bill) -> [u64; 4] {
        let Bill { account, process, .. } = bill;
        [account.charged(), account.limited(), process.pinned(), process.locked()].map(Charged::get)
    }

    #[test]
    fn mode_mm_counts_with_the_process_and_mode_user_with_the_user() {
        let (ledger, process, other) = (Ledger::new(), ProcessAccount::new(), ProcessAccount::new());
        let of_mm = bill(&ledger, &process, AccountMode::Mm);
        of_mm.charge(Delta::more(90), LIMIT).unwrap();
        assert_eq!(figures(&of_mm), [90, 0, 90, 90]);
        let of_user = bill(&ledger, &process, AccountMode::User);
        of_user.charge(Delta::more(90), LIMIT).unwrap();
        assert_eq!(figures(&of_user), [180, 90, 180, 90]);
        bill(&ledger, &other, AccountMode::Mm).charge(Delta::more(100), LIMIT).unwrap();
        let refused = of_mm.charge(Delta::more(11), LIMIT).unwrap_err();
        assert_eq!((refused.errno(), refused.code()), (Errno::NOMEM, "over-limit"));
        let text = refused.to_string();
        assert!(text.starts_with("a process of user 1000 may not pin 11 pages more: 90 of 100"), "{text}");
        assert_eq!(figures(&of_mm), [280, 90, 180, 90], "a refused charge leaves no trace");
        ledger.check();
    }

    #[test]
    fn mode_none_is_shown_and_never_refused() {
        let (ledger, process) = (Ledger::new(), ProcessAccount::new());
        let of_none = bill(&ledger, &process, AccountMode::None);
        of_none.charge(Delta::more(1000), LIMIT).unwrap();
        assert_eq!(figures(&of_none), [1000, 0, 1000, 0]);
        of_none.force(Delta::fewer(1000));
        assert_eq!(figures(&of_none), [0, 0, 0, 0]);
    }

    #[test]
    fn a_bill_that_the_user_cannot_pay_is_not_left_with_the_process() {
        let (ledger, process) = (Ledger::new(), ProcessAccount::new());
        bill(&ledger, &process, AccountMode::User).charge(Delta::more(95), LIMIT).unwrap();
        let of_user = bill(&ledger, &process, AccountMode::User);
        assert!(of_user.charge(Delta::more(6), LIMIT).is_err());
        assert_eq!(figures(&of_user), [95, 95, 95, 0]);
    }

    #[test]
    fn charges_move_only_where_another_would_pay() {
        let (ledger, one, two) = (Ledger::new(), ProcessAccount::new(), ProcessAccount::new());
        let account = ledger.account(AccountKey { uid: 1 });
        let of = |account: &Arc<Account>, process: &Arc<ProcessAccount>, mode| {
            Bill::new(Arc::clone(account), Arc::clone(process), mode)
        };
        let (mine, other) = (ledger.account(KEY), account);
        for (mode, same_user, same_process, moves) in [
            (AccountMode::None, false, false, false),
            (AccountMode::User, true, true, false),
            (AccountMode::User, true, false, true),
            (AccountMode::User, false, true, true),
            (AccountMode::Mm, false, true, false),
            (AccountMode::Mm, true, false, true),
        ] {
            let payer = if same_user { &mine } else { &other };
            let process = if same_process { &one } else { &two };
            let stays = of(&mine, &one, mode).is_paid_as(&of(payer, process, mode));
            assert_eq!(stays, !moves, "{mode:?} {same_user} {same_process}");
        }
    }
}
