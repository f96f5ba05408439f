//! The port between address spaces and pages objects, walkers and accesses.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::Poll;

use ioasd::storage::ioas::{AccessKey, Ioas, Notified, Port};
use ioasd::storage::iova_allocator::OriginAddr;
use ioasd::storage::order::{MoveResult, Order};
use ioasd::storage::step::DomainKey;
use ioasd_client::units::IovaRange;

use crate::driver::Pages;
use crate::memory::Machine;
use crate::ops::Manners;

/// Whether operations are interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Each runs to its end at its first poll.
    Sequential,
    /// Each poll does a random, small number of things.
    Interleaved,
}

/// What an address space reaches the rest through.
#[derive(Clone)]
pub struct Link {
    machine: Rc<Machine>,
    pace: Pace,
    /// How notices travel.
    pub reach: Rc<Reach>,
}

/// How notices reach accesses.
#[derive(Default)]
pub struct Reach {
    /// The address spaces.
    pub ioases: RefCell<Vec<Weak<Ioas<Link>>>>,
    /// How each access takes a notice.
    pub manners: RefCell<BTreeMap<AccessKey, Manners>>,
}

impl Link {
    /// A link to the tiers of `machine`.
    pub fn new(machine: Rc<Machine>, pace: Pace) -> Self {
        Self { machine, pace, reach: Rc::default() }
    }

    fn patience(&self) -> u64 {
        if self.pace == Pace::Sequential { u64::MAX } else { self.machine.below(8) }
    }

    async fn dawdle(&self) {
        if self.pace == Pace::Sequential {
            return;
        }
        let mut polls = self.machine.below(6);
        poll_fn(|_| {
            polls = polls.saturating_sub(1);
            if polls == 0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Port for Link {
    type Pages = Rc<Pages>;

    async fn run(&self, pages: &Rc<Pages>, order: Order) -> MoveResult {
        let ticket = pages.order(order);
        poll_fn(|_| pages.poll(ticket, self.patience())).await
    }

    fn is_gone(&self, _pages: &Rc<Pages>) -> bool {
        false
    }

    fn origin(&self, pages: &Rc<Pages>) -> OriginAddr {
        OriginAddr::new(pages.source.origin())
    }

    async fn grace(&self, domains: &[DomainKey]) {
        let now = self.machine.tick();
        self.dawdle().await;
        let mut tables = self.machine.tables.borrow_mut();
        domains.iter().filter_map(|domain| tables.get_mut(domain).map(|table| table.leave(now))).count();
    }

    async fn notify(&self, access: AccessKey, range: IovaRange) -> Notified {
        self.dawdle().await;
        let manners = self.reach.manners.borrow().get(&access).copied();
        match manners.unwrap_or(Manners::LetsGo) {
            Manners::Silent => Notified::Missed,
            Manners::LetsGo => {
                let ioas = self.reach.ioases.borrow()[(access.0 / 16) as usize].upgrade().unwrap();
                ioas.let_go_within(access, range).await;
                Notified::Acknowledged
            }
            Manners::HoldsOn => Notified::Acknowledged,
        }
    }
}
