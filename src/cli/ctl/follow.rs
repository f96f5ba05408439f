//! `ioasd ctl events -f`: what happened lately, and then what happens, a line each; with `--json` an object a line.
//!
//! Imports allowed: ask, table, admin's answers.

use std::io::{self, BufRead, Write};

use super::ask::Agent;
use super::{CtlArgs, CtlError, table};
use crate::admin::event_stream::Missed;
use crate::admin::events::EventRow;

/// Widths of the columns, which nobody can know before the rows.
const WIDTHS: [usize; 8] = [6, 20, 5, 12, 7, 17, 17, 0];

/// One message of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    event: String,
    data: String,
}

/// Writes what happens after event `since` until the agent ends.
pub(super) fn follow(agent: &Agent, since: u64, args: &CtlArgs) -> Result<(), CtlError> {
    let mut stream = agent.stream(&format!("/v1/events?since={since}"))?;
    let mut out = io::stdout().lock();
    if !args.json {
        out.write_all(table::heads::<EventRow>(&WIDTHS).as_bytes())?;
        out.flush()?;
    }
    while let Ok(Some(message)) = message(&mut stream) {
        let text = if args.json { message.data + "\n" } else { told(agent, &message)? };
        out.write_all(text.as_bytes())?;
        out.flush()?;
    }
    Err(agent.ended().into())
}

fn told(agent: &Agent, Message { event, data }: &Message) -> Result<String, CtlError> {
    if event != "missed" {
        return Ok(table::row::<EventRow>(&agent.understood(data)?, &WIDTHS));
    }
    Ok(match agent.understood(data)? {
        Missed { missed: Some(missed), .. } => format!("-- {missed} events are forgotten and were missed\n"),
        Missed { missed: None, .. } => "-- the agent was started anew, its numbers begin again\n".to_owned(),
    })
}

/// The next message that has data; `None` at the end of the stream.
fn message(stream: &mut impl BufRead) -> io::Result<Option<Message>> {
    let mut message = Message::default();
    let mut line = String::new();
    while stream.read_line(&mut line)? > 0 {
        match line.trim_end_matches(['\r', '\n']).split_once(": ") {
            Some(("event", event)) => event.clone_into(&mut message.event),
            Some(("data", data)) => data.clone_into(&mut message.data),
            None if !message.data.is_empty() => return Ok(Some(message)),
            _ => {}
        }
        line.clear();
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_between_comments_and_a_broken_off_one_is_none() {
        let mut stream =
            &b"retry: 1\n\n: here\n\nid: 1\ndata: {\"a\": 1}\n\nevent: missed\ndata: {}\n\ndata: half\n"[..];
        let found: Vec<(String, String)> = std::iter::from_fn(|| message(&mut stream).ok().flatten())
            .map(|Message { event, data }| (event, data))
            .collect();
        let expected = [("", "{\"a\": 1}"), ("missed", "{}")];
        assert_eq!(found, expected.map(|(event, data)| (event.to_owned(), data.to_owned())));
    }
}
