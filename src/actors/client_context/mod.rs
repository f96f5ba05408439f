//! ClientContext: one open of the agent. Reads its client's socket, keeps order and credits, and clears up when the
//! client is gone.
//!
//! ```text
//!   socket ──message──▶ lane? ──in order──▶ waiting (at most `credits`) ──one at a time──▶ Dispatch ──▶ answer
//!                         └────express──────────────────────────────────────────────────▶ Dispatch ──▶ answer
//!   hang-up ──▶ running requests end ──▶ accesses, devices, domains, address spaces are taken down
//! ```
//!
//! The socket is always read: a request over the credits gets EAGAIN at once. What takes something back needs no credit
//! and never waits behind another request. Who goes on asking without reading answers is hung up on.
//!
//! Imports allowed: sys, messages, state and its operations.

pub mod accesses;
pub mod address_spaces;
pub mod devices;
pub mod iova_rules;
pub mod state;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use futures_util::future::{Either, LocalBoxFuture, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use ioasd_client::ids::ObjectId;
use ioasd_client::wire::FRAME_MAX;

use self::state::ClientState;
use super::messages::dispatch::{Dispatch, Incoming, Lane, Outgoing};
use super::objects::Object;
use crate::storage::refusal::Refusal;
use crate::sys::socket;
use crate::sys::watched::Watched;

/// Requests without a credit that may run or have answers nobody reads, before the client is hung up on.
const UNREAD_MAX: usize = 4096;

impl ClientState {
    /// DESTROY of any object.
    ///
    /// # Errors
    /// ENOENT without such an object, EBUSY if something refers to it.
    pub async fn destroy(&self, id: ObjectId) -> Result<(), Refusal> {
        let object = self.objects.borrow_mut().take(id).map_err(|error| Refusal::of(&error))?;
        self.end(object).await;
        self.show_figures();
        Ok(())
    }

    async fn end(&self, object: Object) {
        match object {
            Object::Ioas(ioas) => self.end_ioas(ioas).await,
            Object::Hwpt(hwpt) => self.end_hwpt(hwpt).await,
            Object::Access(access) => self.end_access(access).await,
            Object::Device(_) => {}
        }
    }

