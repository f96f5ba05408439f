//! Nodes: the accounts of a tree, each of which counts what all below it use together.
//!
//! A charge goes up the path, from a context to the host, all of it or nothing: a node that refuses makes those below it
//! give back what they had taken. Meanwhile another charge may be refused that would have fitted a moment later; none
//! ever passes a limit. Soft limits are told of when the whole path has taken the charge.
//!
//! What a node has when it ends is given back by those above it: what is taken for a context never outlives it.
//!
//! Imports allowed: the parts of this folder.

use std::fmt;
use std::iter;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::counter::{Counter, Figure, Soft};
use super::exceeded::Exceeded;
use super::holder::Holder;
use super::limits::{Limit, Limits};
use super::resource::Resource;

/// The last number given to an account.
static LAST: AtomicU64 = AtomicU64::new(0);

/// A soft limit was passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// Whose.
    pub holder: Holder,
    /// Of what.
    pub resource: Resource,
    /// The limit.
    pub limit: u64,
}

impl fmt::Display for Crossing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { holder, resource, limit } = self;
        write!(f, "{holder} has more {resource} than its soft limit of {limit}")
    }
}

/// What is done when a soft limit is passed.
pub type Tell = Arc<dyn Fn(Crossing) + Send + Sync>;

/// Part of a charge.
pub type Want = (Resource, u64);

/// One account.
pub struct Node {
    number: u64,
    holder: Arc<Holder>,
    parent: Option<Arc<Self>>,
    counters: [Counter; Resource::COUNT],
    tell: Tell,
}

impl Node {
    /// Nothing is used.
    #[must_use]
    pub fn new(holder: Holder, parent: Option<Arc<Self>>, limits: &Limits, tell: Tell) -> Arc<Self> {
        let counters = Resource::ALL.map(|resource| Counter::new(limits.get(resource)));
        let number = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        Arc::new(Self { number, holder: Arc::new(holder), parent, counters, tell })
    }

    /// An account that belongs to nobody's tree.
    #[must_use]
    pub fn alone(limits: &Limits) -> Arc<Self> {
        Self::new(Holder::host(), None, limits, Arc::new(|_| ()))
    }

    /// Its number: greater than that of the one above it, and never given again.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The account above it.
    #[must_use]
    pub const fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }

    /// Whose it is.
    #[must_use]
    pub const fn holder(&self) -> &Arc<Holder> {
        &self.holder
    }

    /// The account itself and those above it.
    pub fn path(&self) -> impl Iterator<Item = &Self> {
        iter::successors(Some(self), |node| node.parent.as_deref())
    }

    /// The same, as far as they are not above `other`, too.
    fn path_below<'a>(&'a self, other: Option<&'a Self>) -> impl Iterator<Item = &'a Self> {
        let shared =
            move |node: &Self| other.is_some_and(|other| other.path().any(|above| ptr::eq(above, node)));
        self.path().take_while(move |node| !shared(node))
    }

    #[expect(clippy::indexing_slicing, reason = "a resource is its own place among all, as a test proves")]
    const fn counter(&self, resource: Resource) -> &Counter {
        &self.counters[resource.place()]
    }

    /// Takes all of `wants`, here and all the way up, or nothing.
    ///
    /// # Errors
    /// If a hard limit would be passed anywhere.
    pub fn take(&self, wants: &[Want]) -> Result<(), Exceeded> {
        self.take_below(None, wants)
    }

    /// Takes `wants` where `other` does not count them, too.
    ///
    /// # Errors
    /// If a hard limit would be passed there.
    pub fn take_below(&self, other: Option<&Self>, wants: &[Want]) -> Result<(), Exceeded> {
        let mut crossings = Crossings::default();
        for (step, (node, (resource, needed))) in self.steps(other, wants).enumerate() {
            match node.counter(resource).take(needed) {
                Ok(soft) => crossings.note(step, soft),
                Err(full) => {
                    self.undo(other, wants, (step, crossings));
                    let (who, level) = (Arc::clone(&self.holder), node.holder.level());
                    return Err(Exceeded {
                        who,
                        level,
                        resource,
                        used: full.used,
                        limit: full.limit,
                        needed,
                    });
                }
            }
        }
        for (_, (node, (resource, _))) in crossings.of(self.steps(other, wants)) {
            node.tell_crossing(resource);
        }
        Ok(())
    }

    /// Whether `wants` would be taken now.
    ///
    /// # Errors
    /// What [`Node::take`] would say; nothing is counted.
    pub fn would_take(&self, wants: &[Want]) -> Result<(), Exceeded> {
        self.steps(None, wants).try_for_each(|(node, (resource, needed))| {
            let Figure { used, limit, .. } = node.figure(resource);
            if used.checked_add(needed).is_some_and(|sum| sum <= limit.hard) {
                return Ok(());
            }
            let (who, level) = (Arc::clone(&self.holder), node.holder.level());
            Err(Exceeded { who, level, resource, used, limit: limit.hard, needed })
        })
    }

    /// Takes `wants` whatever the limits: they are in use already.
    pub fn take_anyway(&self, wants: &[Want]) {
        for (node, (resource, needed)) in self.steps(None, wants) {
            if node.counter(resource).take_anyway(needed) == Soft::Crossed {
                node.tell_crossing(resource);
            }
        }
    }

    /// Gives back what was taken, here and all the way up.
    pub fn give_back(&self, wants: &[Want]) {
        self.give_back_below(None, wants);
    }

    /// Gives back what was taken, where `other` does not count it, too.
    pub fn give_back_below(&self, other: Option<&Self>, wants: &[Want]) {
        for (node, (resource, count)) in self.steps(other, wants) {
            node.counter(resource).give_back(count);
        }
    }

    fn steps<'a>(
        &'a self,
        other: Option<&'a Self>,
        wants: &'a [Want],
    ) -> impl Iterator<Item = (&'a Self, Want)> {
        self.path_below(other).flat_map(move |node| wants.iter().map(move |want| (node, *want)))
    }

    /// Gives back what the first steps of a refused charge took. If others took so much meanwhile that a soft limit stays
    /// passed, which this charge was the first to pass, that is told of.
    fn undo(&self, other: Option<&Self>, wants: &[Want], (taken, crossings): (usize, Crossings)) {
        for (step, (node, (resource, count))) in self.steps(other, wants).take(taken).enumerate() {
            let counter = node.counter(resource);
            counter.give_back(count);
            if crossings.has(step) && counter.used() > counter.limits().soft {
                node.tell_crossing(resource);
            }
        }
    }

    fn tell_crossing(&self, resource: Resource) {
        let counter = self.counter(resource);
        counter.note_crossing();
        let limit = counter.limits().soft;
        (self.tell)(Crossing { holder: (*self.holder).clone(), resource, limit });
    }

    /// Sets other limits.
    pub fn limit(&self, limits: &Limits) {
        for resource in Resource::ALL {
            if self.counter(resource).limit(limits.get(resource)) == Soft::Crossed {
                self.tell_crossing(resource);
            }
        }
    }

    /// What is used of a resource.
    #[must_use]
    pub fn used(&self, resource: Resource) -> u64 {
        self.counter(resource).used()
    }

    /// The limits of a resource.
    #[must_use]
    pub fn limits(&self, resource: Resource) -> Limit {
        self.counter(resource).limits()
    }

    /// One counter now.
    #[must_use]
    pub fn figure(&self, resource: Resource) -> Figure {
        self.counter(resource).figure()
    }

    /// Every counter now, in the order of [`Resource::ALL`].
    #[must_use]
    pub fn figures(&self) -> [Figure; Resource::COUNT] {
        Resource::ALL.map(|resource| self.counter(resource).figure())
    }
}

