//! The leases of all contexts, so that closing is over for whoever looks: before a new context answers, every context
//! whose lease has hung up has been taken down.
//!
//! Imports allowed: sys, `tokio`'s watch channels.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::sync::watch;

use crate::sys::hang_ups::HangUps;

/// How long others wait for a context that is being taken down.
const PATIENCE: Duration = Duration::from_secs(2);

/// All leases.
#[derive(Debug)]
pub struct Leases {
    hang_ups: HangUps,
    open: Mutex<BTreeMap<u64, watch::Receiver<()>>>,
    last: AtomicU64,
}

/// A lease of a context that is not taken down yet.
pub struct OpenLease<S: AsFd> {
    leases: Arc<Leases>,
    number: u64,
    socket: Rc<S>,
    _until_dropped: watch::Sender<()>,
}

impl Leases {
    /// None yet.
    ///
    /// # Errors
    /// If descriptors are short.
    pub fn new() -> Result<Self, Errno> {
        let (open, last) = Default::default();
        Ok(Self { hang_ups: HangUps::new()?, open, last })
    }

    /// Notes one more, until what is returned is dropped.
    ///
    /// # Errors
    /// If the kernel refuses to watch it.
    pub fn add<S: AsFd>(self: &Arc<Self>, socket: Rc<S>) -> Result<OpenLease<S>, Errno> {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = watch::channel(());
        self.hang_ups.add((*socket).as_fd(), number)?;
        self.open.lock().insert(number, receiver);
        Ok(OpenLease { leases: Arc::clone(self), number, socket, _until_dropped: sender })
    }

    /// Waits until the contexts of all leases that have hung up by now are taken down; not for one that takes too long.
    pub async fn reap(&self) {
        let gone = self.hang_ups.gone().unwrap_or_default();
        for number in gone {
            let receiver = self.open.lock().get(&number).cloned();
            let Some(mut receiver) = receiver else { continue };
            let ended = async { while receiver.changed().await.is_ok() {} };
            if tokio::time::timeout(PATIENCE, ended).await.is_err() {
                tracing::debug!(number, "a context takes long to be taken down: others go on");
            }
        }
    }
}

impl<S: AsFd> Drop for OpenLease<S> {
    fn drop(&mut self) {
        self.leases.hang_ups.forget((*self.socket).as_fd());
        self.leases.open.lock().remove(&self.number);
    }
}
