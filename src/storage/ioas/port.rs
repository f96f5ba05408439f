//! What an address space needs from outside: pages objects, walkers, accesses.
//!
//! Imports allowed: units, and the passive types of storage.

use std::future::Future;

use ioasd_client::units::IovaRange;

use super::AccessKey;
use crate::storage::iova_allocator::OriginAddr;
use crate::storage::order::{MoveResult, Order};
use crate::storage::step::DomainKey;

/// How a notice to an access went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notified {
    /// It answered: it let go, or cannot yet.
    Acknowledged,
    /// It did not answer in time.
    Missed,
}

/// The rest of the agent, as one address space sees it.
pub trait Port {
    /// A handle on a pages object, which lives as long as a handle does.
    type Pages: Clone;

    /// Runs a movement of `pages`. Movements of one pages object run in the order of these calls, an unpin before
    /// others that have not begun. The order counts from the first poll.
    fn run(&self, pages: &Self::Pages, order: Order) -> impl Future<Output = MoveResult>;

    /// Whether the pages object is gone, so that every movement of it fails.
    fn is_gone(&self, pages: &Self::Pages) -> bool;

    /// The address of the first byte of page 0 in the memory it comes from.
    fn origin(&self, pages: &Self::Pages) -> OriginAddr;

    /// Tells where a MAP has found its place, before anything is filled.
    fn placed(&self, _range: IovaRange) {}

    /// Whether whoever has given the pages has taken them back.
    fn is_withdrawn(&self, _: &Self::Pages) -> bool {
        false
    }

    /// Waits until no walker of `domains` can still use a translation that is gone by now.
    fn grace(&self, domains: &[DomainKey]) -> impl Future<Output = ()>;

    /// Tells `access` to let go of everything in `range`.
    fn notify(&self, access: AccessKey, range: IovaRange) -> impl Future<Output = Notified>;
}
