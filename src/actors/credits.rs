//! Credits: how many movements may have messages under way to a FanOut at once.
//!
//! A mailbox limit of actix holds for each clone of an address, so it bounds nothing here; these counters do. A
//! movement takes one credit of every FanOut it may write to, in ascending order, before it starts, and gives them back
//! when it ends. Movements that only take away (unmap, detach) draw from a reserve: they wait for each other at most.
//!
//! Imports allowed: `tokio::sync`, load.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::load::Permits;

/// Movements that fill, at one FanOut, at once.
const FILLS: usize = 96;

/// Movements that take away, at one FanOut, at once.
const RESERVE: usize = 16;

/// Messages one movement has under way to one FanOut at most: one change and one read-back.
const MESSAGES: usize = 2;

/// The mailbox of a FanOut that never overflows under these credits, with room for control messages.
pub const FAN_OUT_MAILBOX: usize = (FILLS + RESERVE) * MESSAGES + 32;

/// What a movement is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Put something into tables.
    Fill,
    /// Only take something away.
    TakeAway,
}

/// The credits of one FanOut.
#[derive(Clone, Debug)]
pub struct Credits {
    fills: Permits,
    reserve: Permits,
}

/// A credit taken; given back when dropped.
#[derive(Debug)]
pub struct Credit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Default for Credits {
    fn default() -> Self {
        Self { fills: Permits::new(FILLS), reserve: Permits::new(RESERVE) }
    }
}

impl Credits {
    /// Waits for a credit.
    pub async fn take(&self, purpose: Purpose) -> Credit {
        let kind = match purpose {
            Purpose::Fill => &self.fills,
            Purpose::TakeAway => &self.reserve,
        };
        Credit { _permit: Arc::clone(kind.semaphore()).acquire_owned().await.ok() }
    }

    /// What movements hold.
    #[must_use]
    pub fn permits(&self) -> [Permits; 2] {
        [self.fills.clone(), self.reserve.clone()]
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[actix_rt::test]
    async fn fills_never_use_up_what_unmaps_need() {
        let credits = Credits::default();
        let mut fills = Vec::new();
        for _ in 0..FILLS {
            fills.push(credits.take(Purpose::Fill).await);
        }
        assert!(credits.take(Purpose::Fill).now_or_never().is_none());
        assert!(credits.take(Purpose::TakeAway).now_or_never().is_some());
        fills.pop();
        assert!(credits.take(Purpose::Fill).now_or_never().is_some());
    }
}
