//! One channel of a context: reads its socket, keeps order and credits.
//!
//! ```text
//!   socket ──message──▶ lane? ──in order──▶ waiting (at most `credits`) ──one at a time──▶ Dispatch ──▶ answer
//!                         └────express──────────────────────────────────────────────────▶ Dispatch ──▶ answer
//! ```
//!
//! The socket is always read: a request over the credits gets EAGAIN at once. What takes something back needs no credit
//! and never waits behind another request. Who goes on asking without reading answers is hung up on.
//!
//! Imports allowed: sys, messages, figures, state, storage's ledger and refusals.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{Either, LocalBoxFuture, select};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::state::ClientState;
use crate::actors::figures::UnderWay;
use crate::actors::messages::dispatch::{Incoming, Lane, Outgoing, Rest};
use crate::error::Errno;
use crate::storage::ledger::node::Allowance;
use crate::storage::ledger::resource::Resource;
use crate::storage::refusal::Refusal;
use crate::sys::sender::Senders;
use crate::sys::socket;
use crate::sys::watched::Watched;

/// Requests without a credit that may run or have answers nobody reads, before the client is hung up on.
const UNREAD_MAX: usize = 4096;

/// A client's socket, with what waits and what runs.
pub(super) struct Channel {
    state: Rc<ClientState>,
    socket: Rc<Watched<OwnedFd>>,
    senders: Senders,
    waiting: VecDeque<Taken>,
    running: FuturesUnordered<LocalBoxFuture<'static, Ended>>,
    in_order_runs: bool,
}

/// A request that waits, and will run.
struct Taken {
    incoming: Incoming,
    under_way: UnderWay,
    /// What takes something back is not counted.
    in_flight: Option<InFlight>,
}

/// A request that waits or runs, on the accounts.
struct InFlight(Allowance);

impl InFlight {
    fn admit(allowance: Allowance) -> Result<Self, Refusal> {
        allowance.take(1).map_err(|exceeded| Refusal::of(&exceeded))?;
        Ok(Self(allowance))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.give_back(1);
    }
}

/// What a channel waits for.
enum Event {
    /// A message, or why none comes any more.
    Message(io::Result<Incoming>),
    /// A request has ended.
    Ended(Ended),
}

/// A request was answered.
struct Ended {
    /// The lane it took.
    lane: Lane,
    /// What is left to do of it.
    rest: Option<Rest>,
}

impl Channel {
    pub(super) fn new(state: Rc<ClientState>, socket: Rc<Watched<OwnedFd>>) -> Self {
        let senders = Senders::new((*socket).as_fd());
        let (waiting, running) = Default::default();
        Self { state, socket, senders, waiting, running, in_order_runs: false }
    }

    /// Serves until the client hangs up, or does not read its answers. Requests may still run then.
    pub(super) async fn serve(&mut self) {
        while self.turn().await.is_ok() {
            self.start_next();
        }
        hang_up(&self.socket);
    }

    /// Waits until every running request has ended.
    pub(super) async fn drain(&mut self) {
        while let Some(ended) = self.running.next().await {
            self.note_end(ended);
        }
    }

    /// Takes a message, or the end of a running request, whichever comes first.
    async fn turn(&mut self) -> io::Result<()> {
        match self.next().await {
            Event::Message(incoming) => self.take(incoming?),
            Event::Ended(ended) => {
                self.note_end(ended);
                Ok(())
            }
        }
    }

    /// The next in its lane may run; what is left to do of it needs none.
    fn note_end(&mut self, Ended { lane, rest }: Ended) {
        self.in_order_runs &= lane != Lane::InOrder;
        if let Some(Rest(rest)) = rest {
            self.running.push(Box::pin(async {
                rest.await;
                Ended { lane: Lane::Express, rest: None }
            }));
        }
    }

