//! The ledger: who pays for pins, table memory and all else that is counted, and what binds them.
//!
//! ```text
//!   host ── tenant ── user ── context      a charge goes up the path, all of it or nothing
//! ```
//!
//! One ledger serves the whole agent. A context's tenant is settled when it is opened; the user of a pin is the one whose
//! process mapped. Accounts are nothing but counters shared by `Arc`, so that charging takes no lock; the ledger only finds
//! them. An account lives as long as one below it does; those of the host and of the named tenants always do.
//!
//! The limits of the tree bind everybody. Besides, the kernel's rules for locked memory bind the pins of a user or of a
//! process ([`bill`]); what they count is counted by user over all tenants, as the kernel does.
//!
//! Imports allowed: units, error, fault_points, counts, source.

pub mod bill;
pub mod counter;
pub mod exceeded;
pub mod holder;
pub mod limits;
pub mod node;
pub mod report;
pub mod resource;
pub mod standing;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use ioasd_client::units::PAGE_SIZE;
use parking_lot::Mutex;

use self::counter::Counter;
use self::holder::{Holder, Level, TenantName};
use self::limits::{Limit, TreeLimits};
use self::node::{Node, Tell};
use self::report::NodeReport;
use self::resource::Resource;
use super::counts::Charged;

/// Accounts that have ended and are kept in the list, at least.
const SWEPT_AT_LEAST: usize = 64;

/// How the pages of one pages object are charged by the kernel's rules; fixed when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccountMode {
    /// Counted, without a limit for locked memory.
    None,
    /// Counted against the limit of the user.
    User,
    /// Counted against the limit of the process.
    Mm,
}

/// Pages that may be locked in mode user or mm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageLimit(pub u64);

/// What one user pays for in one context.
#[derive(Clone, Debug)]
pub struct Account {
    node: Arc<Node>,
    uid: u32,
    /// Pages of the user in mode user, over all tenants and contexts.
    locked: Arc<Counter>,
}

impl Account {
    /// The account in the tree.
    #[must_use]
    pub const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The user.
    #[must_use]
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// Pages charged here, in any mode.
    #[must_use]
    pub fn charged(&self) -> Charged {
        Charged::new(self.node.used(Resource::Pinned) / PAGE_SIZE)
    }

    /// Pages of this user in mode user, wherever.
    #[must_use]
    pub fn limited(&self) -> Charged {
        Charged::new(self.locked.used())
    }
}

/// Every account of the agent.
pub struct Ledger {
    host: Arc<Node>,
    tree: Mutex<Tree>,
    /// What the kernel's rule counts for each user.
    locked: DashMap<u32, Arc<Counter>>,
    tell: Tell,
}

struct Tree {
    limits: TreeLimits,
    /// All but the host that are in use, and some that ended.
    nodes: BTreeMap<Holder, Weak<Node>>,
    /// How many of them there may be before those that ended are forgotten.
    sweep_at: usize,
    /// The named tenants, whether in use or not.
    named: Vec<Arc<Node>>,
}

impl Tree {
    fn sweep(&mut self) {
        if self.nodes.len() > self.sweep_at {
            self.nodes.retain(|_, node| node.strong_count() > 0);
            self.sweep_at = 2 * self.nodes.len() + SWEPT_AT_LEAST;
        }
    }
}

impl Ledger {
    /// A ledger without accounts or limits.
    #[must_use]
    pub fn new() -> Self {
        Self::with(TreeLimits::default(), Arc::new(|_| ()))
    }

    /// A ledger under limits; `tell` is told when a soft one is passed.
    #[must_use]
    pub fn with(limits: TreeLimits, tell: Tell) -> Self {
        let host = Node::new(Holder::host(), None, &limits.host, Arc::clone(&tell));
        let tree =
            Tree { limits: TreeLimits::default(), nodes: BTreeMap::new(), sweep_at: 0, named: Vec::new() };
        let ledger = Self { host, tree: Mutex::new(tree), locked: DashMap::new(), tell };
        ledger.limit(limits);
        ledger
    }

    /// The account of what user `uid` of a tenant pays for in a context, opened if need be.
    #[must_use]
    pub fn account(&self, tenant: &TenantName, uid: u32, context: u64) -> Account {
        let holder = Holder::of_context(tenant.clone(), uid, context);
        let node = self.node(&mut self.tree.lock(), holder);
        let locked = self.locked.entry(uid).or_insert_with(|| Arc::new(Counter::new(Limit::NONE)));
        Account { node, uid, locked: Arc::clone(&locked) }
    }

    fn node(&self, tree: &mut Tree, holder: Holder) -> Arc<Node> {
        if let Some(known) = tree.nodes.get(&holder).and_then(Weak::upgrade) {
            return known;
        }
        let Some(above) = holder.parent() else { return Arc::clone(&self.host) };
        let parent = self.node(tree, above);
        let limits = tree.limits.of(&holder);
        let node = Node::new(holder.clone(), Some(parent), &limits, Arc::clone(&self.tell));
        tree.nodes.insert(holder, Arc::downgrade(&node));
        tree.sweep();
        node
    }

    /// Puts other limits in force, for all accounts at once.
    pub fn limit(&self, limits: TreeLimits) {
        let mut tree = self.tree.lock();
        let names: Vec<TenantName> = limits.named.keys().cloned().collect();
        tree.limits = limits;
        self.host.limit(&tree.limits.host);
        for (holder, node) in &tree.nodes {
            if let Some(node) = node.upgrade() {
                node.limit(&tree.limits.of(holder));
            }
        }
        let named = names.into_iter().map(|name| self.node(&mut tree, Holder::of_tenant(name))).collect();
        tree.named = named;
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> TreeLimits {
        self.tree.lock().limits.clone()
    }

    /// The account of the host: everybody together.
    #[must_use]
    pub const fn host(&self) -> &Arc<Node> {
        &self.host
    }

    /// The account that a holder has, or would have if it came now.
    #[must_use]
    pub fn find(&self, holder: &Holder) -> Arc<Node> {
        self.node(&mut self.tree.lock(), holder.clone())
    }

    /// Every account, from the host down; each follows the one above it. What an account above others uses is the sum of
    /// what they use, by construction.
    #[must_use]
    pub fn snapshot(&self) -> Vec<NodeReport> {
        report::of(&self.host, &self.live())
    }

    /// All accounts but the host's, each before those below it.
    fn live(&self) -> Vec<Arc<Node>> {
        self.tree.lock().nodes.values().filter_map(Weak::upgrade).collect()
    }

    /// Pages charged to everybody together.
    #[must_use]
    pub fn sum_charged(&self) -> Charged {
        Charged::new(self.host.used(Resource::Pinned) / PAGE_SIZE)
    }

    /// Pages charged to a user, whatever the tenant.
    #[must_use]
    pub fn charged_to(&self, uid: u32) -> Charged {
        let live = self.live();
        let users = live.iter().filter(|node| node.holder().uid() == Some(uid));
        let users = users.filter(|node| node.holder().level() == Level::User);
        Charged::new(users.map(|node| node.used(Resource::Pinned)).sum::<u64>() / PAGE_SIZE)
    }

    /// Pages of a user that count against the user's limit for locked memory.
    #[must_use]
    pub fn locked_by(&self, uid: u32) -> Charged {
        Charged::new(self.locked.get(&uid).map_or(0, |counter| counter.used()))
    }

    /// Panics unless every account uses what those below it do. For tests, while nobody charges.
    pub fn check(&self) {
        report::check(&self.host, &self.live());
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.live()).finish()
    }
}

#[cfg(test)]
mod tests;
