//! Bills: who pays for the pins of one pages object, and by which rule.
//!
//! All pins count in the tree of accounts, whose limits bind them whatever the rule. The kernel's rules for locked memory
//! bind besides: in mode user the pages of the user, in mode mm those of the process. What a process has pinned is shown
//! whatever the mode.
//!
//! Imports allowed: units, error, fault_points, counts, source, the ledger.

use std::fmt;
use std::sync::Arc;

use ioasd_client::units::PAGE_SIZE;

use super::counter::Counter;
use super::exceeded::Exceeded;
use super::holder::Holder;
use super::limits::Limit;
use super::node::Want;
use super::resource::Resource;
use super::standing::Standing;
use super::{Account, AccountMode, PageLimit};
use crate::error::{Coded, Errno};
use crate::fault_points::{self, Injected, Point};
use crate::storage::counts::{Charged, Delta};
use crate::storage::source::Strength;

/// Why a charge was refused; nothing is charged then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChargeRefused {
    /// A limit for locked memory would be passed.
    #[error(transparent)]
    OverLimit(#[from] OverMemlock),
    /// A limit of the tree would be passed.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// A test asked for it.
    #[error("user {uid} was not charged: {cause}")]
    Injected {
        /// Who was to pay.
        uid: u32,
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
            Self::OverLimit(_) => "over-limit",
            Self::Exceeded(exceeded) => exceeded.code(),
            Self::Injected { .. } => "fault-injected",
        }
    }
}

/// What one process has been billed for: the agent's own `VmPin` and `VmLck` of it.
///
/// It ends with the last bill that names it. A process that has ended leaves its pins here, and a later one of the same
/// number begins anew.
#[derive(Debug)]
pub struct ProcessAccount {
    pinned: Counter,
    locked: Counter,
}

impl Default for ProcessAccount {
    fn default() -> Self {
        Self { pinned: Counter::new(Limit::NONE), locked: Counter::new(Limit::NONE) }
    }
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
        Charged::new(self.pinned.used())
    }

    /// The part of them in mode mm.
    #[must_use]
    pub fn locked(&self) -> Charged {
        Charged::new(self.locked.used())
    }
}

/// Whose limit for locked memory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitedBy {
    /// That of the user, over all tenants and contexts.
    User,
    /// That of the process that maps.
    Process,
}

impl LimitedBy {
    /// The word used in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Process => "process",
        }
    }
}

/// A limit for locked memory would be passed. The text is as that of an account: who asked, whose limit, of what, used, limit and
/// needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverMemlock {
    /// Who asked.
    pub who: Arc<Holder>,
    /// How the limit stands.
    pub standing: LockedStanding,
}

impl fmt::Display for OverMemlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, standing: LockedStanding { account, used, needed, limit } } = self;
        let bytes = |pages: u64| pages.saturating_mul(PAGE_SIZE);
        let (needed, used, limit) = (bytes(*needed), bytes(used.get()), bytes(limit.0));
        let whose = account.name();
        write!(
            f,
            "{who} needs {needed} bytes of locked memory more, but its {whose} has {used} of the {limit} it may have: "
        )?;
        f.write_str("unmap something, or raise RLIMIT_MEMLOCK of the process that maps")
    }
}

impl std::error::Error for OverMemlock {}

/// How a limit for locked memory stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockedStanding {
    /// Whose limit it is.
    pub account: LimitedBy,
    /// Pages that count towards it.
    pub used: Charged,
    /// Pages that are asked for.
    pub needed: u64,
    /// Pages allowed.
    pub limit: PageLimit,
}

impl LockedStanding {
    /// Whether the limit stands in the way.
    #[must_use]
    pub fn binds(&self) -> bool {
        self.used.get().checked_add(self.needed).is_none_or(|sum| sum > self.limit.0)
    }
}

/// Who pays for one pages object.
#[derive(Clone, Debug)]
pub struct Bill {
    account: Account,
    process: Arc<ProcessAccount>,
    mode: AccountMode,
}

impl Bill {
    /// `account` pays by the rule `mode` for what `process` pins.
    #[must_use]
    pub const fn new(account: Account, process: Arc<ProcessAccount>, mode: AccountMode) -> Self {
        Self { account, process, mode }
    }

