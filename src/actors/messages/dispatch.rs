//! What a client's socket gives and takes, and who understands it.
//!
//! ClientContext knows sockets, credits and order, not commands; [`Dispatch`] knows commands. The uAPI implements it and
//! `main` plugs it in, so that actors never import the uAPI.
//!
//! Imports allowed: sys, client_context, storage refusals.

use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use futures_util::future::LocalBoxFuture;

use crate::actors::client_context::state::ClientState;
use crate::storage::refusal::Refusal;
use crate::sys::client_fd::ClientFd;
use crate::sys::sender::Sender;
use crate::sys::socket::Loss;

/// One message of a client.
#[derive(Debug)]
pub struct Incoming {
    /// Its bytes.
    pub message: Vec<u8>,
    /// Its descriptors.
    pub fds: Vec<ClientFd>,
    /// What of it was lost.
    pub loss: Loss,
    /// Who sent it.
    pub sender: Option<Sender>,
}

/// One answer.
#[derive(Debug)]
pub struct Outgoing {
    /// Its bytes.
    pub message: Vec<u8>,
    /// Its descriptors.
    pub fds: Vec<OwnedFd>,
    /// What goes on after it was sent.
    pub rest: Option<Rest>,
}

/// What is left to do of a request that was answered early.
pub struct Rest(pub LocalBoxFuture<'static, ()>);

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

/// Whether a request waits for those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// It does.
    InOrder,
    /// It takes something back, needs no credit, and never waits.
    Express,
}

/// Understands messages.
pub trait Dispatch: Send + Sync {
    /// Which lane a message takes.
    fn lane(&self, message: &[u8]) -> Lane;

    /// Does what a message asks, and answers it.
    fn dispatch(&self, client: Rc<ClientState>, incoming: Incoming) -> LocalBoxFuture<'static, Outgoing>;

    /// Answers a message that is not even looked at.
    fn refuse(&self, client: &ClientState, message: &[u8], refusal: &Refusal) -> Outgoing;
}
