//! `ioasd ctl operations`: what takes long just now; cancelling it.
//!
//! Imports allowed: ask, table, admin's answers.

use clap::{Args, Subcommand};

use super::CtlArgs;
use super::ask::{Agent, AskError};
use super::table;
use super::top::{TopArgs, View};
use crate::admin::operations::OperationRow;

/// The flags of `ioasd ctl operations`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct OperationsArgs {
    /// One of them.
    id: Option<u64>,
    /// Only those of this context.
    #[arg(long, value_name = "CONTEXT", conflicts_with = "id")]
    context: Option<u64>,
    /// Show them again and again until q or Ctrl-C.
    #[arg(short, long, conflicts_with_all = ["id", "context"])]
    pub(super) watch: bool,
    #[command(subcommand)]
    command: Option<OperationsCommand>,
}

/// What is done about one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
enum OperationsCommand {
    /// Undo what one has done so far and have it end; its client is told so.
    Cancel {
        /// The operation, by the number that `ioasd ctl operations` shows.
        id: u64,
    },
}

impl OperationsArgs {
    /// What shows them again and again.
    pub(super) const fn top(&self) -> TopArgs {
        TopArgs { view: View::Operations, interval: 1, once: false, frames: None }
    }
}

/// Shows them, or cancels one.
pub(super) fn shown(agent: &Agent, operations: &OperationsArgs, args: &CtlArgs) -> Result<String, AskError> {
    let OperationsArgs { id, context, command, .. } = operations;
    if let Some(OperationsCommand::Cancel { id }) = command {
        let answer = agent.send("DELETE", &format!("/v1/operations/{id}"), "")?;
        return if args.json { Ok(answer) } else { Ok(table::details(&agent.understood(&answer)?)) };
    }
    if let Some(id) = id {
        return super::one(agent, &format!("/v1/operations/{id}"), args);
    }
    match context {
        Some(context) => {
            super::list::<OperationRow>(agent, &format!("/v1/operations?context={context}"), args)
        }
        None => super::list::<OperationRow>(agent, "/v1/operations", args),
    }
}