    /// The account that pays.
    #[must_use]
    pub const fn account(&self) -> &Account {
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

    /// Whether the kernel's rule counts both at the same place, so that it moves nothing from one to the other.
    #[must_use]
    pub fn is_paid_as(&self, other: &Self) -> bool {
        let same_process = Arc::ptr_eq(&self.process, &other.process);
        match self.mode {
            _ if self.mode != other.mode => false,
            AccountMode::None => true,
            AccountMode::User => self.account.uid == other.account.uid && same_process,
            AccountMode::Mm => same_process,
        }
    }

    /// Changes the bill by `delta`, pins of `strength`; `limit` binds what is added in modes user and mm. Taking off is
    /// never refused.
    ///
    /// # Errors
    /// If a limit would be passed; nothing changes then.
    pub fn charge(
        &self,
        delta: Delta,
        strength: Strength,
        limit: Option<PageLimit>,
    ) -> Result<(), ChargeRefused> {
        let pages = match delta {
            Delta::None => return Ok(()),
            Delta::Fewer(pages) => {
                self.credit(pages.get(), strength);
                return Ok(());
            }
            Delta::More(pages) => pages,
        };
        let uid = self.account.uid;
        fault_points::hit(Point::Charge).map_err(|cause| ChargeRefused::Injected { uid, cause })?;
        self.lock(pages.get(), limit)?;
        let taken = self.account.node.take(&wants(pages.get(), strength));
        Ok(taken.inspect_err(|_| self.unlock(pages.get()))?)
    }

    /// Whether a charge would succeed now.
    ///
    /// # Errors
    /// What [`Bill::charge`] would say; nothing is counted.
    pub fn would_charge(
        &self,
        pages: u64,
        strength: Strength,
        limit: Option<PageLimit>,
    ) -> Result<(), ChargeRefused> {
        if let (Some(PageLimit(limit)), Some(counter)) = (limit, self.counted()) {
            let used = counter.used();
            if used.checked_add(pages).is_none_or(|sum| sum > limit) {
                return Err(self.over_limit((used, limit), pages));
            }
        }
        Ok(self.account.node.would_take(&wants(pages, strength))?)
    }

    /// How what the kernel's rule counts stands towards `limit` and `needed` pages; `None` where nothing limits it.
    #[must_use]
    pub fn locked_standing(&self, needed: u64, limit: Option<PageLimit>) -> Option<LockedStanding> {
        let (limit, counter) = (limit?, self.counted()?);
        Some(LockedStanding { account: self.limited_by(), used: Charged::new(counter.used()), needed, limit })
    }

    /// How the accounts stand towards `pages` pins of `strength`.
    pub fn standings(&self, pages: u64, strength: Strength) -> impl Iterator<Item = Standing> {
        let wants = wants(pages, strength);
        wants.into_iter().flat_map(|(resource, needed)| self.account.node.standings(resource, Some(needed)))
    }

    /// Takes `pages` pins of `strength` off the bill.
    pub fn credit(&self, pages: u64, strength: Strength) {
        self.unlock(pages);
        self.account.node.give_back(&wants(pages, strength));
    }

    /// Pays for `pages` pins of `strength` that `old` pays for, too, until one of the two lets go. An account above both counts
    /// them on and on, so that its limit does not stand in the way.
    ///
    /// # Errors
    /// If a limit would be passed; nothing changes then.
    pub fn pay_too(
        &self,
        old: &Self,
        (pages, strength): (u64, Strength),
        limit: Option<PageLimit>,
    ) -> Result<(), ChargeRefused> {
        if self.is_paid_as(old) {
            self.process.pinned.take_anyway(pages);
        } else {
            self.lock(pages, limit)?;
        }
        let taken = self.account.node.take_below(Some(&old.account.node), &wants(pages, strength));
        Ok(taken.inspect_err(|_| self.unlock_beside(old, pages))?)
    }

    /// Pays no more for what `other` pays for, too.
    pub fn let_go(&self, other: &Self, (pages, strength): (u64, Strength)) {
        self.unlock_beside(other, pages);
        self.account.node.give_back_below(Some(&other.account.node), &wants(pages, strength));
    }

    fn unlock_beside(&self, other: &Self, pages: u64) {
        if self.is_paid_as(other) {
            self.process.pinned.give_back(pages);
        } else {
            self.unlock(pages);
        }
    }

    /// What the kernel's rule counts.
    fn counted(&self) -> Option<&Counter> {
        match self.mode {
            AccountMode::None => None,
            AccountMode::User => Some(&self.account.locked),
            AccountMode::Mm => Some(&self.process.locked),
        }
    }

    fn lock(&self, pages: u64, limit: Option<PageLimit>) -> Result<(), ChargeRefused> {
        let limit = limit.map_or(u64::MAX, |limit| limit.0);
        if let Some(counter) = self.counted() {
            let taken = counter.take_within(pages, || limit);
            taken.map_err(|full| self.over_limit((full.used, full.limit), pages))?;
        }
        self.process.pinned.take_anyway(pages);
        Ok(())
    }

    fn unlock(&self, pages: u64) {
        if let Some(counter) = self.counted() {
            counter.give_back(pages);
        }
        self.process.pinned.give_back(pages);
    }

    const fn limited_by(&self) -> LimitedBy {
        match self.mode {
            AccountMode::Mm => LimitedBy::Process,
            AccountMode::None | AccountMode::User => LimitedBy::User,
        }
    }

    fn over_limit(&self, (used, limit): (u64, u64), needed: u64) -> ChargeRefused {
        let (used, limit) = (Charged::new(used), PageLimit(limit));
        let standing = LockedStanding { account: self.limited_by(), used, needed, limit };
        OverMemlock { who: Arc::clone(self.account.node.holder()), standing }.into()
    }
}

/// The parts of a charge for pins.
const fn wants(pages: u64, strength: Strength) -> [Want; 2] {
    let bytes = pages.saturating_mul(PAGE_SIZE);
    [(Resource::Pinned, bytes), (Resource::of(strength), bytes)]
}

#[cfg(test)]
mod tests {
    use super::super::Ledger;
    use super::*;
    use crate::storage::ledger::holder::TenantName;

