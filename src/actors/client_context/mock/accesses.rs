//! Accesses that a program holds as a descriptor: closing its last copy ends them.
//!
//! The descriptor is one end of a socket pair, named so that a front end knows it again. Each access has a task that
//! waits for the other end to go; whoever is about to carry out a command looks first, so that closing is over for it.
//! An access keeps its context alive.
//!
//! What an access has pinned is a list of items. A notice drops the items it names, as the kernel's test access does.
//!
//! Imports allowed: state, channel, storage, messages, the object actors, sys.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use ioasd_client::ids::ObjectId;
use ioasd_client::units::IovaRange;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::actors::access::NoticeSink;
use crate::actors::client_context::channel::hang_up;
use crate::actors::client_context::state::ClientState;
use crate::actors::objects::Object;
use crate::error::Errno;
use crate::storage::io_pagetable::Transfer;
use crate::storage::ioas::AccessNeeds;
use crate::storage::pfn::PfnBatch;
use crate::storage::refusal::Refusal;
use crate::sys::socket;
use crate::sys::watched::Watched;

/// A notice on its way to the access's context.
type Noticed = (IovaRange, oneshot::Sender<()>);

/// The accesses of a context that are descriptors.
#[derive(Default)]
pub(in crate::actors::client_context) struct MockAccesses {
    open: RefCell<BTreeMap<u32, Rc<MockAccess>>>,
    /// Closed ones that still let go of what they hold.
    ending: Cell<usize>,
    changed: Notify,
}

struct MockAccess {
    socket: Watched<OwnedFd>,
    items: RefCell<BTreeMap<u32, IovaRange>>,
    next_item: Cell<u32>,
}

impl MockAccesses {
    /// Hangs up on all of them.
    pub(in crate::actors::client_context) fn hang_up(&self) {
        self.open.borrow().values().for_each(|access| hang_up(&access.socket));
    }

    /// Whether there is none.
    pub(in crate::actors::client_context) fn is_empty(&self) -> bool {
        self.open.borrow().is_empty() && self.ending.get() == 0
    }

    /// Waits until there is none.
    pub(in crate::actors::client_context) async fn all_closed(&self) {
        while !self.is_empty() {
            self.changed.notified().await;
        }
    }

    /// Waits until those that are closed have let go.
    async fn settled(&self) {
        while self.ending.get() > 0 {
            self.changed.notified().await;
        }
    }

    fn get(&self, id: ObjectId) -> Result<Rc<MockAccess>, Refusal> {
        self.open.borrow().get(&id.get()).map(Rc::clone).ok_or_else(|| {
            let text = "the descriptor is not one of an access of this context";
            Refusal::new(Errno::BADFD, "access-descriptor", text)
        })
    }

    /// Those whose descriptor is closed everywhere.
    fn gone(&self) -> Vec<ObjectId> {
        let open = self.open.borrow();
        let mut polled: Vec<PollFd<'_>> =
            open.values().map(|access| PollFd::new(&access.socket, PollFlags::RDHUP)).collect();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if polled.is_empty() || poll(&mut polled, Some(&now)).is_err() {
            return Vec::new();
        }
        let gone = open.keys().zip(&polled).filter(|(_, polled)| !polled.revents().is_empty());
        gone.map(|(id, _)| ObjectId::new(*id)).collect()
    }
}

impl ClientState {
    /// Makes an access; gives its id, and the descriptor that holds it.
    ///
    /// # Errors
    /// As making an access, and what the kernel says about sockets.
    pub async fn mock_access_create(
        self: &Rc<Self>,
        ioas: ObjectId,
        needs: AccessNeeds,
    ) -> Result<(ObjectId, OwnedFd), Refusal> {
        let (sender, noticed) = mpsc::channel(1);
        let id = self.access_create(ioas, needs, sink(sender)).await?;
        match self.open_access(id) {
            Ok(given) => {
                actix_rt::spawn(answer_notices(Rc::downgrade(self), id, noticed));
                Ok((id, given))
            }
            Err(error) => {
                self.destroy(id).await?;
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                Err(Refusal::new(errno, "access-open", format!("cannot open an access: {error}")))
            }
        }
    }

    fn open_access(self: &Rc<Self>, id: ObjectId) -> std::io::Result<OwnedFd> {
        let (own, given) = socket::pair()?;
        socket::give_name(given.as_fd(), &self.access_name(id))?;
        let (items, next_item) = Default::default();
        let access = Rc::new(MockAccess { socket: Watched::new(own)?, items, next_item });
        self.mock.open.borrow_mut().insert(id.get(), Rc::clone(&access));
        let state = Rc::clone(self);
        actix_rt::spawn(async move {
            until_closed(&access.socket).await;
            state.mock_access_closed(id).await;
        });
        Ok(given)
    }

