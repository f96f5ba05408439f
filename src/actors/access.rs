//! Access: the agent's end of one software user, to which notices go.
//!
//! A notice asks the user to let go of a range. It is acknowledged when the user's answer comes, and missed after a
//! deadline.
//!
//! Imports allowed: units.

use std::time::Duration;

use actix::prelude::*;
use futures_util::future::LocalBoxFuture;
use ioasd_client::units::IovaRange;

/// How long a user may take to answer a notice.
const DEADLINE: Duration = Duration::from_secs(1);

/// Takes a notice to the user; done when the user has answered.
pub type NoticeSink = Box<dyn Fn(IovaRange) -> LocalBoxFuture<'static, ()>>;

/// One software user.
pub struct Access {
    sink: NoticeSink,
}

impl Access {
    /// A user that is reached by `sink`.
    #[must_use]
    pub fn new(sink: NoticeSink) -> Self {
        Self { sink }
    }
}

impl Actor for Access {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(super::MAILBOX);
    }
}

/// Asks the user to let go of everything in a range; tells whether it answered in time.
#[derive(Debug, Message)]
#[rtype(result = "Answer")]
pub struct Notice(pub IovaRange);

/// Whether the user answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, MessageResponse)]
pub enum Answer {
    /// In time.
    Given,
    /// Not in time.
    Missing,
}

impl Handler<Notice> for Access {
    type Result = LocalBoxFuture<'static, Answer>;

    fn handle(&mut self, Notice(range): Notice, _: &mut Self::Context) -> Self::Result {
        let answered = tokio::time::timeout(DEADLINE, (self.sink)(range));
        Box::pin(async move { if answered.await.is_ok() { Answer::Given } else { Answer::Missing } })
    }
}
