//! The notice channel of an access: NOTICE goes out as a request, the user's reply comes back.
//!
//! ```text
//!   Access ──sink──▶ ask(range) ──NOTICE, tag──▶ user ──reply, tag──▶ settled
//!   hang-up (the user is dead), or a reply to nothing ──▶ the access lets go of everything ──▶ all asked are settled
//!   the access is destroyed ──▶ its sink is dropped ──▶ hang-up
//! ```
//!
//! A reply that comes after its notice was given up is late, and ignored. What is asked of a dead user waits until the
//! access has let go, so that whoever asks finds it gone.
//!
//! Imports allowed: channel, channels, state, objects, access, storage.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};

use ioasd_client::ids::{AccessId, ObjectId};
use ioasd_client::units::IovaRange;
use ioasd_client::wire::channels::Notice;
use ioasd_client::wire::command::{Argument, Command, encode};
use ioasd_client::wire::frame::{Echo, Reply, Request, Tag};
use tokio::sync::oneshot;

use super::channel::{hang_up, receive};
use super::state::ClientState;
use crate::actors::access::NoticeSink;
use crate::actors::messages::dispatch::Incoming;
use crate::actors::objects::AccessObject;
use crate::storage::ioas::AccessNeeds;
use crate::storage::refusal::Refusal;
use crate::sys::sender::Senders;
use crate::sys::socket::{self, Loss};
use crate::sys::watched::Watched;

/// One notice channel, and the notices under way.
struct Notices {
    socket: Rc<Watched<OwnedFd>>,
    /// The access; 0 before it has its id.
    access: Cell<AccessId>,
    asked: RefCell<BTreeMap<u64, oneshot::Sender<()>>>,
    last: Cell<u64>,
}

/// Hangs up when the access is gone.
struct Sink(Rc<Notices>);

impl Drop for Sink {
    fn drop(&mut self) {
        hang_up(&self.0.socket);
    }
}

/// A notice under way; forgotten when nobody waits for it any more.
struct Asked<'a> {
    notices: &'a Notices,
    tag: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        drop(self.notices.asked.borrow_mut().remove(&self.tag));
    }
}

impl ClientState {
    /// Makes an access whose user gets notices; gives the user's end of the notice channel as well.
    ///
    /// # Errors
    /// As [`ClientState::access_create`]; EMFILE if the context has too many channels.
    pub async fn access_create_with_notices(
        self: Rc<Self>,
        ioas: ObjectId,
        needs: AccessNeeds,
    ) -> Result<(ObjectId, OwnedFd), Refusal> {
        let (socket, given) = self.channels.pair()?;
        let (access, asked, last) = Default::default();
        let notices = Rc::new(Notices { socket: Rc::clone(&socket), access, asked, last });
        let id = self.access_create(ioas, needs, sink(Rc::clone(&notices))).await?;
        notices.access.set(AccessId::new(id.get()));
        let object = Rc::downgrade(&self.look(|objects| objects.access(id))?);
        let state = Rc::clone(&self);
        self.serve(socket, async move {
            notices.listen(&state).await;
            hang_up(&notices.socket);
            state.drop_access(&object).await;
            notices.asked.borrow_mut().clear();
        });
        Ok((id, given))
    }

    /// Lets go of everything an access holds, because its user is dead; its id stays taken.
    async fn drop_access(&self, object: &Weak<AccessObject>) {
        if let Some(object) = object.upgrade() {
            tracing::info!(id = object.id.get(), "the user of an access is gone: it lets go of everything");
            self.end_access(object).await;
        }
    }
}

fn sink(notices: Rc<Notices>) -> NoticeSink {
    let sink = Sink(notices);
    Box::new(move |range| {
        let notices = Rc::clone(&sink.0);
        Box::pin(async move { notices.ask(range).await })
    })
}

impl Notices {
    /// Done when the user has answered, or is dead and what it held is gone.
    async fn ask(&self, range: IovaRange) {
        let tag = self.last.get() + 1;
        self.last.set(tag);
        let (settled, when_settled) = oneshot::channel();
        self.asked.borrow_mut().insert(tag, settled);
        let _asked = Asked { notices: self, tag };
        if let Err(error) = self.send(tag, range).await {
            tracing::debug!(%error, "a notice could not be sent: its user is gone");
        }
        drop(when_settled.await);
    }

    async fn send(&self, tag: u64, range: IovaRange) -> io::Result<()> {
        let (iova, last) = (range.start(), range.last());
        let notice = Notice { access_id: self.access.get(), iova, last, ..Notice::default() };
        let (echo, argument) = (Echo { command: Notice::NUMBER, tag: Tag(tag) }, encode(&notice));
        let request = Request { echo, argument: Argument::new(&argument) };
        let message = request.encode().map_err(io::Error::other)?;
        self.socket.write_with(|socket| socket::send(socket.as_fd(), &[&message], &[])).await
    }

    /// Takes replies until the user hangs up, or sends something else.
    async fn listen(&self, state: &ClientState) {
        let mut senders = Senders::new((*self.socket).as_fd());
        while let Ok(incoming) = receive(state, &self.socket, &mut senders).await {
            if let Err(breach) = self.settle(&incoming) {
                tracing::debug!(breach, "a user broke the protocol of notices");
                return;
            }
        }
    }

    /// Takes one reply.
    fn settle(&self, incoming: &Incoming) -> Result<(), &'static str> {
        if !incoming.fds.is_empty() || incoming.loss != Loss::None {
            return Err("a reply with descriptors, or too long");
        }
        let reply = Reply::decode(&incoming.message).map_err(|_| "not a reply")?;
        let Tag(tag) = reply.echo.tag;
        if reply.echo.command != Notice::NUMBER || tag == 0 || tag > self.last.get() {
            return Err("a reply to nothing that was asked");
        }
        if let Some(settled) = self.asked.borrow_mut().remove(&tag) {
            drop(settled);
        }
        Ok(())
    }
}
