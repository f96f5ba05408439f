//! The accounts with their limits: a line for each resource that an account uses or that is limited there.
//!
//! Imports allowed: table, rows, admin's answers.

use std::collections::BTreeMap;

use clap::Args;

use super::rows::amount;
use super::table::Lean::{Left, Right};
use super::table::{Column, aligned};
use crate::admin::accounts::{AccountRow, CounterRow};

/// Which accounts are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct LimitsArgs {
    /// Only this tenant and those below it: its name, or the path of its cgroup.
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// Only this user and those below it.
    #[arg(long, value_name = "UID")]
    pub user: Option<u32>,
    /// Only this context.
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<u64>,
}

impl LimitsArgs {
    /// Those of `accounts` that are shown.
    pub(super) fn among(&self, accounts: Vec<AccountRow>) -> Vec<AccountRow> {
        accounts.into_iter().filter(|account| self.passes(account)).collect()
    }

    fn passes(&self, account: &AccountRow) -> bool {
        let tenant = self.tenant.as_ref().is_none_or(|name| account.tenant.as_ref() == Some(name));
        let user = self.user.is_none_or(|uid| account.uid == Some(uid));
        tenant && user && self.context.is_none_or(|context| account.context == Some(context))
    }
}

const COLUMNS: &[Column] = &[
    ("ACCOUNT", Left),
    ("OF", Left),
    ("USED", Right),
    ("SOFT", Right),
    ("HARD", Right),
    ("CROSSED", Right),
    ("REFUSED", Right),
];

/// Accounts for people, each followed by those below it.
pub(super) fn shown(accounts: &[AccountRow], args: &LimitsArgs) -> String {
    let mut below: BTreeMap<Option<u64>, Vec<&AccountRow>> = BTreeMap::new();
    for account in accounts {
        below.entry(account.parent).or_default().push(account);
    }
    let mut waiting: Vec<&AccountRow> = below.get(&None).cloned().unwrap_or_default();
    let mut lines = Vec::new();
    while let Some(account) = waiting.pop() {
        if args.passes(account) {
            lines.extend(lines_of(account));
        }
        waiting.extend(below.get(&Some(account.id)).into_iter().flatten().rev());
    }
    aligned(COLUMNS, &lines)
}

fn lines_of(account: &AccountRow) -> Vec<Vec<String>> {
    let worth_a_line = |counter: &CounterRow| {
        counter.used > 0 || counter.refusals > 0 || counter.soft.is_some() || counter.hard.is_some()
    };
    let counters = account.counters.iter().filter(|(_, counter)| worth_a_line(counter));
    let mut lines: Vec<Vec<String>> = counters.map(|(name, counter)| line(name, counter)).collect();
    if lines.is_empty() {
        lines.push(vec!["nothing".to_owned()]);
    }
    let names = std::iter::once(name(account)).chain(std::iter::repeat(String::new()));
    lines.into_iter().zip(names).map(|(line, name)| std::iter::once(name).chain(line).collect()).collect()
}

/// As in `  user 1000`: the deeper, the further in.
fn name(account: &AccountRow) -> String {
    let AccountRow { tenant, uid, context, .. } = account;
    match (tenant, uid, context) {
        (Some(_), Some(_), Some(context)) => format!("      context {context}"),
        (Some(_), Some(uid), None) => format!("    user {uid}"),
        (Some(tenant), ..) => format!("  tenant {tenant}"),
        (None, ..) => "host".to_owned(),
    }
}

fn line(name: &str, counter: &CounterRow) -> Vec<String> {
    let limit = |limit: Option<u64>| limit.map_or_else(|| "none".to_owned(), |limit| amount(name, limit));
    vec![
        name.to_owned(),
        amount(name, counter.used),
        limit(counter.soft),
        limit(counter.hard),
        counter.crossings.to_string(),
        counter.refusals.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(id: u64, parent: Option<u64>, (tenant, uid): (Option<&str>, Option<u32>)) -> AccountRow {
        let pinned = CounterRow { used: 8192, hard: Some(1 << 20), refusals: 3, ..CounterRow::default() };
        let areas = CounterRow { soft: Some(7), ..CounterRow::default() };
        let idle = CounterRow::default();
        let counters = [("pinned", pinned), ("areas", areas), ("tables", idle)];
        AccountRow {
            id,
            parent,
            level: String::new(),
            tenant: tenant.map(str::to_owned),
            uid,
            context: None,
            limited_bytes: None,
            counters: counters.map(|(name, counter)| (name.to_owned(), counter)).into(),
        }
    }

    #[test]
    fn each_account_is_followed_by_those_below_it_and_idle_resources_are_left_out() {
        let accounts = [
            account(1, None, (None, None)),
            account(2, Some(1), (Some("vms"), None)),
            account(3, Some(1), (Some("rest"), None)),
            account(4, Some(2), (Some("vms"), Some(7))),
        ];
        let all = shown(&accounts, &LimitsArgs::default());
        let words: Vec<Vec<&str>> = all.lines().map(|line| line.split_whitespace().collect()).collect();
        let starts: Vec<_> = words.iter().skip(1).step_by(2).map(|line| line[..2].join(" ")).collect();
        assert_eq!(starts, ["host areas", "tenant vms", "user 7", "tenant rest"]);
        assert_eq!(words[2], ["pinned", "8", "KiB", "none", "1", "MiB", "0", "3"]);
        assert!(!all.contains("tables"), "{all}");
        let one = LimitsArgs { tenant: Some("vms".to_owned()), user: Some(7), context: None };
        assert_eq!(shown(&accounts, &one).lines().count(), 1 + 2);
        assert_eq!(one.among(accounts.to_vec()).iter().map(|account| account.id).collect::<Vec<_>>(), [4]);
    }
}
