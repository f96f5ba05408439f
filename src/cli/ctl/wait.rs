//! Waiting for what a change has begun: until a context is taken down, or none is left. Shows how far it has come meanwhile.
//!
//! Imports allowed: ask, bar, admin's answers.

use std::thread::sleep;
use std::time::Duration;

use super::ask::{Agent, AskError};
use super::bar::{Line, bar};
use crate::admin::contexts::ContextRow;
use crate::admin::ending::{DrainState, Eviction};
use crate::admin::operations::OperationRow;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// Until the evicted context is gone.
pub(super) fn for_end(agent: &Agent, evicted: &Eviction) -> Result<Eviction, AskError> {
    let mut line = Line::new();
    let id = evicted.context;
    while agent.list::<ContextRow>("/v1/contexts")?.iter().any(|context| context.id == id) {
        let ending: Vec<OperationRow> = agent.list(&format!("/v1/operations?context={id}"))?;
        line.show(&ending.last().map_or_else(|| format!("context {id}"), told));
        sleep(PAUSE);
    }
    Ok(Eviction { gone: true, ..evicted.clone() })
}

/// Until no context is left.
pub(super) fn for_nobody(agent: &Agent, mut state: DrainState) -> Result<DrainState, AskError> {
    let (mut line, all) = (Line::new(), state.contexts);
    while state.draining && state.contexts > 0 {
        line.show(&format!("{} of {all} contexts have left", all.saturating_sub(state.contexts)));
        sleep(PAUSE);
        state = agent.one("/v1/drain")?;
    }
    Ok(state)
}

fn told(operation: &OperationRow) -> String {
    let OperationRow { context, doing, waits_for, trouble, done_bytes, total_bytes, .. } = operation;
    let trouble = trouble.as_deref().map(|trouble| format!(": {trouble}")).unwrap_or_default();
    let bar = bar(*done_bytes, *total_bytes);
    format!("context {context}: {doing} {bar}, waits for {waits_for}{trouble}")
}
