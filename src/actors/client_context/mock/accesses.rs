//! Accesses that a program holds as a descriptor: closing its last copy ends them.
//!
//! What an access has pinned is a list of items. A notice drops the items it names, as the kernel's test access does.
//!
//! Imports allowed: state, descriptors, storage, messages, the object actors, sys.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use ioasd_client::ids::ObjectId;
use ioasd_client::units::IovaRange;
use ioasd_client::wire::mock::ACCESS_NAME;
use tokio::sync::{mpsc, oneshot};

use crate::actors::access::NoticeSink;
use crate::actors::client_context::descriptors::Role;
use crate::actors::client_context::state::ClientState;
use crate::error::Errno;
use crate::storage::io_pagetable::Transfer;
use crate::storage::ioas::AccessNeeds;
use crate::storage::pfn::PfnBatch;
use crate::storage::refusal::Refusal;
use crate::sys::socket;
use crate::sys::watched::Watched;

/// A notice on its way to the access's context.
type Noticed = (IovaRange, oneshot::Sender<()>);

/// What an access has pinned.
#[derive(Default)]
pub(in crate::actors::client_context) struct Items {
    ranges: RefCell<BTreeMap<u32, IovaRange>>,
    next: Cell<u32>,
}

impl Items {
    fn add(&self, range: IovaRange) -> u32 {
        let item = self.next.replace(self.next.get().wrapping_add(1));
        self.ranges.borrow_mut().insert(item, range);
        item
    }

    fn remove(&self, item: u32) -> Option<IovaRange> {
        self.ranges.borrow_mut().remove(&item)
    }

    /// Those that touch a range.
    fn touching(&self, range: IovaRange) -> Vec<u32> {
        let ranges = self.ranges.borrow();
        let touching = ranges.iter().filter(|(_, pinned)| pinned.intersection(range).is_some());
        touching.map(|(item, _)| *item).collect()
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
        match self.open_descriptor((id, ACCESS_NAME), Role::Access(Items::default())) {
            Ok(given) => {
                actix_rt::spawn(answer_notices(Rc::downgrade(self), id, noticed));
                Ok((id, given))
            }
            Err(refusal) => {
                self.destroy(id).await?;
                Err(refusal)
            }
        }
    }

    /// What an access has pinned.
    fn with_items<R>(&self, access: ObjectId, look: impl FnOnce(&Items) -> R) -> Result<R, Refusal> {
        let open = self.descriptors.get(access);
        let items = open.as_ref().and_then(|descriptor| descriptor.items());
        items.map(look).ok_or_else(|| {
            let text = "the descriptor is not one of an access of this context";
            Refusal::new(Errno::BADFD, "access-descriptor", text)
        })
    }

    /// Fails unless `id` is an access that is a descriptor.
    ///
    /// # Errors
    /// EBADFD.
    pub fn require_mock_access(&self, id: ObjectId) -> Result<(), Refusal> {
        self.with_items(id, |_| ())
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
        self.require_mock_access(access)?;
        let pinned = self.access_pin(access, range, direction).await?;
        if let Err(refusal) = check(&pinned) {
            self.access_unpin(access, range).await?;
            return Err(refusal);
        }
        self.with_items(access, |items| items.add(range))
    }

    /// Lets go of one item.
    ///
    /// # Errors
    /// EBADFD without such an access, ENOENT without such an item.
    pub async fn mock_unpin(&self, access: ObjectId, item: u32) -> Result<(), Refusal> {
        let Some(range) = self.with_items(access, |items| items.remove(item))? else {
            let text = format!("access {access} has no item {item}, or was asked to let go of it");
            return Err(Refusal::new(Errno::NOENT, "access-item-absent", text));
        };
        self.access_unpin(access, range).await
    }

    /// Lets go of every item that touches a range.
    async fn mock_let_go(&self, access: ObjectId, range: IovaRange) {
        let touched = self.with_items(access, |items| items.touching(range)).unwrap_or_default();
        for item in touched {
            if let Err(refusal) = self.mock_unpin(access, item).await {
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
pub(in crate::actors::client_context) async fn until_closed(socket: &Watched<OwnedFd>) {
    let ended = socket.read_with(|socket| socket::receive(socket.as_fd(), &mut [0; 1])).await;
    tracing::trace!(said_something = ended.is_ok_and(|received| !received.is_end()), "an access was closed");
}
