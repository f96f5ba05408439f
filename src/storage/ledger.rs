//! The ledger: who pays for pins and table memory.
//!
//! One ledger serves the whole agent. Accounts are shared by `Arc` and are nothing but counters, so charging takes no
//! lock; the ledger only finds them. Every pinned page is charged; a limit binds the pages charged in mode
//! [`AccountMode::User`], and in mode [`AccountMode::Mm`] those of one process ([`bill`]). The limit comes with each charge, because it is read from the payer when the charge is
//! made.
//!
//! Imports allowed: units, error, fault_points, counts.

pub mod bill;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use ioasd_client::units::ByteLen;

use self::bill::LimitedBy;
use super::counts::{Charged, Delta};
use crate::error::{Coded, Errno};
use crate::fault_points::{self, Injected, Point};

/// Who pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountKey {
    /// The user.
    pub uid: u32,
}

impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user {}", self.uid)
    }
}

/// How the pages of one pages object are charged; fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccountMode {
    /// Counted, without a limit.
    None,
    /// Counted against the limit of the user.
    User,
    /// Counted against the limit of the process.
    Mm,
}

/// Pages that an account may be charged in mode user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageLimit(pub u64);

/// Why a charge was refused; nothing is charged then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChargeRefused {
    /// The limit would be passed.
    #[error(
        "{account} may not pin {needed} pages more: {} of {} pages are in use; unmap something, or raise the limit \
         for locked memory",
        used.get(),
        limit.0
    )]
    OverLimit {
        /// Whose limit it is.
        account: LimitedBy,
        /// What is charged against it already.
        used: Charged,
        /// Pages that were asked for.
        needed: u64,
        /// Pages allowed.
        limit: PageLimit,
    },
    /// A test asked for it.
    #[error("{account} was not charged: {cause}")]
    Injected {
        /// Who was to pay.
        account: AccountKey,
        /// What failed.
        cause: Injected,
    },
}

impl Coded for ChargeRefused {
    fn errno(&self) -> Errno {
        Errno::NOMEM
    }

    fn code(&self) -> &'static str {
        match self {
            Self::OverLimit { .. } => "over-limit",
            Self::Injected { .. } => "fault-injected",
        }
    }
}

/// What one payer has been billed for.
#[derive(Debug)]
pub struct Account {
    key: AccountKey,
    /// Pages in any mode.
    charged: AtomicU64,
    /// The part of them in mode user.
    limited: AtomicU64,
    table_bytes: AtomicU64,
}

impl Account {
    const fn new(key: AccountKey) -> Self {
        let (charged, limited, table_bytes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Self { key, charged, limited, table_bytes }
    }

    /// Who pays.
    #[must_use]
    pub const fn key(&self) -> AccountKey {
        self.key
    }

    /// Pages charged, in any mode.
    #[must_use]
    pub fn charged(&self) -> Charged {
        Charged::new(self.charged.load(Ordering::Relaxed))
    }

    /// Pages charged in mode user.
    #[must_use]
    pub fn limited(&self) -> Charged {
        Charged::new(self.limited.load(Ordering::Relaxed))
    }

    /// Bytes of IO page tables.
    #[must_use]
    pub fn tables(&self) -> ByteLen {
        ByteLen::new(self.table_bytes.load(Ordering::Relaxed))
    }

    /// Changes the bill by `delta`; `limit` binds what is added in mode user. Taking off is never refused.
    ///
    /// # Errors
    /// If the limit would be passed; nothing changes then.
    pub fn charge(
        &self,
        mode: AccountMode,
        delta: Delta,
        limit: Option<PageLimit>,
    ) -> Result<(), ChargeRefused> {
        if let Delta::More(pages) = delta {
            fault_points::hit(Point::Charge)
                .map_err(|cause| ChargeRefused::Injected { account: self.key, cause })?;
            if mode == AccountMode::User {
                add_within(&self.limited, pages.get(), limit, LimitedBy::User(self.key))?;
            }
            self.charged.fetch_add(pages.get(), Ordering::Relaxed);
        } else {
            self.force(mode, delta);
        }
        Ok(())
    }

    /// Changes the bill by `delta` whatever the limit: for pages that are held already, and for taking off.
    pub fn force(&self, mode: AccountMode, delta: Delta) {
        if mode == AccountMode::User {
            apply(&self.limited, delta);
        }
        apply(&self.charged, delta);
    }

    /// Adds table memory.
    pub fn charge_tables(&self, bytes: ByteLen) {
        apply(&self.table_bytes, Delta::more(bytes.get()));
    }

    /// Takes table memory off.
    pub fn credit_tables(&self, bytes: ByteLen) {
        apply(&self.table_bytes, Delta::fewer(bytes.get()));
    }

    /// Panics unless the account keeps its rules. For tests, while nobody charges.
    pub fn check(&self) {
        assert!(self.limited() <= self.charged(), "{}: more pages limited than charged", self.key);
    }
}

/// Adds to a counter that a limit binds, or changes nothing.
fn add_within(
    counter: &AtomicU64,
    needed: u64,
    limit: Option<PageLimit>,
    account: LimitedBy,
) -> Result<(), ChargeRefused> {
    let within = |used: u64| {
        let sum = used.checked_add(needed)?;
        limit.is_none_or(|limit| sum <= limit.0).then_some(sum)
    };
    let added = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within);
    added.map(drop).map_err(|used| ChargeRefused::OverLimit {
        account,
        used: Charged::new(used),
        needed,
        limit: limit.unwrap_or(PageLimit(u64::MAX)),
    })
}

