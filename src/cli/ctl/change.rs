//! What an operator changes: one request, and what came of it.
//!
//! Imports allowed: ask, table, admin's answers.

use serde_json::json;

use super::ask::{Agent, AskError};
use super::{CtlArgs, CtlCommand, table};

/// Makes the change that `args` ask for.
pub(super) fn made(agent: &Agent, args: &CtlArgs) -> Result<String, AskError> {
    let answer = match &args.command {
        CtlCommand::Log { filter: Some(filter), period } => {
            let seconds = period.map(|period| period.as_secs());
            let body = json!({ "filter": filter, "for_seconds": seconds }).to_string();
            agent.send("PUT", "/v1/log", &body)?
        }
        CtlCommand::Reload => agent.send("POST", "/v1/reload", "")?,
        CtlCommand::Drain { undo: false } => agent.send("POST", "/v1/drain", "")?,
        CtlCommand::Drain { undo: true } => agent.send("DELETE", "/v1/drain", "")?,
        CtlCommand::Evict { context, dry_run } => {
            let path = format!("/v1/contexts/{context}/evict?dry_run={dry_run}");
            agent.send("POST", &path, "")?
        }
        _ => agent.text("/v1/log")?,
    };
    if args.json { Ok(answer) } else { agent.understood(&answer).map(|object| table::details(&object)) }
}
