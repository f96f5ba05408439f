//! A look at the whole tree.
//!
//! Only the accounts of contexts are read; those above show the sum of what was read, so that parts and totals agree
//! however much is charged meanwhile. Pins in total are the sum of those by strength, for the same reason.
//!
//! Imports allowed: the parts of this folder.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::counter::Figure;
use super::holder::{Holder, Level};
use super::node::Node;
use super::resource::Resource;
use crate::storage::source::Strength;

/// One account at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Its number: greater than that of the one above it, and never given again.
    pub number: u64,
    /// The number of the one above it.
    pub parent: Option<u64>,
    /// Whose it is.
    pub holder: Holder,
    /// Its counters, in the order of [`Resource::ALL`].
    pub figures: [Figure; Resource::COUNT],
}

impl NodeReport {
    /// One counter.
    #[must_use]
    pub fn figure(&self, resource: Resource) -> Figure {
        self.figures.get(resource.place()).copied().unwrap_or_default()
    }

    fn used(&mut self, resource: Resource) -> Option<&mut u64> {
        self.figures.get_mut(resource.place()).map(|figure| &mut figure.used)
    }

    fn of(node: &Node) -> Self {
        let (number, parent) = (node.number(), node.parent().map(|above| above.number()));
        let holder = (**node.holder()).clone();
        let mut report = Self { number, parent, holder, figures: node.figures() };
        let parts = Strength::ALL.map(Resource::of);
        let sum = parts.iter().map(|part| report.figure(*part).used).sum();
        let leaf = report.holder.level() == Level::Context;
        for resource in Resource::ALL {
            if let Some(used) = report.used(resource).filter(|_| !leaf || resource == Resource::Pinned) {
                *used = if leaf { sum } else { 0 };
            }
        }
        report
    }

    fn add(&mut self, other: &Self) {
        for resource in Resource::ALL {
            let more = other.figure(resource).used;
            if let Some(used) = self.used(resource) {
                *used = used.saturating_add(more);
            }
        }
    }
}

/// Every account, in the order of holders.
pub(super) fn of(host: &Node, nodes: &[Arc<Node>]) -> Vec<NodeReport> {
    let all = nodes.iter().map(|node| NodeReport::of(node)).chain([NodeReport::of(host)]);
    let mut reports: BTreeMap<Holder, NodeReport> =
        all.map(|report| (report.holder.clone(), report)).collect();
    let leaves: Vec<NodeReport> =
        reports.values().filter(|report| report.holder.level() == Level::Context).cloned().collect();
    for leaf in leaves {
        for level in [Level::Host, Level::Tenant, Level::User] {
            if let Some(above) = reports.get_mut(&leaf.holder.at(level)) {
                above.add(&leaf);
            }
        }
    }
    reports.into_values().collect()
}

/// Panics unless the counters themselves agree with one another.
pub(super) fn check(host: &Node, nodes: &[Arc<Node>]) {
    let expected = of(host, nodes);
    let live: BTreeMap<&Holder, &Node> =
        nodes.iter().map(|node| (&**node.holder(), &**node)).chain([(&**host.holder(), host)]).collect();
    for report in &expected {
        for (resource, node) in
            Resource::ALL.iter().filter_map(|resource| Some((*resource, *live.get(&report.holder)?)))
        {
            let (sum, used) = (report.figure(resource).used, node.used(resource));
            assert_eq!(used, sum, "{}: {resource} differ from the sum of the parts", report.holder);
        }
    }
}
