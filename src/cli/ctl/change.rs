//! What an operator changes: one request, and what came of it.
//!
//! Imports allowed: ask, table, wait, admin's answers.

use serde::Serialize;
use serde_json::json;

use super::ask::{Agent, AskError};
use super::{CtlArgs, CtlCommand, table, wait};

/// Makes the change that `args` ask for.
pub(super) fn made(agent: &Agent, args: &CtlArgs) -> Result<String, AskError> {
    let answer = match &args.command {
        CtlCommand::Log { filter: Some(filter), period } => {
            let seconds = period.map(|period| period.as_secs());
            let body = json!({ "filter": filter, "for_seconds": seconds }).to_string();
            agent.send("PUT", "/v1/log", &body)?
        }
        CtlCommand::Reload => agent.send("POST", "/v1/reload", "")?,
        CtlCommand::Drain { undo: true, .. } => agent.send("DELETE", "/v1/drain", "")?,
        CtlCommand::Drain { wait, .. } => {
            let answer = agent.send("POST", "/v1/drain", "")?;
            if *wait { written(&wait::for_nobody(agent, agent.understood(&answer)?)?) } else { answer }
        }
        CtlCommand::Evict { context, dry_run, wait } => {
            let path = format!("/v1/contexts/{context}/evict?dry_run={dry_run}");
            let answer = agent.send("POST", &path, "")?;
            if *wait { written(&wait::for_end(agent, &agent.understood(&answer)?)?) } else { answer }
        }
        _ => agent.text("/v1/log")?,
    };
    if args.json { Ok(answer) } else { agent.understood(&answer).map(|object| table::details(&object)) }
}

/// An answer that was waited for, written as the agent writes its own.
fn written(answer: &impl Serialize) -> String {
    serde_json::to_string_pretty(answer).map(|text| text + "\n").unwrap_or_default()
}
