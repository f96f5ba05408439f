//! What differs between two configurations, and what of that counts without a restart.
//!
//! Limits and tenants are looked up whenever they are asked for; everything else was built into the agent when it started.
//!
//! Imports allowed: effective.

use super::effective::{Setting, parsed};

/// Limits that are settled when a channel is opened, by values that the agent was started with.
const SETTLED: [&str; 2] = ["credits_per_channel", "channels_per_context"];

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Settings that count without a restart.
    pub live: Vec<String>,
    /// Settings that need one.
    pub restart: Vec<String>,
}

impl Difference {
    /// What differs between the settings in force and `new` ones.
    #[must_use]
    pub fn between(in_force: &[Setting], new: &[Setting]) -> Self {
        let changed =
            new.iter().filter(|setting| find(in_force, setting).is_none_or(|old| !same(old, setting)));
        let gone = in_force.iter().filter(|setting| find(new, setting).is_none());
        let (live, restart): (Vec<&Setting>, Vec<&Setting>) =
            changed.chain(gone).partition(|setting| is_live(setting));
        let names = |settings: Vec<&Setting>| settings.into_iter().map(name).collect();
        let mut difference = Self { live: names(live), restart: names(restart) };
        if difference.live.is_empty() && order(in_force) != order(new) {
            difference.live.push("tenant (the order)".to_owned());
        }
        difference
    }
}

/// What is in force when `new` settings were read and only those that count without a restart were taken.
#[must_use]
pub fn taken(in_force: &[Setting], new: Vec<Setting>) -> Vec<Setting> {
    let kept = |new: Setting| match find(in_force, &new) {
        Some(old) if !is_live(&new) && !same(old, &new) => old.clone(),
        _ => new,
    };
    new.into_iter().map(kept).collect()
}

fn find<'s>(settings: &'s [Setting], wanted: &Setting) -> Option<&'s Setting> {
    settings.iter().find(|setting| (&setting.section, &setting.key) == (&wanted.section, &wanted.key))
}

/// Whether two values are the same, however they are written.
fn same(one: &Setting, other: &Setting) -> bool {
    one.value == other.value || parsed(&one.value).is_some_and(|value| parsed(&other.value) == Some(value))
}

fn is_live(setting: &Setting) -> bool {
    is_of_tenant(setting) || (setting.section == "limits" && !SETTLED.contains(&setting.key.as_str()))
}

fn is_of_tenant(setting: &Setting) -> bool {
    setting.section.starts_with("tenant.")
}

fn name(setting: &Setting) -> String {
    format!("{}.{}", setting.section, setting.key)
}

/// The tenants in the order in which they are matched.
fn order(settings: &[Setting]) -> Vec<&str> {
    let mut order: Vec<&str> =
        settings.iter().filter(|setting| is_of_tenant(setting)).map(|s| s.section.as_str()).collect();
    order.dedup();
    order
}

#[cfg(test)]
mod tests {
    use super::super::effective::Origin;
    use super::*;

    fn settings(all: &[(&str, &str, &str)]) -> Vec<Setting> {
        let setting = |&(section, key, value): &(&str, &str, &str)| Setting {
            section: section.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
            origin: Origin::Default,
            meaning: None,
        };
        all.iter().map(setting).collect()
    }

    #[test]
    fn limits_and_tenants_count_at_once_and_all_else_needs_a_restart() {
        let old = settings(&[
            ("server", "arbiters", "0"),
            ("limits", "areas_per_context", "5"),
            ("limits", "credits_per_channel", "64"),
            ("tenant.a", "uids", "[1]"),
            ("tenant.b", "uids", "[2]"),
        ]);
        let new = settings(&[
            ("server", "arbiters", "3"),
            ("limits", "areas_per_context", "6"),
            ("limits", "credits_per_channel", "65"),
            ("tenant.a", "uids", "[ 1 ]"),
            ("tenant.c", "uids", "[3]"),
        ]);
        let difference = Difference::between(&old, &new);
        assert_eq!(difference.live, ["limits.areas_per_context", "tenant.c.uids", "tenant.b.uids"]);
        assert_eq!(difference.restart, ["server.arbiters", "limits.credits_per_channel"]);
        let in_force = taken(&old, new.clone());
        assert_eq!(
            in_force.iter().map(|s| s.value.as_str()).collect::<Vec<_>>(),
            ["0", "6", "64", "[ 1 ]", "[3]"]
        );
        let again = Difference::between(&in_force, &new);
        assert_eq!(
            (again.live, again.restart.len()),
            (Vec::new(), 2),
            "what needs a restart is told until there is one"
        );
    }

    #[test]
    fn the_order_of_tenants_is_a_difference() {
        let one = settings(&[("tenant.a", "name", "\"a\""), ("tenant.b", "name", "\"b\"")]);
        let other: Vec<Setting> = one.iter().rev().cloned().collect();
        assert_eq!(Difference::between(&one, &other).live, ["tenant (the order)"]);
        assert_eq!(Difference::between(&one, &one), Difference::default());
    }
}