    /// Takes everything down: the client is gone.
    pub async fn close(&self) {
        let devices = self.objects.borrow().devices();
        for device in devices {
            self.detach(&device).await;
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

/// One context and the socket it is used through.
pub struct ClientContext {
    state: Rc<ClientState>,
    dispatch: Arc<dyn Dispatch>,
    socket: Option<OwnedFd>,
    watched: Option<Rc<Watched<OwnedFd>>>,
}

impl ClientContext {
    /// A context that serves `socket`.
    #[must_use]
    pub fn new(state: ClientState, dispatch: Arc<dyn Dispatch>, socket: OwnedFd) -> Self {
        Self { state: Rc::new(state), dispatch, socket: Some(socket), watched: None }
    }
}

impl Actor for ClientContext {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(super::MAILBOX);
        let Some(socket) = self.socket.take().and_then(|socket| Watched::new(socket).ok()).map(Rc::new)
        else {
            tracing::error!("a client's socket cannot be watched");
            return context.stop();
        };
        self.watched = Some(Rc::clone(&socket));
        let (state, dispatch) = (Rc::clone(&self.state), Arc::clone(&self.dispatch));
        let served = async move {
            Channel::new(Rc::clone(&state), dispatch, socket).serve().await;
            state.close().await;
        };
        context.spawn(served.into_actor(self).map(|(), _, context| context.stop()));
    }
}

/// Ends the context as if its client had hung up.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct HangUp;

impl Handler<HangUp> for ClientContext {
    type Result = ();

    fn handle(&mut self, HangUp: HangUp, _: &mut Self::Context) {
        if let Some(socket) = &self.watched {
            hang_up(socket);
        }
    }
}

/// A client's socket, with what waits and what runs.
struct Channel {
    state: Rc<ClientState>,
    dispatch: Arc<dyn Dispatch>,
    socket: Rc<Watched<OwnedFd>>,
    waiting: VecDeque<Incoming>,
    running: FuturesUnordered<LocalBoxFuture<'static, Lane>>,
    in_order_runs: bool,
}

impl Channel {
    fn new(state: Rc<ClientState>, dispatch: Arc<dyn Dispatch>, socket: Rc<Watched<OwnedFd>>) -> Self {
        let (waiting, running) = Default::default();
        Self { state, dispatch, socket, waiting, running, in_order_runs: false }
    }

    /// Serves until the client hangs up, or does not read its answers, and every running request has ended.
    async fn serve(mut self) {
        let mut buffer = vec![0; FRAME_MAX];
        while self.turn(&mut buffer).await.is_ok() {
            self.start_next();
        }
        hang_up(&self.socket);
        while self.running.next().await.is_some() {}
    }

    /// Takes a message, or the end of a running request, whichever comes first.
    async fn turn(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let socket = Rc::clone(&self.socket);
        let message = Box::pin(receive(&socket, buffer));
        if self.running.is_empty() {
            let incoming = message.await?;
            return self.take(incoming);
        }
        match select(message, self.running.next()).await {
            Either::Left((incoming, _)) => self.take(incoming?),
            Either::Right((ended, _)) => {
                if ended == Some(Lane::InOrder) {
                    self.in_order_runs = false;
                }
                Ok(())
            }
        }
    }

    fn take(&mut self, incoming: Incoming) -> io::Result<()> {
        let credits = self.state.credits();
        match self.dispatch.lane(&incoming.message) {
            Lane::Express if self.running.len() < UNREAD_MAX => self.run(incoming, Lane::Express),
            Lane::Express => return Err(io::ErrorKind::WouldBlock.into()),
            Lane::InOrder if self.waiting.len() < credits => self.waiting.push_back(incoming),
            Lane::InOrder => {
                let refusal = self.dispatch.refuse_for_credit(&incoming.message, credits);
                return socket::send(self.socket.as_fd(), &[&refusal.message], &[]);
            }
        }
        Ok(())
    }

    fn start_next(&mut self) {
        if self.in_order_runs {
            return;
        }
        if let Some(incoming) = self.waiting.pop_front() {
            self.in_order_runs = true;
            self.run(incoming, Lane::InOrder);
        }
    }

    fn run(&mut self, incoming: Incoming, lane: Lane) {
        let answer = self.dispatch.dispatch(Rc::clone(&self.state), incoming);
        let socket = Rc::clone(&self.socket);
        self.running.push(Box::pin(async move {
            if let Err(error) = send(&socket, answer.await).await {
                tracing::debug!(%error, "an answer could not be sent: the client must not wait for it");
                hang_up(&socket);
            }
            lane
        }));
    }
}

/// Ends the stream: nothing comes in any more, and no answer waits to be read.
fn hang_up(socket: &Watched<OwnedFd>) {
    let shut = rustix::net::shutdown(socket.as_fd(), rustix::net::Shutdown::Both);
    tracing::debug!(?shut, "hung up on a client");
}

/// Waits for a message; an error at the end of the stream.
async fn receive(socket: &Watched<OwnedFd>, buffer: &mut [u8]) -> io::Result<Incoming> {
    let received = socket.read_with(|socket| socket::receive(socket.as_fd(), buffer)).await?;
    if received.is_end() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let message = buffer.get(..received.len).unwrap_or_default().to_vec();
    Ok(Incoming { message, fds: received.fds, loss: received.loss, sender: received.credentials })
}

async fn send(socket: &Watched<OwnedFd>, answer: Outgoing) -> io::Result<()> {
    let fds: Vec<BorrowedFd<'_>> = answer.fds.iter().map(AsFd::as_fd).collect();
    socket.write_with(|socket| socket::send(socket.as_fd(), &[&answer.message], &fds)).await
}
