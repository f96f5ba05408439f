//! Walkers over an export channel: they learn of backing files while they run.
//!
//! A file that was mapped after a walker opened its domain, or that grew since, is a fault `not exported` at first. The
//! stream that met it asks the agent on the channel, outside of any burst, since an unmap must not wait for an answer; all
//! streams of the walker find what came back.
//!
//! Imports allowed: units, layout, mapping, calls, error, the parts of this folder.
#![expect(
    clippy::disallowed_types,
    reason = "this crate takes no dependency for a lock that is hardly ever held"
)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::backing::{Backing, WindowsError, WindowsNumber};
use super::burst::Burst;
use super::fault::{FaultKind, WalkFault};
use super::open::{BackingFile, DomainParts, OpenError, Walker, open_file};
use super::stream::Stream;
use crate::calls::ExportChannel;
use crate::error::CallError;
use crate::layout::{FrameWindow, WINDOW_BYTES, WindowError};
use crate::units::Iova;

/// How often a stream asks about one address before it believes the answer: once what other streams learned, once the agent.
const ASKED_MAX: u32 = 2;

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// What other streams have learned meanwhile, and the agent if that is nothing.
    OthersFirst,
    /// The agent.
    TheAgent,
}

/// Why a domain could not be attached to, or nothing more be learned of it.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The agent refused, or is gone.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The agent sent windows that are none.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// What it sent cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The walker was opened without a channel.
    #[error(
        "this walker was opened from its parts and has no channel; attach to an export channel to learn of new files"
    )]
    NoChannel,
}

impl From<WindowsError> for AttachError {
    fn from(error: WindowsError) -> Self {
        Self::Open(error.into())
    }
}

/// About which address was asked last, and how often in a row. Answers may be right and still not help: the file is not
/// long enough, or cannot be written.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    about: Option<Iova>,
    times: u32,
}

impl Asked {
    /// Nothing was asked.
    pub const NONE: Self = Self { about: None, times: 0 };

    /// Counts a question about `iova`; whether it may still be asked.
    #[must_use]
    pub fn once_more(&mut self, iova: Iova) -> bool {
        let times = if self.about == Some(iova) { self.times + 1 } else { 1 };
        *self = Self { about: Some(iova), times };
        times <= ASKED_MAX
    }
}

/// What the streams of a walker know together, and whom they ask.
#[derive(Debug)]
pub(super) struct Learning(Mutex<Known>);

#[derive(Debug)]
struct Known {
    backing: Arc<Backing>,
    channel: Option<ExportChannel>,
}

impl Learning {
    /// There is nobody to ask.
    pub(super) const fn nothing_more(backing: Arc<Backing>) -> Self {
        Self(Mutex::new(Known { backing, channel: None }))
    }

    /// The memory that is known now.
    pub(super) fn backing(&self) -> Arc<Backing> {
        Arc::clone(&self.known().backing)
    }

    /// More than `backing`. All of it was learned when the arena had the number `now`, or a later one.
    fn more_than(
        &self,
        backing: &Arc<Backing>,
        (iova, ask): (Iova, Ask),
        now: WindowsNumber,
    ) -> Result<Arc<Backing>, AttachError> {
        let mut known = self.known();
        let nothing_new = Arc::ptr_eq(&known.backing, backing);
        let stale = known.backing.number() < now;
        if stale {
            known.backing = Arc::new(Backing::nothing(now));
        }
        if stale || nothing_new || ask == Ask::TheAgent {
            known.ask(iova)?;
        }
        Ok(Arc::clone(&known.backing))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn ask(&mut self, iova: Iova) -> Result<(), AttachError> {
        let channel = self.channel.as_mut().ok_or(AttachError::NoChannel)?;
        let parts = channel.file_at(iova)?;
        let file = open_file(&BackingFile::of(parts.file)?)?;
        self.backing = Arc::new(self.backing.with(&decode(&parts.windows)?, file)?);
        Ok(())
    }
}

impl Walker {
    /// Opens the domain of an export channel, and keeps the channel: the agent waits for a walker's bursts until it is
    /// closed, and answers on it which files are new.
    ///
    /// # Errors
    /// If the agent refuses, or what it sends cannot be opened.
    pub fn attach(mut channel: ExportChannel) -> Result<Self, AttachError> {
        let parts = channel.open()?;
        let parts = DomainParts {
            arena: parts.arena,
            slots: parts.slots,
            log: parts.log,
            windows: decode(&parts.windows)?,
            files: parts.files.into_iter().map(BackingFile::of).collect::<Result<_, _>>()?,
        };
        Ok(Self::open_with(parts, |backing| Learning(Mutex::new(Known { backing, channel: Some(channel) })))?)
    }

    /// Learns which file lies behind `iova`, for streams to come and those that meet it.
    ///
    /// # Errors
    /// If the agent refuses: nothing is mapped there, or a file that is not exported.
    pub fn learn(&self, iova: Iova) -> Result<(), AttachError> {
        let (learning, now) = (&self.domain.learning, self.domain.windows());
        learning.more_than(&learning.backing(), (iova, Ask::TheAgent), now).map(drop)
    }
}

impl Stream {
    /// Learns which file lies behind `iova`, after a fault [`FaultKind::NotExported`]: from what other streams learned
    /// since, else from the agent.
    ///
    /// # Errors
    /// If the agent refuses: nothing is mapped there, or a file that is not exported.
    pub fn learn(&mut self, iova: Iova) -> Result<(), AttachError> {
        let again = self.learned.replace(iova) == Some(iova);
        let ask = if again { Ask::TheAgent } else { Ask::OthersFirst };
        let now = self.domain().windows();
        let backing = self.domain().learning.more_than(self.reach.backing(), (iova, ask), now)?;
        self.reach.replace(backing);
        Ok(())
    }

    /// Does `work` in a burst, and again, in a burst of its own, when it met a file that was not known here yet.
    ///
    /// # Errors
    /// The fault that ended `work`.
    pub fn burst<T>(
        &mut self,
        mut work: impl FnMut(&Burst<'_>) -> Result<T, WalkFault>,
    ) -> Result<T, WalkFault> {
        let mut asked = Asked::NONE;
        loop {
            self.hold_back();
            let done = work(&self.enter());
            if let Err(WalkFault { kind: FaultKind::NotExported, iova, .. }) = done
                && asked.once_more(iova)
                && self.learn(iova).is_ok()
            {
                continue;
            }
            self.settle();
            return done;
        }
    }
}

fn decode(bytes: &[u8]) -> Result<Vec<FrameWindow>, WindowError> {
    bytes.as_chunks::<WINDOW_BYTES>().0.iter().map(FrameWindow::decode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_asked_about_twice_in_a_row_and_not_again() {
        let mut asked = Asked::NONE;
        let mut ask = |iova| asked.once_more(Iova::new(iova));
        assert_eq!([ask(1), ask(1), ask(1), ask(1)], [true, true, false, false]);
        assert_eq!([ask(2), ask(1), ask(1), ask(1)], [true, true, true, false], "another one came between");
    }
}
