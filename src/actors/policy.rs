//! Policy: which tenant a process belongs to when it opens a context, and what that tenant may do.
//!
//! The first rule that matches names the tenant; where none does, the tenant is the control group of the process. Who a
//! process is comes from the kernel: user and group as of its connect, control group and program by a handle on it, so that a
//! number used again lends nobody its rights. What cannot be seen for certain matches no rule that asks for it.
//!
//! A context keeps its tenant. What a tenant may do is looked up by name whenever it is asked for, so that another policy
//! counts at once for whatever is asked from then on; what is mapped already stays.
//!
//! Imports allowed: rights, storage's ledger, `parking_lot`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use super::rights::{Granted, Rights};
use crate::storage::ledger::holder::TenantName;

/// A named tenant and who belongs to it: whoever meets all that is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// What it is called.
    pub name: String,
    /// Any of these users, if there are some.
    pub uids: Vec<u32>,
    /// Any of these groups, if there are some.
    pub gids: Vec<u32>,
    /// This control group or one below it.
    pub cgroup: Option<String>,
    /// This program.
    pub exe: Option<PathBuf>,
    /// What it may do.
    pub rights: Rights,
    /// Where all that is written.
    pub place: Arc<str>,
}

/// Who opens a context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The control group, if it is known for certain.
    pub cgroup: Option<String>,
    /// The program, if it is known for certain.
    pub exe: Option<PathBuf>,
}

impl Rule {
    fn matches(&self, who: &Identity) -> bool {
        let among = |wanted: &[u32], id: u32| wanted.is_empty() || wanted.contains(&id);
        let in_cgroup = self.cgroup.as_deref().is_none_or(|wanted| {
            who.cgroup.as_deref().is_some_and(|cgroup| Path::new(cgroup).starts_with(wanted))
        });
        let runs = self.exe.as_ref().is_none_or(|wanted| who.exe.as_ref() == Some(wanted));
        among(&self.uids, who.uid) && among(&self.gids, who.gid) && in_cgroup && runs
    }
}

/// The rules in force.
#[derive(Debug, Default)]
pub struct Policy(RwLock<Arc<[Rule]>>);

impl Policy {
    /// `rules`, in order.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(RwLock::new(rules.into()))
    }

    /// Puts other rules in force.
    pub fn replace(&self, rules: Vec<Rule>) {
        *self.0.write() = rules.into();
    }

    /// The tenant that `who` belongs to.
    #[must_use]
    pub fn tenant_of(&self, who: &Identity) -> TenantName {
        let rules = Arc::clone(&self.0.read());
        let named = rules.iter().find(|rule| rule.matches(who)).map(|rule| TenantName::named(&rule.name));
        let cgroup = || who.cgroup.as_deref().map(TenantName::of_cgroup);
        named.or_else(cgroup).unwrap_or_default()
    }

    /// What a tenant may do, and where that is written; `None` if it has no rule and may do everything.
    #[must_use]
    pub fn granted(&self, tenant: &TenantName) -> Option<Granted> {
        let TenantName::Named(name) = tenant else { return None };
        let rules = self.0.read();
        let rule = rules.iter().find(|rule| *rule.name == **name)?;
        Some(Granted { rights: rule.rights, place: Arc::clone(&rule.place) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::rights::{Deed, Right};
    use super::*;
    use crate::storage::ledger::holder::Holder;

    fn who(uid: u32, cgroup: &str) -> Identity {
        let exe = Some("/usr/bin/qemu".into());
        Identity { uid, gid: 5, cgroup: Some(cgroup.to_owned()), exe }
    }

    fn rule(name: &str) -> Rule {
        Rule { name: name.to_owned(), ..Rule::default() }
    }

    #[test]
    fn the_first_rule_all_of_which_matches_names_the_tenant_else_the_cgroup_does() {
        let policy = Policy::new(vec![
            Rule { uids: vec![7], cgroup: Some("/a/b".into()), ..rule("both") },
            Rule { gids: vec![5, 6], exe: Some("/usr/bin/qemu".into()), uids: vec![7], ..rule("program") },
            Rule { gids: vec![9], ..rule("group") },
        ]);
        let tenant = |who: &Identity| policy.tenant_of(who);
        assert_eq!(tenant(&who(7, "/a/b")), TenantName::named("both"));
        assert_eq!(tenant(&who(7, "/a/b/c")), TenantName::named("both"));
        assert_eq!(tenant(&who(7, "/a/bc")), TenantName::named("program"));
        assert_eq!(tenant(&who(8, "/a/b")), TenantName::of_cgroup("/a/b"));
        assert_eq!(tenant(&Identity { gid: 9, ..who(8, "/a") }), TenantName::named("group"));
        let unseen = Identity { uid: 7, gid: 5, cgroup: None, exe: None };
        assert_eq!(tenant(&unseen), TenantName::Unknown, "what is not seen for certain does not match");
    }

    #[test]
    fn a_tenant_without_a_rule_may_do_everything_and_another_policy_counts_at_once() {
        let denied = Rights { connect: Right::Denied, ..Rights::default() };
        let policy = Policy::new(vec![Rule { rights: denied, ..rule("guests") }]);
        let guests = TenantName::named("guests");
        let who = Arc::new(Holder::of_user(guests.clone(), 7));
        let granted = policy.granted(&guests).unwrap();
        assert!(granted.may(Deed::Connect, &who).is_err() && granted.may(Deed::Export, &who).is_ok());
        assert!(policy.granted(&TenantName::of_cgroup("guests")).is_none(), "a cgroup is no name");
        policy.replace(Vec::new());
        assert!(policy.granted(&guests).is_none());
    }
}
