//! The books: what one scrape says of memory. Every figure of a pages object or domain is read once; totals are sums of
//! the very numbers that the parts show, so they add up whatever moves meanwhile.
//!
//! Accounts and contexts beyond a cap are folded into one: those that have most pinned are shown by name.
//!
//! Imports allowed: units, `storage::source`, figures, the registry, distinct.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::distinct::Distinct;
use crate::actors::figures::PagesStats;
use crate::actors::registry::Snapshot;
use crate::storage::source::Strength;

/// Who pays, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Account {
    /// A user.
    User(u32),
    /// More than one user: of distinct bytes only.
    Shared,
    /// Those beyond the cap.
    Others,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "{uid}"),
            Self::Shared => f.write_str("(shared)"),
            Self::Others => f.write_str("(others)"),
        }
    }
}

/// Bytes of some pages objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) length: u64,
    pub(super) pinned: u64,
    pub(super) held: u64,
    pub(super) charged: u64,
    pub(super) retiring: u64,
    pub(super) distinct: u64,
}

impl Sums {
    fn of(stats: &PagesStats) -> Self {
        Self {
            length: stats.length.get(),
            pinned: stats.pinned.get().get(),
            held: stats.held.get().get(),
            charged: stats.charged.get().get(),
            retiring: stats.retiring.get().get(),
            distinct: 0,
        }
    }

    fn add(&mut self, other: &Self) {
        self.length = self.length.saturating_add(other.length);
        self.pinned = self.pinned.saturating_add(other.pinned);
        self.held = self.held.saturating_add(other.held);
        self.charged = self.charged.saturating_add(other.charged);
        self.retiring = self.retiring.saturating_add(other.retiring);
        self.distinct = self.distinct.saturating_add(other.distinct);
    }
}

/// What domains map, and what their tables take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TableSums {
    pub(super) mapped: u64,
    pub(super) table: u64,
}