/// Never below 0: a credit without its charge is a bug, and must not turn into an endless bill.
fn apply(counter: &AtomicU64, delta: Delta) {
    match delta {
        Delta::None => {}
        Delta::More(more) => {
            counter.fetch_add(more.get(), Ordering::Relaxed);
        }
        Delta::Fewer(fewer) => {
            let take = |count: u64| Some(count.saturating_sub(fewer.get()));
            let before = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
            debug_assert!(before >= Ok(fewer.get()), "a credit of {fewer} without its charge");
        }
    }
}

/// Every account of the agent.
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: DashMap<AccountKey, Arc<Account>>,
}

impl Ledger {
    /// A ledger without accounts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The account of `key`, opened if need be.
    #[must_use]
    pub fn account(&self, key: AccountKey) -> Arc<Account> {
        let account = self.accounts.entry(key).or_insert_with(|| Arc::new(Account::new(key)));
        Arc::clone(account.value())
    }

    /// Every account, in order of keys.
    #[must_use]
    pub fn accounts(&self) -> Vec<Arc<Account>> {
        let mut accounts: Vec<_> = self.accounts.iter().map(|entry| Arc::clone(entry.value())).collect();
        accounts.sort_unstable_by_key(|account| account.key());
        accounts
    }

    /// Pages charged to all accounts together.
    #[must_use]
    pub fn sum_charged(&self) -> Charged {
        Charged::new(self.accounts.iter().map(|entry| entry.value().charged().get()).sum())
    }

    /// Panics unless every account keeps its rules. For tests, while nobody charges.
    pub fn check(&self) {
        for account in self.accounts() {
            account.check();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: AccountKey = AccountKey { uid: 1000 };
    const LIMIT: Option<PageLimit> = Some(PageLimit(100));

    #[test]
    fn a_charge_over_the_limit_changes_nothing_and_says_who_and_how_much() {
        let ledger = Ledger::new();
        let account = ledger.account(KEY);
        account.charge(AccountMode::User, Delta::more(90), LIMIT).unwrap();
        let refused = account.charge(AccountMode::User, Delta::more(11), LIMIT).unwrap_err();
        assert_eq!((refused.errno(), refused.code()), (Errno::NOMEM, "over-limit"));
        let text = refused.to_string();
        assert!(
            text.starts_with("user 1000 may not pin 11 pages more: 90 of 100 pages are in use"),
            "{text}"
        );
        assert_eq!((account.charged(), account.limited()), (Charged::new(90), Charged::new(90)));
        account.charge(AccountMode::User, Delta::more(10), LIMIT).unwrap();
        ledger.check();
        assert_eq!(ledger.sum_charged(), Charged::new(100));
    }

    #[test]
    fn the_limit_counts_pages_of_mode_user_only() {
        let account = Account::new(KEY);
        account.charge(AccountMode::None, Delta::more(1000), LIMIT).unwrap();
        account.charge(AccountMode::User, Delta::more(100), LIMIT).unwrap();
        account.charge(AccountMode::None, Delta::fewer(1000), LIMIT).unwrap();
        assert!(account.charge(AccountMode::User, Delta::more(1), LIMIT).is_err());
        account.force(AccountMode::User, Delta::more(5));
        account.charge(AccountMode::User, Delta::fewer(3), LIMIT).unwrap();
        assert_eq!((account.charged(), account.limited()), (Charged::new(102), Charged::new(102)));
        account.check();
    }

    #[test]
    fn a_user_has_one_account() {
        let ledger = Ledger::new();
        ledger.account(KEY).charge_tables(ByteLen::new(8192));
        ledger.account(KEY).credit_tables(ByteLen::new(4096));
        assert_eq!(ledger.account(KEY).tables(), ByteLen::new(4096));
        assert_eq!(ledger.account(AccountKey { uid: 1 }).tables(), ByteLen::new(0));
        let keys: Vec<_> = ledger.accounts().iter().map(|account| account.key().uid).collect();
        assert_eq!(keys, [1, 1000]);
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "without its charge"))]
    fn a_credit_without_its_charge_never_underflows() {
        let account = Account::new(KEY);
        account.force(AccountMode::None, Delta::more(1));
        account.force(AccountMode::None, Delta::fewer(2));
        assert_eq!(account.charged(), Charged::new(0));
    }

    #[test]
    fn concurrent_charges_never_pass_the_limit_and_lose_no_page() {
        let ledger = Ledger::new();
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let ledger = &ledger;
                scope.spawn(move || charge_at_random(ledger, seed));
            }
        });
        ledger.check();
        assert_eq!(ledger.sum_charged(), Charged::new(0));
        assert_eq!(ledger.account(KEY).limited(), Charged::new(0));
    }

    fn charge_at_random(ledger: &Ledger, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let account = ledger.account(KEY);
        let (mut user, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let pages = rng.u64(1..40);
            if user > 0 && rng.bool() {
                let pages = pages.min(user);
                account.force(AccountMode::User, Delta::fewer(pages));
                user -= pages;
            } else if account.charge(AccountMode::User, Delta::more(pages), LIMIT).is_ok() {
                user += pages;
            } else {
                refused += 1;
            }
            assert!(account.limited() <= Charged::new(100), "seed {seed}: the limit was passed");
        }
        assert!(refused > 0, "seed {seed}: the limit was never met");
        account.force(AccountMode::User, Delta::fewer(user));
    }
}
