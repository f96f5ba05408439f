//! Standings: how accounts stand towards something that is asked for, and not taken.
//!
//! Imports allowed: the parts of this folder.

use std::sync::Arc;

use super::counter::Figure;
use super::holder::Holder;
use super::node::{Allowance, Node};
use super::resource::Resource;

/// One counter of one account of a path, and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whose counter.
    pub holder: Arc<Holder>,
    /// Of what.
    pub resource: Resource,
    /// How it stands.
    pub figure: Figure,
    /// What is asked for on top; `None` if that is only known once it is taken.
    pub needed: Option<u64>,
}

impl Standing {
    /// Whether the hard limit stands in the way.
    #[must_use]
    pub fn binds(&self) -> bool {
        let Figure { used, limit, .. } = self.figure;
        self.needed.is_some_and(|needed| used.checked_add(needed).is_none_or(|sum| sum > limit.hard))
    }

    /// Whether the soft limit would be passed.
    #[must_use]
    pub fn is_told_of(&self) -> bool {
        let Figure { used, limit, .. } = self.figure;
        used <= limit.soft && self.needed.is_some_and(|needed| used.saturating_add(needed) > limit.soft)
    }
}

impl Node {
    /// How this account and those above it stand towards `needed` of a resource. Nothing is counted.
    pub fn standings(&self, resource: Resource, needed: Option<u64>) -> impl Iterator<Item = Standing> {
        self.path().map(move |node| Standing {
            holder: Arc::clone(node.holder()),
            resource,
            figure: node.figure(resource),
            needed,
        })
    }
}

impl Allowance {
    /// How the account and those above it stand towards `needed`. Nothing is counted.
    pub fn standings(&self, needed: u64) -> impl Iterator<Item = Standing> {
        self.node().standings(self.resource(), Some(needed))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ledger;
    use super::super::holder::TenantName;
    use super::super::limits::{Limit, Limits, TenantLimits, TreeLimits};
    use super::super::node::Want;
    use super::*;

    const AREAS: Resource = Resource::Areas;

    fn ledger(host: Limit, tenant: Limit) -> Ledger {
        let limits = |limit| Limits::NONE.with(AREAS, limit);
        let unnamed = TenantLimits { tenant: limits(tenant), ..TenantLimits::default() };
        let limits = TreeLimits { host: limits(host), unnamed, ..TreeLimits::default() };
        Ledger::with(limits, Arc::new(|_| ()))
    }

    #[test]
    fn a_standing_binds_exactly_where_a_charge_would_be_refused_and_counts_nothing() {
        for (host, tenant) in [(9, 9), (5, 9), (9, 5), (u64::MAX, 6), (6, u64::MAX)] {
            let ledger = ledger(Limit::hard(host), Limit { soft: 4, hard: tenant });
            let account = ledger.account(&TenantName::Unknown, 1, 1);
            let node = account.node();
            node.take(&[(AREAS, 3)]).unwrap();
            for needed in [0, 1, 2, 3, 4, 7, u64::MAX] {
                let wants: [Want; 1] = [(AREAS, needed)];
                let before = ledger.snapshot();
                let standings: Vec<Standing> = node.standings(AREAS, Some(needed)).collect();
                let would = node.would_take(&wants);
                assert_eq!(ledger.snapshot(), before, "a question counts nothing");
                assert_eq!(standings.len(), 4);
                let first = standings.iter().find(|standing| standing.binds());
                let refused = would.as_ref().err().map(|exceeded| (exceeded.level, exceeded.used));
                assert_eq!(first.map(|it| (it.holder.level(), it.figure.used)), refused, "{needed}");
                let soft = standings.iter().filter(|standing| standing.is_told_of()).count();
                assert_eq!(soft, usize::from(needed > 1), "{needed}");
                assert_eq!(node.take(&wants), would);
                if would.is_ok() {
                    node.give_back(&wants);
                }
            }
        }
    }

    #[test]
    fn what_is_not_known_before_binds_nowhere() {
        let ledger = ledger(Limit::hard(0), Limit::hard(0));
        let account = ledger.account(&TenantName::Unknown, 1, 1);
        assert!(account.node().standings(AREAS, None).all(|standing| !standing.binds()));
    }
}