    const UID: u32 = 1000;
    const HELD: Strength = Strength::Locked;
    const LIMIT: Option<PageLimit> = Some(PageLimit(100));

    fn bill(ledger: &Ledger, process: &Arc<ProcessAccount>, mode: AccountMode) -> Bill {
        Bill::new(account(ledger, UID), Arc::clone(process), mode)
    }

    fn account(ledger: &Ledger, uid: u32) -> Account {
        ledger.account(&TenantName::Unknown, uid, 1)
    }

    fn figures(bill: &Bill) -> [u64; 4] {
        let Bill { account, process, .. } = bill;
        [account.charged(), account.limited(), process.pinned(), process.locked()].map(Charged::get)
    }

    #[test]
    fn mode_mm_counts_with_the_process_and_mode_user_with_the_user() {
        let (ledger, process, other) = (Ledger::new(), ProcessAccount::new(), ProcessAccount::new());
        let of_mm = bill(&ledger, &process, AccountMode::Mm);
        of_mm.charge(Delta::more(90), HELD, LIMIT).unwrap();
        assert_eq!(figures(&of_mm), [90, 0, 90, 90]);
        let of_user = bill(&ledger, &process, AccountMode::User);
        of_user.charge(Delta::more(90), HELD, LIMIT).unwrap();
        assert_eq!(figures(&of_user), [180, 90, 180, 90]);
        bill(&ledger, &other, AccountMode::Mm).charge(Delta::more(100), HELD, LIMIT).unwrap();
        let refused = of_mm.charge(Delta::more(11), HELD, LIMIT).unwrap_err();
        assert_eq!((refused.errno(), refused.code()), (Errno::NOMEM, "over-limit"));
        let text = refused.to_string();
        let said = "host, no tenant, user 1000, context 1 needs 45056 bytes of locked memory more, but its process has 368640 of \
                    the 409600 it may have: unmap something, or raise RLIMIT_MEMLOCK of the process that maps";
        assert_eq!(text, said);
        assert_eq!(figures(&of_mm), [280, 90, 180, 90], "a refused charge leaves no trace");
        ledger.check();
    }

    #[test]
    fn mode_none_is_shown_and_never_refused() {
        let (ledger, process) = (Ledger::new(), ProcessAccount::new());
        let of_none = bill(&ledger, &process, AccountMode::None);
        of_none.charge(Delta::more(1000), HELD, LIMIT).unwrap();
        assert_eq!(figures(&of_none), [1000, 0, 1000, 0]);
        of_none.credit(1000, HELD);
        assert_eq!(figures(&of_none), [0, 0, 0, 0]);
    }

    #[test]
    fn a_bill_that_the_user_cannot_pay_is_not_left_with_the_process() {
        let (ledger, process) = (Ledger::new(), ProcessAccount::new());
        let before = bill(&ledger, &process, AccountMode::User);
        before.charge(Delta::more(95), HELD, LIMIT).unwrap();
        let of_user = bill(&ledger, &process, AccountMode::User);
        assert!(of_user.charge(Delta::more(6), HELD, LIMIT).is_err());
        assert_eq!(figures(&of_user), [95, 95, 95, 0]);
    }

    #[test]
    fn charges_move_only_where_another_would_pay() {
        let (ledger, one, two) = (Ledger::new(), ProcessAccount::new(), ProcessAccount::new());
        let account = account(&ledger, 1);
        let of = |account: &Account, process: &Arc<ProcessAccount>, mode| {
            Bill::new(account.clone(), Arc::clone(process), mode)
        };
        let (mine, other) = (self::account(&ledger, UID), account);
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
