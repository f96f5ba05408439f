//! One frame of `top`: the agent at a glance, and the rows of one view in order.
//!
//! Imports allowed: ask, rows, table, admin's answers.

use super::View;
use crate::admin::accounts::AccountRow;
use crate::admin::contexts::ContextRow;
use crate::admin::ioases::IoasRow;
use crate::admin::operations::OperationRow;
use crate::admin::status::Status;
use crate::cli::ctl::ask::{Agent, AskError};
use crate::cli::ctl::table::{Row, size, table};
use crate::sys::terminal::Size;

/// What one look found.
pub(super) struct Frame {
    view: View,
    status: Status,
    /// The heads of the columns, then a line a row.
    table: Vec<String>,
}

/// Which part of a frame is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Rows that are scrolled out of sight.
    pub(super) from: usize,
    /// How large it may be; as large as it is, without a terminal.
    pub(super) size: Option<Size>,
}

impl Shape {
    /// All of it.
    pub(super) const WHOLE: Self = Self { from: 0, size: None };
}

impl Frame {
    /// Asks `agent`.
    pub(super) fn of(agent: &Agent, view: View) -> Result<Self, AskError> {
        let rows = match view {
            View::Contexts => ordered::<ContextRow, _>(agent, "/v1/contexts", |row| row.pinned_bytes),
            View::Accounts => ordered::<AccountRow, _>(agent, "/v1/accounts", pinned),
            View::Ioas => ordered::<IoasRow, _>(agent, "/v1/ioas", |row| row.mapped_bytes),
            View::Operations => ordered::<OperationRow, _>(agent, "/v1/operations", |row| row.age_ms),
        };
        Ok(Self { view, status: agent.one("/v1/status")?, table: rows?.lines().map(str::to_owned).collect() })
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.table.len().saturating_sub(1)
    }

    /// The lines to show, each ending the line.
    pub(super) fn text(&self, Shape { from, size }: Shape) -> String {
        let mut lines = self.head();
        lines.extend(self.table.iter().take(1).cloned());
        let rows = self.table.iter().skip(1).skip(from);
        let room = size.map_or(usize::MAX, |size| size.lines.saturating_sub(lines.len() + 1));
        lines.extend(rows.take(room).cloned());
        if self.rows() == 0 {
            let nothing = if self.view == View::Operations {
                "nothing takes long just now"
            } else {
                "nobody holds anything"
            };
            lines.push(nothing.to_owned());
        }
        if size.is_some() {
            lines.push(
                "q quit  c contexts  a accounts  i address spaces  o operations  j/k scroll  r look again"
                    .to_owned(),
            );
        }
        let width = size.map_or(usize::MAX, |size| size.columns);
        lines.iter().map(|line| line.chars().take(width).collect::<String>() + "\n").collect()
    }

    fn head(&self) -> Vec<String> {
        let Status { version, pid, ready, contexts, ioases, areas, domains, accesses, .. } = &self.status;
        let state = if *ready {
            "ready".to_owned()
        } else {
            format!("not ready: {}", self.status.missing.join("; "))
        };
        let held = [
            ("pinned", self.status.pinned_bytes),
            ("charged", self.status.charged_bytes),
            ("retiring", self.status.retiring_bytes),
            ("mapped", self.status.mapped_bytes),
            ("tables", self.status.table_bytes),
        ];
        let view = match self.view {
            View::Contexts => "contexts by pinned",
            View::Accounts => "accounts by pinned",
            View::Ioas => "address spaces by mapped",
            View::Operations => "operations by age",
        };
        vec![
            format!("ioasd {version}, process {pid}, {state}"),
            held.map(|(name, bytes)| format!("{name} {}", size(bytes))).join("  "),
            format!(
                "contexts {contexts}  ioas {ioases}  areas {areas}  domains {domains}  accesses {accesses}  ({view})"
            ),
            String::new(),
        ]
    }
}

fn pinned(row: &AccountRow) -> u64 {
    row.counters.get("pinned").map_or(0, |pinned| pinned.used)
}

/// The list at `path` as a table, the heaviest first; of those alike the one known longer.
fn ordered<R: Row, W: Ord>(agent: &Agent, path: &str, weight: impl Fn(&R) -> W) -> Result<String, AskError> {
    let mut rows: Vec<R> = agent.list(path)?;
    rows.sort_by_key(|row| std::cmp::Reverse(weight(row)));
    Ok(table(&rows))
}
