//! ClientContext: one open of the agent. It lives as long as its *lease*, the socket that its client has connected, and
//! is used through channels: the lease itself, and those that were opened through it.
//!
//! ```text
//!   lease hangs up (all its copies are closed) ──▶ every channel is hung up on
//!     ──▶ running requests end, undone if they can be ──▶ accesses, devices, domains, address spaces are taken down
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | [`state`] | objects and limits of a context |
//! | [`channel`] | one channel: order, lanes, credits |
//! | [`channels`] | all of them but the lease: opening, hanging up |
//! | `notices` | the notice channel of an access |
//! | [`container`] | the address space that a VFIO container stands for |
//! | [`dirty`] | what devices have written |
//! | `descriptors`, [`events`] | objects that a program holds as a descriptor, and reads events from |
//! | [`mock`] | mock hardware |
//! | [`accounting`], `rights` | who pays; what the tenant may do |
//! | [`address_spaces`], [`process_memory`], [`devices`], [`accesses`], [`nesting`], [`hw_queues`] | operations |
//!
//! Imports allowed: sys, messages, state and its operations.

pub mod accesses;
pub mod accounting;
pub mod address_spaces;
pub mod channel;
pub mod channels;
pub mod container;
mod descriptors;
pub mod devices;
pub mod dirty;
pub mod events;
pub mod hw_queues;
pub mod hwpts;
pub mod iova_rules;
pub mod lists;
mod memory_services;
pub mod mock;
pub mod nesting;
mod notices;
pub mod process_memory;
mod rights;
pub mod state;

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix::prelude::*;
use ioasd_client::ids::ObjectId;

use self::channel::{Channel, hang_up};
use self::state::ClientState;
use super::inbox::Question;
use super::late::{listed, note};
use super::messages::questions::PayerOf;
use super::objects::Object;
use super::operation::{CLOSE, Canceller, Operation};
use crate::storage::refusal::Refusal;
use crate::sys::watched::Watched;

impl ClientState {
    /// DESTROY of any object.
    ///
    /// # Errors
    /// ENOENT without such an object, EBUSY if something refers to it.
    pub async fn destroy(&self, id: ObjectId) -> Result<(), Refusal> {
        let object = self.objects.borrow_mut().take(id).map_err(|error| Refusal::of(&error))?;
        note(|operation| operation.note_object(id));
        self.end(object).await;
        self.show_figures();
        Ok(())
    }

    async fn end(&self, object: Object) {
        match object {
            Object::Ioas(ioas) => self.end_ioas(ioas).await,
            Object::Hwpt(hwpt) => self.end_hwpt(hwpt).await,
            Object::Access(access) => self.end_access(access).await,
            Object::MockDevice(stdev) => self.end_mock_device(stdev).await,
            Object::HwQueue(queue) => self.end_hw_queue(queue).await,
            Object::Device(_)
            | Object::NestedHwpt(_)
            | Object::Viommu(_)
            | Object::Vdevice(_)
            | Object::FaultQueue(_)
            | Object::Veventq(_) => {}
        }
    }

    /// Takes everything down, unless a descriptor outlives its lease.
    async fn close_what_nobody_holds(&self) {
        self.reap_descriptors().await;
        if self.descriptors.is_empty() {
            self.close().await;
        }
    }

    /// Takes everything down: the client is gone. That is an operation of its own.
    pub async fn close(&self) {
        let operation = Arc::new(Operation::new(self.number(), Instant::now()));
        operation.note_command(CLOSE);
        listed(&self.agent.registry, operation, Box::pin(self.take_down())).await;
    }

    /// Nobody waits for it any more.
    fn cancel_what_is_under_way(&self) {
        let operations = self.agent.registry.operations();
        for entry in operations.iter().filter(|entry| entry.stats.context == self.number()) {
            let cancelled = entry.stats.cancel(Canceller::HangUp);
            tracing::debug!(operation = entry.number.get(), ?cancelled, "the client of an operation is gone");
        }
    }

    async fn take_down(&self) {
        let devices = self.objects.borrow().devices();
        for device in devices {
            self.detach_all(&device).await;
        }
        loop {
            let object = self.objects.borrow_mut().take_any_unreferenced();
            let Some(object) = object else { break };
            self.end(object).await;
        }
        let left = self.objects.borrow().count();
        if left > 0 {
            tracing::error!(left, "a context ended with objects that refer to each other");
        }
    }
}

/// One context and its lease.
pub struct ClientContext {
    state: Rc<ClientState>,
    socket: Option<OwnedFd>,
    lease: Option<Rc<Watched<OwnedFd>>>,
}

impl ClientContext {
    /// A context whose lease is `socket`.
    #[must_use]
    pub fn new(state: ClientState, socket: OwnedFd) -> Self {
        Self { state: Rc::new(state), socket: Some(socket), lease: None }
    }
}

impl Actor for ClientContext {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(super::MAILBOX);
        let Some(lease) = self.socket.take().and_then(|socket| Watched::new(socket).ok()).map(Rc::new) else {
            tracing::error!("a client's socket cannot be watched");
            return context.stop();
        };
        self.state.stats.payer.open(context.address().downgrade().recipient());
        self.lease = Some(Rc::clone(&lease));
        let served = live(Rc::clone(&self.state), lease);
        context.spawn(served.into_actor(self).map(|(), _, context| context.stop()));
    }
}

/// The life of a context.
async fn live(state: Rc<ClientState>, lease: Rc<Watched<OwnedFd>>) {
    state.agent.leases.reap().await;
    let noted = state.agent.leases.add(Rc::clone(&lease));
    let mut channel = Channel::new(Rc::clone(&state), lease);
    if let Err(errno) = &noted {
        tracing::warn!(%errno, "a lease cannot be noted: its end is not waited for by others");
    }
    channel.serve().await;
    state.channels.hang_up();
    state.cancel_what_is_under_way();
    channel.drain().await;
    state.channels.ended().await;
    state.close_what_nobody_holds().await;
    drop(noted);
    state.descriptors.all_closed().await;
    state.close().await;
}

impl Handler<Question<PayerOf>> for ClientContext {
    type Result = MessageResult<Question<PayerOf>>;

    fn handle(&mut self, question: Question<PayerOf>, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.state.outlook_of_payer(question.asked))
    }
}

/// Ends the context as if its client had hung up.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct HangUp;

impl Handler<HangUp> for ClientContext {
    type Result = ();

    fn handle(&mut self, HangUp: HangUp, _: &mut Self::Context) {
        if let Some(lease) = &self.lease {
            hang_up(lease);
        }
        self.state.descriptors.hang_up();
    }
}