    /// Running requests go first: one that has to wait for nothing is answered before the socket is looked at again.
    async fn next(&mut self) -> Event {
        let message = pin!(receive(&self.state, &self.socket, &mut self.senders));
        if self.running.is_empty() {
            return Event::Message(message.await);
        }
        match select(self.running.next(), message).await {
            Either::Left((ended, _)) => {
                Event::Ended(ended.unwrap_or(Ended { lane: Lane::Express, rest: None }))
            }
            Either::Right((incoming, _)) => Event::Message(incoming),
        }
    }

    fn take(&mut self, incoming: Incoming) -> io::Result<()> {
        let dispatch = &self.state.agent.dispatch;
        match dispatch.lane(&incoming.message) {
            Lane::Express if self.running.len() < UNREAD_MAX => {
                self.run(self.taken(incoming, None), Lane::Express);
            }
            Lane::Express => return Err(io::ErrorKind::WouldBlock.into()),
            Lane::InOrder => match self.admit() {
                Ok(in_flight) => self.waiting.push_back(self.taken(incoming, Some(in_flight))),
                Err(refusal) => {
                    let answer = dispatch.refuse(&self.state, &incoming.message, &refusal);
                    return socket::send((*self.socket).as_fd(), &[&answer.message], &[]);
                }
            },
        }
        Ok(())
    }

    /// One more request may wait, if the channel has a credit for it and the accounts have room.
    fn admit(&self) -> Result<InFlight, Refusal> {
        let credits = self.state.credits();
        if self.waiting.len() >= credits {
            let text = format!("{credits} requests of this channel wait already: read their answers first");
            return Err(Refusal::new(Errno::AGAIN, "out-of-credit", text));
        }
        InFlight::admit(self.state.allowance(Resource::Requests))
    }

    fn start_next(&mut self) {
        if self.in_order_runs {
            return;
        }
        if let Some(taken) = self.waiting.pop_front() {
            self.in_order_runs = true;
            self.run(taken, Lane::InOrder);
        }
    }

    fn taken(&self, incoming: Incoming, in_flight: Option<InFlight>) -> Taken {
        Taken { incoming, under_way: self.state.stats.requests.enter(), in_flight }
    }

    fn run(&mut self, Taken { incoming, under_way, in_flight }: Taken, lane: Lane) {
        let answer = self.state.agent.dispatch.dispatch(Rc::clone(&self.state), incoming);
        let socket = Rc::clone(&self.socket);
        self.running.push(Box::pin(async move {
            let mut answer = answer.await;
            let rest = answer.rest.take();
            drop(in_flight);
            if let Err(error) = send(&socket, answer).await {
                tracing::debug!(%error, "an answer could not be sent: the client must not wait for it");
                hang_up(&socket);
            }
            drop(under_way);
            Ended { lane, rest }
        }));
    }
}

/// Ends the stream: nothing comes in any more, and no answer waits to be read.
pub(super) fn hang_up(socket: &Watched<OwnedFd>) {
    let shut = rustix::net::shutdown(socket.as_fd(), rustix::net::Shutdown::Both);
    tracing::debug!(?shut, "hung up on a client");
}

/// Waits for a message; an error at the end of the stream.
pub(super) async fn receive(
    state: &ClientState,
    socket: &Watched<OwnedFd>,
    senders: &mut Senders,
) -> io::Result<Incoming> {
    let taken = socket.read_with(|socket| {
        let mut buffer = state.buffer.borrow_mut();
        let (received, sender) = senders.receive(socket.as_fd(), &mut buffer)?;
        if received.is_end() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let message = buffer.get(..received.len).unwrap_or_default().to_vec();
        Ok(Incoming { message, fds: received.fds, loss: received.loss, sender })
    });
    taken.await
}

async fn send(socket: &Watched<OwnedFd>, answer: Outgoing) -> io::Result<()> {
    let fds: Vec<BorrowedFd<'_>> = answer.fds.iter().map(AsFd::as_fd).collect();
    socket.write_with(|socket| socket::send(socket.as_fd(), &[&answer.message], &fds)).await
}
