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
use ioasd_client::wire::mock::{ACCESS_NAME, MemoryPlace, PLACES_MAX};
use tokio::sync::{mpsc, oneshot};

use crate::actors::access::NoticeSink;
use crate::actors::client_context::descriptors::Role;
use crate::actors::client_context::state::ClientState;
use crate::actors::pages_handle::PagesHandle;
use crate::error::Errno;
use crate::storage::io_pagetable::{AccessPart, Transfer};
use crate::storage::ioas::AccessNeeds;
use crate::storage::pfn::PfnBatch;
use crate::storage::refusal::Refusal;
use crate::sys::pidfd::PidFd;
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

    /// Fails unless `id` is an access that is a descriptor, and may pin.
    ///
    /// # Errors
    /// EBADFD, EOPNOTSUPP.
    pub fn require_mock_pins(&self, id: ObjectId) -> Result<(), Refusal> {
        self.require_mock_access(id)?;
        if self.look(|objects| objects.access(id))?.needs == AccessNeeds::Pins {
            return Ok(());
        }
        let text = format!("access {id} was made to read and write only: make one that may pin");
        Err(Refusal::new(Errno::OPNOTSUPP, "access-cannot-pin", text))
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

    /// Where memory of `process` is that lies behind a range, from its start to the first byte that is anything else.
    ///
    /// # Errors
    /// EBADFD without such an access; as moving bytes, if that moves none.
    pub fn mock_places(
        &self,
        access: ObjectId,
        (range, direction): (IovaRange, Transfer),
        process: Option<&PidFd>,
    ) -> Result<Vec<MemoryPlace>, Refusal> {
        self.require_mock_access(access)?;
        let walk = self.access_walk(access, range, direction)?;
        if walk.parts.is_empty() {
            walk.end.map_err(|error| Refusal::of(&error))?;
        }
        let own = |part: &AccessPart<PagesHandle>| {
            let whose = process.filter(|process| part.pages.backing().is_memory_of(process));
            whose.map(|_| place_of(part))
        };
        Ok(walk.parts.iter().map_while(own).take(PLACES_MAX).collect())
    }

    /// Reads bytes of a range up to the first that cannot be read; tells why that cannot.
    ///
    /// # Errors
    /// EBADFD without such an access; as reading, if that reads none.
    pub async fn mock_read(
        &self,
        access: ObjectId,
        range: IovaRange,
    ) -> Result<(Vec<u8>, Option<Refusal>), Refusal> {
        self.require_mock_access(access)?;
        let walk = self.access_walk(access, range, Transfer::Read)?;
        let end = walk.end.err().map(|error| Refusal::of(&error));
        let last = walk.parts.last().map(|part| part.iova.last());
        match (last.and_then(|last| IovaRange::new(range.start(), last)), end) {
            (None, Some(refusal)) => Err(refusal),
            (covered, end) => Ok((self.access_read(access, covered.unwrap_or(range)).await?, end)),
        }
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

/// Where the memory is that an area shows.
fn place_of(part: &AccessPart<PagesHandle>) -> MemoryPlace {
    let offset = part.shape.offset_of(part.iova.start()).get();
    let address = part.pages.origin().get().wrapping_add(offset);
    MemoryPlace { address, length: part.iova.length().get() }
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
