//! Whether a map would succeed, and what is in its way.
//!
//! Imports allowed: table, rows, admin's answers, config's words.

use clap::Args;
use ioasd_client::units::ByteLen;

use super::table::Lean::{Left, Right};
use super::table::{Column, aligned};
use super::{address, rows};
use crate::admin::explain::{Explanation, LimitRow};
use crate::config::values::parse_size;

/// The map that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ExplainArgs {
    /// The address space, by the number that `ioasd ctl ioas` shows.
    pub ioas: u64,
    /// How much, for example 2MiB.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub length: ByteLen,
    /// Where, in hex with 0x or in decimal [default: wherever it fits].
    #[arg(long, value_parser = address)]
    pub iova: Option<u64>,
    /// The offset of the first byte in its file, or its address.
    #[arg(long, value_parser = address, default_value_t = 0)]
    pub offset: u64,
    /// What devices may do: r, w or rw.
    #[arg(long, value_name = "RIGHTS", default_value = "rw")]
    pub permission: String,
    /// What holds the pins: longterm, locked, resident or copy [default: the strongest that is possible and allowed].
    #[arg(long, value_name = "STRENGTH")]
    pub strength: Option<String>,
    /// What the memory is: memfd, file, hugetlb or process [default: whatever its tenant may map].
    #[arg(long, value_name = "SOURCE")]
    pub source: Option<String>,
}

impl ExplainArgs {
    /// What is asked for.
    pub(super) fn path(&self) -> String {
        let Self { ioas, length, iova, offset, permission, strength, source } = self;
        let permission = plain(permission);
        let iova = iova.map(|iova| format!("&iova={iova:#x}")).unwrap_or_default();
        let word = |key: &str, word: &Option<String>| {
            word.as_ref().map(|word| format!("&{key}={}", plain(word))).unwrap_or_default()
        };
        let (strength, source) = (word("strength", strength), word("source", source));
        let (length, permission) = (length.get(), format!("&permission={permission}"));
        format!(
            "/v1/ioas/{ioas}/explain?length={length}&offset={offset:#x}{permission}{iova}{strength}{source}"
        )
    }
}

/// A word that changes nothing else of a query; what is no word is refused by the agent.
fn plain(word: &str) -> String {
    word.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

const FACTS: &[Column] = &[("", Left), ("", Left)];

const LIMITS: &[Column] = &[
    ("LEVEL", Left),
    ("OF", Left),
    ("USED", Right),
    ("NEEDED", Right),
    ("SOFT", Right),
    ("HARD", Right),
    ("", Left),
];

/// An explanation for people.
pub(super) fn shown(explanation: &Explanation) -> String {
    let facts = aligned(FACTS, &facts(explanation));
    let worth_a_line = |row: &&LimitRow| row.hard.is_some() || row.soft.is_some() || row.needed > Some(0);
    let limits: Vec<Vec<String>> = explanation.limits.iter().filter(worth_a_line).map(limit).collect();
    format!("{}\n{}", facts.trim_start(), aligned(LIMITS, &limits))
}

fn facts(explanation: &Explanation) -> Vec<Vec<String>> {
    let Explanation { payer, strength, alignment, alignment_asked_by: askers, pins_at_once, .. } =
        explanation;
    let fact = |name: &str, text: String| vec![name.to_owned(), text];
    let mut facts = vec![fact("map", verdict(explanation))];
    if let Some(refusal) = &explanation.refusal {
        facts.push(fact("refused", format!("errno {}, {}", refusal.errno, refusal.code)));
        facts.push(fact("", refusal.text.clone()));
    }
    let when = if *pins_at_once { "at once" } else { "once a domain or an access needs them" };
    facts.push(fact("paid by", payer.clone()));
    facts.push(fact("pinned", format!("{when}, at strength {strength}")));
    let asked_by = if askers.is_empty() { String::new() } else { format!(", for {}", askers.join(", ")) };
    facts.push(fact("alignment", format!("{alignment:#x}{asked_by}")));
    facts.extend(in_the_way(explanation));
    facts
}

fn verdict(explanation: &Explanation) -> String {
    match (explanation.succeeds, explanation.start, explanation.last) {
        (true, Some(start), Some(last)) => format!("would succeed, at {start} to {last}"),
        (_, Some(start), Some(last)) => format!("would be refused, though {start} to {last} is free for it"),
        _ => "would be refused".to_owned(),
    }
}

fn in_the_way(explanation: &Explanation) -> Vec<Vec<String>> {
    let areas = explanation
        .areas
        .iter()
        .map(|area| vec!["area".to_owned(), format!("{} to {}, {}", area.start, area.last, area.state)]);
    let named = explanation.areas.len() as u64;
    let rest = explanation.areas_found.checked_sub(named).filter(|rest| *rest > 0);
    let rest = rest.map(|rest| vec![String::new(), format!("and {rest} areas more in that range")]);
    let ranges = explanation.ranges.iter().map(|range| {
        let owners = if range.owners.is_empty() {
            String::new()
        } else {
            format!(", for {}", range.owners.join(", "))
        };
        vec![range.kind.clone(), format!("{} to {}{owners}", range.start, range.last)]
    });
    areas.chain(rest).chain(ranges).collect()
}

fn limit(row: &LimitRow) -> Vec<String> {
    let amount = |value: u64| rows::amount(&row.resource, value);
    let or = |value: Option<u64>, word: &str| value.map_or_else(|| word.to_owned(), amount);
    let remark = match (row.binds, row.passes_soft) {
        (true, _) => "in the way",
        (false, true) => "passes the soft limit",
        (false, false) => "",
    };
    vec![
        row.level.clone(),
        row.resource.clone(),
        amount(row.used),
        or(row.needed, "?"),
        or(row.soft, "none"),
        or(row.hard, "none"),
        remark.to_owned(),
    ]
}