/// Domains by account and format.
pub(super) type Tables = BTreeMap<(Account, &'static str), TableSums>;

/// Sums by their key, where those beyond the cap are one.
#[derive(Debug)]
pub(super) struct Folded<K> {
    shown: BTreeSet<K>,
    /// How many are folded.
    pub(super) folded: usize,
}

impl<K: Copy + Ord> Folded<K> {
    /// The `cap` heaviest of `weights` are shown.
    fn heaviest(weights: &BTreeMap<K, u64>, cap: usize) -> Self {
        let mut order: Vec<(u64, K)> = weights.iter().map(|(key, weight)| (*weight, *key)).collect();
        order.sort_unstable_by(|(one, first), (other, second)| other.cmp(one).then(first.cmp(second)));
        let shown: BTreeSet<K> = order.into_iter().take(cap).map(|(_, key)| key).collect();
        Self { folded: weights.len() - shown.len(), shown }
    }

    /// `key` if it is shown.
    fn shown(&self, key: K) -> Option<K> {
        self.shown.get(&key).copied()
    }
}

/// What one scrape says of memory.
#[derive(Debug)]
pub(super) struct Books {
    /// Pages objects by account and strength.
    pub(super) pages: BTreeMap<(Account, Strength), Sums>,
    /// Domains.
    pub(super) tables: Tables,
    /// Pinned bytes by context; those beyond the cap under `None`.
    pub(super) contexts: BTreeMap<Option<u64>, u64>,
    /// Accounts that are folded.
    pub(super) accounts_folded: usize,
    /// Contexts that are folded.
    pub(super) contexts_folded: usize,
    /// Bytes whose pages were not compared with those of others.
    pub(super) unmerged: u64,
}

impl Books {
    /// The books of `snapshot`, with `cap` accounts and `cap` contexts shown by name.
    pub(super) fn of(snapshot: &Snapshot, cap: usize) -> Self {
        let read: Vec<(&PagesStats, u32, Sums)> = snapshot
            .pages
            .iter()
            .map(|entry| (&*entry.stats, entry.stats.account.get().as_raw(), Sums::of(&entry.stats)))
            .collect();
        let (mut users, mut contexts) = (BTreeMap::new(), BTreeMap::new());
        for (stats, uid, sums) in &read {
            *users.entry(*uid).or_default() += sums.pinned;
            *contexts.entry(stats.context.get()).or_default() += sums.pinned;
        }
        let accounts = Folded::heaviest(&users, cap);
        let shown_contexts = Folded::heaviest(&contexts, cap);
        let account = |uid| accounts.shown(uid).map_or(Account::Others, Account::User);
        let distinct =
            Distinct::of(read.iter().map(|(stats, uid, sums)| (*stats, account(*uid), sums.pinned)));
        Self {
            pages: pages(
                read.iter().map(|(stats, uid, sums)| ((account(*uid), stats.strength), sums)),
                &distinct,
            ),
            tables: tables(snapshot, account),
            contexts: folded(&contexts, &shown_contexts),
            accounts_folded: accounts.folded,
            contexts_folded: shown_contexts.folded,
            unmerged: distinct.unmerged,
        }
    }

    /// The sums of all accounts at one strength.
    pub(super) fn total(&self, strength: Strength) -> Sums {
        let those = self.pages.iter().filter(|((_, other), _)| *other == strength);
        those.fold(Sums::default(), |mut total, (_, sums)| {
            total.add(sums);
            total
        })
    }
}

fn pages<'a>(
    read: impl Iterator<Item = ((Account, Strength), &'a Sums)>,
    distinct: &Distinct,
) -> BTreeMap<(Account, Strength), Sums> {
    let mut pages = BTreeMap::<_, Sums>::new();
    for (key, sums) in read {
        pages.entry(key).or_default().add(sums);
    }
    for (key, bytes) in &distinct.bytes {
        pages.entry(*key).or_default().distinct = *bytes;
    }
    pages
}

/// A domain is paid by the user who opened its context.
fn tables(snapshot: &Snapshot, account: impl Fn(u32) -> Account) -> Tables {
    let users: BTreeMap<u64, u32> =
        snapshot.contexts.iter().map(|entry| (entry.number.get(), entry.stats.uid.as_raw())).collect();
    let owners: BTreeMap<u64, u64> =
        snapshot.ioases.iter().map(|entry| (entry.number.get(), entry.stats.context.get())).collect();
    let mut tables = Tables::new();
    for domain in &snapshot.domains {
        let uid = owners.get(&domain.stats.ioas.get()).and_then(|context| users.get(context));
        let account = uid.map_or(Account::Others, |uid| account(*uid));
        let sums = tables.entry((account, domain.stats.format)).or_default();
        sums.mapped = sums.mapped.saturating_add(domain.stats.mapped.get().get());
        sums.table = sums.table.saturating_add(domain.stats.table.get().get());
    }
    tables
}

fn folded(weights: &BTreeMap<u64, u64>, shown: &Folded<u64>) -> BTreeMap<Option<u64>, u64> {
    let mut sums = BTreeMap::from([(None, 0)]);
    for (key, weight) in weights {
        *sums.entry(shown.shown(*key)).or_default() += weight;
    }
    sums
}

#[cfg(test)]
mod tests {
    use ioasd_client::units::ByteLen;

    use super::*;
    use crate::actors::figures::examples;
    use crate::actors::registry::Registry;

    #[test]
    fn those_beyond_the_cap_are_one_and_nothing_is_lost() {
        let registry = Registry::new();
        let pages: Vec<_> = (0..5)
            .map(|uid| {
                let pages = registry.register_pages(examples::pages(8192, uid));
                pages.pinned.set(ByteLen::new(4096 * u64::from(uid)));
                pages
            })
            .collect();
        let books = Books::of(&registry.snapshot(), 2);
        let accounts: Vec<(Account, u64)> =
            books.pages.iter().map(|((account, _), sums)| (*account, sums.pinned / 4096)).collect();
        assert_eq!(accounts, [(Account::User(3), 3), (Account::User(4), 4), (Account::Others, 3)]);
        assert_eq!((books.accounts_folded, books.contexts_folded), (3, 0));
        assert_eq!(books.total(Strength::Resident).pinned, 10 * 4096);
        assert_eq!(Books::of(&registry.snapshot(), 0).contexts, BTreeMap::from([(None, 10 * 4096)]));
        drop(pages);
    }
}
