//! A walk, level by level, and what lies at its end.
//!
//! Imports allowed: table, admin's answers.

use super::table::Lean::{Left, Right};
use super::table::{Column, aligned, size};
use crate::admin::walk::{Destination, StepRow, WalkReport};

const COLUMNS: &[Column] = &[
    ("LEVEL", Right),
    ("TABLE", Right),
    ("INDEX", Right),
    ("ENTRY", Right),
    ("KIND", Left),
    ("COVERS", Right),
    ("SIZE", Right),
    ("RIGHTS", Left),
    ("POINTS TO", Right),
];

/// A walk for people.
pub(super) fn shown(walk: &WalkReport) -> String {
    let WalkReport { domain, iova, format, levels, steps, .. } = walk;
    let steps: Vec<Vec<String>> = steps.iter().map(cells).collect();
    format!(
        "{iova} in domain {domain}, {format}, {levels} levels\n\n{}\n{}",
        aligned(COLUMNS, &steps),
        aligned(&[("", Left), ("", Left)], &facts(walk)).trim_start()
    )
}

fn cells(step: &StepRow) -> Vec<String> {
    vec![
        step.level.to_string(),
        step.table.to_string(),
        step.index.to_string(),
        step.entry.to_string(),
        step.kind.clone(),
        step.covers.to_string(),
        size(step.size),
        step.rights.clone().unwrap_or_default(),
        step.points_to.map(|address| address.to_string()).unwrap_or_default(),
    ]
}

fn facts(walk: &WalkReport) -> Vec<Vec<String>> {
    let fact = |name: &str, text: String| vec![name.to_owned(), text];
    let mut facts = Vec::new();
    facts.extend(walk.fault.as_ref().map(|fault| fact("fault", fault.clone())));
    if let Some(destination) = &walk.destination {
        facts.extend(destination_facts(destination).map(|(name, text)| fact(name, text)));
    }
    if let Some(area) = &walk.area {
        let (start, last, permission, state) = (area.start, area.last, &area.permission, &area.state);
        let (length, first, offset) = (size(area.length), area.first_page, area.page_offset);
        let text = format!(
            "{start} to {last}, {length}, {permission}, {state}, from page {first} + {offset} bytes, {} pins of accesses",
            area.accesses
        );
        facts.push(fact("area", text));
    }
    if let Some(pages) = &walk.pages {
        let (pinned, length) = (size(pages.pinned_bytes), size(pages.length));
        let text = format!(
            "object {}, {}, {}, {pinned} of {length} pinned, paid by user {}",
            pages.id, pages.source, pages.strength, pages.uid
        );
        facts.push(fact("pages", text));
    }
    facts
}

fn destination_facts(destination: &Destination) -> impl Iterator<Item = (&'static str, String)> {
    let Destination { address, length, permission, file } = destination;
    let leads = format!("{address}, {} of the same leaf follow", size(*length));
    let file = file
        .as_ref()
        .map(|file| format!("device {}, inode {}, offset {}", file.device, file.inode, file.offset));
    let facts =
        [Some(("leads to", leads)), Some(("allowed", permission.clone())), file.map(|file| ("file", file))];
    facts.into_iter().flatten()
}