/// Which steps of a charge passed a soft limit.
#[derive(Clone, Copy, Default)]
struct Crossings(u64);

impl Crossings {
    fn note(&mut self, step: usize, soft: Soft) {
        if soft == Soft::Crossed {
            self.0 |= bit(step);
        }
    }

    const fn has(self, step: usize) -> bool {
        self.0 & bit(step) != 0
    }

    /// Those of `steps`; mostly none, and then none is looked at.
    fn of<T>(self, steps: impl Iterator<Item = T>) -> impl Iterator<Item = (usize, T)> {
        let looked_at = if self.0 == 0 { 0 } else { usize::MAX };
        steps.take(looked_at).enumerate().filter(move |(step, _)| self.has(*step))
    }
}

/// A path has few steps: four accounts, and two resources of each at most.
const fn bit(step: usize) -> u64 {
    1 << (step % 64)
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(parent) = &self.parent {
            let left = Resource::ALL.map(|resource| (resource, self.used(resource)));
            if left.iter().any(|(_, used)| *used > 0) {
                parent.give_back(&left);
            }
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.holder).finish()
    }
}

/// One resource of an account, for whoever takes of nothing else.
#[derive(Clone, Debug)]
pub struct Allowance {
    node: Arc<Node>,
    resource: Resource,
}

impl Allowance {
    /// What `node` may use of `resource`.
    #[must_use]
    pub const fn new(node: Arc<Node>, resource: Resource) -> Self {
        Self { node, resource }
    }

    /// Whose account it is.
    #[must_use]
    pub const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Of what.
    #[must_use]
    pub const fn resource(&self) -> Resource {
        self.resource
    }

    /// So much of `resource`, on nobody's account.
    #[must_use]
    pub fn alone(resource: Resource, hard: u64) -> Self {
        Self::new(Node::alone(&Limits::NONE.with(resource, Limit::hard(hard))), resource)
    }

    /// Any amount of `resource`, on nobody's account.
    #[must_use]
    pub fn unlimited(resource: Resource) -> Self {
        Self::alone(resource, u64::MAX)
    }

    /// Takes `needed`, all of it or nothing.
    ///
    /// # Errors
    /// If that would pass a limit.
    pub fn take(&self, needed: u64) -> Result<(), Exceeded> {
        self.node.take(&[(self.resource, needed)])
    }

    /// Takes `needed` whatever the limits: it is in use already.
    pub fn take_anyway(&self, needed: u64) {
        self.node.take_anyway(&[(self.resource, needed)]);
    }

    /// Gives back what was taken.
    pub fn give_back(&self, count: u64) {
        self.node.give_back(&[(self.resource, count)]);
    }

    /// What the account uses.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.node.used(self.resource)
    }

    /// The hard limit of the account itself.
    #[must_use]
    pub fn hard(&self) -> u64 {
        self.node.limits(self.resource).hard
    }

    /// Whether `needed` would be taken now.
    ///
    /// # Errors
    /// What [`Allowance::take`] would say; nothing is counted.
    pub fn would_take(&self, needed: u64) -> Result<(), Exceeded> {
        self.node.would_take(&[(self.resource, needed)])
    }
}
