//! The journal as a stream (`text/event-stream`): what happened, and what happens, as long as somebody reads.
//!
//! ```text
//! id: 17                            an event, as in the list
//! data: {"number":17,…}
//!
//! event: missed                     the reader was too slow, or came back too late
//! id: 4217
//! data: {"missed":4200,"continues_after":4217}
//!
//! : still here                      nothing has happened for a while
//! ```
//!
//! A stream is the number of the last event it has sent. It is woken by the journal and reads on from there when its
//! connection takes more, so that whoever does not read costs a place and a part, and is told how much it missed. Who knows
//! an event that has not happened yet knows it from an agent before this one: it is told (`"missed":null`), and gets all.
//!
//! Imports allowed: `actix_web`, `tokio`, `futures_util`, events, problem, the actors' journal.

use std::convert::Infallible;
use std::fmt::Write;
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{ACCEPT, CACHE_CONTROL};
use actix_web::rt::time::timeout;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::future::{Either, select};
use futures_util::stream::{self, Stream, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use utoipa::ToSchema;

use super::Shown;
use super::events;
use super::problem::{Kind, Problem};
use crate::actors::journal::{Journal, News, Part};

/// What a stream is sent as.
pub(super) const CONTENT_TYPE: &str = "text/event-stream";

/// Streams at a time.
const STREAMS_MAX: usize = 32;

/// Events that are read from the journal at a time.
const PART: usize = 32;

/// How long a stream says nothing at most; also how long it takes to see that nobody reads any more.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(10);

/// Events that a reader did not get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Missed {
    /// How many; `None` if the agent was started anew, and its numbers with it.
    pub(crate) missed: Option<u64>,
    /// The number after which the stream goes on.
    pub(crate) continues_after: u64,
}

/// The streams of a server.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    places: Arc<Semaphore>,
    ending: watch::Receiver<()>,
}

/// Ends all streams of a server when dropped.
#[derive(Debug)]
pub(super) struct StreamsEnd(#[expect(dead_code, reason = "held to be dropped")] watch::Sender<()>);

impl Streams {
    /// None yet, and what ends them.
    pub(super) fn new() -> (Self, StreamsEnd) {
        let (end, ending) = watch::channel(());
        (Self { places: Arc::new(Semaphore::new(STREAMS_MAX)), ending }, StreamsEnd(end))
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let detail =
                format!("{STREAMS_MAX} streams are open already: ask for the list, or try again later");
            Problem::new(Kind::StreamsExhausted, detail)
        })
    }
}

/// Whether `request` asks for a stream.
pub(super) fn is_wanted(request: &HttpRequest) -> bool {
    let accepted = request.headers().get_all(ACCEPT).filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(',')).filter_map(|range| range.split(';').next());
    kinds.any(|kind| kind.trim().eq_ignore_ascii_case(CONTENT_TYPE))
}

/// The stream of what happens after event `known`.
pub(super) fn answer(data: &Shown, known: u64) -> Result<HttpResponse, Problem> {
    let journal = Arc::clone(data.view.registry.journal());
    let place = data.streams.place()?;
    let (news, ending) = (journal.news(), data.streams.ending.clone());
    let reader = Reader { journal, news, ending, known, phase: Phase::Open, _place: place };
    let mut response = HttpResponse::Ok();
    response.insert_header((CACHE_CONTROL, "no-store")).content_type(CONTENT_TYPE);
    Ok(response.streaming(reader.frames()))
}

/// Whether the server goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Ending,
}

/// Who reads a stream.
struct Reader {
    journal: Arc<Journal>,
    news: News,
    ending: watch::Receiver<()>,
    /// The number of the last event sent.
    known: u64,
    phase: Phase,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// What is sent: first, how soon to come back when the stream breaks off.
    fn frames(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        let first = stream::once(ready(Bytes::from_static(b"retry: 1000\n\n")));
        let rest = stream::unfold(self, |mut reader| async { Some((reader.next().await?, reader)) });
        first.chain(rest).map(Ok)
    }

    /// What is sent next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let part = self.part();
            if !part.is_empty() {
                return Some(part.into());
            }
            if self.phase == Phase::Ending {
                return None;
            }
            let (ending, news) = (pin!(self.ending.changed()), pin!(self.news.wait()));
            match timeout(HEARTBEAT, select(ending, news)).await {
                Ok(Either::Left(_)) => self.phase = Phase::Ending,
                Ok(Either::Right(_)) => {}
                Err(_) => return Some(Bytes::from_static(b": still here\n\n")),
            }
        }
    }

    /// What is new, a part of it; empty if nothing is.
    fn part(&mut self) -> String {
        let Part { events, forgotten, last, .. } = self.journal.since(self.known, PART);
        let mut text = String::new();
        if self.known > last || self.known < forgotten {
            let missed = (self.known < forgotten).then(|| forgotten - self.known);
            let missed = Missed { missed, continues_after: forgotten };
            text.push_str("event: missed\n");
            frame(&mut text, forgotten, &missed);
            self.known = forgotten;
        }
        for event in &events {
            frame(&mut text, event.number, &events::row(event));
            self.known = event.number;
        }
        text
    }
}

fn frame(text: &mut String, id: u64, data: &impl Serialize) {
    match serde_json::to_string(data) {
        // Writing to a string cannot fail.
        Ok(data) => write!(text, "id: {id}\ndata: {data}\n\n").unwrap_or_default(),
        Err(error) => tracing::error!(%error, "an event cannot be written"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::journal::{Happening, KEPT};

    fn reader(journal: &Arc<Journal>, known: u64) -> Reader {
        let (streams, _) = Streams::new();
        let (journal, news) = (Arc::clone(journal), journal.news());
        let place = streams.place().unwrap_or_else(|problem| panic!("{problem}"));
        Reader { journal, news, ending: streams.ending, known, phase: Phase::Open, _place: place }
    }

    #[test]
    fn who_knows_an_event_of_an_agent_before_this_one_starts_over_and_is_told() {
        let journal = Arc::<Journal>::default();
        journal.tell(Happening::stopping(1));
        let mut reader = reader(&journal, 2);
        let told = "event: missed\nid: 0\ndata: {\"missed\":null,\"continues_after\":0}\n\n";
        assert_eq!(reader.part(), told);
        assert!(reader.part().starts_with("id: 1\ndata: {\"number\":1,"));
        assert_eq!(reader.part(), "");
    }

    #[test]
    fn what_is_forgotten_meanwhile_is_counted_and_what_is_kept_comes_in_parts() {
        let journal = Arc::<Journal>::default();
        let mut reader = reader(&journal, 0);
        (0..KEPT + 7).for_each(|contexts| journal.tell(Happening::stopping(contexts)));
        let first = reader.part();
        assert!(
            first.starts_with("event: missed\nid: 7\ndata: {\"missed\":7,\"continues_after\":7}\n\nid: 8\n")
        );
        assert_eq!(first.matches("\ndata: ").count(), 1 + PART);
        let rest: usize = std::iter::from_fn(|| Some(reader.part()).filter(|part| !part.is_empty()))
            .map(|part| part.matches("\ndata: ").count())
            .sum();
        assert_eq!(rest, KEPT - PART);
    }
}
