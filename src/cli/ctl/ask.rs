//! Asking an agent: one answer, or a list part by part.
//!
//! Imports allowed: http, admin's answers, `serde_json`.

use std::io::{self, BufRead};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::admin::event_stream::HEARTBEAT;
use crate::admin::json::Listed;
use crate::admin::parameters::LIMIT_MAX;
use crate::cli::http::{self, Answer, Followed, Request, Target};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// Nobody answers.
    #[error("no agent answers at {target}: is it running, and is this its admin server (--admin)?")]
    Unreachable {
        target: Target,
        #[source]
        source: io::Error,
    },
    /// The agent says that it cannot.
    #[error("{detail}")]
    Refused { detail: String },
    /// A stream has ended.
    #[error("the agent at {target} has ended the stream: it stops, or is gone")]
    Ended { target: Target },
    /// What answers is no agent that we understand.
    #[error("what answers at {target} is no agent of this version: {reason}")]
    Garbled { target: Target, reason: String },
}

/// An agent, and what opens its API over TCP.
pub(super) struct Agent {
    target: Target,
    token: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl Agent {
    /// The agent whose admin server is at `target`.
    pub(super) const fn new(target: Target, token: Option<String>) -> Self {
        Self { target, token }
    }

    /// The answer at `path` as it came.
    pub(super) fn text(&self, path: &str) -> Result<String, AskError> {
        self.send("GET", path, "")
    }

    /// The answer to any request, as it came.
    pub(super) fn send(&self, method: &'static str, path: &str, body: &str) -> Result<String, AskError> {
        let request = Request { method, path, body, token: self.token.as_deref() };
        let answer = http::ask(&self.target, request).map_err(|source| self.unanswered(source))?;
        self.body(path, answer)
    }

    /// The stream at `path`.
    pub(super) fn stream(&self, path: &str) -> Result<Box<dyn BufRead>, AskError> {
        let request = Request { method: "GET", path, body: "", token: self.token.as_deref() };
        match http::follow(&self.target, request, 3 * HEARTBEAT).map_err(|source| self.unanswered(source))? {
            Followed::Stream(stream) => Ok(stream),
            Followed::Answer(answer) => {
                let body = self.body(path, answer)?;
                Err(self.garbled(&format_args!("it answers {} bytes to {path} and no stream", body.len())))
            }
        }
    }

    /// The stream has come to its end.
    pub(super) fn ended(&self) -> AskError {
        AskError::Ended { target: self.target.clone() }
    }

    fn unanswered(&self, source: io::Error) -> AskError {
        match source.kind() {
            io::ErrorKind::InvalidData => self.garbled(&source),
            _ => AskError::Unreachable { target: self.target.clone(), source },
        }
    }

    fn body(&self, path: &str, answer: Answer) -> Result<String, AskError> {
        match answer {
            Answer { status: 200, body } => Ok(body),
            Answer { status, body } => match serde_json::from_str::<Problem>(&body) {
                Ok(Problem { detail }) => Err(AskError::Refused { detail }),
                Err(_) => Err(self.garbled(&format_args!("it answers {status} to {path}"))),
            },
        }
    }

    /// The answer at `path`.
    pub(super) fn one<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        self.understood(&self.text(path)?)
    }

    /// An answer that came.
    pub(super) fn understood<T: DeserializeOwned>(&self, answer: &str) -> Result<T, AskError> {
        serde_json::from_str(answer).map_err(|error| self.garbled(&error))
    }

    /// All rows of the list at `path`.
    pub(super) fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, AskError> {
        let (mut rows, mut after) = (Vec::new(), String::new());
        loop {
            let more = if path.contains('?') { '&' } else { '?' };
            let Listed { items, next } = self.one(&format!("{path}{more}limit={LIMIT_MAX}{after}"))?;
            rows.extend(items);
            let Some(next) = next else { return Ok(rows) };
            after = format!("&after={next}");
        }
    }

    /// The list at `path` as one JSON document.
    pub(super) fn json_list(&self, path: &str) -> Result<String, AskError> {
        self.json(&self.list::<Value>(path)?)
    }

    /// Rows of a list as one JSON document.
    pub(super) fn json<T: Serialize>(&self, rows: &[T]) -> Result<String, AskError> {
        let whole = serde_json::to_string_pretty(&json!({ "items": rows, "next": null }));
        whole.map(|text| text + "\n").map_err(|error| self.garbled(&error))
    }

    fn garbled(&self, reason: &dyn std::fmt::Display) -> AskError {
        AskError::Garbled { target: self.target.clone(), reason: reason.to_string() }
    }
}
