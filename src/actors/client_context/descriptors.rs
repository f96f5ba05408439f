//! Objects that a program holds as a descriptor: mock accesses and queues of events. Closing its last copy is noticed.
//!
//! The descriptor is one end of a socket pair, named so that a front end knows it again. Each has a task that serves the
//! other end until it has gone; whoever is about to carry out a command looks first, so that closing is over for it. A
//! descriptor keeps its context alive.
//!
//! Imports allowed: state, channel, objects, sys.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use ioasd_client::ids::ObjectId;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::Notify;

use super::channel::hang_up;
use super::events::{self, Readable};
use super::mock::accesses::{Items, until_closed};
use super::state::ClientState;
use crate::actors::objects::Object;
use crate::error::Errno;
use crate::storage::refusal::Refusal;
use crate::sys::socket;
use crate::sys::watched::Watched;

/// The descriptors of a context.
#[derive(Default)]
pub(super) struct Descriptors {
    open: RefCell<BTreeMap<u32, Rc<Descriptor>>>,
    /// Closed ones whose object still lets go of what it holds.
    ending: Cell<usize>,
    changed: Notify,
}

/// One descriptor.
pub(super) struct Descriptor {
    /// Our end.
    pub(super) socket: Watched<OwnedFd>,
    /// What it stands for.
    pub(super) role: Role,
}

/// What a descriptor stands for.
pub(super) enum Role {
    /// An access, which ends with it.
    Access(Items),
    /// A queue, which can be destroyed once it is closed.
    Events(Readable),
}

impl Descriptor {
    /// What an access has pinned; `None` of anything else.
    pub(super) fn items(&self) -> Option<&Items> {
        match &self.role {
            Role::Access(items) => Some(items),
            Role::Events(_) => None,
        }
    }
}

impl Descriptors {
    /// Hangs up on all of them.
    pub(super) fn hang_up(&self) {
        self.open.borrow().values().for_each(|descriptor| hang_up(&descriptor.socket));
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.open.borrow().is_empty() && self.ending.get() == 0
    }

    /// Waits until there is none.
    pub(super) async fn all_closed(&self) {
        while !self.is_empty() {
            self.changed.notified().await;
        }
    }

    /// Waits until those that are closed have let go.
    async fn settled(&self, closed: &[ObjectId]) {
        while self.ending.get() > 0 || closed.iter().any(|id| self.get(*id).is_some()) {
            self.changed.notified().await;
        }
    }

    /// The open descriptor of an object.
    pub(super) fn get(&self, id: ObjectId) -> Option<Rc<Descriptor>> {
        self.open.borrow().get(&id.get()).map(Rc::clone)
    }

    /// Those that are closed everywhere.
    fn gone(&self) -> Vec<ObjectId> {
        let open = self.open.borrow();
        let mut polled: Vec<PollFd<'_>> =
            open.values().map(|descriptor| PollFd::new(&descriptor.socket, PollFlags::RDHUP)).collect();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if polled.is_empty() || poll(&mut polled, Some(&now)).is_err() {
            return Vec::new();
        }
        let gone = open.keys().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
        gone.map(|(id, _)| ObjectId::new(*id)).collect()
    }
}

impl ClientState {
    /// Makes the descriptor of an object; its name begins with `prefix`.
    ///
    /// # Errors
    /// What the kernel says about sockets.
    pub(super) fn open_descriptor(
        self: &Rc<Self>,
        (id, prefix): (ObjectId, &[u8]),
        role: Role,
    ) -> Result<OwnedFd, Refusal> {
        self.descriptor_pair(id, prefix, role).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            Refusal::new(errno, "descriptor-open", format!("cannot open a descriptor: {error}"))
        })
    }

    fn descriptor_pair(self: &Rc<Self>, id: ObjectId, prefix: &[u8], role: Role) -> std::io::Result<OwnedFd> {
        let (own, given) = socket::pair()?;
        socket::give_name(given.as_fd(), &self.descriptor_name(prefix, id))?;
        let descriptor = Rc::new(Descriptor { socket: Watched::new(own)?, role });
        self.descriptors.open.borrow_mut().insert(id.get(), Rc::clone(&descriptor));
        let state = Rc::clone(self);
        actix_rt::spawn(async move {
            match &descriptor.role {
                Role::Access(_) => until_closed(&descriptor.socket).await,
                Role::Events(readable) => events::serve(&state, &descriptor.socket, readable).await,
            }
            drop(descriptor);
            state.descriptor_closed(id).await;
        });
        Ok(given)
    }

    /// No other socket of this machine has the same.
    fn descriptor_name(&self, prefix: &[u8], id: ObjectId) -> Vec<u8> {
        let (id, number) = (id.get().to_be_bytes(), self.agent.next_number().to_be_bytes());
        [prefix, &id, &self.agent.boot.0, &number].concat()
    }

    async fn descriptor_closed(&self, id: ObjectId) {
        let closed = self.descriptors.open.borrow_mut().remove(&id.get());
        let Some(closed) = closed else { return };
        self.descriptors.ending.set(self.descriptors.ending.get() + 1);
        if matches!(closed.role, Role::Access(_)) {
            self.end_descriptors_access(id).await;
        }
        drop(closed);
        self.descriptors.ending.set(self.descriptors.ending.get() - 1);
        self.descriptors.changed.notify_waiters();
    }

    async fn end_descriptors_access(&self, id: ObjectId) {
        let object = self.objects.borrow_mut().take_access(id);
        if let Some(object) = object {
            self.end(Object::Access(object)).await;
            self.show_figures();
        }
    }

    /// Waits until the descriptors that are closed everywhere have been noticed, and have let go.
    pub async fn reap_descriptors(&self) {
        let gone = self.descriptors.gone();
        self.descriptors.settled(&gone).await;
    }
}
