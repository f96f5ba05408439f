//! What a context is used through besides its lease: further channels, and notice channels.
//!
//! Each is a socket pair of which the client has one end, served by a task of its own on the context's arbiter. None of
//! them keeps the context alive.
//!
//! Imports allowed: channel, state, sys.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use actix_rt::task::JoinHandle;

use super::channel::{Channel, hang_up};
use super::state::ClientState;
use crate::error::Errno;
use crate::storage::refusal::Refusal;
use crate::sys::socket;
use crate::sys::watched::Watched;

/// The open ones, by number.
pub(super) struct Channels {
    open: RefCell<BTreeMap<u64, Open>>,
    next: Cell<u64>,
    limit: usize,
}

struct Open {
    socket: Rc<Watched<OwnedFd>>,
    task: JoinHandle<()>,
}

impl Channels {
    /// None yet, at most `limit`.
    pub(super) fn new(limit: usize) -> Self {
        Self { open: RefCell::default(), next: Cell::new(0), limit }
    }

    /// A socket pair: our end, and the client's.
    pub(super) fn pair(&self) -> Result<(Rc<Watched<OwnedFd>>, OwnedFd), Refusal> {
        if self.open.borrow().len() >= self.limit {
            let text = format!("the context has {} channels, all it may have: close some", self.limit);
            return Err(Refusal::new(Errno::MFILE, "too-many-channels", text));
        }
        let (own, given) = socket::pair().map_err(|error| refused(&error))?;
        let own = Watched::new(own).map_err(|error| refused(&error))?;
        Ok((Rc::new(own), given))
    }

    /// Hangs up on all of them.
    pub(super) fn hang_up(&self) {
        self.open.borrow().values().for_each(|open| hang_up(&open.socket));
    }

    /// Waits until all of them have ended, those included that open meanwhile.
    pub(super) async fn ended(&self) {
        loop {
            let first = self.open.borrow_mut().pop_first();
            let Some((_, open)) = first else { return };
            hang_up(&open.socket);
            if open.task.await.is_err() {
                tracing::error!("a channel of a context panicked");
            }
        }
    }
}

impl ClientState {
    /// Opens a further channel and gives the client's end.
    ///
    /// # Errors
    /// EMFILE if the context has too many, or descriptors are short.
    pub fn open_channel(self: Rc<Self>) -> Result<OwnedFd, Refusal> {
        let (own, given) = self.channels.pair()?;
        let (state, socket) = (Rc::clone(&self), Rc::clone(&own));
        self.serve(own, async move {
            let mut channel = Channel::new(state, socket);
            channel.serve().await;
            channel.drain().await;
        });
        Ok(given)
    }

    /// Runs what serves `socket` until it has ended.
    pub(super) fn serve(
        self: Rc<Self>,
        socket: Rc<Watched<OwnedFd>>,
        served: impl Future<Output = ()> + 'static,
    ) {
        let number = self.channels.next.replace(self.channels.next.get() + 1);
        let state = Rc::clone(&self);
        let task = actix_rt::spawn(async move {
            served.await;
            drop(state.channels.open.borrow_mut().remove(&number));
        });
        self.channels.open.borrow_mut().insert(number, Open { socket, task });
    }
}

fn refused(error: &io::Error) -> Refusal {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    Refusal::new(errno, "channel-open", format!("cannot open a channel: {error}"))
}
