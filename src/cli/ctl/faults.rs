//! What the walkers of a domain could not reach: by cause, and the last ones.
//!
//! Imports allowed: table, admin's answers.

use super::table::Lean::{Left, Right};
use super::table::{Column, Row, table};
use crate::admin::faults::{FaultRow, Faults};

impl Row for FaultRow {
    const COLUMNS: &'static [Column] = &[
        ("NUMBER", Right),
        ("AT", Left),
        ("TIMES", Right),
        ("WALKER", Right),
        ("PID", Right),
        ("ACCESS", Left),
        ("IOVA", Right),
        ("CAUSE", Left),
        ("LEVEL", Right),
        ("ENTRY", Right),
        ("THERE NOW", Left),
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.number.to_string(),
            self.at.clone(),
            self.times.to_string(),
            self.walker.to_string(),
            self.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            self.access.clone(),
            self.iova.to_string(),
            self.cause.clone(),
            self.level.to_string(),
            self.entry.to_string(),
            there(self),
        ]
    }
}

fn there(fault: &FaultRow) -> String {
    let place = fault.place.as_deref().unwrap_or("not told");
    match &fault.gap {
        Some(gap) => format!("{place} from {} to {}", gap.start, gap.last),
        None => place.to_owned(),
    }
}

/// The counts in a line, and a table.
pub(super) fn shown(faults: &Faults) -> String {
    let met: Vec<String> = faults
        .counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(cause, count)| format!("{cause} {count}"))
        .collect();
    if met.is_empty() {
        return format!("no walker of domain {} has met a fault\n", faults.domain);
    }
    format!("{}\n\n{}", met.join(", "), table(&faults.items))
}