    /// No other socket of this machine has the same.
    fn access_name(&self, id: ObjectId) -> Vec<u8> {
        let (id, number) = (id.get().to_be_bytes(), self.agent.next_number().to_be_bytes());
        [ioasd_client::wire::mock::ACCESS_NAME, &id, &self.agent.boot.0, &number].concat()
    }

    async fn mock_access_closed(&self, id: ObjectId) {
        let open = self.mock.open.borrow_mut().remove(&id.get());
        if open.is_none() {
            return;
        }
        self.mock.ending.set(self.mock.ending.get() + 1);
        let object = self.objects.borrow_mut().take_access(id);
        if let Some(object) = object {
            self.end(Object::Access(object)).await;
            self.show_figures();
        }
        self.mock.ending.set(self.mock.ending.get() - 1);
        self.mock.changed.notify_waiters();
    }

    /// Ends the accesses whose descriptor is closed everywhere.
    pub async fn reap_mock_accesses(&self) {
        for id in self.mock.gone() {
            self.mock_access_closed(id).await;
        }
        self.mock.settled().await;
    }

    /// Fails unless `id` is an access that is a descriptor.
    ///
    /// # Errors
    /// EBADFD.
    pub fn require_mock_access(&self, id: ObjectId) -> Result<(), Refusal> {
        self.mock.get(id).map(drop)
    }

    /// Pins a range as one more item of an access, if `check` agrees with the frames; tells the item.
    ///
    /// # Errors
    /// EBADFD without such an access, what pinning meets, and what `check` says; nothing is pinned then.
    pub async fn mock_pin(
        &self,
        access: ObjectId,
        (range, direction): (IovaRange, Transfer),
        check: impl FnOnce(&[Arc<PfnBatch>]) -> Result<(), Refusal>,
    ) -> Result<u32, Refusal> {
        let open = self.mock.get(access)?;
        let pinned = self.access_pin(access, range, direction).await?;
        if let Err(refusal) = check(&pinned) {
            self.access_unpin(access, range).await?;
            return Err(refusal);
        }
        let item = open.next_item.replace(open.next_item.get().wrapping_add(1));
        open.items.borrow_mut().insert(item, range);
        Ok(item)
    }

    /// Lets go of one item.
    ///
    /// # Errors
    /// EBADFD without such an access, ENOENT without such an item.
    pub async fn mock_unpin(&self, access: ObjectId, item: u32) -> Result<(), Refusal> {
        let open = self.mock.get(access)?;
        let range = open.items.borrow_mut().remove(&item);
        let Some(range) = range else {
            let text = format!("access {access} has no item {item}, or was asked to let go of it");
            return Err(Refusal::new(Errno::NOENT, "access-item-absent", text));
        };
        self.access_unpin(access, range).await
    }

    /// Lets go of every item that touches a range.
    async fn mock_let_go(&self, access: ObjectId, range: IovaRange) {
        let Ok(open) = self.mock.get(access) else { return };
        let touched: Vec<(u32, IovaRange)> = {
            let items = open.items.borrow();
            items
                .iter()
                .filter(|(_, pinned)| pinned.intersection(range).is_some())
                .map(|(k, v)| (*k, *v))
                .collect()
        };
        for (item, pinned) in touched {
            open.items.borrow_mut().remove(&item);
            if let Err(refusal) = self.access_unpin(access, pinned).await {
                tracing::error!(%refusal, "an item of a mock access could not be unpinned");
            }
        }
    }
}

/// Takes notices to the context, where the items are.
fn sink(context: mpsc::Sender<Noticed>) -> NoticeSink {
    Box::new(move |range| {
        let (answered, answer) = oneshot::channel();
        let context = context.clone();
        Box::pin(async move {
            let told = context.send((range, answered)).await.is_ok();
            let answered = answer.await.is_ok();
            tracing::trace!(told, answered, "a mock access was asked to let go");
        })
    })
}

async fn answer_notices(state: Weak<ClientState>, access: ObjectId, mut noticed: mpsc::Receiver<Noticed>) {
    while let Some((range, answered)) = noticed.recv().await {
        let Some(state) = state.upgrade() else { return };
        state.mock_let_go(access, range).await;
        answered.send(()).ok();
    }
}

/// Nothing is ever said on such a socket: whatever comes, or its end, is an end.
async fn until_closed(socket: &Watched<OwnedFd>) {
    let ended = socket.read_with(|socket| socket::receive(socket.as_fd(), &mut [0; 1])).await;
    tracing::trace!(said_something = ended.is_ok_and(|received| !received.is_end()), "an access was closed");
}
