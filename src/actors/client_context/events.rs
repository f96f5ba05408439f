//! Operations of a context on queues of events, and their descriptors: read, written and polled.
//!
//! Imports allowed: state, descriptors, channel, objects, storage, sys, the client crate's wire.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use ioasd_client::ids::ObjectId;
use ioasd_client::units::Flag;
use ioasd_client::wire::command::{Command, Decoded, encode};
use ioasd_client::wire::events::{EVENT_NAME, EVENT_TOKEN, EventRead, EventWrite};
use ioasd_client::wire::frame::{Echo, Reply, Request};

use super::channel::{hang_up, receive};
use super::descriptors::Role;
use super::state::ClientState;
use crate::actors::messages::dispatch::Incoming;
use crate::actors::objects::Object;
use crate::actors::objects::events::{EventSource, FaultQueueObject, Room, VeventqObject};
use crate::error::Errno;
use crate::storage::refusal::Refusal;
use crate::sys::sender::Senders;
use crate::sys::socket::{self, Loss};
use crate::sys::watched::Watched;

/// A queue that is read through a descriptor.
pub(super) struct Readable {
    source: Rc<dyn EventSource>,
    token: Cell<Token>,
}

/// Where the message is that lets a descriptor be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// Here: there is nothing to read.
    Here,
    /// On its way to whoever polls.
    Given,
}

impl ClientState {
    /// Makes a fault queue; gives its id and descriptor.
    ///
    /// # Errors
    /// If the context has too many objects; what the kernel says about sockets.
    pub fn fault_queue_alloc(self: &Rc<Self>) -> Result<(ObjectId, OwnedFd), Refusal> {
        let reserved = self.reserve()?;
        let id = reserved.id();
        let queue = Rc::new(FaultQueueObject::new(id));
        let given = self.open_events(Rc::<FaultQueueObject>::clone(&queue))?;
        reserved.publish(Object::FaultQueue(queue));
        Ok((id, given))
    }

    /// Makes a queue for events of one type of a vIOMMU; gives its id and descriptor.
    ///
    /// # Errors
    /// ENOENT without such a vIOMMU, EEXIST if it has a queue for the type, and as making a fault queue.
    pub fn veventq_alloc(
        self: &Rc<Self>,
        viommu: ObjectId,
        (kind, depth): (u32, u32),
    ) -> Result<(ObjectId, OwnedFd), Refusal> {
        let viommu = self.look(|objects| objects.viommu(viommu))?;
        if let Some(queue) = viommu.veventq(kind) {
            let text = format!("viommu {} has queue {} for type {kind:#x}", viommu.id, queue.id);
            return Err(Refusal::new(Errno::EXIST, "veventq-exists", text));
        }
        let reserved = self.reserve()?;
        let (id, depth) = (reserved.id(), usize::try_from(depth).unwrap_or(usize::MAX));
        let queue = Rc::new(VeventqObject::new(id, (Rc::clone(&viommu), kind), depth));
        let given = self.open_events(Rc::<VeventqObject>::clone(&queue))?;
        viommu.tell(&queue);
        reserved.publish(Object::Veventq(queue));
        Ok((id, given))
    }

    fn open_events(self: &Rc<Self>, source: Rc<dyn EventSource>) -> Result<OwnedFd, Refusal> {
        let id = source.id();
        let readable = Readable { source, token: Cell::new(Token::Here) };
        self.open_descriptor((id, EVENT_NAME), Role::Events(readable))
    }

    /// Lets whoever polls the descriptor of a queue know that there is something to read.
    pub(super) fn show_events(&self, queue: ObjectId) {
        let Some(descriptor) = self.descriptors.get(queue) else { return };
        if let Role::Events(readable) = &descriptor.role {
            readable.show(&descriptor.socket);
        }
    }
}

/// Serves the descriptor of a queue until it is closed everywhere, or somebody breaks the protocol.
pub(super) async fn serve(state: &ClientState, socket: &Watched<OwnedFd>, readable: &Readable) {
    let mut senders = Senders::new(socket.as_fd());
    while let Ok(incoming) = receive(state, socket, &mut senders).await {
        if let Err(breach) = readable.answer(socket, &incoming) {
            tracing::debug!(breach, "a reader broke the protocol of events");
            hang_up(socket);
            return;
        }
    }
}

impl Readable {
    fn show(&self, socket: &Watched<OwnedFd>) {
        if self.token.get() == Token::Given || self.source.is_empty() {
            return;
        }
        match socket::send(socket.as_fd(), &[&[0]], &[]) {
            Ok(()) => self.token.set(Token::Given),
            Err(error) => tracing::debug!(%error, "nobody can be told of an event"),
        }
    }

    /// Whoever has the answer finds the token where it belongs.
    fn answer(&self, socket: &Watched<OwnedFd>, incoming: &Incoming) -> Result<(), &'static str> {
        let Incoming { message, fds, loss, .. } = incoming;
        let Some(reader) = fds.first().filter(|_| fds.len() == 1 && *loss == Loss::None) else {
            return Err("a request without the one descriptor to answer on");
        };
        let request = Request::decode(message).map_err(|_| "not a request")?;
        let answer = match request.echo.command {
            EventRead::NUMBER => self.read(&request)?,
            EventWrite::NUMBER => self.write(&request)?,
            _ => return Err("a request that is none of a queue"),
        };
        self.show(socket);
        if let Err(error) = socket::send(reader.as_fd(), &[&answer], &[]) {
            tracing::debug!(%error, "whoever read a queue does not wait for the answer");
        }
        Ok(())
    }

    fn read(&self, request: &Request<'_>) -> Result<Vec<u8>, &'static str> {
        let value = decoded::<EventRead>(request)?.value;
        if Flag::of(value.flags, EVENT_TOKEN) == Flag::Set {
            self.token.set(Token::Here);
        }
        let read = self.source.read(Room { count: value.count, writable: value.writable });
        reply(request.echo, &read.map(|bytes| (EventRead { count: bytes.len() as u64, ..value }, bytes)))
    }

    fn write(&self, request: &Request<'_>) -> Result<Vec<u8>, &'static str> {
        let Decoded { value, payload, .. } = decoded::<EventWrite>(request)?;
        let written = self.source.write(value.count, payload);
        reply(request.echo, &written.map(|count| (EventWrite { count: count as u64, ..value }, Vec::new())))
    }
}

fn decoded<'m, C: Command>(request: &Request<'m>) -> Result<Decoded<'m, C>, &'static str> {
    request.argument.decode().map_err(|_| "a request with a broken struct")
}

fn reply<C: Command>(echo: Echo, outcome: &Result<(C, Vec<u8>), Errno>) -> Result<Vec<u8>, &'static str> {
    let message = match outcome {
        Ok((value, payload)) => Reply::done(echo, &encode(value), payload).encode(),
        Err(errno) => Reply::refused(echo, *errno, "event-queue", "the queue cannot do that").encode(),
    };
    message.map_err(|_| "an answer that does not fit into a message")
}
